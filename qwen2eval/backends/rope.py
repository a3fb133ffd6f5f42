"""`--rope`: how a model is stretched beyond the context that it was trained for, as arguments of its backend."""

import math
from dataclasses import replace
from typing import Any

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError
from qwen2eval.model.config import Qwen2Config

STRETCHABLE = ("qwen2", "vllm", "demo")
YARN_FACTOR = 4.0
"""What Qwen2's documentation says, and its config.json of longer models."""
_ARGS: dict[str, dict[str, Any]] = {
    "none": {"yarn_factor": 1.0, "dual_chunk": False},
    "yarn": {"yarn_factor": YARN_FACTOR, "dual_chunk": False},
    "yarn+dca": {"yarn_factor": YARN_FACTOR, "dual_chunk": True},
}


def with_rope(config: RunConfig) -> RunConfig:
    """Return the config with its `rope` spelled out in `model_args`; `auto` is left to `stretched_for`.

    A `yarn_factor` of the user's own is kept.

    Raises:
        ConfigError: the backend can't stretch a context, or `model_args` say the opposite.
    """
    model = config.model or "demo"
    if config.rope == "auto" or (config.rope == "none" and model not in STRETCHABLE):
        return config
    if model not in STRETCHABLE:
        raise ConfigError(f"--rope {config.rope}: only --model {' and '.join(STRETCHABLE)} can stretch the context")
    wanted, given = _ARGS[config.rope], config.model_args
    factor, dual_chunk = given.get("yarn_factor"), given.get("dual_chunk")
    if config.rope == "none" and factor not in (None, 1):
        raise ConfigError(f"--rope none and yarn_factor={factor} in --model_args: give one of them")
    if dual_chunk is not None and dual_chunk != wanted["dual_chunk"]:
        raise ConfigError(f"--rope {config.rope} and dual_chunk={dual_chunk} in --model_args: give one of them")
    return replace(config, model_args={**given, **wanted, **({} if factor is None else {"yarn_factor": factor})})


def stretched_for(config: RunConfig, spec: ModelSpec, n_tokens: int) -> RunConfig | None:
    """Return the config that `--rope auto` makes of one, so that texts of `n_tokens` fit; None: nothing is to be done.

    As in the Qwen2 report: beyond the trained length YARN with dual chunk attention (which changes nothing within it);
    YARN alone for vLLM, which has no dual chunk attention any more.

    Args:
        n_tokens: prompt and answer.
    """
    if config.rope != "auto" or spec.original_max_length is None or config.model_args.get("max_length"):
        return None
    if any(config.model_args.get(name) is not None for name in ("yarn_factor", "dual_chunk")):
        return None
    trained = min(spec.original_max_length, spec.max_length or spec.original_max_length)
    if n_tokens <= trained or (spec.rope or "none") != "none":
        return None
    rope = "yarn" if config.model == "vllm" else "yarn+dca"
    factor = float(math.ceil(n_tokens / trained))
    return replace(config, model_args={**config.model_args, **_ARGS[rope], "yarn_factor": factor})


def rope_label(config: Qwen2Config) -> str:
    """Return how positions beyond the trained context are handled, for run.json and figures.

    >>> rope_label(Qwen2Config.preset("Qwen2-7B").with_context(yarn_factor=4, dual_chunk=True))
    'yarn+dca x4'
    """
    kinds = [name for name, value in (("yarn", config.yarn), ("dca", config.dual_chunk)) if value]
    return "+".join(kinds) + (f" x{config.yarn.factor:g}" if config.yarn else "") if kinds else "none"
