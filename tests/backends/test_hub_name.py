"""A model named as on the hub, found in the local hub cache: the way that users name most models."""

import shutil

import pytest

from qwen2eval import RunConfig, run
from qwen2eval.backends.fingerprint import fingerprint_checkpoint
from tests.backends.openai_server import save_tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def _hub_cache(tmp_path, monkeypatch):
    """Lay a tiny model out as `huggingface_hub` keeps a downloaded repository."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repository = cache / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    shutil.move(save_tiny_model(tmp_path / "model"), snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.usefixtures("_hub_cache")
@pytest.mark.parametrize("backend", ["hf", "qwen2"])
def test_a_hub_name_runs_and_is_told_apart_by_its_commit(tmp_path, backend):
    config = RunConfig(
        model=backend,
        model_args={"pretrained": "someone/tiny", "dtype": "float32"},
        tasks=("demo_mmlu",),
        limit=2,
        num_fewshot=0,
        output_path=str(tmp_path / "runs"),
        offline=True,
    )
    finished = run(config, quiet=True)
    assert finished.info.model.path == "someone/tiny"
    assert finished.scores["n_docs"].tolist() == [2]
    assert fingerprint_checkpoint("someone/tiny") == f"hub:someone/tiny@{COMMIT}"
