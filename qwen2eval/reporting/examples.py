"""A few docs of each task for the report: some that the model got right, some wrong, some without a score."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from qwen2eval.columns import Row
from qwen2eval.reporting import numbers
from qwen2eval.reporting.contamination_table import Evidence, match_evidence
from qwen2eval.reporting.markup import clip
from qwen2eval.reporting.metrics import ShownMetric, metric_of
from qwen2eval.run_folder.evidence import with_evidence
from qwen2eval.run_folder.folder import Run, known_number
from qwen2eval.run_info import RunInfo, TaskInfo

Verdict = Literal["right", "wrong", "scored", "unscored"]
LONG_TEXT_CHARS = 3000
"""Room for a prompt or a response in the report; the samples file has all of it."""
_SHORT_TEXT_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one filter made of a response."""

    filter: str | None
    extracted: str
    verdict: Verdict
    scores: tuple[tuple[str, str], ...]
    """Each metric's name and value, as shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One doc as the model met it."""

    doc_id: str
    prompt: str
    response: str | None
    """None: not answered."""
    target: str
    verdict: Verdict
    """By the task's first filter and metric."""
    notes: tuple[str, ...]
    """What was special: a truncated prompt, an answer cut off at its length limit."""
    error: str | None
    """Why the doc is not scored."""
    outcomes: tuple[Outcome, ...]
    evidence: Evidence | None
    """Where the doc occurs in the corpus that was searched."""


def run_examples(run: Run, *, n_each: int = 2) -> dict[str, tuple[Example, ...]]:
    """Pick examples of each task of a finished run.

    All docs are read, but only the few columns that give their verdict; prompts and responses are read only of the
    docs that are picked.
    """
    chosen = {}
    for name, task in run.info.scored_tasks.items():
        metrics = shown_metrics(run.info, name)
        columns = ("doc_id", "repeat", "filter", "error", *(metric.name for metric in metrics[:1]))
        docs = choose_docs(run.sample_rows(name, columns=columns), metrics, n_each=n_each)
        places = sorted(number for doc in docs for number in doc)
        rows = with_evidence(run.chosen_sample_rows(name, places), run.match_rows(name))
        of_place = dict(zip(places, rows, strict=True))
        chosen[name] = tuple(example_of([of_place[place] for place in doc], task, metrics) for doc in docs)
    return chosen


def choose_examples(
    samples: Mapping[str, Sequence[Row]], info: RunInfo, *, n_each: int = 2
) -> dict[str, tuple[Example, ...]]:
    """Pick examples of rows that are in memory, as `run_examples` does of a run.

    Args:
        samples: by task, rows as in samples/<task>.parquet, with `evidence` if a corpus was searched; a doc may have
            one for each filter.
        info: the run as in run.json.
        n_each: how many docs to keep of each verdict and task, the first ones met.
    """
    chosen = {}
    for name, rows in samples.items():
        if name in info.tasks:
            metrics = shown_metrics(info, name)
            docs = choose_docs(rows, metrics, n_each=n_each)
            chosen[name] = tuple(
                example_of([rows[number] for number in doc], info.tasks[name], metrics) for doc in docs
            )
    return chosen


def shown_metrics(info: RunInfo, task: str) -> tuple[ShownMetric, ...]:
    """Return how the metrics of a task are shown, the one that is reported first."""
    return tuple(metric_of(info, task, metric) for metric in info.tasks[task].metrics)


def choose_docs(rows: Iterable[Row], metrics: Sequence[ShownMetric], *, n_each: int) -> list[list[int]]:
    """Return for each doc that is kept the numbers of its rows, from 0; the filter that comes first judges.

    Args:
        rows: with doc_id, repeat, filter, error and the first metric.
        metrics: of the task.
        n_each: how many docs to keep of each verdict.
    """
    kept: dict[tuple[str, str], list[int]] = {}
    n_kept: Counter[Verdict] = Counter()
    first_filter: object = None
    for number, row in enumerate(rows):
        first_filter = first_filter or row["filter"]
        key = (str(row["doc_id"]), str(row.get("repeat")))
        if key in kept:
            kept[key].append(number)
        elif row["filter"] == first_filter and n_kept[_verdict(row, metrics)] < n_each:
            n_kept[_verdict(row, metrics)] += 1
            kept[key] = [number]
    return list(kept.values())


def example_of(rows: Sequence[Row], task: TaskInfo, metrics: Sequence[ShownMetric]) -> Example:
    """Return a doc as it is shown.

    Args:
        rows: of the doc, one a filter.
        task: of run.json.
        metrics: of the task.
    """
    row = rows[0]
    notes = []
    if known_number(row.get("truncated")) == 1:
        notes.append("prompt truncated")
    if row.get("finish_reason") == "length":
        notes.append("answer cut off at its length limit")
    if row.get("contamination") == "contaminated":
        notes.append("contaminated")
    error = row.get("error")
    return Example(
        doc_id=_text(row["doc_id"], limit=_SHORT_TEXT_CHARS),
        prompt=_text(row["prompt"], limit=LONG_TEXT_CHARS),
        response=_response_text(row["response"], task.output_type),
        target=_text(row["target"], limit=_SHORT_TEXT_CHARS),
        verdict=_verdict(row, metrics),
        notes=tuple(notes),
        error=_text(error, limit=_SHORT_TEXT_CHARS) if isinstance(error, str) else None,
        outcomes=tuple(_outcome(each, metrics) for each in rows),
        evidence=match_evidence(str(row["task"]), row["evidence"]) if row.get("evidence") else None,
    )


def _outcome(row: Row, metrics: Sequence[ShownMetric]) -> Outcome:
    shown = []
    for metric in metrics:
        score = known_number(row.get(metric.name))
        in_percent = metric.in_percent(score) and score not in (0, 1)
        shown.append((metric.name, numbers.format_value(score, in_percent=in_percent)))
    name = row["filter"]
    return Outcome(
        filter=name if isinstance(name, str) and name != "none" else None,
        extracted=_text(row["extracted"], limit=_SHORT_TEXT_CHARS),
        verdict=_verdict(row, metrics),
        scores=tuple(shown),
    )


def _verdict(row: Row, metrics: Sequence[ShownMetric]) -> Verdict:
    """Judge by the first metric: right and wrong are for ratios that are exactly 1 or 0."""
    metric = next(iter(metrics), None)
    score = None if metric is None else known_number(row.get(metric.name))
    if metric is None or score is None:
        # A pair, as perplexity needs it, is a score though no number; a doc that is not scored says why.
        return "scored" if "error" in row and not isinstance(row["error"], str) else "unscored"
    if score not in (0, 1) or not metric.in_percent():
        return "scored"
    best = 0 if metric.higher_is_better is False else 1
    return "right" if score == best else "wrong"


def _response_text(cell: object, output_type: str | None) -> str | None:
    """Return a response as text; log-probabilities, stored as `[[logprob, is_greedy], …]`, one a line."""
    if cell is None:
        return None
    # A generated text may look like such a list, and is shown as it is
    pairs = None if output_type == "generate_until" else _logprob_pairs(cell)
    if pairs is None:
        return _text(cell, limit=LONG_TEXT_CHARS)
    lines = [
        f"log-probability {numbers.format_number(known_number(logprob))}{', greedy' if is_greedy is True else ''}"
        for logprob, is_greedy in pairs
    ]
    if len(lines) > 1:
        lines = [f"{number}: {line}" for number, line in enumerate(lines, start=1)]
    return clip("\n".join(lines), limit=LONG_TEXT_CHARS)


def _logprob_pairs(cell: object) -> list[list[object]] | None:
    """Read `[[logprob, is_greedy], …]`; None for any other value."""
    pairs: object = None
    if isinstance(cell, str):
        with suppress(ValueError):
            pairs = json.loads(cell)
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    return pairs


def _text(cell: object, *, limit: int) -> str:
    """Return any cell of a sample as text: a text as it is, a list or a dict as JSON."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return numbers.NOTHING
    if isinstance(cell, str):
        return clip(cell, limit=limit)
    listed = cell.tolist() if hasattr(cell, "tolist") else cell
    return clip(json.dumps(listed, ensure_ascii=False, default=str), limit=limit)
