"""What is refused of a checkpoint's folder before its weights are loaded, whichever backend is to run it."""

import json

import pytest

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.errors import ModelError
from tests.backends.openai_server import save_tiny_model

BACKENDS = pytest.mark.parametrize("backend", ["hf", "qwen2"])


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


def spec_of(folder, backend, **args):
    return load_spec(RunConfig(model=backend, model_args={"pretrained": str(folder), **args}, offline=True))


@BACKENDS
def test_a_folder_without_a_tokenizer(folder, backend):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no tokenizer in .*model'.*tokenizer=NAME"):
        spec_of(folder, backend)


@BACKENDS
def test_the_tokenizer_of_another_model(folder, tmp_path, backend):
    other = save_tiny_model(tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(ModelError, match="embedding has 100 rows"):
        spec_of(folder, backend, tokenizer=str(other))


def test_a_dummys_tokenizer_without_a_vocabulary(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer in"):
        load_spec(RunConfig(model="dummy", model_args={"tokenizer": str(folder)}))


@BACKENDS
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs(folder, backend, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match=rf"{name}' is a git-lfs pointer"):
        spec_of(folder, backend)


@BACKENDS
def test_a_folder_of_an_adapter(folder, backend):
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelError, match="LoRA adapter"):
        spec_of(folder, backend)


@BACKENDS
def test_an_embedding_model(folder, backend):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_causal": False}))
    with pytest.raises(ModelError, match="is_causal"):
        spec_of(folder, backend)


def test_rope_that_is_said_twice_is_refused_or_noted(folder):
    """The backend of transformers takes `rope_scaling` and loses `rope_theta`, and says so."""
    config = json.loads((folder / "config.json").read_text())
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": yarn}))
    with pytest.raises(ModelError, match="both rope_scaling and rope_parameters"):
        spec_of(folder, "qwen2")
    assert "both rope_scaling and rope_parameters" in spec_of(folder, "hf").note
