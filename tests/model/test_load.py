"""Loading: one file, shards, both forms of experts, dtypes; and every broken checkpoint is an error that names it."""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen2eval.errors import ModelError
from qwen2eval.model import load_model
from qwen2eval.model.open_checkpoint import open_checkpoint
from tests.model.gguf_files import write_gguf
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny

EXTRA = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folders of a dense and a MoE checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    save_tiny(folder / "dense", **DENSE)
    save_tiny(folder / "moe", **MOE)
    return folder


@pytest.fixture
def dense(saved, tmp_path):
    return shutil.copytree(saved / "dense", tmp_path / "dense")


def rewrite(folder, change) -> None:
    """Let `change` alter the tensors of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def set_config(folder, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def shard(folder) -> dict[str, str]:
    """Cut a checkpoint in three shards, as transformers does; return which shard holds each key."""
    tensors = load_file(folder / "model.safetensors")
    shards = {key: f"model-{number % 3 + 1:05}-of-00003.safetensors" for number, key in enumerate(tensors)}
    for file in set(shards.values()):
        save_file({key: tensors[key] for key in tensors if shards[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (folder / "model.safetensors").unlink()
    return shards


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_shards_equal_one_file(saved, tmp_path, kind):
    folder, ids = shutil.copytree(saved / kind, tmp_path / kind), random_ids(9)
    shard(folder)
    torch.testing.assert_close(load_model(folder)(ids), load_model(saved / kind)(ids), atol=1e-5, rtol=0)


def test_fused_experts_equal_single_ones(saved, tmp_path):
    """Newer writers hold the experts of a layer in two tensors."""
    folder, ids = shutil.copytree(saved / "moe", tmp_path / "moe"), random_ids(9)

    def fuse(tensors):
        for layer in range(3):
            stem = f"model.layers.{layer}.mlp.experts"
            experts = [
                {part: tensors.pop(f"{stem}.{expert}.{part}_proj.weight") for part in ("gate", "up", "down")}
                for expert in range(5)
            ]
            tensors[f"{stem}.gate_up_proj"] = torch.stack([torch.cat([e["gate"], e["up"]]) for e in experts])
            tensors[f"{stem}.down_proj"] = torch.stack([e["down"] for e in experts])

    rewrite(folder, fuse)
    # not to the bit: tensors lie at other addresses of the file, which decides how sums are grouped
    torch.testing.assert_close(load_model(folder)(ids), load_model(saved / "moe")(ids), atol=1e-5, rtol=0)


def test_known_extras_are_dropped(dense):
    """A tied checkpoint may hold its head twice, an old one the rotary frequencies."""
    set_config(dense, tie_word_embeddings=True)
    head = {"lm_head.weight": load_file(dense / "model.safetensors")["model.embed_tokens.weight"].clone()}
    rewrite(dense, lambda tensors: tensors.update({EXTRA: torch.ones(4), **head}))
    model = load_model(dense)
    assert model.lm_head is None


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
def test_weights_stay_in_the_map(dense):
    """Weights of the wanted dtype lie in the mapped file; others are copied, and nothing keeps the map then."""

    def map_of(tensor: torch.Tensor) -> str:
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if start <= tensor.data_ptr() < end:
                return line
        raise AssertionError("in no map")

    assert "model.safetensors" in map_of(load_model(dense).model.norm.weight)
    gc.collect()
    half = load_model(dense, dtype="bfloat16")
    assert "model.safetensors" not in map_of(half.model.norm.weight)
    assert str(dense) not in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
@pytest.mark.parametrize("is_gguf", [False, True], ids=["safetensors", "gguf"])
def test_release_unmaps_what_no_tensor_needs(dense, tmp_path, is_gguf):
    """What was read and copied takes no memory any more; it can be read again."""
    path = write_gguf(tmp_path / "x.gguf", dense) if is_gguf else dense
    checkpoint = open_checkpoint(path)
    first = checkpoint.read("model.norm.weight", torch.bfloat16)
    assert str(path) in Path("/proc/self/maps").read_text()
    checkpoint.release()
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert torch.equal(checkpoint.read("model.norm.weight", torch.bfloat16), first)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_dtype(dense, dtype):
    model = load_model(dense, dtype=dtype)
    expected = {torch.float16 if dtype is torch.float16 else torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == expected
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, "'int3'.*float32, bfloat16, float16"),
        ({"dtype": torch.int8}, r"torch\.int8"),
        ({"device": "toaster"}, "'toaster'"),
        ({"device": "cuda:99"}, "'cuda:99'"),
        ({"yarn_factor": 0.5}, "factor"),
    ],
)
def test_unknown_options(dense, options, message):
    with pytest.raises(ModelError, match=message):
        load_model(dense, **options)


def test_a_missing_key_is_named(dense):
    rewrite(dense, lambda tensors: tensors.pop("model.layers.1.self_attn.q_proj.bias"))
    with pytest.raises(ModelError, match=r"lacks model\.layers\.1\.self_attn\.q_proj\.bias, which"):
        load_model(dense)


def test_a_missing_expert_is_named(saved, tmp_path):
    folder = shutil.copytree(saved / "moe", tmp_path / "moe")
    rewrite(folder, lambda tensors: tensors.pop("model.layers.2.mlp.experts.4.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lacks model\.layers\.2\.mlp\.experts\.4\.up_proj\.weight"):
        load_model(folder)


def test_left_over_keys_are_named_and_counted(dense):
    rewrite(dense, lambda tensors: tensors.update({f"adapter.{n}": torch.ones(2) for n in range(7)}))
    with pytest.raises(ModelError, match=r"holds adapter\.0, .*adapter\.4 and 2 more"):
        load_model(dense)


def test_a_layer_too_many_is_left_over(dense):
    set_config(dense, num_hidden_layers=2, layer_types=["full_attention"] * 2)
    with pytest.raises(ModelError, match=r"holds model\.layers\.2\."):
        load_model(dense)


def test_layers_beyond_all_tensors_are_refused_at_once(dense):
    """A corrupt GGUF file that asked for four thousand million layers was building them until it was killed."""
    set_config(dense, num_hidden_layers=1 << 32, layer_types=None)
    with pytest.raises(ModelError, match=r"4,294,967,296 layers, but there are 39 tensors"):
        load_model(dense)


def test_sizes_beyond_all_memory_are_refused(dense):
    set_config(dense, hidden_size=6 << 30)
    with pytest.raises(ModelError, match="beyond all memory"):
        load_model(dense)


def test_a_missing_head_asks_for_tying(dense):
    rewrite(dense, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"lacks lm_head\.weight.*tie_word_embeddings"):
        load_model(dense)


def test_another_shape_is_named(dense):
    set_config(dense, intermediate_size=81)
    with pytest.raises(ModelError, match=r"mlp\.gate_proj\.weight.*\(80, 48\).*\(81, 48\)"):
        load_model(dense)


def test_another_stored_dtype_is_named(dense):
    rewrite(dense, lambda tensors: tensors.update({"model.norm.weight": torch.ones(48, dtype=torch.int8)}))
    with pytest.raises(ModelError, match=r"model\.norm\.weight.*I8"):
        load_model(dense)


@pytest.mark.parametrize("n_bytes", [0, 5, 1000, -1], ids=["empty", "no-header", "half-header", "last-byte"])
def test_a_truncated_file_is_named(dense, n_bytes):
    file = dense / "model.safetensors"
    file.write_bytes(file.read_bytes()[:n_bytes])
    with pytest.raises(ModelError, match=r"model\.safetensors' is truncated or corrupt"):
        load_model(dense)


def test_a_corrupt_header_is_named(dense):
    file = dense / "model.safetensors"
    file.write_bytes(b"\xff" * 2000)
    with pytest.raises(ModelError, match=r"model\.safetensors' is truncated or corrupt"):
        load_model(dense)


def test_a_missing_shard_is_named(dense):
    file = sorted(set(shard(dense).values()))[1]
    (dense / file).unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.safetensors' is missing"):
        load_model(dense)


def test_a_key_in_another_shard_than_declared_is_named(dense):
    shards = shard(dense)
    shards["model.norm.weight"] = next(file for file in shards.values() if file != shards["model.norm.weight"])
    (dense / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"model\.norm\.weight, which model-"):
        load_model(dense)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(dense, text):
    shard(dense)
    (dense / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index\.json"):
        load_model(dense)


def test_no_weights_says_what_is_there(dense, tmp_path):
    (dense / "model.safetensors").rename(dense / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: convert"):
        load_model(dense)
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "nowhere")


def test_another_architecture_is_named(dense):
    set_config(dense, model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(ModelError, match="LlamaForCausalLM"):
        load_model(dense)


def test_an_input_over_the_length_is_refused(dense):
    model = load_model(dense)
    with pytest.raises(ModelError, match=r"257 tokens.*256.*yarn_factor=2"):
        model(random_ids(257))
    load_model(dense, yarn_factor=2)(random_ids(257))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123abcd\nsize 1260367448\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs_is_named(dense, name):
    if name.endswith(".index.json"):
        (dense / "model.safetensors").unlink()
    (dense / name).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{name}' is a git-lfs pointer.*git lfs pull"):
        load_model(dense)


def test_a_folder_of_an_adapter_is_named(dense):
    (dense / "model.safetensors").rename(dense / "adapter_model.safetensors")
    (dense / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"LoRA adapter.*merge"):
        load_model(dense)


def test_the_suffix_of_a_gguf_file_may_be_in_capitals(saved, tmp_path):
    path, ids = write_gguf(tmp_path / "x.gguf", saved / "dense"), random_ids(9)
    path = path.rename(tmp_path / "X.GGUF")
    assert torch.equal(load_model(path)(ids), load_model(tmp_path)(ids))
