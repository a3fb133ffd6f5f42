"""What many tests need: published benchmark files, a real checkpoint, a tiny random one."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The first example pays for imports, and the machines are shared: time is no sign of a fault here.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, and so would all processes that tests start and then interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of published benchmark files: QWEN2EVAL_DATA, else `shared/data` beside the project."""
    if chosen := os.environ.get("QWEN2EVAL_DATA"):
        return _folder_of("QWEN2EVAL_DATA", chosen)
    beside = REPOSITORY.parent / "shared" / "data"
    if not beside.is_dir():
        pytest.skip("needs the benchmarks' published files: set QWEN2EVAL_DATA to their folder")
    return beside


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Return the folder of a real Qwen2 checkpoint, QWEN2EVAL_REAL_MODEL; `.ci/run` makes one."""
    chosen = os.environ.get("QWEN2EVAL_REAL_MODEL")
    if not chosen:
        pytest.skip("needs a real Qwen2 checkpoint: set QWEN2EVAL_REAL_MODEL to its folder")
    return _folder_of("QWEN2EVAL_REAL_MODEL", chosen)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random two-layer Qwen2 with a byte-level tokenizer, 512 tokens of context."""
    from tests.backends.openai_server import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def _folder_of(variable: str, path: str) -> Path:
    # A wrong path must fail: as a skip it would turn off the tests that it was set for
    folder = Path(path).resolve()
    assert folder.is_dir(), f"{variable}={path!r} is no folder"
    return folder
