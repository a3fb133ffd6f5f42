"""The former place of `CodeTask`, which task files of users name; it is in `qwen2eval.tasks.code.task`."""

from qwen2eval.tasks.code.task import CodeTask

__all__ = ["CodeTask"]
