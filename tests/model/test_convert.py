"""Converting: GGUF or safetensors to a Hugging Face folder that transformers loads, whole or not at all."""

import json
import shutil

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen2eval.errors import ModelError
from qwen2eval.model import load_model
from qwen2eval.model.convert import convert
from qwen2eval.model.save import new_folder
from tests.model.gguf_files import EXPERT_SIZES, SIZES, write_gguf
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny

HEADS = {"num_attention_heads": 4}
SETTINGS = {
    "dense": DENSE | SIZES | HEADS,
    "tied": DENSE | SIZES | HEADS | {"tie_word_embeddings": True},
    "moe": MOE | SIZES | HEADS | EXPERT_SIZES,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for name, settings in SETTINGS.items():
        save_tiny(root / name, **settings)
        (root / name / "generation_config.json").write_text('{"temperature": 0.7}')
    return {name: root / name for name in SETTINGS}


def logits_of_transformers(folder, ids):
    """Load as users do, and let nothing be missing, left over or of another shape."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("is_gguf", [False, True], ids=["safetensors", "gguf"])
def test_the_same_model_in_another_folder(folders, tmp_path, name, is_gguf):
    source = write_gguf(tmp_path / "x.gguf", folders[name]) if is_gguf else folders[name]
    written = convert(source, tmp_path / "out", dtype="float32")
    ids, files = random_ids(50), load_file(tmp_path / "out" / "model.safetensors")
    expected = load_model(folders[name])(ids)
    torch.testing.assert_close(load_model(tmp_path / "out")(ids), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_of_transformers(tmp_path / "out", ids), expected, atol=2e-5, rtol=0)
    assert (written.n_tensors, written.n_files, written.has_tokenizer) == (len(files), 1, False)
    assert written.n_bytes == sum(tensor.nbytes for tensor in files.values())
    assert (tmp_path / "out" / "generation_config.json").exists() is not is_gguf
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "all files are for the same readers"


def test_dtype(folders, tmp_path):
    convert(folders["dense"], tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["dense", "moe"])
def test_shards(folders, tmp_path, name):
    """Each file is under the limit, but for a tensor that is larger; the index is what transformers reads."""
    written = convert(folders[name], tmp_path / "out", dtype="float32", max_shard_gb=40e3 / 1e9)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == written.n_files > 3
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    for file in files:
        tensors = load_file(file)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 40e3
    ids = random_ids(9)
    expected = load_model(folders[name])(ids)
    torch.testing.assert_close(load_model(tmp_path / "out")(ids), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_of_transformers(tmp_path / "out", ids), expected, atol=2e-5, rtol=0)


def test_a_second_head_and_rotary_frequencies_are_left_out(folders, tmp_path):
    from safetensors.torch import save_file

    folder = shutil.copytree(folders["tied"], tmp_path / "tied")
    tensors = load_file(folder / "model.safetensors")
    extra = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors | extra, folder / "model.safetensors")
    convert(folder, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == tensors.keys()


def test_the_tokenizer_of_a_gguf_file(folders, tmp_path):
    """It says the same as the one whose vocabulary was written into the file."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, "he", "ll", "hell", "<|endoftext|>"]
    merges = ["h e", "l l", "he ll"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 1) + [3],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }
    path = write_gguf(tmp_path / "x.gguf", folders["dense"], metadata=metadata)
    assert convert(path, tmp_path / "out").has_tokenizer
    expected = Tokenizer(BPE({t: n for n, t in enumerate(tokens)}, [tuple(m.split()) for m in merges]))
    expected.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("hello, hé").input_ids == expected.encode("hello, hé").ids
    assert tokenizer.eos_token_id == len(tokens) - 1
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == len(tokens) - 1


def test_the_tokenizer_beside_a_gguf_file_wins(folders, tmp_path):
    write_gguf(tmp_path / "x.gguf", folders["dense"], kind=Kind.Q8_0)
    (tmp_path / "tokenizer.json").write_text('{"mine": true}')
    (tmp_path / "notes.txt").write_text("private")
    assert convert(tmp_path, tmp_path / "out").has_tokenizer
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"mine": true}'
    assert not (tmp_path / "out" / "notes.txt").exists()
    assert not convert(tmp_path / "x.gguf", tmp_path / "other").has_tokenizer


def test_what_is_there_stays(folders, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        convert(folders["dense"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "'int8'"), ({"max_shard_gb": 0}, "max_shard_gb"), ({"max_shard_gb": float("nan")}, "nan")],
)
def test_bad_options_leave_nothing(folders, tmp_path, options, message):
    with pytest.raises(ModelError, match=message):
        convert(folders["dense"], tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(folders, tmp_path):
    """A tensor of a dtype that can't be read, in the last layer."""
    from safetensors.torch import save_file

    folder = shutil.copytree(folders["dense"], tmp_path / "in")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.2.mlp.up_proj.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj"):
        convert(folder, tmp_path / "out", max_shard_gb=1e-5)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_incomplete_source_leaves_nothing(folders, tmp_path):
    folder = shutil.copytree(folders["dense"], tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4, "layer_types": None}))
    with pytest.raises(ModelError, match=r"lacks model\.layers\.3"):
        convert(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_disk_too_small_is_told_before_writing(tmp_path):
    with pytest.raises(ModelError, match=r"1000000\.0 GB, and the disk"), new_folder(tmp_path / "out", n_bytes=10**15):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cant_be_made(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="can't be created"):
        convert(folders["dense"], tmp_path / "file" / "out")


def test_what_a_killed_process_left_is_cleared(folders, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "part-1").write_text("half")
    convert(folders["dense"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "part-1").exists()


def test_progress_is_told(folders, tmp_path):
    told = []
    convert(folders["dense"], tmp_path / "out", on_layer=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
