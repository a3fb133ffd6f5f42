"""The API backend against a server that others wrote: `transformers serve` with a tiny model on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qwen2eval.backends.api.backend import ApiBackend
from qwen2eval.errors import BackendError
from qwen2eval.requests import Request
from tests.backends.asking import ask, scorings
from tests.backends.openai_server import save_tiny_model, serve_openai

pytestmark = pytest.mark.slow  # the server takes that long to start
PROMPTS = ["The cat in the hat", "Q: 2 + 3?\nA:"]


@dataclass(frozen=True)
class Served:
    folder: Path
    origin: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    for package in ("fastapi", "openai", "uvicorn"):
        pytest.importorskip(package, reason="needs pip install 'transformers[serving]'")
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    port = free_port()
    environment = os.environ | {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "1"}
    log_path = tmp_path_factory.mktemp("log") / "serve.log"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--device", "cpu"]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=environment
        )
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log_path)
            yield Served(folder, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, log_path.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback address
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"`transformers serve` did not start:\n{log_path.read_text()}")


def generations(*, max_gen_toks: int = 12, until: list[str] | None = None) -> list[Request]:
    gen_kwargs = {"max_gen_toks": max_gen_toks, "until": until or []}
    return [Request("generate_until", prompt, gen_kwargs=gen_kwargs) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", ["local-completions", "local-chat-completions"])
def test_generations_are_the_models(served: Served, kind: str) -> None:
    """Greedy text of the same weights, from their server and from ours; theirs strips a chat's."""
    path = "chat/completions" if "chat" in kind else "completions"
    args = {"model": str(served.folder), "num_concurrent": 2, "tokenizer_backend": "None"}
    answers = ask(ApiBackend(kind, args | {"base_url": f"{served.origin}/v1/{path}"}), generations())
    with serve_openai(served.folder) as ours:
        expected = ask(ApiBackend(kind, args | {"base_url": f"{ours.origin}/v1/{path}"}), generations())
    assert [str(answer.response).strip() for answer in answers] == [str(answer.response).strip() for answer in expected]
    assert [(answer.finish_reason, answer.n_response_tokens) for answer in answers] == [("length", 12)] * 2


def test_stop_string_is_not_in_the_text(served: Served) -> None:
    """`transformers serve` leaves it there."""
    args = {"base_url": f"{served.origin}/v1/chat/completions", "model": str(served.folder)}
    whole = ask(ApiBackend("local-chat-completions", args), generations())[0].response
    assert whole is not None
    answer = ask(ApiBackend("local-chat-completions", args), generations(until=[whole[3]]))[0]
    assert (answer.response, answer.finish_reason) == (whole.split(whole[3])[0], "stop")
    assert answer.response


@pytest.mark.parametrize(
    ("is_tokenized", "reason"),
    [
        (False, "returned 0 log-probabilities for a prompt of"),
        (True, "prompt must be a string.*tokenized_requests=False"),
    ],
    ids=["text", "tokens"],
)
def test_log_likelihoods_fail_at_the_door(served: Served, is_tokenized: bool, reason: str) -> None:
    """It ignores `echo`, so that lm-eval would have nothing to sum."""
    args = {
        "base_url": f"{served.origin}/v1/completions",
        "model": str(served.folder),
        "tokenizer": str(served.folder),
        "tokenized_requests": is_tokenized,
    }
    backend = ApiBackend("local-completions", args)
    assert backend.max_length == 512
    with pytest.raises(BackendError, match=rf"did not score a short test prompt: .*{reason}"):
        ask(backend, scorings(3))


def test_another_model_is_named_in_the_error(served: Served) -> None:
    args = {"base_url": f"{served.origin}/v1/chat/completions", "model": "another"}
    answer = ask(ApiBackend("local-chat-completions", args), generations())[0]
    assert "requested 'another'" in str(answer.error)
