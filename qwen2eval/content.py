"""Where the shipped content (`tasks/`, `reports/`) and the caches lie."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def content_dir(name: str) -> Path:
    """Return the folder of content `name`: inside the installed package, else beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def package_folder(inside: str) -> Path:
    """Return a folder inside a shipped one: "demo/data" is `data` in `content_dir("demo")`."""
    first, *rest = inside.split("/")
    return content_dir(first).joinpath(*rest)


def cache_dir() -> Path:
    """Return the folder for what can be made again: `QWEN2EVAL_CACHE`, else `~/.cache/qwen2eval` (XDG)."""
    if chosen := os.environ.get("QWEN2EVAL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwen2eval"
