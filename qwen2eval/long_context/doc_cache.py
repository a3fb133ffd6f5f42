"""Docs that were built once for a model are kept: the same task asked again starts at once."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from qwen2eval.content import cache_dir
from qwen2eval.requests import Doc

CACHE_FORMAT = 2
"""Of the docs and of how they are built: another one doesn't read what this one wrote."""


def cached_docs(task: str, inputs: Mapping[str, object], make: Callable[[], list[Doc]]) -> list[Doc]:
    """Return the docs that were made of the same inputs before, else make them and keep them.

    A file that can't be read is made again; a folder that can't be written is not an error.

    Args:
        task: for the file's name.
        inputs: all that decides the docs, as JSON values.
    """
    key = json.dumps({"format": CACHE_FORMAT, **inputs}, sort_keys=True, ensure_ascii=False)
    path = cache_dir() / "long_context" / f"{task}_{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.get("key") == key:
            return list(kept["docs"])
    docs = make()
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"key": key, "docs": docs}, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return docs
