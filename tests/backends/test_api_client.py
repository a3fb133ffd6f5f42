"""Servers that fail, for one request or for all, and answers from several threads."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen2eval.backends.api.backend import ApiBackend
from qwen2eval.backends.api.client import FAILURES_BEFORE_GIVING_UP
from qwen2eval.errors import BackendError
from tests.backends.asking import ask, chat, completions, generations, scorings, wait_until_threads_end
from tests.backends.openai_server import Fault, TinyServer, save_tiny_model, serve_openai
from tests.killing import wait_for


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
    yield running_server
    # A thread that was stopped may still be in its last request, which would count in the next test.
    wait_until_threads_end()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


# One bad request leaves the others alone


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (500, "HTTP 500 Internal Server Error: told to answer 500"),
        (400, "HTTP 400 Bad Request: told to answer 400"),
        (422, "HTTP 422"),
        (429, "HTTP 429"),
        ("null_content", "the server returned no text"),
        ("content_filter", "'content_filter'"),
        ("bad_json", "not JSON"),
        ("no_choices", "no 'choices'"),
        ("closed_connection", "connection failed"),
        ("timeout", "no answer within 1 seconds"),
    ],
    ids=str,
)
@pytest.mark.parametrize("open_backend", [completions, chat])
def test_one_bad_answer_is_an_error(server: TinyServer, open_backend: Any, fault: Fault, error: str) -> None:
    server.misbehave(fault, prompt_contains="Q02")
    answers = ask(open_backend(server, max_retries=0, timeout=1), generations(4))
    assert error in str(answers[2].error)
    assert answers[2].response is None
    assert [answer.error for answer in answers[:2] + answers[3:]] == [None, None, None]


def test_three_failures_of_twenty_leave_seventeen_answers(server: TinyServer) -> None:
    server.misbehave(500, at={4, 9, 15})
    answers = ask(completions(server, max_retries=0, num_concurrent=4), generations(20))
    assert sum(answer.error is not None for answer in answers) == 3
    assert sum(answer.response is not None for answer in answers) == 17


def test_empty_text_is_an_answer(server: TinyServer) -> None:
    server.misbehave("empty_text", at={1})
    answer = ask(completions(server), generations(1))[0]
    assert (answer.response, answer.error) == ("", None)


@pytest.mark.parametrize("fault", [408, 409, 425, 429, 500, 503, "closed_connection"], ids=str)
def test_what_can_pass_is_tried_again(server: TinyServer, fault: Fault) -> None:
    server.misbehave(fault, at={2})
    answers = ask(completions(server), generations(2))
    assert all(answer.response is not None for answer in answers)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_cannot_pass_is_not_tried_again(server: TinyServer, status: int) -> None:
    server.misbehave(status, at={2})
    answers = ask(completions(server), generations(3))
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert len(server.requests) == 3


def test_retry_after_goes_before_the_backoff(server: TinyServer) -> None:
    server.misbehave(429, at=range(1, 9))
    start = time.monotonic()
    assert ask(completions(server, max_retries=8), generations(1))[0].error is None
    # Without it: 0.5 + 1 + 2 + 4 + 8 + 16 + 30 + 30 seconds.
    assert time.monotonic() - start < 60


def test_max_retries_counts_attempts_after_the_first(server: TinyServer) -> None:
    server.misbehave(429)
    server.misbehave(429, at={1})
    backend = completions(server, max_retries=2)
    assert "tried 3 times" in str(ask(backend, generations(1))[0].error)
    assert len(server.requests) == 3


# Servers that can't go on


def test_refused_connection_ends_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/chat/completions"
        args = {"base_url": url, "model": "m", "max_length": 99, "max_retries": 8}
        backend = ApiBackend("local-chat-completions", args)
        start = time.monotonic()
        with pytest.raises(BackendError, match=f"{url}: connection failed: Connection refused. Check that the server"):
            ask(backend, generations(3))
        assert time.monotonic() - start < 60  # retries would wait for 91 seconds
        with pytest.raises(BackendError, match="Connection refused"):
            ApiBackend("local-chat-completions", {"base_url": url, "model": "m"})


@pytest.mark.parametrize(("status", "advice"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "base_url")])
def test_refusal_of_the_first_request_ends_at_once(server: TinyServer, status: int, advice: str) -> None:
    server.misbehave(status)
    with pytest.raises(BackendError, match=advice):
        ask(completions(server, num_concurrent=2), generations(8))
    assert len(server.requests) <= 3


def test_server_that_goes_away_ends_the_run_and_keeps_what_was_answered(server: TinyServer) -> None:
    server.misbehave("closed_connection", at=range(4, 999))
    answered: list[int] = []

    def keep_answers() -> None:
        for batch in completions(server, max_retries=0).answer(generations(60)):
            answered.extend(index for index, answer in batch if answer.error is None)

    with pytest.raises(BackendError, match=f"{FAILURES_BEFORE_GIVING_UP} requests in a row"):
        keep_answers()
    assert answered == [0, 1, 2]
    assert len(server.requests) == 3 + FAILURES_BEFORE_GIVING_UP


def test_server_that_dislikes_many_prompts_does_not_end_the_run(server: TinyServer) -> None:
    server.misbehave(500, at=range(4, 40))
    answers = ask(completions(server, max_retries=0), generations(45))
    assert sum(answer.error is None for answer in answers) == 9


# Concurrency


def test_answers_come_as_they_finish_and_few_are_under_way(folder: Path) -> None:
    with serve_openai(folder, delay_seconds=0.05) as server:
        backend = completions(server, num_concurrent=4)
        n_sent_at_first_answer = 0
        n_seen = 0
        for batch in backend.answer(generations(40)):
            n_sent_at_first_answer = n_sent_at_first_answer or len(server.requests)
            n_seen += len(batch)
        assert n_seen == 40
        assert n_sent_at_first_answer < 20
        assert server.n_most_at_once == 4


def test_concurrency_does_not_change_answers(server: TinyServer) -> None:
    one_by_one = ask(completions(server), scorings(20))
    assert ask(completions(server, num_concurrent=8), scorings(20)) == one_by_one


def test_batch_size_is_the_default_concurrency(folder: Path) -> None:
    with serve_openai(folder, delay_seconds=0.05) as server:
        args = {"base_url": server.chat_url, "model": server.model, "max_length": 512}
        ask(ApiBackend("local-chat-completions", args, batch_size=3), generations(9))
        assert server.n_most_at_once == 3
        assert len(server.requests) == 9


def test_closing_early_ends_the_threads(server: TinyServer) -> None:
    server.misbehave(503, at=range(5, 999))
    batches = completions(server, num_concurrent=3).answer(generations(50))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    wait_until_threads_end()
    assert len(server.requests) < 20


def test_ctrl_c_does_not_wait_for_the_server(server: TinyServer) -> None:
    server.misbehave("timeout")
    # a shell's background job, as CI may be one, ignores SIGINT, and its children inherit that
    script = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from qwen2eval.backends.api.backend import ApiBackend
from qwen2eval.requests import Request
args = {{"base_url": {server.chat_url!r}, "model": "m", "max_length": 99, "num_concurrent": 4}}
list(ApiBackend("local-chat-completions", args).answer([Request("generate_until", "Why?")] * 50))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, env=environment, cwd=Path.cwd())
    try:
        wait_for(lambda: len(server.requests) == 4 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert b"KeyboardInterrupt" in stderr
    assert len(server.requests) == 4
