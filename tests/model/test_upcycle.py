"""Upcycling: what becomes of each column of the dense MLP, and a checkpoint that transformers takes."""

import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2MoeForCausalLM

from qwen2eval.errors import ModelError
from qwen2eval.model import Qwen2Config, load_model
from qwen2eval.model.upcycle import (
    MLP,
    N_SHARED,
    Upcycling,
    cut,
    expert_tensors,
    reinitialise,
    shuffled_columns,
    upcycle,
)
from tests.model.gguf_files import SIZES, write_gguf
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny

WIDTH, HIDDEN = 80, 48
# 7 experts of 24 are 168 columns: 3 copies of 80, of which 72 columns are dropped
PLAN = Upcycling(num_experts=7, moe_intermediate_size=24, num_experts_per_tok=2, shared_expert_intermediate_size=96)
PARTS = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "dense"
    save_tiny(folder, **DENSE)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def random_mlp() -> MLP:
    generator = torch.Generator().manual_seed(3)
    shapes = ((WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH))
    return MLP(*(torch.randn(shape, generator=generator) for shape in shapes))


def experts_of(mlp: MLP, plan: Upcycling, *, layer: int = 0) -> list[MLP]:
    tensors = dict(expert_tensors(mlp, plan, layer=layer))
    return [MLP(*(tensors[f"experts.{n}.{part}.weight"] for part in PARTS)) for n in range(plan.num_experts)]


def columns_of(expert: MLP) -> list[tuple[float, ...]]:
    """Return each intermediate column's values in all three matrices."""
    return [tuple(values.tolist()) for values in torch.cat([expert.gate_IC, expert.up_IC, expert.down_CI.T], dim=1)]


def run(mlp: MLP, x: torch.Tensor) -> torch.Tensor:
    return F.linear(F.silu(F.linear(x, mlp.gate_IC)) * F.linear(x, mlp.up_IC), mlp.down_CI)


def without_new(plan: Upcycling = PLAN, **changes) -> Upcycling:
    values = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    return Upcycling(**(values | {"reinit_ratio": 0.0} | changes))


def test_the_reports_figures():
    """64 experts of 2,560 from an MLP of 18,944: 9 copies, 6,656 columns dropped; the released shared expert."""
    plan = Upcycling(num_experts=64, moe_intermediate_size=2560)
    assert (plan.n_copies(18944), plan.n_dropped_columns(18944)) == (9, 6656)
    assert plan.shared_size == Qwen2Config.preset("Qwen2-57B-A14B").shared_expert_intermediate_size
    assert (PLAN.n_copies(WIDTH), PLAN.n_dropped_columns(WIDTH)) == (3, 72)


def test_experts_are_shuffled_copies_cut_in_pieces():
    """Without new values: every column is one of the MLP's, and each whole copy has them all, in another order."""
    mlp = random_mlp()
    place = {column: index for index, column in enumerate(columns_of(mlp))}
    order = [place[column] for expert in experts_of(mlp, without_new()) for column in columns_of(expert)]
    assert len(order) == 7 * 24
    copies = [order[:80], order[80:160], order[160:]]
    assert sorted(copies[0]) == sorted(copies[1]) == list(range(80))
    assert len(set(copies[2])) == 8
    assert copies[0] != copies[1] != list(range(80)) != copies[0]


def test_half_of_each_expert_is_new_and_the_rest_is_in_its_place():
    mlp = random_mlp()
    for old, new in zip(experts_of(mlp, without_new()), experts_of(mlp, PLAN), strict=True):
        is_kept = torch.cat([(a == b).flatten() for a, b in zip(old, new, strict=True)])
        values = torch.cat([matrix.flatten() for matrix in new])[~is_kept]
        # 3,456 coins and as many draws: beyond 5 standard errors once in 1.7 million experts
        assert abs(is_kept.float().mean().item() - 0.5) < 5 * 0.5 / 3456**0.5
        assert abs(values.std().item() - 0.02) < 5 * 0.02 / (2 * len(values)) ** 0.5
        assert abs(values.mean().item()) < 5 * 0.02 / len(values) ** 0.5


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_the_share_that_is_new(ratio):
    matrix = torch.full((400, 300), 7.0)
    share = (reinitialise(matrix, ratio, 0.02, torch.Generator().manual_seed(0)) != 7).float().mean().item()
    assert share == ratio if ratio in (0, 1) else abs(share - ratio) < 5 * (ratio * (1 - ratio) / 120_000) ** 0.5


def test_the_experts_of_one_copy_are_the_dense_mlp():
    """Four experts of 20 columns, none new, all active with weight 1."""
    mlp, x = random_mlp(), torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(4))
    plan = without_new(num_experts=4, moe_intermediate_size=20, shared_expert_intermediate_size=80)
    total = torch.stack([run(expert, x) for expert in experts_of(mlp, plan)]).sum(dim=0)
    # sums of 80 products of size up to some 50, in another order
    torch.testing.assert_close(total, run(mlp, x), atol=1e-3, rtol=1e-5)


def test_a_shared_expert_as_wide_as_the_mlp_is_the_mlp():
    mlp, x = random_mlp(), torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(4))
    plan = without_new(num_experts=4, moe_intermediate_size=20, shared_expert_intermediate_size=80, reinit_ratio=0.5)
    tensors = dict(expert_tensors(mlp, plan, layer=0))
    shared = MLP(*(tensors[f"shared_expert.{part}.weight"] for part in PARTS))
    assert not torch.equal(shared.gate_IC, mlp.gate_IC)
    torch.testing.assert_close(run(shared, x), run(mlp, x), atol=1e-3, rtol=1e-5)


def test_router_and_gate():
    tensors = dict(expert_tensors(random_mlp(), PLAN, layer=0))
    assert tensors["gate.weight"].shape == (7, HIDDEN)
    assert abs(tensors["gate.weight"].std().item() - 0.02) < 0.005
    assert torch.equal(tensors["shared_expert_gate.weight"], torch.zeros(1, HIDDEN))


def test_layers_experts_and_seeds_differ_and_repeat():
    mlp = random_mlp()
    first, again, other_layer, other_seed = (
        dict(expert_tensors(mlp, plan, layer=layer))
        for plan, layer in ((PLAN, 0), (PLAN, 0), (PLAN, 1), (without_new(reinit_ratio=0.5, seed=1), 0))
    )
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key])
        if key != "shared_expert_gate.weight":
            assert not torch.equal(tensor, other_layer[key])
            assert not torch.equal(tensor, other_seed[key])
    one = dict(expert_tensors(mlp, without_new(reinit_ratio=1.0), layer=0))
    assert not torch.equal(one["experts.0.up_proj.weight"], one["experts.1.up_proj.weight"])


def test_nothing_depends_on_torchs_own_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dict(expert_tensors(random_mlp(), PLAN, layer=0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(dict(expert_tensors(random_mlp(), PLAN, layer=0))["gate.weight"], first["gate.weight"])


def test_columns_and_cut_on_a_tiny_mlp():
    columns = shuffled_columns(5, 3, torch.Generator().manual_seed(0))
    assert sorted(columns[:3].tolist()) == [0, 1, 2]
    mlp = MLP(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), torch.tensor([[5.0, 6.0]]))
    swapped = cut(mlp, torch.tensor([1, 0]))
    assert [matrix.tolist() for matrix in swapped] == [[[2], [1]], [[4], [3]], [[6, 5]]]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_transformers_loads_it_and_says_the_same(tmp_path, tied):
    save_tiny(tmp_path / "dense", **(DENSE | {"tie_word_embeddings": tied}))
    written = upcycle(tmp_path / "dense", tmp_path / "moe", PLAN, dtype="float32", max_shard_gb=1e-4)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "moe", output_loading_info=True)
    assert isinstance(theirs, Qwen2MoeForCausalLM)
    assert not any(info.values()), info
    ids = random_ids(100)
    ours = load_model(tmp_path / "moe")
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=2e-5, rtol=0)
    assert written.n_files > 3
    assert written.n_bytes == 4 * ours.config.n_parameters == 4 * sum(p.numel() for p in ours.parameters())


def test_all_but_the_mlps_stays(dense, tmp_path):
    upcycle(dense, tmp_path / "moe", PLAN, dtype="float32")
    before, after = (load_file(folder / "model.safetensors") for folder in (dense, tmp_path / "moe"))
    assert {key for key in after if ".mlp." not in key} == {key for key in before if ".mlp." not in key}
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items() if ".mlp." not in key)
    experts = {"num_experts": 7, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 96}
    expected = dataclasses.replace(Qwen2Config.from_hf(dense), num_experts_per_tok=2, **experts)
    assert Qwen2Config.from_hf(tmp_path / "moe") == expected
    assert (tmp_path / "moe" / "tokenizer.json").is_file()


def test_the_written_experts_are_those_of_their_layer(dense, tmp_path):
    """Whatever the dtype and the size of files: values are drawn in float32, then rounded."""
    upcycle(dense, tmp_path / "moe", PLAN, max_shard_gb=2e-5)
    before, after = load_file(dense / "model.safetensors"), {}
    for file in (tmp_path / "moe").glob("*.safetensors"):
        after |= load_file(file)
    for layer in range(3):
        mlp = MLP(*(before[f"model.layers.{layer}.mlp.{part}.weight"] for part in PARTS))
        for key, tensor in expert_tensors(mlp, PLAN, layer=layer):
            assert torch.equal(after[f"model.layers.{layer}.mlp.{key}"], tensor.bfloat16())


def test_a_gguf_file_can_be_upcycled(tmp_path):
    save_tiny(tmp_path / "dense", **(DENSE | SIZES | {"num_attention_heads": 4}))
    path = write_gguf(tmp_path / "x.gguf", tmp_path / "dense")
    for source, out in ((path, "of_gguf"), (tmp_path / "dense", "of_folder")):
        upcycle(source, tmp_path / out, PLAN, dtype="float32")
    first, second = (load_file(tmp_path / out / "model.safetensors") for out in ("of_gguf", "of_folder"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_a_mixture_is_refused(tmp_path):
    save_tiny(tmp_path / "moe", **MOE)
    with pytest.raises(ModelError, match="mixture of experts already"):
        upcycle(tmp_path / "moe", tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(dense, tmp_path):
    with pytest.raises(ModelError, match="exists already"):
        upcycle(dense, shutil.copytree(dense, tmp_path / "out"), PLAN)
    assert load_model(tmp_path / "out").config.num_experts == 0


def test_an_incomplete_source_is_refused(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match=r"mlp\.gate_proj\.weight.*\(80, 48\).*\(96, 48\)"):
        upcycle(folder, tmp_path / "out", PLAN)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 0}, "must be 1 or more"),
        ({"moe_intermediate_size": -1}, "must be 1 or more"),
        ({"num_experts_per_tok": 8}, "8 experts, but there are 7"),
        ({"shared_expert_intermediate_size": 100}, r"\(100\) is not a multiple of a routed one's \(24\)"),
        ({"shared_expert_intermediate_size": 0}, "must be 1 or more"),
        ({"reinit_ratio": 1.5}, "0 to 1"),
        ({"reinit_ratio": float("nan")}, "0 to 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sizes_that_make_no_experts(changes, message):
    with pytest.raises(ModelError, match=message):
        without_new(**changes)


def test_the_default_shared_expert_is_eight_wide():
    plan = Upcycling(num_experts=8, moe_intermediate_size=24)
    assert plan.shared_size == N_SHARED * 24 == 192
