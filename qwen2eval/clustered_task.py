"""The former place of `ClusteredTask`, which task files of users name; it is in `qwen2eval.tasks.clustered`."""

from qwen2eval.tasks.clustered import ClusteredTask

__all__ = ["ClusteredTask"]
