"""Our logits are those of transformers' Qwen2 and Qwen2Moe, on tiny random models and on a real checkpoint.

Tolerance: 2e-5 on logits of size 1 to 10 in float32. Both sum some 100 products a number in float32 (relative error
1e-7 each) in another order where the cache splits the keys; a wrong bias, norm, group or expert shows at 1e-2 and more.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from qwen2eval.model import Yarn, load_model
from qwen2eval.model.cache import KVCache
from qwen2eval.model.convert import convert
from qwen2eval.model.packing import pack_linears
from qwen2eval.model.rope import attention_factor, frequencies
from tests.model.tiny import DENSE, MOE, make_pair, random_ids, save_tiny

TOLERANCE = 2e-5
# The trained length is 32 here, so that 100 tokens reach into what is stretched
YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    }
}

VARIANTS = {
    "tied": DENSE | {"tie_word_embeddings": True},
    "untied": DENSE | {"tie_word_embeddings": False},
    "one-group": DENSE | {"num_key_value_heads": 1},
    "no-groups": DENSE | {"num_key_value_heads": 6},
    "eps": DENSE | {"rms_norm_eps": 0.1},
    "head-dim": DENSE | {"head_dim": 16},
    "yarn": DENSE | YARN,
    "yarn-attention-factor": DENSE | {"rope_parameters": YARN["rope_parameters"] | {"attention_factor": 1.7}},
    "moe": MOE,
    "moe-renormalised": MOE | {"norm_topk_prob": True},
    "moe-one-expert": MOE | {"num_experts_per_tok": 1},
    "moe-every-second": MOE | {"decoder_sparse_step": 2},
    "moe-dense-layer": MOE | {"mlp_only_layers": [1]},
    "moe-tied-yarn": MOE | YARN | {"tie_word_embeddings": True},
}


@pytest.fixture(scope="module", params=VARIANTS, ids=list(VARIANTS))
def pair(request, tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("tiny"), **VARIANTS[request.param])


@pytest.fixture(scope="module")
def ids():
    return random_ids(100)


@pytest.fixture(scope="module")
def expected(pair, ids):
    with torch.no_grad():
        return pair.theirs(ids).logits


def test_whole_sequence(pair, ids, expected):
    logits = pair.ours(ids)
    assert logits.shape == (2, 100, 97)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_in_chunks_with_the_cache(pair, ids, expected):
    cache = KVCache(pair.ours.config)
    logits = torch.cat([pair.ours(part, cache) for part in ids.split([1, 37, 2, 60], dim=1)], dim=1)
    assert cache.length == 100
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_token_by_token_with_the_cache(pair, ids, expected):
    cache = KVCache(pair.ours.config, capacity=10)
    logits = torch.cat([pair.ours(part, cache) for part in ids.split(1, dim=1)], dim=1)
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_a_truncated_cache_takes_another_continuation(tmp_path):
    pair, ids = make_pair(tmp_path, **DENSE), random_ids(20)
    other = random_ids(20, seed=7)
    cache = KVCache(pair.ours.config)
    pair.ours(ids, cache)
    cache.truncate(12)
    logits = pair.ours(other[:, 12:], cache)
    whole = pair.ours(torch.cat([ids[:, :12], other[:, 12:]], dim=1))
    torch.testing.assert_close(logits, whole[:, 12:], atol=TOLERANCE, rtol=0)


def test_yarn_by_option_is_yarn_in_the_file(tmp_path):
    theirs = save_tiny(tmp_path / "yarn", **DENSE | {"max_position_embeddings": 32} | YARN)
    save_tiny(tmp_path / "plain", **DENSE | {"max_position_embeddings": 32})
    ours, ids = load_model(tmp_path / "plain", yarn_factor=4), random_ids(100)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)
    assert ours.config.max_length == 128


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("factor", [4.0, 1.5])
def test_yarn_frequencies_of_the_released_shapes(head_dim, factor):
    """Heads of 64 and 128, base 1e6, trained on 32,768 tokens: the ramp starts inside, and all is equal to the bit."""
    scaling = {"rope_type": "yarn", "rope_theta": 1e6, "factor": factor, "original_max_position_embeddings": 32768}
    config = Qwen2Config(**DENSE | {"head_dim": head_dim, "rope_parameters": scaling})
    expected, expected_factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    assert torch.equal(frequencies(head_dim, 1e6, Yarn(factor=factor)), expected)
    assert attention_factor(Yarn(factor=factor)) == expected_factor


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(tmp_path, dtype):
    """Logits in half precision differ as transformers' do: by the rounding of 8 or 11 bits through three layers."""
    pair, ids = make_pair(tmp_path, load={"dtype": dtype}, **MOE), random_ids(40)
    with torch.no_grad():
        wide = pair.theirs(ids).logits
        near = pair.theirs.to(getattr(torch, dtype))(ids).logits.float()
    ours = pair.ours(ids)
    assert ours.dtype == torch.float32
    assert (ours - wide).abs().mean() < 1.5 * (near - wide).abs().mean() + 1e-4


def test_blocks_of_plain_torch_equal_the_fused_kernel():
    """On other devices than a CPU, attention is computed in blocks: same output and log-sum-exp within 1e-5."""
    from qwen2eval.model.attention import _QUERY_BLOCK, _attend_in_blocks

    n_tokens = 2 * _QUERY_BLOCK + 9
    q, k, v = (torch.randn(2, 3, n_tokens, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    for causal in (True, False):
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=0.4)
        for got, wanted in zip(_attend_in_blocks(q, k, v, causal=causal, scale=0.4), fused, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_heads_that_share_their_keys_need_no_copies_of_them():
    from qwen2eval.model.attention import _attend_folded, _attend_in_blocks

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((3, 300), (1, 40), (1, 40)))
    k, v = k.expand(-1, 3, -1, -1), v.expand(-1, 3, -1, -1)
    folded, wanted = _attend_folded(q, k, v, scale=0.4), _attend_in_blocks(q, k, v, causal=False, scale=0.4)
    for got, other in zip(folded, wanted, strict=True):
        torch.testing.assert_close(got, other, atol=1e-5, rtol=0)


TEXTS = {
    "english": lambda data_dir: (data_dir / "haystack" / "en" / "1661.txt").read_text()[5_000:],
    "chinese": lambda data_dir: (data_dir / "haystack" / "zh" / "23962-0.txt").read_text()[5_000:],
    "code": lambda _data_dir: Path(__file__).read_text(),
}


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_real_checkpoint(real_model, data_dir):
    """256 tokens of each: whole, in pieces and token by token; logits within 1e-3 (they range over 30) in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    ids = {
        language: tokenizer(read(data_dir)[:4_000], return_tensors="pt").input_ids[:, :256]
        for language, read in TEXTS.items()
    }
    theirs = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    with torch.no_grad():
        expected = {language: theirs(row).logits for language, row in ids.items()}
    del theirs
    ours = load_model(real_model, dtype="float32")
    cached = {}
    for language, row in ids.items():
        assert row.shape == (1, 256)
        cache = KVCache(ours.config)
        cached[language] = torch.cat([ours(part, cache) for part in row.split([144, *[1] * 32, 80], dim=1)], dim=1)
    pack_linears(ours)
    for language, row in ids.items():
        for logits in (cached[language], ours(row)):
            assert (logits - expected[language]).abs().max() < 1e-3, language


# What transformers computes as a plain Qwen2, or as YARN, though it is said in another way; each with what is saved
SAID_OTHERWISE = {
    "older-yarn": ({}, {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": YARN["rope_parameters"]}),
    "theta-beside": ({}, {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5}),
    "theta-twice": ({}, {"rope_theta": 5e5}),
    "yarn-trained-length-beside": (YARN, {"original_max_position_embeddings": 4}),
    "yarn-defaults-spelled-out": (
        {},
        {"rope_parameters": YARN["rope_parameters"] | {"truncate": True, "mscale": None}},
    ),
    "yarn-in-both-forms": (YARN, {"rope_scaling": YARN["rope_parameters"]}),
    "all-heads": ({"num_key_value_heads": 6}, {"num_key_value_heads": None}),
    "window-of-no-layer": ({}, {"use_sliding_window": True, "max_window_layers": 3, "layer_types": None}),
    "no-window": ({}, {"use_sliding_window": True, "sliding_window": None, "layer_types": None}),
    "swish": ({}, {"hidden_act": "swish"}),
    "biases-of-other-models": ({}, {"attention_bias": False, "mlp_bias": True}),
}


@pytest.mark.parametrize("name", SAID_OTHERWISE)
def test_configs_are_read_as_transformers_reads_them(tmp_path, ids, name):
    settings, said = SAID_OTHERWISE[name]
    save_tiny(tmp_path, **(DENSE | settings))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)


def test_a_tied_checkpoint_with_a_head_of_its_own_is_read_as_transformers_reads_it(tmp_path, ids):
    save_tiny(tmp_path, **DENSE)  # untied: embedding and head differ
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()(ids).logits
    torch.testing.assert_close(load_model(tmp_path)(ids), theirs, atol=TOLERANCE, rtol=0)
    convert(tmp_path, tmp_path / "converted", dtype="float32")
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["tie_word_embeddings"] is False
    torch.testing.assert_close(load_model(tmp_path / "converted")(ids), theirs, atol=TOLERANCE, rtol=0)
