"""How the tests of the API backend ask: short requests, answers in request order."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from qwen2eval.backends.api.backend import ApiBackend
from qwen2eval.requests import Answer, Request
from tests.backends.openai_server import TinyServer


def completions(server: TinyServer, **model_args: Any) -> ApiBackend:
    """Open the backend; without `tokenizer_backend=None` the tokenizer is the served model's."""
    args = {"base_url": server.completions_url, "model": server.model, "tokenizer": server.model, "max_length": 512}
    return ApiBackend("local-completions", args | model_args)


def chat(server: TinyServer, **model_args: Any) -> ApiBackend:
    args = {"base_url": server.chat_url, "model": server.model, "max_length": 512}
    return ApiBackend("local-chat-completions", args | model_args)


def ask(backend: ApiBackend, requests: Sequence[Request]) -> list[Answer]:
    """Return the answers in request order; each request has exactly one."""
    answers = dict(pair for batch in backend.answer(requests) for pair in batch)
    assert len(answers) == len(requests)
    return [answers[index] for index in range(len(requests))]


def wait_until_threads_end() -> None:
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("qwen2eval-api") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread goes on"
        time.sleep(0.01)


def generations(n: int) -> list[Request]:
    """Return n short generation requests, each with its number in the prompt."""
    return [Request("generate_until", f"Q{number:02d}: why?", gen_kwargs={"max_gen_toks": 3}) for number in range(n)]


def scorings(n: int) -> list[Request]:
    return [Request("loglikelihood", f"Q{number:02d}: why?", " So.") for number in range(n)]
