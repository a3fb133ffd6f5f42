"""Where the shipped content (`tasks/`, `reports/`) and the caches are."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def content_dir(name: str) -> Path:
    """Return the folder of content `name`: `qwen2eval/shipped` in a wheel, else next to the package in a checkout."""
    shipped = _PACKAGE / "shipped" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name


def package_folder(inside: str) -> Path:
    """Return a folder of data inside the package, such as "demo/data"."""
    return _PACKAGE.joinpath(*inside.split("/"))


def cache_dir() -> Path:
    """Return the folder for what can be made again: `QWEN2EVAL_CACHE`, else `~/.cache/qwen2eval` (XDG)."""
    if chosen := os.environ.get("QWEN2EVAL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwen2eval"
