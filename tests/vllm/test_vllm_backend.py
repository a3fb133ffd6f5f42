"""The vLLM backend: numbers of transformers and lm-eval's class, a context computed once, answers as they come."""

import math
from importlib.util import find_spec
from types import SimpleNamespace

import psutil
import pytest
import torch

from qwen2eval.backends import load_spec, open_model
from qwen2eval.backends.lm_eval_calls import _instance as instance
from qwen2eval.backends.vllm.choices import Score, tail_ask
from qwen2eval.config import RunConfig
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.requests import Request
from tests.vllm.conftest import CPU_ARGS

if find_spec("vllm") is None:
    pytest.skip("needs vLLM: `make test-vllm` makes an environment with it", allow_module_level=True)

STORY = "Anna keeps three hens and a goat behind the house. Every morning she brings the eggs to the market. "
QUESTION = STORY * 2 + "What does she bring?\nAnswer:"
ENDINGS = [" the eggs of three hens", " the goat, behind the house", " a hen", " the eggs of a goat and some bread"]
GREEDY = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}


def scoring(context, *continuations):
    return [Request("loglikelihood", context, text) for text in continuations]


def generating(context, seed=0, **gen_kwargs):
    return Request("generate_until", context, gen_kwargs={**GREEDY, **gen_kwargs}, seed=seed)


def collect(backend, requests):
    batches = list(backend.answer(requests))
    answers = dict(pair for batch in batches for pair in batch)
    assert sorted(answers) == list(range(len(requests)))
    assert sum(map(len, batches)) == len(requests)
    return [answers[i] for i in range(len(requests))]


def reference(folder, tokens, n_tail, **config):
    """Return the log-probability of the last `n_tail` tokens by transformers, and whether they are the greedy ones."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **config).eval()
    with torch.inference_mode():
        rows = torch.log_softmax(model(torch.tensor([tokens])).logits[0, -n_tail - 1 : -1], -1)
    tail = torch.tensor(tokens[-n_tail:])
    return float(rows.gather(1, tail[:, None]).sum()), bool((rows.argmax(-1) == tail).all())


def check_scores(backend, folder, requests):
    """Compare with transformers on the tokens of lm-eval."""
    answers = collect(backend, requests)
    for request, answer in zip(requests, answers, strict=True):
        context, continuation = backend._lm._encode_pair(request.context, request.continuation)
        logprob, is_greedy = reference(folder, context + continuation, len(continuation))
        assert answer.logprob == pytest.approx(logprob, abs=1e-3)
        assert answer.is_greedy == is_greedy
    return answers


def greedy_text(backend, context, n_tokens):
    (answer,) = collect(backend, [generating(context, until=["\0"], max_gen_toks=n_tokens)])
    return answer.response


def test_choices_of_one_token_come_from_one_prompt(vllm_backend, vllm_model, outputs):
    letters = [chr(ord("A") + i) for i in range(10)]
    check_scores(vllm_backend, vllm_model, scoring(QUESTION, *letters))
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1]
    assert outputs[0].prompt_logprobs is None


def test_the_greedy_choice_is_told_apart(vllm_backend, vllm_model):
    first = greedy_text(vllm_backend, QUESTION, 1)
    longer = greedy_text(vllm_backend, QUESTION, 6)
    answers = check_scores(vllm_backend, vllm_model, scoring(QUESTION, first, "%", longer, longer + "%"))
    assert [answer.is_greedy for answer in answers] == [True, False, True, False]


def test_longer_choices_do_not_compute_their_context_again(vllm_backend, vllm_model, outputs):
    check_scores(vllm_backend, vllm_model, scoring(QUESTION, *ENDINGS))
    n_context = len(vllm_backend.tokenizer(QUESTION).input_ids)
    once, *choices = outputs
    assert len(once.prompt_token_ids) == n_context
    assert len(choices) == len(ENDINGS)
    assert all(output.num_cached_tokens == n_context // 32 * 32 for output in choices)


def test_choices_that_begin_alike_over_the_end_of_a_cache_block(vllm_backend, vllm_model, outputs):
    """The engine has no log-probabilities for what it read from the cache: here, a part of the second choice."""
    context = STORY[:50]
    requests = scoring(context, STORY[50:] + "and flour", STORY[50:] + "or bread", STORY[50:])
    check_scores(vllm_backend, vllm_model, requests)
    n_context = len(vllm_backend.tokenizer(context).input_ids)
    assert any(output.num_cached_tokens > n_context and output.prompt_logprobs for output in outputs)


def test_log_probabilities_of_cached_positions_are_never_trusted():
    """What vLLM's model runner V1 gives there is memory that nobody wrote to; it may hold the right token by chance."""
    prompt, score = [5, 6, 7, 8, 9], Score(0, 3)
    rows = [None, *({token: SimpleNamespace(logprob=-1.0)} for token in prompt[1:])]
    ask = tail_ask(prompt, 3, score, first_place=0)
    asked = list(ask.take(SimpleNamespace(prompt_logprobs=rows, num_cached_tokens=3)))
    assert [again.tokens for again in asked] == [[5, 6], [5, 6, 7]]  # of 7 and 8; 9 was computed
    short = list(
        tail_ask(prompt, 3, score, first_place=0).take(SimpleNamespace(prompt_logprobs=rows[-1:], num_cached_tokens=0))
    )
    assert len(short) == 2


def test_more_next_tokens_than_one_prompt_may_ask(vllm_backend, vllm_model):
    starts = [*range(33, 127), *range(0x80, 0x800, 0x40), 0x800, *range(0x1000, 0x10000, 0x1000)]  # a lead byte each
    texts = [chr(start) for start in starts]
    assert len({vllm_backend.tokenizer(text).input_ids[0] for text in texts}) > 128
    check_scores(vllm_backend, vllm_model, scoring("Say something:", *texts))


def test_scores_are_lm_evals(vllm_backend):
    """Tokens and truncation, too: an empty context, a space at its end, prompts over the model's length."""
    pairs = [("", "The eggs"), ("", "<|endoftext|>x"), ("Anna has ", "three hens"), (STORY * 9, " and a goat")]
    pairs += [(STORY * 9, " X"), (QUESTION, " eggs"), (STORY * 9, " Y")]
    ours = collect(vllm_backend, [Request("loglikelihood", *pair) for pair in pairs])
    theirs = vllm_backend._lm.loglikelihood([instance("loglikelihood", pair) for pair in pairs], disable_tqdm=True)
    for answer, (logprob, is_greedy) in zip(ours, theirs, strict=True):
        assert answer.logprob == pytest.approx(logprob, abs=1e-4)
        assert answer.is_greedy == is_greedy


def test_rolling_scores_are_lm_evals(vllm_backend):
    texts = [STORY, STORY * 12, "A"]
    ours = collect(vllm_backend, [Request("loglikelihood_rolling", text) for text in texts])
    theirs = vllm_backend._lm.loglikelihood_rolling(
        [instance("loglikelihood_rolling", (text,)) for text in texts], disable_tqdm=True
    )
    assert [answer.logprob for answer in ours] == pytest.approx(theirs, abs=1e-3)
    assert [answer.is_greedy for answer in ours] == [None] * 3
    assert collect(vllm_backend, [Request("loglikelihood_rolling", "")])[0].logprob == 0


def test_generations_are_lm_evals_and_say_how_they_ended(vllm_backend):
    mark = greedy_text(vllm_backend, QUESTION, 12)[4]
    requests = [generating(QUESTION), generating(QUESTION, until=[mark], max_gen_toks=30), generating(STORY * 9)]
    answers = collect(vllm_backend, requests)
    theirs = vllm_backend._lm.generate_until(
        [instance("generate_until", (r.context, dict(r.gen_kwargs))) for r in requests], disable_tqdm=True
    )
    assert [answer.response for answer in answers] == theirs
    assert answers[1].finish_reason == "stop"
    assert answers[0].finish_reason == "length"
    tokenizer = vllm_backend.tokenizer
    assert [a.n_response_tokens for a in answers] == [len(tokenizer(a.response).input_ids) for a in answers]


def test_a_request_that_says_nothing_of_sampling_is_greedy(vllm_backend):
    """lm-eval 0.4.13 leaves the temperature out, and vLLM's default of 1 samples without a seed."""
    silent = Request("generate_until", QUESTION, gen_kwargs={"until": ["\0"], "max_gen_toks": 20})
    assert collect(vllm_backend, [silent])[0].response == greedy_text(vllm_backend, QUESTION, 20)


def test_greedy_text_is_that_of_transformers(vllm_backend, vllm_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(vllm_model, dtype=torch.float32)
    ids = vllm_backend.tokenizer(QUESTION, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert greedy_text(vllm_backend, QUESTION, 24) == vllm_backend.tokenizer.decode(made)


def test_answers_come_as_they_finish(vllm_backend):
    requests = [generating(STORY, max_gen_toks=n, until=["\0"]) for n in (40, 2, 20)]
    batches = [[index for index, _ in batch] for batch in vllm_backend.answer(requests)]
    assert batches == [[1], [2], [0]]
    assert len(list(vllm_backend.answer(scoring(QUESTION, "A", " a goat")))) > 1


def test_the_engine_is_supplied_as_it_goes(vllm_backend, monkeypatch):
    monkeypatch.setattr("qwen2eval.backends.vllm.engine.MOST_UNDER_WAY", 2)
    bad, good = generating(""), [generating(STORY, max_gen_toks=n) for n in (9, 2, 2, 2, 2)]
    requests = [bad, bad, bad, *good]
    answers = {}
    for batch in vllm_backend.answer(requests):
        assert vllm_backend._lm.model.llm_engine.get_num_unfinished_requests() <= 2
        answers |= dict(batch)
    assert [bool(answers[i].error) for i in range(len(requests))] == [True] * 3 + [False] * 5


def test_a_caller_that_stops_early_leaves_nothing_behind(vllm_backend):
    requests = [generating(STORY, max_gen_toks=n, until=["\0"]) for n in (2, 200)]
    going = vllm_backend.answer(requests)
    assert next(going)[0][0] == 0
    going.close()
    assert not vllm_backend._lm.model.llm_engine.has_unfinished_requests()
    assert collect(vllm_backend, requests[:1])[0].finish_reason == "length"


def test_a_sampled_answer_depends_on_its_own_seed_alone(vllm_backend):
    sampled = [generating(STORY, seed=seed, do_sample=True, temperature=1.0) for seed in (1, 2, 1)]
    first, other, again = (answer.response for answer in collect(vllm_backend, sampled))
    assert first == again != other
    assert collect(vllm_backend, sampled[1:2])[0].response == other


def test_one_bad_request_fails_alone(vllm_backend):
    good = generating(QUESTION)
    failed, answered = collect(vllm_backend, [generating(""), good])
    assert "prompt" in failed.error
    assert answered.response is not None
    too_long, scored = collect(vllm_backend, [*scoring(STORY, STORY * 12), *scoring(STORY, " A")])
    assert "does not fit" in too_long.error
    assert scored.logprob < 0


def test_arguments_that_vllm_does_not_know_end_the_answering(vllm_backend):
    with pytest.raises(BackendError, match="nonsense"):
        collect(vllm_backend, [generating(QUESTION, nonsense=3)])
    assert collect(vllm_backend, scoring(QUESTION, " A"))[0].logprob < 0


def test_closing_leaves_no_process(vllm_model, open_vllm):
    before = psutil.Process().children(recursive=True)
    backend = open_vllm(vllm_model, max_length=256)
    engine = [process for process in psutil.Process().children(recursive=True) if process not in before]
    assert engine
    backend.close()
    _, alive = psutil.wait_procs(engine, timeout=20)
    assert not alive


def test_yarn_reaches_the_engine(vllm_model, open_vllm):
    backend = open_vllm(vllm_model, yarn_factor=4)
    config = RunConfig(model="vllm", model_args={"pretrained": str(vllm_model), "yarn_factor": 4})
    assert backend.max_length == load_spec(config).max_length == 2048
    assert "yarn_factor" in backend.identity()["args"]
    theta = backend._lm.model.llm_engine.model_config.hf_config.rope_parameters["rope_theta"]
    yarn = {"rope_type": "yarn", "rope_theta": theta, "factor": 4.0, "original_max_position_embeddings": 512}
    requests = scoring(STORY * 9, " and a goat", " X")
    for request, answer in zip(requests, collect(backend, requests), strict=True):
        context, continuation = backend._lm._encode_pair(request.context, request.continuation)
        assert len(context) > 512
        tokens, n_tail = context + continuation, len(continuation)
        stretched = {"rope_parameters": yarn, "max_position_embeddings": 2048}
        logprob, _ = reference(vllm_model, tokens, n_tail, **stretched)
        assert answer.logprob == pytest.approx(logprob, abs=1e-3)
        assert not math.isclose(reference(vllm_model, tokens, n_tail)[0], logprob, abs_tol=0.01)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"dual_chunk": True}, "removed in its v0.11.0"),
        ({"yarn_factor": "four"}, "yarn_factor"),
        ({"data_parallel_size": 2}, "one engine"),
    ],
    ids=["dual_chunk", "yarn_factor", "data_parallel_size"],
)
def test_what_this_vllm_can_not_do_is_refused_before_it_loads(vllm_model, monkeypatch, args, message):
    monkeypatch.setattr("vllm.LLM.__init__", lambda *_args, **_kwargs: pytest.fail("loaded"))
    config = RunConfig(model="vllm", model_args={"pretrained": str(vllm_model), **CPU_ARGS, **args})
    with pytest.raises(ModelError, match=message):
        open_model(config, load_spec(config))


def test_a_checkpoint_that_can_not_be_loaded_is_named(vllm_model, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(vllm_model, broken)
    (broken / "model.safetensors").unlink()
    config = RunConfig(model="vllm", model_args={"pretrained": str(broken), **CPU_ARGS})
    with pytest.raises(ModelError, match="can't open"):
        open_model(config, load_spec(config))
