"""The qwen2 backend: the answers of lm-eval's HFLM on the same checkpoint, from our engine."""

import dataclasses
import json

import pytest
from lm_eval.api.instance import Instance

from qwen2eval.backends import load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.requests import Request
from tests.backends.openai_server import save_tiny_model

CONTEXTS = ["A cup of tea", "Two cups of tea and a spoon", "Three", "A cup of tea and a very long saucer ", "", "é 茶"]
CHOICES = [" is", " was hot", "\nNo.", "x", " is hotter than 茶"]
PROMPTS = [*CONTEXTS[:4], "A cup of tea and a very long spoon", "A cup of tea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def open_backend(folder, *, model="qwen2", batch_size="auto", **args):
    config = RunConfig(
        model=model,
        model_args={"pretrained": str(folder), "dtype": "float32", **args},
        device="cpu",
        batch_size=batch_size,
    )
    return open_model(config, load_spec(config))


@pytest.fixture(scope="module")
def ours(folder):
    return open_backend(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return open_backend(folder, model="hf", batch_size=1)


def collect(batches, n):
    answers = {}
    for batch in batches:
        answers.update(batch)
    assert sorted(answers) == list(range(n))
    return [answers[i] for i in range(n)]


def ask(backend, requests):
    return collect(backend.answer(requests), len(requests))


def scoring(context, continuation):
    return Request("loglikelihood", context, continuation, n_context_tokens=len(context), n_continuation_tokens=1)


def generating(prompt, **gen_kwargs):
    kwargs = {"until": ["\n"], "max_gen_toks": 12, **gen_kwargs}
    return Request("generate_until", prompt, gen_kwargs=kwargs, seed=5, n_context_tokens=len(prompt))


def same_scores(got, wanted):
    assert [a.error for a in got] == [None] * len(got)
    assert [a.logprob for a in got] == pytest.approx([a.logprob for a in wanted], abs=1e-4)
    assert [a.is_greedy for a in got] == [a.is_greedy for a in wanted]


def test_scores_are_lm_evals(ours, theirs):
    requests = [scoring(context, choice) for context in CONTEXTS for choice in CHOICES]
    same_scores(ask(ours, requests), ask(theirs, requests))


def test_contexts_over_the_models_length_are_cut_as_lm_eval_cuts(ours, theirs):
    long = "A cup of tea, and another one. " * 40
    assert len(long) > 2 * ours.max_length
    requests = [scoring(long, " is"), scoring(long + "So", " it was"), scoring("Tea" * 170, "xy")]
    same_scores(ask(ours, requests), ask(theirs, requests))


def test_rolling_scores_are_lm_evals(ours, theirs):
    texts = [*CONTEXTS[:4], "", "A cup of tea, and another one. " * 40]
    requests = [Request("loglikelihood_rolling", text) for text in texts]
    got, wanted = ask(ours, requests), ask(theirs, requests)
    assert [a.logprob for a in got] == pytest.approx([a.logprob for a in wanted], rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("until", [["\n"], ["e"], ["e", "the"], ["<|im_end|>"], []], ids=str)
def test_generations_are_lm_evals(ours, theirs, until):
    requests = [generating(prompt, until=until, max_gen_toks=n) for prompt in PROMPTS for n in (1, 12, 40)]
    got, wanted = ask(ours, requests), ask(theirs, requests)
    assert [dataclasses.astuple(a) for a in got] == [dataclasses.astuple(a) for a in wanted]


def test_prompts_over_the_models_length_are_cut_as_lm_eval_cuts(ours, theirs):
    requests = [generating("A cup of tea, and another one. " * n, max_gen_toks=20) for n in (15, 40)]
    assert [a.response for a in ask(ours, requests)] == [a.response for a in ask(theirs, requests)]


def test_the_checkpoints_generation_config_counts(tmp_path):
    """A repetition penalty and ends of text that the checkpoint declares, as transformers applies them."""
    folder = save_tiny_model(tmp_path / "model")
    file = folder / "generation_config.json"
    declared = json.loads(file.read_text()) | {"repetition_penalty": 1.3, "eos_token_id": list(range(0, 256, 3))}
    file.write_text(json.dumps(declared))
    requests = [generating(prompt, max_gen_toks=40, until=[]) for prompt in PROMPTS]
    got, wanted = (ask(open_backend(folder, model=m, batch_size=1), requests) for m in ("qwen2", "hf"))
    assert [a.response for a in got] == [a.response for a in wanted]
    assert {a.finish_reason for a in got} == {"stop"}
    assert "repetition_penalty" in str(open_backend(folder).identity()["generation_config"])


def test_sampled_requests_have_their_own_seeds(ours):
    def sampled(seed):
        return Request("generate_until", "Tea", gen_kwargs={"do_sample": True, "temperature": 1.0}, seed=seed)

    first, second, again = ask(ours, [sampled(1), sampled(2), sampled(1)])
    assert first == again
    assert first.response != second.response


def test_it_is_an_lm_eval_model(ours, theirs):
    """The three calls that lm-eval itself makes."""
    pairs = [(context, choice) for context in CONTEXTS for choice in CHOICES]
    scores = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    got, wanted = (lm.loglikelihood(scores, disable_tqdm=True) for lm in (ours._lm, theirs._lm))
    assert [g for _, g in got] == [w for _, w in wanted]
    assert [g for g, _ in got] == pytest.approx([w for w, _ in wanted], abs=1e-4)
    rolling = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(CONTEXTS[:4])]
    assert ours._lm.loglikelihood_rolling(rolling) == pytest.approx(theirs._lm.loglikelihood_rolling(rolling), abs=1e-4)
    asked = [Instance("generate_until", {}, (p, {"until": ["e"]}), i) for i, p in enumerate(PROMPTS)]
    assert ours._lm.generate_until(asked) == theirs._lm.generate_until(asked, disable_tqdm=True)
    chat = [{"role": "user", "content": "Tea?"}]
    assert ours._lm.apply_chat_template(chat) == theirs._lm.apply_chat_template(chat)
    assert ours._lm.tokenizer_name == theirs._lm.tokenizer_name


def test_only_what_is_wanted_is_answered(ours):
    requests = [scoring(context, choice) for context in CONTEXTS for choice in CHOICES]
    whole, wanted = ask(ours, requests), [3, 8, 9, 20]
    got = dict(pair for batch in ours.answer_some(requests, wanted) for pair in batch)
    assert sorted(got) == wanted
    assert [got[i].logprob for i in wanted] == pytest.approx([whole[i].logprob for i in wanted], abs=5e-6)
    prompts = [generating(prompt) for prompt in PROMPTS]
    some = dict(pair for batch in ours.answer_some(prompts, [1, 4]) for pair in batch)
    assert some == {i: ask(ours, prompts)[i] for i in (1, 4)}


def test_usage_tells_what_was_shared(folder):
    backend = open_backend(folder)
    shared = "A long story that all of them begin with. " * 5
    ask(backend, [scoring(shared + context, " x") for context in CONTEXTS[:4]])
    usage = backend.usage()
    n_shared = len(backend.tokenizer.encode(shared))
    assert usage["n_tokens_asked"] > 4 * n_shared
    assert n_shared < usage["n_tokens_computed"] < n_shared + 100


def test_a_request_without_an_answer_says_why_and_the_others_are_answered(folder):
    backend = open_backend(folder, max_length=64)
    got = ask(backend, [scoring("Tea", ""), scoring("Tea", "x" * 70), scoring("Tea", " is")])
    assert "no separate token" in got[0].error
    assert "over the model's 64" in got[1].error
    assert got[2].logprob < 0
    got = ask(backend, [generating("Tea", max_gen_toks=64), generating("Tea", do_sample=True, temperature=0.0)])
    assert "no room" in got[0].error
    assert "temperature" in got[1].error
    tight = open_backend(folder, kv_memory_gb=0.00002)
    got = ask(tight, [generating("Tea" * 100), generating("Tea")])
    assert "kv_memory_gb" in got[0].error
    assert got[1].error is None
    rolling = [Request("loglikelihood_rolling", "Tea " * 300), Request("loglikelihood_rolling", "Tea")]
    short_passes = open_backend(folder, kv_memory_gb=0.00002, pass_tokens=16)
    got = ask(short_passes, rolling)
    assert "kv_memory_gb" in got[0].error
    assert got[1].logprob < 0


def test_an_unknown_generation_argument_is_refused(ours):
    with pytest.raises(BackendError, match="'num_beams'"):
        ask(ours, [generating("Tea", num_beams=4)])
    ask(ours, [generating("Tea", num_beams=1, use_cache=True)])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"speed": 3}, "no argument 'speed'"),
        ({"dtype": "int4"}, "unknown dtype 'int4'; give one of float32"),
        ({"yarn_factor": "four"}, "yarn_factor is 'four'"),
        ({"yarn_factor": 0.5}, "factor of 1 or more"),
        ({"dual_chunk": 1}, "dual_chunk is 1; give true or false"),
        ({"device": 1}, "device is 1; give text"),
        ({"max_length": "long"}, "max_length is 'long'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"subfolder": "x"}, "no argument 'subfolder'"),
        ({"pass_tokens": 0}, "pass_tokens is 0"),
        ({"max_length": 1024}, "yarn_factor=2 fits"),
        ({"local_size": 5, "chunk_size": 4}, "0 < local_size < chunk_size"),
    ],
    ids=str,
)
def test_bad_arguments(folder, args, message):
    with pytest.raises(ModelError, match=message.replace("(", r"\(")):
        open_backend(folder, **args)


def test_an_unknown_device(folder):
    config = RunConfig(model="qwen2", model_args={"pretrained": str(folder)}, device="tpu7")
    with pytest.raises(ModelError, match="tpu7"):
        open_model(config, load_spec(config))


def test_the_context_can_be_stretched(folder):
    longer = open_backend(folder, yarn_factor=4)
    assert longer.max_length == 2048
    chunked = open_backend(folder, yarn_factor=4, dual_chunk=True, chunk_size=256, local_size=32)
    assert chunked.max_length == 2048
    text = "A cup of tea, and another one. " * 40
    (plain,), (yarn,), (dca,) = (ask(b, [scoring(text, " is")]) for b in (open_backend(folder), longer, chunked))
    assert len({plain.logprob, yarn.logprob, dca.logprob}) == 3
    assert len({str(b.identity()) for b in (open_backend(folder), longer, chunked)}) == 3


def test_speed_settings_are_not_part_of_who_a_model_is(folder, ours):
    other = open_backend(folder, kv_memory_gb=1, pass_tokens=64, batch_size=3)
    assert other.identity() == ours.identity()


@pytest.mark.parametrize("kind", ["llama", "unheard_of"])
def test_another_architecture_is_refused_before_the_weights(tmp_path, kind):
    folder = save_tiny_model(tmp_path / "model")
    change_config(folder, model_type=kind)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"'{kind}'.*--model hf"):
        load_spec(RunConfig(model="qwen2", model_args={"pretrained": str(folder)}))


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_sizes_of_dual_chunk_attention_change_what_the_checkpoint_declares(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    declared = {"chunk_size": 128, "local_size": 16, "original_max_position_embeddings": 128}
    change_config(folder, dual_chunk_attention_config=declared)
    backend = open_backend(folder, chunk_size=64)
    dual = backend._lm.engine.model.config.dual_chunk
    assert (dual.chunk_size, dual.local_size, dual.original_max_position_embeddings) == (64, 16, 128)
    assert open_backend(folder, chunk_size=64, dual_chunk=False)._lm.engine.model.config.dual_chunk is None


def test_spelling_out_a_default_is_the_same_model(folder, ours):
    assert open_backend(folder, revision="main", max_length=512).identity() == ours.identity()


def test_a_gguf_file_answers_as_its_folder(folder, ours, tmp_path):
    pytest.importorskip("gguf")
    from tests.model.gguf_files import write_gguf

    file = write_gguf(tmp_path / "tiny.gguf", folder).rename(tmp_path / "TINY.GGUF")
    backend = open_backend(file, tokenizer=str(folder))
    requests = [scoring(context, choice) for context in CONTEXTS for choice in CHOICES]
    same_scores(ask(backend, requests), ask(ours, requests))
    assert backend.identity()["weights"] != ours.identity()["weights"]


def test_a_broken_gguf_file_is_named(tmp_path, folder):
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00")
    with pytest.raises(ModelError, match=r"cut\.gguf' is truncated or corrupt"):
        open_backend(tmp_path / "cut.gguf", tokenizer=str(folder))
    with pytest.raises(ModelError, match=r"There is no file .*none\.gguf"):
        open_backend(tmp_path / "none.gguf")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("context", [{}, {"dual_chunk": True, "chunk_size": 32, "local_size": 8}], ids=["plain", "dca"])
def test_half_precision_is_near_float32(folder, dtype, context):
    """Scores of one token within 0.5 of float32's: logits of 10 to 30 have steps of 0.06 to 0.13 in bfloat16."""
    requests = [scoring(context_text, "x") for context_text in CONTEXTS]
    exact, rounded = (ask(open_backend(folder, dtype=d, **context), requests) for d in ("float32", dtype))
    assert [a.logprob for a in rounded] == pytest.approx([a.logprob for a in exact], abs=0.5)
    texts = ask(open_backend(folder, dtype=dtype, **context), [generating(prompt) for prompt in PROMPTS])
    assert all(answer.error is None for answer in texts)


def test_a_stop_string_in_many_tokens_is_a_stop(ours):
    """It is cut off where it stands; so the answer has ended, whatever its last tokens are."""
    whole = ask(ours, [generating("A cup of tea", until=[], max_gen_toks=30)])[0].response
    mark = whole[8:20]
    got = ask(ours, [generating("A cup of tea", until=[mark], max_gen_toks=30)])[0]
    assert (got.response, got.finish_reason) == (whole.split(mark)[0], "stop")
