"""Evaluation and contamination analysis of language models by the protocols of the Qwen2 report (arXiv 2407.10671).

from qwen2eval import RunConfig, run
print(run(RunConfig(model="hf", model_args={"pretrained": "Qwen/Qwen2-0.5B"}, tasks=("gsm8k",), limit=50)).scores)
"""

from typing import TYPE_CHECKING, Any

from qwen2eval.version import VERSION

__version__ = VERSION
__all__ = ["Qwen2EvalError", "Run", "RunConfig", "__version__", "load_run", "run"]

_HOMES = {
    "Qwen2EvalError": "qwen2eval.errors",
    "Run": "qwen2eval.run_folder.folder",
    "RunConfig": "qwen2eval.config",
    "load_run": "qwen2eval.run_folder.folder",
    "run": "qwen2eval.evaluate",
}

if TYPE_CHECKING:
    from qwen2eval.config import RunConfig
    from qwen2eval.errors import Qwen2EvalError
    from qwen2eval.evaluate import run
    from qwen2eval.run_folder.folder import Run, load_run


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import qwen2eval` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qwen2eval' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
