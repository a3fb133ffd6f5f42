"""LV-Eval: questions on long texts with confusing facts."""

from qwen2eval.long_context.lveval.task import LVEvalGroup, LVEvalTask

__all__ = ["LVEvalGroup", "LVEvalTask"]
