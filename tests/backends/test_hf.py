"""The hf backend: the same answers as lm-eval's HFLM, in batches that a resumed run forms again."""

import os
import shutil
import time
from hashlib import sha256

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.backends.hf import HfBackend
from qwen2eval.backends.lm_eval_calls import _instance as instance
from qwen2eval.backends.model_spec import load_hf_spec
from qwen2eval.config import RunConfig
from qwen2eval.errors import ModelError
from qwen2eval.requests import Answer, Request
from tests.backends.openai_server import save_tiny_model

TEXTS = ["A cup of tea", "Two cups of tea and a spoon", "Three", "Four cups of tea, a spoon and a very long saucer"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def open_backend(model_folder):
    def open_(**settings):
        config = RunConfig(model="hf", model_args={"pretrained": str(model_folder), "dtype": "float32"}, **settings)
        return HfBackend(config, load_hf_spec(config, backend="hf", path=str(model_folder)))

    return open_


@pytest.fixture(scope="module")
def backend(open_backend):
    return open_backend(device="cpu")


def scoring(context, continuation):
    return Request("loglikelihood", context, continuation, n_context_tokens=len(context), n_continuation_tokens=1)


def generating(context, **gen_kwargs):
    return Request("generate_until", context, gen_kwargs={"until": ["\n"], "max_gen_toks": 8, **gen_kwargs}, seed=5)


def collect(backend, requests):
    answers = {}
    for batch in backend.answer(requests):
        answers.update(batch)
    assert sorted(answers) == list(range(len(requests)))
    return [answers[i] for i in range(len(requests))]


def test_scores_are_lm_evals(backend):
    requests = [scoring(text, tail) for text in TEXTS for tail in (" is", " was hot")]
    lm = backend._lm
    lm.batch_size_per_gpu = 1
    theirs = lm.loglikelihood([instance("loglikelihood", (r.context, r.continuation)) for r in requests])
    for answer, (logprob, is_greedy) in zip(collect(backend, requests), theirs, strict=True):
        assert answer.logprob == pytest.approx(logprob, abs=1e-4)  # another batch, another order of sums
        assert answer.is_greedy == is_greedy


def test_rolling_scores_are_lm_evals(backend):
    requests = [Request("loglikelihood_rolling", text) for text in TEXTS]
    theirs = backend._lm.loglikelihood_rolling([instance("loglikelihood_rolling", (t,)) for t in TEXTS])
    assert [a.logprob for a in collect(backend, requests)] == pytest.approx(theirs, abs=1e-4)


def test_generations_are_lm_evals_and_say_how_they_ended(backend):
    requests = [generating(text) for text in TEXTS] + [generating(TEXTS[0], max_gen_toks=60, until=["e"])]
    answers = collect(backend, requests)
    backend._lm.batch_size_per_gpu = 1
    for request, answer in zip(requests, answers, strict=True):
        (text,) = backend._lm.generate_until([instance("generate_until", (request.context, dict(request.gen_kwargs)))])
        assert answer.response == text
        longest = request.gen_kwargs["max_gen_toks"]
        ids = backend._lm.tokenizer.encode(answer.response, add_special_tokens=False)
        assert answer.n_response_tokens == len(ids)
        if answer.finish_reason == "stop":
            assert len(ids) < longest
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    assert answers[0].finish_reason == "length"  # random weights do not stop by themselves in 8 tokens


def test_a_stop_string_ends_an_answer(backend):
    whole = collect(backend, [generating(TEXTS[0], max_gen_toks=12, until=["\0"])])[0]
    mark = whole.response[3]
    cut = collect(backend, [generating(TEXTS[0], max_gen_toks=12, until=[mark])])[0]
    assert cut.response == whole.response.split(mark)[0]
    assert cut.finish_reason == "stop"


def test_a_sampled_answer_depends_on_its_own_seed_alone(backend):
    sampled = [generating(text, do_sample=True, temperature=1.0) for text in TEXTS]
    alone = collect(backend, [sampled[2]])[0]
    assert collect(backend, sampled)[2] == alone
    other = Request("generate_until", TEXTS[2], gen_kwargs=sampled[2].gen_kwargs, seed=6)
    assert collect(backend, [other])[0].response != alone.response


@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=30), n_done=st.integers(0, 10), rows=st.integers(0, 5)
)
def test_a_resumed_run_forms_the_batches_that_were_left(backend, lengths, n_done, rows):
    """What makes a resumed run's answers equal to the last bit."""
    requests = [
        Request("loglikelihood", f"{i}", f"{c}", n_context_tokens=n, n_continuation_tokens=1)
        for i, n in enumerate(lengths)
        for c in range(2)
    ]
    backend._batch_size = rows or "auto"
    batches = [[requests[i] for i in batch] for batch in backend._scoring_batches(requests)]
    done = [request for batch in batches[:n_done] for request in batch]
    left = [request for request in requests if request not in done]
    assert [[left[i] for i in batch] for batch in backend._scoring_batches(left)] == batches[n_done:]
    assert sorted(r.context + r.continuation for b in batches for r in b) == sorted(
        r.context + r.continuation for r in requests
    )
    backend._batch_size = "auto"


def test_out_of_memory_halves_the_batch_down_to_the_one_request_that_does_not_fit(backend):
    sizes = []

    def call(batch):
        sizes.append(len(batch))
        if len(batch) > 2 or TEXTS[3] in [request.context for request in batch]:
            raise torch.OutOfMemoryError("no room")
        return [Answer(response=request.context) for request in batch]

    answers = backend._halving(call, [generating(text) for text in TEXTS])
    assert [a.response for a in answers] == [*TEXTS[:3], None]
    assert "out of memory" in answers[3].error
    assert sizes == [4, 2, 2, 1, 1]


def test_identity_tells_checkpoints_apart_and_ignores_where_they_lie(backend, tmp_path, model_folder):
    import shutil

    same = tmp_path / "moved"
    shutil.copytree(model_folder, same)
    other = save_tiny_model(tmp_path / "other", seed=1)
    identities = []
    for folder in (same, other):
        config = RunConfig(model="hf", model_args={"pretrained": str(folder), "dtype": "float32"}, device="cpu")
        identities.append(HfBackend(config, load_hf_spec(config, backend="hf", path=str(folder))).identity())
    assert identities[0] == backend.identity()
    assert identities[1]["weights"] != identities[0]["weights"]


def test_dtype_is_part_of_the_identity(model_folder, backend):
    config = RunConfig(model="hf", model_args={"pretrained": str(model_folder), "dtype": "bfloat16"}, device="cpu")
    assert (
        HfBackend(config, load_hf_spec(config, backend="hf", path=str(model_folder))).identity() != backend.identity()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "does not exist"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "holds no config"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, make, message):
    path = str(make(tmp_path))
    with pytest.raises(ModelError, match=message):
        load_hf_spec(RunConfig(model="hf", model_args={"pretrained": path}), backend="hf", path=path)


def test_truncated_weights_and_unknown_devices_are_named(tmp_path, model_folder, open_backend):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    config = RunConfig(model="hf", model_args={"pretrained": str(broken)}, device="cpu")
    with pytest.raises(ModelError, match="can't be loaded"):
        HfBackend(config, load_hf_spec(config, backend="hf", path=str(broken)))
    with pytest.raises(ModelError, match="abacus"):
        open_backend(device="abacus")


def batch_sizes(backend, n_parameters, prompts, max_gen_toks):
    backend.n_parameters, kept = n_parameters, backend.n_parameters
    kwargs = {"until": [], "max_gen_toks": max_gen_toks}
    requests = [Request("generate_until", "x", gen_kwargs=kwargs, n_context_tokens=n) for n in prompts]
    scored = [Request("loglikelihood", str(i), " y", None, 0, n, 1) for i, n in enumerate(prompts)]
    sizes = [len(b) for b in backend._generation_batches(requests)], [len(b) for b in backend._scoring_batches(scored)]
    backend.n_parameters = kept
    return sizes


@pytest.mark.parametrize(
    ("n_parameters", "prompts", "max_gen_toks", "generated", "scored"),
    [
        (500_000_000, [100] * 8, 256, [4, 4], [8]),
        (500_000_000, [100] * 4, 1024, [1, 1, 1, 1], [4]),
        # The tiny model cuts what it scores to 512 tokens
        (500_000_000, [4000, 4000, 600, 600, 600, 600], 64, [1, 1, 3, 1], [4, 2]),
        (6_000_000_000, [100] * 4, 64, [1, 1, 1, 1], [2, 2]),
    ],
    ids=["as ever", "long answers", "long prompts", "a large model"],
)
def test_what_a_kill_loses_is_a_minute_or_one_request(
    open_backend, n_parameters, prompts, max_gen_toks, generated, scored
):
    """A batch is kept as a whole: on a CPU it has no more tokens than a machine of two cores computes in a minute."""
    assert batch_sizes(open_backend(), n_parameters, prompts, max_gen_toks) == (generated, scored)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "adapter/adapter_model.safetensors", "modeling_own.py", "config.json"]
)
def test_whatever_changes_a_model_changes_its_fingerprint(tmp_path, name):
    from qwen2eval.backends.fingerprint import fingerprint_checkpoint

    file = tmp_path / "model" / name
    file.parent.mkdir(parents=True)
    file.write_text("1")
    before = fingerprint_checkpoint(str(tmp_path / "model"))
    assert fingerprint_checkpoint(str(tmp_path / "model")) == before
    file.write_text("22")
    assert fingerprint_checkpoint(str(tmp_path / "model")) != before


@pytest.mark.parametrize("is_settled", [True, False], ids=["remembered", "changed just now"])
def test_other_weights_of_the_same_size_and_time_are_another_model(tmp_path, monkeypatch, is_settled):
    """What was remembered of a file went by its size and time, which `cp -p` and `rsync -t` give to any other file."""
    from qwen2eval.backends import fingerprint

    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "SETTLED_SECONDS", -1.0 if is_settled else 3600.0)
    folder, other = tmp_path / "model", tmp_path / "other.safetensors"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"one")
    other.write_bytes(b"two")
    os.utime(other, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
    before = fingerprint.fingerprint_checkpoint(str(folder))
    listed = f"model.safetensors:{sha256(b'one').hexdigest()}\n"
    assert before == f"sha256:{sha256(listed.encode()).hexdigest()}", "stores know the weights by this"
    assert any((tmp_path / "cache").rglob("*")) == is_settled
    # The clock of a file system may move in steps of 10 ms
    time.sleep(0.05)
    shutil.copy2(other, weights)
    assert fingerprint.fingerprint_checkpoint(str(folder)) != before


def test_another_tokenizer_at_the_same_path_is_another_model(tmp_path):
    from qwen2eval.backends.fingerprint import fingerprint_files

    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    args = {"pretrained": str(tmp_path), "tokenizer": str(tmp_path), "dtype": "float32", "revision": "main"}
    before = fingerprint_files(args)
    assert list(before) == ["files_of_tokenizer"]
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "b"}')
    assert fingerprint_files(args) != before


def test_a_token_is_neither_kept_nor_part_of_the_identity():
    from qwen2eval.backends.fingerprint import stable_args

    assert stable_args({"dtype": "float32", "token": "hf_s3cret"}) == stable_args({"dtype": "float32"})


def test_a_gpu_that_is_not_there_is_an_error(open_backend):
    with pytest.raises(ModelError, match="cuda:7 does not exist"):
        open_backend(device="cuda:7")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of peft, about tied weights
@pytest.mark.parametrize("n_rows", [300, 320], ids=["the base's length", "longer than the base"])
def test_an_adapter_with_its_own_head_loads_on_a_base_with_more_rows_than_the_tokenizer(model_folder, tmp_path, n_rows):
    """lm-eval cut the embeddings to the tokenizer's length, and tied the base's head over the adapter's own."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    model.config.tie_word_embeddings = True
    model.resize_token_embeddings(300)
    model.save_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(n_rows)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["lm_head"])
    adapted = get_peft_model(base, lora)
    with torch.no_grad():
        adapted.get_output_embeddings().modules_to_save["default"].weight.mul_(0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    args = {"pretrained": str(tmp_path / "base"), "peft": str(tmp_path / "adapter"), "dtype": "float32"}
    config = RunConfig(model="hf", model_args=args, device="cpu")
    backend = HfBackend(config, load_hf_spec(config, backend="hf", path=args["pretrained"]))
    ids = tokenizer.encode("A cup")
    with torch.no_grad():
        wanted = adapted.eval()(torch.tensor([ids])).logits[0, -2].log_softmax(-1)[ids[-1]].item()
    assert collect(backend, [scoring("A cu", "p")])[0].logprob == pytest.approx(wanted, abs=1e-4)
