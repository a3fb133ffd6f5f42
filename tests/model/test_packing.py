"""Packed weights give what the plain layers give, and one row's result whatever else is in the batch."""

import weakref

import pytest
import torch

from qwen2eval.model import load_model, packing
from qwen2eval.model.packing import PackedLinear, PackedSwiGLU, _can_pack, pack_linears
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny


@pytest.mark.parametrize("settings", [DENSE, DENSE | {"tie_word_embeddings": True}, MOE], ids=["dense", "tied", "moe"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 0.2)])
def test_logits_stay_the_same(tmp_path, settings, dtype, tolerance):
    """In bfloat16 the fused products round less often: 0.2 is two of its steps at the logits' size of 10 to 20."""
    save_tiny(tmp_path, **settings)
    plain, packed = load_model(tmp_path, dtype=dtype), load_model(tmp_path, dtype=dtype)
    pack_linears(packed)
    for n_tokens in (1, 2, 33):
        ids = random_ids(n_tokens)
        torch.testing.assert_close(packed(ids), plain(ids), atol=tolerance, rtol=0)


@pytest.mark.skipif(not _can_pack(torch.float32), reason="this torch was built without oneDNN")
def test_every_dense_layer_is_packed_once(tmp_path):
    save_tiny(tmp_path, **DENSE)
    model = load_model(tmp_path)
    pack_linears(model)
    pack_linears(model)
    layer = model.model.layers[0]
    assert isinstance(layer.mlp, PackedSwiGLU)
    assert isinstance(layer.self_attn.q_proj, PackedLinear)
    assert isinstance(model.lm_head, PackedLinear)
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())


def test_old_weights_are_let_go_layer_by_layer(tmp_path, monkeypatch):
    """All of them beside all of the new ones would be twice the model."""
    save_tiny(tmp_path, **DENSE | {"num_hidden_layers": 6})
    model = load_model(tmp_path)
    old = [weakref.ref(module) for module in model.modules() if isinstance(module, torch.nn.Linear)]
    alive = []
    pack = packing._packed

    def watched(weight):
        alive.append(sum(reference() is not None for reference in old))
        return pack(weight)

    monkeypatch.setattr(packing, "_packed", watched)
    pack_linears(model)
    assert len(alive) == len(old)
    assert all(n_alive <= len(old) - i + 3 for i, n_alive in enumerate(alive))


def test_a_dtype_that_cannot_be_packed_is_left_alone(tmp_path):
    save_tiny(tmp_path, **DENSE)
    model = load_model(tmp_path).double()
    before = model.state_dict().keys()
    pack_linears(model)
    assert model.state_dict().keys() == before


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 0.1)])
def test_the_head_of_generation_gives_the_models_logits(tmp_path, tied, dtype, tolerance):
    save_tiny(tmp_path, **DENSE | {"tie_word_embeddings": tied})
    model = load_model(tmp_path, dtype=dtype)
    stream = torch.randn(5, model.config.hidden_size, generator=torch.Generator().manual_seed(0)).to(model.dtype)
    head = packing.generation_head(model)
    assert head(stream).dtype == torch.float32
    torch.testing.assert_close(head(stream), model.logits(stream), atol=tolerance, rtol=0)


@pytest.mark.skipif(not _can_pack(torch.float32), reason="this torch was built without oneDNN")
def test_only_a_tied_head_is_copied_for_generation(tmp_path, monkeypatch):
    for name, settings in (("tied", {"tie_word_embeddings": True}), ("untied", {})):
        save_tiny(tmp_path / name, **DENSE | settings)
    model = load_model(tmp_path / "tied")
    monkeypatch.setattr(model, "logits", None)
    packing.generation_head(model)(torch.ones(2, model.config.hidden_size))
    untied = load_model(tmp_path / "untied")
    assert packing.generation_head(untied) == untied.logits
