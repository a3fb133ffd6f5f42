"""NeedleBench, versions 1 and 2, with the ancestral trace challenge."""

from qwen2eval.long_context.needlebench.task import NeedleBenchGroup, NeedleBenchTask

__all__ = ["NeedleBenchGroup", "NeedleBenchTask"]
