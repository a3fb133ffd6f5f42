"""The API backend against a real server on loopback, and against lm-eval's own client of the same server."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from qwen2eval.backends.api.backend import ApiBackend
from qwen2eval.errors import BackendError, ModelError, Qwen2EvalError
from qwen2eval.requests import Request
from qwen2eval.thoughts import Thinking, read_thought
from tests.backends.asking import ask, chat, completions, generations, scorings, wait_until_threads_end
from tests.backends.openai_server import Fault, TinyServer, save_tiny_model, serve_openai

MAX_LENGTH = 60
PAIRS = [
    ("The cat in the hat", " sat"),
    ("The cat in the hat  ", "stood there"),
    ("", "the end"),
    ("Q: 2 + 3?\nA:", " 5"),
    ("a long story about the cat in the hat that nobody wants to hear again", " and so on"),
]
GEN_KWARGS = {"until": ["\n\n", "Q:"], "do_sample": False, "max_gen_toks": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def running_server(folder: Path) -> Iterator[TinyServer]:
    with serve_openai(folder) as server:
        yield server


@pytest.fixture
def server(running_server: TinyServer) -> Iterator[TinyServer]:
    running_server.reset()
    running_server.script = None
    yield running_server
    # A thread that was stopped may still be in its last request, which would count in the next test.
    wait_until_threads_end()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def lm_eval_answers(lm: Any, kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Ask lm-eval's own client."""
    return list(getattr(lm, kind)([Instance(kind, {}, args, index) for index, args in enumerate(arguments)]))


def lm_eval_completions(server: TinyServer, **model_args: Any) -> LocalCompletionsAPI:
    args = {"base_url": server.completions_url, "model": server.model, "tokenizer_backend": "huggingface"}
    return LocalCompletionsAPI(**(args | {"max_length": MAX_LENGTH} | model_args))


def sent_bodies(server: TinyServer) -> list[str]:
    """Return what was asked since the last reset, whatever its order."""
    bodies = sorted(json.dumps(body, sort_keys=True) for body in server.requests)
    server.reset()
    return bodies


# The same answers as lm-eval's


@pytest.mark.parametrize("is_tokenized", [True, False], ids=["tokens", "text"])
def test_loglikelihood_equals_lm_eval(server: TinyServer, is_tokenized: bool) -> None:
    expected = lm_eval_answers(lm_eval_completions(server, tokenized_requests=is_tokenized), "loglikelihood", PAIRS)
    expected_bodies = sent_bodies(server)
    backend = completions(server, tokenized_requests=is_tokenized, max_length=MAX_LENGTH)
    answers = ask(backend, [Request("loglikelihood", *pair) for pair in PAIRS])
    assert [(answer.logprob, answer.is_greedy) for answer in answers] == expected
    assert set(sent_bodies(server)) > set(expected_bodies)  # and the probe


def test_greedy_continuation_is_greedy(server: TinyServer) -> None:
    context = "The cat"
    backend = completions(server)
    response = ask(backend, [Request("generate_until", context, gen_kwargs={"max_gen_toks": 1})])[0].response
    pairs = [(context, str(response)), (context, "zzz")]
    expected = lm_eval_answers(lm_eval_completions(server), "loglikelihood", pairs)
    answers = ask(backend, [Request("loglikelihood", *pair) for pair in pairs])
    assert [answer.is_greedy for answer in answers] == [is_greedy for _, is_greedy in expected]
    assert [answer.is_greedy for answer in answers] == [True, False]


def test_rolling_loglikelihood_equals_lm_eval(server: TinyServer) -> None:
    texts = ["the end", "so the cat said to the hat: " * 9, "in"]
    expected = lm_eval_answers(lm_eval_completions(server), "loglikelihood_rolling", [(text,) for text in texts])
    expected_bodies = sent_bodies(server)
    backend = completions(server, max_length=MAX_LENGTH, num_concurrent=2)
    answers = ask(backend, [Request("loglikelihood_rolling", text) for text in texts])
    assert [answer.logprob for answer in answers] == expected
    assert len(expected_bodies) > len(texts)
    assert set(sent_bodies(server)) > set(expected_bodies)


@pytest.mark.parametrize("is_tokenized", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize(
    "gen_kwargs", [GEN_KWARGS, {"until": "\n"}, {"until": ["."], "temperature": 0.7, "top_p": 0.9}], ids=str
)
def test_generation_equals_lm_eval(server: TinyServer, is_tokenized: bool, gen_kwargs: dict[str, Any]) -> None:
    lm = lm_eval_completions(server, tokenized_requests=is_tokenized, max_gen_toks=20)
    expected = lm_eval_answers(lm, "generate_until", [(context, gen_kwargs) for context, _ in PAIRS[:2] + PAIRS[3:]])
    expected_bodies = sent_bodies(server)
    backend = completions(server, tokenized_requests=is_tokenized, max_gen_toks=20, max_length=MAX_LENGTH)
    requests = [
        Request("generate_until", context, gen_kwargs=gen_kwargs, seed=1234) for context, _ in PAIRS[:2] + PAIRS[3:]
    ]
    assert [answer.response for answer in ask(backend, requests)] == expected
    assert sent_bodies(server) == expected_bodies


def test_chat_equals_lm_eval(server: TinyServer) -> None:
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Whose hat is thé hat?"}]
    lm = LocalChatCompletion(base_url=server.chat_url, model=server.model)
    context = lm.apply_chat_template(history)
    assert isinstance(context, JsonChatStr)
    expected = lm_eval_answers(lm, "generate_until", [(context, GEN_KWARGS)])
    expected_bodies = sent_bodies(server)
    backend = chat(server)
    assert backend.apply_chat_template(history) == context.prompt
    request = Request("generate_until", backend.apply_chat_template(history), gen_kwargs=GEN_KWARGS)
    # Without stop strings, until an answer has ended by itself without a thought
    assert [answer.response for answer in ask(backend, [request])] == expected
    assert "stop" not in json.loads(sent_bodies(server)[0])
    let_one_answer_end(server, backend)
    assert [answer.response for answer in ask(backend, [request])] == expected
    assert sent_bodies(server)[-1:] == expected_bodies


def let_one_answer_end(server: TinyServer, backend: ApiBackend) -> None:
    """Show the backend that the model ends its answers without thinking."""
    server.script = lambda _: "Yes."
    ask(backend, [Request("generate_until", "Do you think?", gen_kwargs={})])
    server.script = None


def test_completions_apply_the_tokenizers_chat_template(server: TinyServer) -> None:
    text = completions(server).apply_chat_template([{"role": "user", "content": "Hi"}])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ModelError, match="local-chat-completions"):
        completions(server, tokenizer=None, tokenizer_backend="None").apply_chat_template([])


def test_plain_text_becomes_one_user_message(server: TinyServer) -> None:
    ask(chat(server), [Request("generate_until", '["not", "a chat"]', gen_kwargs=GEN_KWARGS)])
    assert server.requests[0]["messages"] == [{"role": "user", "content": '["not", "a chat"]'}]


# What an answer says


def test_finish_reason_and_token_count(server: TinyServer) -> None:
    backend = completions(server)
    cut, whole = ask(backend, [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": n}) for n in (2, 5)])
    assert (cut.finish_reason, cut.n_response_tokens) == ("length", 2)
    assert whole.response is not None
    stop = whole.response[2]
    stopped = ask(backend, [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 5, "until": [stop]})])[0]
    assert stopped.response == whole.response.split(stop)[0]
    assert stopped.finish_reason == "stop"


def test_stop_strings_beyond_the_four_that_a_chat_takes_are_cut_here(server: TinyServer) -> None:
    whole = ask(chat(server), [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 9})])[0].response
    assert whole is not None
    until = ["<1>", "<2>", "<3>", "<4>", whole[3]]
    backend = chat(server)
    let_one_answer_end(server, backend)
    answer = ask(backend, [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 9, "until": until})])[0]
    assert server.requests[-1]["stop"] == until[:4]
    assert (answer.response, answer.finish_reason) == (whole.split(whole[3])[0], "stop")


def test_seed_is_sent_for_sampled_generations_only(server: TinyServer) -> None:
    def request(**gen_kwargs: Any) -> Request:
        return Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 8} | gen_kwargs, seed=7)

    backend = completions(server)
    ask(backend, [request(), request(temperature=1.0), request(do_sample=True), request(do_sample=False)])
    assert [body["seed"] for body in server.requests] == [1234, 7, 7, 1234]


def test_a_thought_is_kept_and_cut_as_lm_eval_cuts_it(server: TinyServer) -> None:
    request = Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 9})
    whole = ask(chat(server), [request])[0].response
    assert whole is not None
    answer = ask(chat(server, think_end_token=whole[2]), [request])[0]
    assert answer.response == whole
    read = read_thought(answer, prompt="", thinking=Thinking(end=whole[2]))
    assert read.response == whole.split(whole[2])[-1].lstrip()


THOUGHT = "<think>Is it 9?\n\nNo.</think>7\n\nNext"


@pytest.mark.parametrize("said", [THOUGHT, THOUGHT.replace("<think>", "")], ids=["both marks", "end mark"])
def test_a_chat_that_thinks_is_sent_no_stop_strings(server: TinyServer, said: str) -> None:
    """The stop strings of a task end the answer, also where only the server's template opens the thought."""
    server.script = lambda _: said
    backend = chat(server)
    requests = [Request("generate_until", text, gen_kwargs={"until": ["\n\n"]}) for text in ("Why?", "How?")]
    answers = ask(backend, requests)
    assert [answer.response for answer in answers] == [said.removesuffix("\n\nNext")] * 2
    assert [answer.finish_reason for answer in answers] == ["stop"] * 2
    assert not any("stop" in body for body in server.requests)


def test_a_model_that_thinks_only_now_and_then_is_asked_again_without_stop_strings(server: TinyServer) -> None:
    """The server itself stops at them, in the middle of the thought."""
    replies = iter(["6", "<think>Is it 9?", THOUGHT])
    server.script = lambda _: next(replies)
    requests = [Request("generate_until", text, gen_kwargs={"until": ["\n\n"]}) for text in ("Why?", "How?")]
    assert [a.response for a in ask(chat(server), requests)] == ["6", THOUGHT.removesuffix("\n\nNext")]
    assert ["stop" in body for body in server.requests] == [False, True, False]


def test_a_thought_that_max_gen_toks_cut_is_an_answer_that_was_cut(server: TinyServer) -> None:
    """`content: null` was an error, so that the doc left the score, and asking again never helped."""
    server.misbehave("cut_thought", prompt_contains="Why")
    backend = chat(server)
    asked = [Request("generate_until", text, gen_kwargs={"max_gen_toks": 5}) for text in ("Why?", "How?")]
    cut, whole = ask(backend, asked)
    assert (cut.error, cut.response, cut.finish_reason) == (None, "<think>Hm, is it", "length")
    read = read_thought(cut, prompt="", thinking=Thinking())
    assert (read.response, read.is_thought_open) == ("", True)
    assert not whole.response.startswith("<think>")


@pytest.mark.parametrize(
    ("fault", "response", "reason"),
    [
        ("cut_thought_alone", "<think>Hm, is it", "length"),
        ("thought_part", "<think>Is it 7?</think>7", "stop"),
        ("text_parts", "It is 7", "stop"),
        ("refusal", "I can't say that.", "stop"),
    ],
)
def test_messages_of_other_shapes_are_answers(server: TinyServer, fault: Fault, response: str, reason: str) -> None:
    """Each was a failed request, at every later try, too."""
    server.misbehave(fault, prompt_contains="Why")
    [answer] = ask(chat(server), [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 5})])
    assert (answer.error, answer.response, answer.finish_reason) == (None, response, reason)


def test_a_message_with_neither_text_nor_thought_is_an_error(server: TinyServer) -> None:
    server.misbehave("no_text", prompt_contains="Why")
    [answer] = ask(chat(server), [Request("generate_until", "Why?", gen_kwargs={"max_gen_toks": 5})])
    assert "has no 'content'" in str(answer.error)


def test_prompt_that_the_answer_would_push_out_is_an_error(server: TinyServer) -> None:
    """lm-eval's slice turns negative here and deletes most of the prompt (trap T9)."""
    request = Request("generate_until", "Why the hat?", gen_kwargs={"max_gen_toks": MAX_LENGTH})
    answer = ask(completions(server, max_length=MAX_LENGTH), [request])[0]
    assert "no room for the prompt" in str(answer.error)
    assert not server.requests


# Log-likelihoods need a server that scores prompts


@pytest.mark.parametrize("fault", ["no_echo", "zeros", 400, "bad_json"], ids=str)
def test_server_without_prompt_logprobs_fails_at_the_door(server: TinyServer, fault: Fault) -> None:
    server.misbehave(fault, at={1})
    with pytest.raises(BackendError, match=r"did not score a short test prompt.*vLLM does"):
        ask(completions(server), scorings(3))
    assert len(server.requests) == 1


def test_probe_is_sent_once(server: TinyServer) -> None:
    backend = completions(server)
    ask(backend, scorings(2))
    ask(backend, scorings(2))
    assert len(server.requests) == 5


def test_one_answer_without_prompt_logprobs_is_an_error(server: TinyServer) -> None:
    server.misbehave("no_echo", prompt_contains="Q01")
    answers = ask(completions(server), scorings(3))
    assert "returned 0 log-probabilities for a prompt of" in str(answers[1].error)
    assert answers[1].logprob is None
    assert answers[0].logprob is not None
    assert answers[2].logprob is not None


def test_nan_is_kept_as_nan(server: TinyServer) -> None:
    server.misbehave("nan", prompt_contains="Q01")
    answers = ask(completions(server), scorings(2))
    assert math.isnan(answers[1].logprob or 0)
    assert (answers[1].is_greedy, answers[1].error) == (None, None)


def test_server_may_leave_out_the_generated_token(server: TinyServer) -> None:
    backend = completions(server)
    expected = ask(backend, scorings(3))
    server.misbehave("one_missing")
    assert ask(backend, scorings(3)) == expected


def test_text_prompts_that_the_server_cuts_otherwise_fail_at_the_door(
    server: TinyServer, folder: Path, tmp_path: Path
) -> None:
    """lm-eval would take the wrong tokens for the continuation."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["merges"] = []
    for file in folder.glob("tokenizer*"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    backend = completions(server, tokenizer=str(tmp_path), tokenized_requests=False)
    with pytest.raises(BackendError, match="other tokens than our tokenizer"):
        ask(backend, [Request("loglikelihood", "the hat in the", " the in")])


def test_continuation_without_tokens_is_an_error(server: TinyServer) -> None:
    answers = ask(completions(server), [Request("loglikelihood", "So", ""), Request("loglikelihood", "", "")])
    assert all("no separate token" in str(answer.error) for answer in answers)


def test_continuation_longer_than_the_context_is_an_error(server: TinyServer) -> None:
    request = Request("loglikelihood", "So", " and so on" * 20)
    assert "leave no room" in str(ask(completions(server, max_length=MAX_LENGTH), [request])[0].error)


def test_chat_cannot_score(server: TinyServer) -> None:
    with pytest.raises(BackendError, match="Use --model local-completions"):
        ask(chat(server), scorings(1))


def test_scoring_needs_a_tokenizer(server: TinyServer) -> None:
    with pytest.raises(BackendError, match="tokenizer=FOLDER_OR_HUB_NAME"):
        ask(completions(server, tokenizer=None, tokenizer_backend="None"), scorings(1))


# The door: arguments, longest context, identity


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("local-completions", {"model": "m"}, "needs base_url: --model_args base_url=http"),
        ("local-completions", {"base_url": "http://h/v1/completions"}, "needs model: --model_args base_url=http"),
        ("local-completions", {"base_url": "h:80/v1", "model": "m"}, "not a web address"),
        ("local-completions", {"base_url": "http://h/v1/chat/completions", "model": "m"}, "local-chat-completions"),
        ("local-chat-completions", {"base_url": "http://h/v1/completions", "model": "m"}, "--model local-completions"),
        ("local-completions", {"num_concurent": 8}, "'num_concurent'.*Did you mean 'num_concurrent'"),
        ("local-completions", {"qqq": 8}, "'qqq'.*Known: .*base_url, .*num_concurrent"),
        ("local-chat-completions", {"tokenized_requests": True}, "messages, not tokens"),
        ("local-completions", {"timeout": "soon"}, "timeout='soon' must be a whole number"),
        ("local-completions", {"num_concurrent": 0}, "num_concurrent=0 must be .* at least 1"),
        ("local-completions", {"max_length": -1}, "max_length=-1"),
        ("local-completions", {"tokenizer": "/no/such/folder"}, "tokenizer '/no/such/folder' can't be loaded"),
    ],
)
def test_wrong_arguments_are_named(name: str, args: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {}
    if not {"base_url", "model"} & set(args):
        path = "chat/completions" if "chat" in name else "completions"
        defaults = {"base_url": f"http://127.0.0.1:9/v1/{path}", "model": "m", "max_length": 99}
    with pytest.raises(ModelError, match=message) as caught:
        ApiBackend(name, defaults | args)
    assert isinstance(caught.value, Qwen2EvalError)


def test_longest_context_is_given_or_the_servers_or_the_configs(folder: Path) -> None:
    with serve_openai(folder, max_model_len=100) as server:
        assert completions(server).max_length == 512
        assert completions(server, max_length=None).max_length == 100
        assert chat(server, max_length=None).max_length == 100
    with serve_openai(folder) as server:
        assert completions(server, max_length=None).max_length == 512
        assert chat(server, max_length=None).max_length is None


def test_unknown_longest_context_cuts_nothing(server: TinyServer) -> None:
    backend = completions(server, max_length=None, tokenizer=None, tokenizer_backend=None)
    assert backend.max_length is None
    ask(backend, [Request("generate_until", "the " * 900, gen_kwargs={"max_gen_toks": 2})])
    assert server.requests[0]["prompt"] == "the " * 900


def test_key_is_sent_and_never_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_openai(folder, api_key="secret-key-1") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key-1")
        backend = completions(server)
        assert ask(backend, generations(1))[0].error is None
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key-2")
        with pytest.raises(BackendError, match=r"401 Unauthorized: wrong key: Bearer \*\*\*") as caught:
            ask(completions(server), generations(1))
        monkeypatch.delenv("OPENAI_API_KEY")
        by_token = completions(server, auth_token="secret-key-1")
        by_header = completions(server, header={"Authorization": "Bearer secret-key-1"})
        assert ask(by_token, generations(1))[0].error is None
        assert ask(by_header, generations(1))[0].error is None
    shown = [str(caught.value), repr(backend._client), *(str(b.identity()) for b in (backend, by_token, by_header))]
    assert not any("secret" in text for text in shown)


def test_identity_names_the_model_and_what_shapes_the_requests(server: TinyServer) -> None:
    identity = completions(server, max_length=99).identity()
    assert identity["model"] == identity["tokenizer"] == server.model
    assert identity["server"] == server.completions_url
    assert (identity["max_length"], identity["tokenized_requests"]) == (99, True)
    assert (identity["eos_string"], identity["seed"]) == ("<|endoftext|>", 1234)
    assert all(value is None or isinstance(value, (str, int, float)) for value in identity.values())
    assert completions(server, num_concurrent=8, timeout=5, max_length=99).identity() == identity
    assert completions(server, max_length=98).identity() != identity


def test_password_in_the_address_is_not_part_of_the_identity(server: TinyServer) -> None:
    url = server.chat_url.replace("http://", "http://me:secret@") + "?key=secret"
    assert "secret" not in str(chat(server, base_url=url).identity())
