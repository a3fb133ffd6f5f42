"""GGUF: the same model as its safetensors, in every stored type; broken files and other models are refused by name."""

import shutil
import struct
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

from qwen2eval.errors import ModelError
from qwen2eval.model import Qwen2Config, load_model
from qwen2eval.model.gguf import GgufCheckpoint
from qwen2eval.model.gguf_header import Array, read_header
from tests.model.gguf_files import EXPERT_SIZES, SIZES, dequantised, gguf_tensors, write_gguf
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny

YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
HEADS = {"num_attention_heads": 4}
MODELS = {
    "dense": DENSE | SIZES | HEADS,
    "tied": DENSE | SIZES | HEADS | {"tie_word_embeddings": True},
    "yarn": DENSE | SIZES | HEADS | {"rope_parameters": YARN},
    "moe": MOE | SIZES | HEADS | EXPERT_SIZES,
}
# Logits of size 1 to 10: the same weights at other addresses are summed in other groups
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the safetensors folder of each model, by name."""
    root = tmp_path_factory.mktemp("folders")
    for name, settings in MODELS.items():
        save_tiny(root / name, **settings)
    return {name: root / name for name in MODELS}


@pytest.fixture
def file(folders, tmp_path):
    """Return a healthy GGUF file of the dense model."""
    return write_gguf(tmp_path / "x.gguf", folders["dense"])


def assert_same_model(path, folder, **options):
    ours, expected = load_model(path, **options), load_model(folder, **options)
    for name, parameter in expected.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter), name
    ids = random_ids(100)
    torch.testing.assert_close(ours(ids), expected(ids), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_float32_equals_safetensors(folders, tmp_path, name):
    path = write_gguf(tmp_path / "x.gguf", folders[name])
    assert Qwen2Config.from_hf(path) == Qwen2Config.from_hf(folders[name])
    assert_same_model(path, folders[name])


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q5_1], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["tied", "moe"])
def test_other_types_equal_their_dequantised_weights(folders, tmp_path, name, kind):
    path = write_gguf(tmp_path / "x.gguf", folders[name], kind=kind)
    expected = dequantised(folders[name], tmp_path / "expected", kind)
    assert_same_model(path, expected)
    assert_same_model(path, expected, dtype="bfloat16")
    assert not torch.equal(load_model(path)(random_ids(5)), load_model(folders[name])(random_ids(5)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random bytes hold scales that are not a number
@pytest.mark.parametrize("kind", sorted(gguf.quants._type_traits), ids=lambda kind: kind.name)
def test_every_type_that_the_package_dequantises(tmp_path, kind):
    """Also over more rows than are dequantised at once."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = 1024 // block_size
    stored = np.random.default_rng(0).integers(0, 256, (5000, n_blocks * block_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "qwen2")
    writer.add_tensor("blk.0.ffn_up.weight", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufCheckpoint(tmp_path / "x.gguf").read("model.layers.0.mlp.up_proj.weight", torch.float32, (5000, 1024))
    expected = torch.from_numpy(gguf.quants.dequantize(stored, kind))
    torch.testing.assert_close(read, expected, atol=0, rtol=0, equal_nan=True)


def test_a_folder_with_one_gguf_file(folders, tmp_path, file):
    assert_same_model(tmp_path, folders["dense"])
    shutil.copy(file, tmp_path / "y.gguf")
    with pytest.raises(ModelError, match=r"2 GGUF files: name one of them, such as .*x\.gguf"):
        load_model(tmp_path)
    # Safetensors, where there are some, are what the folder is
    folder = shutil.copytree(folders["tied"], tmp_path / "both")
    shutil.copy(file, folder)
    assert load_model(folder).lm_head is None


def test_yarn_can_be_chosen(file):
    assert load_model(file, yarn_factor=2).config.max_length == 512


def test_a_squeezed_gate_of_the_shared_expert(folders, tmp_path):
    """llama.cpp's older converter squeezed matrices of one row."""
    tensors = gguf_tensors(folders["moe"])
    tensors |= {name: values[0] for name, values in tensors.items() if "gate_inp_shexp" in name}
    assert_same_model(write_gguf(tmp_path / "x.gguf", folders["moe"], tensors=tensors), folders["moe"])


def test_all_keys_of_transformers_are_found(folders, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", folders["moe"])
    assert set(GgufCheckpoint(path).keys) == set(load_file(folders["moe"] / "model.safetensors"))


def test_metadata_without_the_vocabulary(folders, tmp_path):
    """Texts are passed over, whatever their number; numbers are the ones that were meant."""
    more = {"tokenizer.ggml.tokens": ["a", "bé", ""] * 50, "tokenizer.ggml.eos_token_id": 7}
    header = read_header(write_gguf(tmp_path / "x.gguf", folders["dense"], metadata=more))
    assert header.metadata["tokenizer.ggml.tokens"] == Array(150)
    assert header.metadata["tokenizer.ggml.eos_token_id"] == 7
    assert header.metadata["qwen2.attention.layer_norm_rms_epsilon"] == 1e-6


def test_a_tensor_too_many_and_one_missing(folders, tmp_path):
    tensors = gguf_tensors(folders["dense"])
    more = tensors | {"rope_freqs.weight": np.ones(8, np.float32)}
    with pytest.raises(ModelError, match=r"holds rope_freqs\.weight, which no part.*its metadata"):
        load_model(write_gguf(tmp_path / "more.gguf", folders["dense"], tensors=more))
    del tensors["blk.1.attn_q.bias"]
    with pytest.raises(ModelError, match=r"less\.gguf' lacks blk\.1\.attn_q\.bias, which its metadata asks for"):
        load_model(write_gguf(tmp_path / "less.gguf", folders["dense"], tensors=tensors))


def test_an_expert_too_few(folders, tmp_path):
    tensors = gguf_tensors(folders["moe"])
    tensors["blk.2.ffn_up_exps.weight"] = tensors["blk.2.ffn_up_exps.weight"][:4]
    with pytest.raises(ModelError, match=r"lacks blk\.2\.ffn_up_exps\.weight \(expert 4\)"):
        load_model(write_gguf(tmp_path / "x.gguf", folders["moe"], tensors=tensors))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "llama"}, r"x\.gguf' is of model_type 'llama'.*qwen2 and qwen2_moe"),
        (
            {"qwen2.feed_forward_length": 97},
            r"blk\.0\.ffn_gate\.weight in .*x\.gguf'.*\(96, 64\).*metadata.*\(97, 64\)",
        ),
        ({"qwen2.block_count": None}, "lacks num_hidden_layers"),
        ({"qwen2.block_count": 2}, r"holds blk\.2\."),
        ({"qwen2.attention.head_count_kv": [2, 2, 1]}, "head_count_kv is an array"),
        ({"qwen2.attention.head_count": 3.5}, "num_attention_heads is 3.5"),
        ({"qwen2.rope.scaling.type": "longrope"}, "'longrope'"),
        ({"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 2.0}, "'linear'"),
        ({"qwen2.rope.scaling.type": "yarn"}, "without a factor"),
        ({"qwen2.rope.scaling.attn_factor": 0.5}, r"attn_factor = 0\.5"),
        ({"split.count": 3, "split.no": 0}, "one of 3 parts.*llama-gguf-split --merge"),
        ({"general.alignment": 48}, r"x\.gguf' is truncated or corrupt \(its alignment is 48\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_model_is_named(folders, tmp_path, metadata, message):
    with pytest.raises(ModelError, match=message):
        load_model(write_gguf(tmp_path / "x.gguf", folders["dense"], metadata=metadata))


def test_linear_scaling_by_one_is_none(folders, tmp_path):
    metadata = {"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 1.0}
    assert_same_model(write_gguf(tmp_path / "x.gguf", folders["dense"], metadata=metadata), folders["dense"])


def test_truncated_anywhere_is_an_error(file, tmp_path):
    """Every byte of the head, and the last tensor's last; the gguf package itself reads on behind the end."""
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    head = whole.index(b"blk.2.ffn_up.weight") + 200
    for n_bytes in [*range(0, head, 7), len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelError, match=r"cut\.gguf' (is truncated or corrupt|is not a GGUF)|it is truncated"):
            load_model(cut)


@pytest.mark.parametrize(
    ("start", "written", "message"),
    [
        (0, b"GGML", "is not a GGUF file"),
        (4, struct.pack("<I", 1), "of version 1"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 1 << 60), "truncated or corrupt"),
        (16, struct.pack("<Q", 1 << 60), "truncated or corrupt"),
        (24, struct.pack("<Q", 1 << 62), "truncated or corrupt.*within its head"),
    ],
    ids=["magic", "version", "endianness", "tensor-count", "value-count", "key-length"],
)
def test_a_corrupt_head_is_named(file, start, written, message):
    content = bytearray(file.read_bytes())
    content[start : start + len(written)] = written
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(file)


@pytest.mark.parametrize(
    ("type_id", "message"),
    [(99, "of type 99.*update it"), (int(Kind.Q8_K), "Q8_K"), (int(Kind.I32), "I32, which.*can't dequantise")],
    ids=["unknown", "another block", "not dequantised"],
)
def test_another_type_is_named(file, type_id, message):
    content = bytearray(file.read_bytes())
    name = b"blk.1.attn_k.bias"  # one dimension: name, count, length, type
    at = content.index(name) + len(name) + 4 + 8
    content[at : at + 4] = struct.pack("<I", type_id)
    file.write_bytes(content)
    with pytest.raises(ModelError, match=rf"blk\.1\.attn_k\.bias in .*x\.gguf'.*{message}"):
        load_model(file)


def test_two_tensors_of_one_name(file):
    content = file.read_bytes().replace(b"blk.1.attn_k.bias", b"blk.0.attn_k.bias")
    file.write_bytes(content)
    with pytest.raises(ModelError, match="same name"):
        load_model(file)


def test_no_file(tmp_path):
    with pytest.raises(ModelError, match=r"no file .*x\.gguf"):
        load_model(tmp_path / "x.gguf")


def test_without_the_package_says_what_to_install(file):
    """The head is read all the same."""
    code = f"""
import sys
sys.modules["gguf"] = None
from qwen2eval.model import Qwen2Config
assert Qwen2Config.from_hf({str(file)!r}).hidden_size == 64
assert "torch" not in sys.modules
from qwen2eval.model import load_model
load_model({str(file)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'qwen2eval[gguf]'" in done.stderr.splitlines()[-1]
    assert "ModelError" in done.stderr.splitlines()[-1]
