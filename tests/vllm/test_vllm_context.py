"""`yarn_factor` and `dual_chunk` as vLLM's `hf_overrides`; needs no vLLM."""

import pytest

from qwen2eval.backends.vllm.context import long_context
from qwen2eval.errors import ModelError
from qwen2eval.model.config import PRESETS

BASE = {"model_type": "qwen2", **PRESETS["Qwen2-7B"], "max_position_embeddings": 32768, "rope_theta": 1e6}


def test_yarn_is_that_of_the_released_models():
    stretched = long_context({"yarn_factor": 4}, BASE)
    assert stretched.max_length == 131072
    assert stretched.hf_overrides == {
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4,
            "original_max_position_embeddings": 32768,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
    }


def test_a_quantized_checkpoint_is_stretched_too():
    assert long_context({"yarn_factor": 2}, BASE | {"quantization_config": {"bits": 4}}).max_length == 65536


def test_dual_chunk_has_the_names_of_the_released_configs():
    overrides = long_context({"dual_chunk": True, "chunk_size": 8192, "yarn_factor": 4}, BASE).hf_overrides
    assert overrides["dual_chunk_attention_config"] == {
        "chunk_size": 8192,
        "local_size": 1024,
        "original_max_position_embeddings": 32768,
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"yarn_factor": "four"}, "yarn_factor"),
        ({"yarn_factor": 0.5}, "factor of 1 or more"),
        ({"dual_chunk": "yes"}, "dual_chunk"),
        ({"dual_chunk": True, "chunk_size": 8192, "local_size": "big"}, "local_size"),
        ({"dual_chunk": True, "chunk_size": 8192, "local_size": 9000}, "local_size < chunk_size"),
    ],
)
def test_what_makes_no_sense_is_named(args, message):
    with pytest.raises(ModelError, match=message):
        long_context(args, BASE)
