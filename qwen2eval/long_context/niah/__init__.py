"""Needle in a haystack."""

from qwen2eval.long_context.niah.task import NiahTask

__all__ = ["NiahTask"]
