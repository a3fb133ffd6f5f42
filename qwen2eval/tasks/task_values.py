"""What a task says of its metrics, its data and its docs, as plain values."""

import hashlib
import json
from dataclasses import dataclass

from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import Aggregate


@dataclass(frozen=True)
class Aggregation:
    """How a metric's values of docs become one."""

    function: Aggregate
    """lm-eval's, or the task author's: it may raise anything."""
    is_mean: bool
    """Whether it is the plain mean, whose standard error has a closed form."""


@dataclass(frozen=True)
class DataInfo:
    """Where a task's docs come from."""

    source: str
    """A folder, `hub:NAME`, or what the YAML calls it."""
    sha256: str | None
    """Of the files, or of the hub's fingerprints; None: not known."""
    warning: str | None
    """What a reader of the score must know of the data; None: nothing."""


def doc_hash(doc: Doc) -> str:
    """Return lm-eval's hash of a doc."""
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
