"""The Qwen2 architecture (report, section 2.2) in PyTorch: dense and MoE, YARN, dual chunk attention, checkpoints.

from qwen2eval.model import Qwen2Config, load_model
model = load_model("path/to/Qwen2-0.5B", dtype="float32", device="cpu")
logits = model(input_ids)  # (batch, time) int64 -> (batch, time, vocab) float32
"""

from typing import TYPE_CHECKING, Any

from qwen2eval.model.config import DualChunk, Qwen2Config, Yarn

__all__ = ["DualChunk", "Qwen2Config", "Yarn", "load_model"]

if TYPE_CHECKING:
    from qwen2eval.model.load import load_model


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: a config's numbers are for commands that need no model."""
    if name != "load_model":
        raise AttributeError(f"module 'qwen2eval.model' has no attribute {name!r}")
    from qwen2eval.model.load import load_model

    return load_model
