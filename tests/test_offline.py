"""`--offline` opens no socket: Python tells of each one that is asked for, and the kernel forbids them."""

import os
import platform
import socket
import subprocess
import sys

import pytest

from qwen2eval.errors import ConfigError
from qwen2eval.offline import forbid_network
from qwen2eval.tasks.index import lm_eval_entries
from tests.local_tasks import run_here, words, write_tasks

# Imported by every Python process of the run. Kernel: a seccomp(2) filter that ends the process with SIGSYS at
# socket(2), also from libraries that are not Python. socketpair(2), which leads nowhere, stays allowed but is told.
GUARD = """
import ctypes, os, platform, struct, sys

def tell(event, args):
    if event.startswith("socket."):
        with open(os.environ["SOCKET_LOG"], "a") as log:
            print(event, *args[1:], file=log)

sys.addaudithook(tell)
machine, number = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}[platform.machine()]
program = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 4),           # load the machine
    (0x15, 0, 3, machine),     # another one: allow
    (0x20, 0, 0, 0),           # load the call's number
    (0x15, 0, 1, number),      # not socket: allow
    (0x06, 0, 0, 0x80000000),  # kill the process
    (0x06, 0, 0, 0x7FFF0000),  # allow
))
code = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0                                     # PR_SET_NO_NEW_PRIVS
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 6, ctypes.addressof(code)))
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""
SIGSYS = 31

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux's seccomp"
)


@pytest.fixture
def guarded(tmp_path):
    """Return a function that runs Python with sockets forbidden, and one that tells which were asked for."""
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD)
    log = folder / "log"
    log.touch()
    plain = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE") and k != "QWEN2EVAL_DATA"}

    def run(*args):
        return subprocess.run(
            [sys.executable, *args],
            env={**plain, "PYTHONPATH": str(folder), "SOCKET_LOG": str(log), "HF_HOME": str(tmp_path / "hf")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run, lambda: log.read_text().splitlines()


def test_the_guard_sees_and_stops_a_socket(guarded):
    run, sockets = guarded
    assert run("-c", "print('on')").stdout == "on\n"
    assert sockets() == []
    assert run("-c", "import socket; socket.socket()").returncode == -SIGSYS
    assert sockets()[0].startswith("socket.__new__")
    assert run("-c", "import socket; socket.getaddrinfo('localhost', 80)").returncode != 0
    assert any(line.startswith("socket.getaddrinfo") for line in sockets())


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_connection_beyond_this_machine_is_refused(method):
    nobodys = ("192.0.2.1", 80)  # an address for documentation (RFC 5737)
    with socket.socket() as opened, forbid_network():
        opened.settimeout(0.1)
        with pytest.raises(ConfigError, match="run without --offline"):
            getattr(opened, method)(nobodys)


def test_looking_up_a_name_is_refused():
    with forbid_network(), pytest.raises(ConfigError, match="the address of 'example"):
        socket.create_connection(("example.com", 80), timeout=0.1)


def test_a_server_on_this_machine_may_be_asked():
    with socket.create_server(("127.0.0.1", 0)) as server, forbid_network():
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.parametrize("before", [None, "1"])
def test_the_ban_ends_with_the_run(monkeypatch, before):
    """The user's own HF_HUB_OFFLINE=1 was forgotten by the libraries that were imported already."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before is not None)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv("HF_HUB_OFFLINE", before)
    functions = (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo)
    with forbid_network():
        assert constants.HF_HUB_OFFLINE
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert (before is not None) == constants.HF_HUB_OFFLINE
    assert os.environ.get("HF_HUB_OFFLINE") == before
    assert (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo) == functions


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dummy", "hf"])
def test_an_offline_run_on_local_data_opens_no_socket(tmp_path, tiny_model, guarded, model):
    """Own tasks through `datasets`, and shipped ones through our loaders of published files."""
    run, sockets = guarded
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=2)
    model_args = {"pretrained": tiny_model} if model == "hf" else {}
    tasks = "pick,say,read" + (",draw,demo_mmlu,demo_gsm8k" if model == "dummy" else "")
    more = ["--limit", "1", "--gen_kwargs", "max_gen_toks=8"]
    done = run("-m", "qwen2eval", *words(tasks_dir, tmp_path / "runs", *more, tasks=tasks, model=model, **model_args))
    assert (done.returncode, done.stderr) == (0, "")
    assert sockets() == []


@pytest.mark.slow
def test_scoring_an_offline_run_opens_no_socket(tmp_path, guarded):
    run, sockets = guarded
    made = run_here(write_tasks(tmp_path / "tasks"), tmp_path / "runs")
    assert run("-m", "qwen2eval", "score", str(made.path)).returncode == 0
    assert sockets() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        (["--model", "dummy", "--tasks", "arc_easy"], "The data of task 'arc_easy' could not be read"),
        (["--model", "dummy", "--tasks", "gsm8k"], "No data for benchmark 'gsm8k'. Three ways to get it"),
    ],
    ids=["lm-eval's", "ours"],
)
def test_hub_data_is_missed_at_once(tmp_path, guarded, what, message):
    run, sockets = guarded
    lm_eval_entries()  # builds the index, which a first search would wait for
    done = run("-m", "qwen2eval", "run", *what, "--offline", "--output_path", str(tmp_path / "runs"))
    assert done.returncode == 3
    assert done.stderr.startswith(f"qwen2eval: {message}")
    assert "without --offline" in done.stderr
    assert "Traceback" not in done.stderr
    assert sockets() == []


@pytest.mark.slow
def test_a_hub_model_is_missed_at_once(tmp_path, guarded):
    run, sockets = guarded
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=1)
    done = run("-m", "qwen2eval", *words(tasks_dir, tmp_path / "runs", model="hf", pretrained="no-one/such-a-model"))
    assert done.returncode == 64
    assert done.stderr.startswith("qwen2eval: Model 'no-one/such-a-model' can't be opened")
    assert "Traceback" not in done.stderr
    assert sockets() == []
