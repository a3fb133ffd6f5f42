"""A scan's matches joined with a run's samples: which docs were in the corpus, and the scores with and without them.

As in the Qwen2 report (arXiv 2407.10671, section 5.2.6, Table 15): a doc is contaminated if it shares an n-gram with
the corpus (the strict rule), and the clean score is that of the others. What its LCS rule says stands beside. Docs too
short for an n-gram are neither: they count in the original score only.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from qwen2eval.errors import ConfigError
from qwen2eval.reference_items import reference_of, task_references
from qwen2eval.samples import DocSample, TaskSamples, as_number
from qwen2eval.scores import Score, task_scores
from qwen2eval.stats.errors import UNKNOWN, Estimate, bootstrap_difference, part_difference

if TYPE_CHECKING:
    from decontam import Results
    from qwen2eval.config import RunConfig
    from qwen2eval.plan import TaskPlan

Status = Literal["clean", "contaminated", "not_testable"]
N_EVIDENCE, CONTEXT_CHARACTERS, FOUND_CHARACTERS = 5, 120, 600
"""Matches of a task that the report shows, and how much of their text."""
MATCH_COLUMNS = (
    *("document_path", "document_row", "reference_id", "reference_part", "rule", "n_shared_ngrams", "longest_match"),
    *("lcs_length", "lcs_ratio", "min_df", "spans", "excerpt", "excerpt_begin"),
)


@dataclass(frozen=True)
class TaskContamination:
    """What a corpus holds of one task's docs."""

    strict: Mapping[int, Status]
    """By doc_id: the n-gram rule."""
    qwen2: Mapping[int, Status] | None
    """By doc_id: n-gram and longest common subsequence; None: the scan didn't ask."""
    matches: Mapping[int, Sequence[Mapping[str, Any]]]
    """By doc_id: rows of the scan's matches."""


class _Item(NamedTuple):
    id: str
    strict: Status
    qwen2: Status


class Leaks:
    """A finished scan, ready to be joined.

    Raises:
        DecontamError: no finished scan in that folder.
    """

    def __init__(self, results: "Results") -> None:
        self.results = results
        self._items: dict[str, dict[tuple[str, str], _Item]] = defaultdict(dict)
        for item in results.references.to_dict("records"):
            text, answer, name = str(item["text"]), str(item["answer"]), str(item["id"])
            strict, qwen2 = (
                _status(bool(item["testable"]), bool(item[f"n_documents_{rule}"])) for rule in ("strict", "qwen2")
            )
            self._items[str(item["benchmark"])].setdefault((text, answer), _Item(name, strict, qwen2))
        self._matches: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in results.matches.to_dict("records"):
            self._matches[row["reference_id"]].append({str(name): value for name, value in row.items()})

    @property
    def has_lcs(self) -> bool:
        """Whether the scan asked for the longest common subsequence."""
        rule = self.results.manifest["rule"]
        return bool(rule["min_lcs"] or rule["min_lcs_ratio"])

    def of_task(self, samples: TaskSamples) -> TaskContamination:
        """Find each doc of a task among the items that were searched for, by its text.

        Raises:
            ConfigError: the scan didn't search for the task, or for other docs than these.
        """
        name, task = samples.plan.name, samples.plan.task
        items = self._items.get(name)
        if items is None:
            there = ", ".join(sorted(self._items)) or "none"
            raise ConfigError(
                f"{self.results.path} holds no search for {name!r}, only for {there}: scan with --references {name}"
            )
        strict: dict[int, Status] = {}
        qwen2: dict[int, Status] = {}
        matches: dict[int, list[dict[str, Any]]] = {}
        for doc_id, doc in zip(samples.plan.doc_ids, samples.plan.docs, strict=True):
            reference = reference_of(name, doc_id, task, doc)
            found = items.get((_plain(reference.text), _plain(reference.answer)))
            if found is None:
                raise ConfigError(
                    f"{self.results.path}: doc {doc_id} of {name!r} was not among the items of that scan: the data or "
                    "the task's reference_fields have changed since; scan again"
                )
            matches[doc_id] = self._matches.get(found.id, [])
            strict[doc_id], qwen2[doc_id] = found.strict, found.qwen2
        return TaskContamination(strict, qwen2 if self.has_lcs else None, matches)


def open_leaks(config: "RunConfig", plans: "Mapping[str, TaskPlan]") -> Leaks | None:
    """Return the scan that a run is to be joined with: a finished one, or a new one of its corpus; None: neither.

    A scan of the same corpus for the same items is not made again.

    Raises:
        ConfigError: no such scan or corpus, or a scan for other tasks or docs.
    """
    from decontam import DecontamError, ReferenceIndex, Rule, load_results, scan

    try:
        if config.matches is not None:
            leaks = Leaks(load_results(config.matches))
        elif config.corpus:
            references = [item for name, plan in plans.items() for item in task_references(name, plan.task)]
            index = ReferenceIndex.build(references, Rule())
            folder = Path(config.output_path) / "decontam" / index.fingerprint[:16]
            leaks = Leaks(scan(config.corpus, index, output=folder, text_field=config.text_field))
        else:
            return None
    except DecontamError as err:
        raise ConfigError(str(err)) from err
    for plan in plans.values():
        leaks.of_task(TaskSamples(plan))  # before the model is asked anything
    return leaks


@dataclass(frozen=True)
class Joined:
    """What a corpus adds to a run."""

    info: dict[str, Any] = field(default_factory=dict)
    """For run.json."""
    scores: list[Score] = field(default_factory=list)
    """Of the clean and the contaminated docs."""
    matches: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By task: rows of contamination/<task>.parquet."""


def join(samples: Mapping[str, TaskSamples], scores: Sequence[Score], leaks: Leaks, *, seed: int) -> Joined:
    """Mark the samples of all tasks, and score their clean and contaminated docs.

    Args:
        scores: of all docs.
    """
    tasks = {name: leaks.of_task(task_samples) for name, task_samples in samples.items()}
    for name, task in tasks.items():
        samples[name].contamination, samples[name].contamination_qwen2 = task.strict, task.qwen2
    parts = [score for name, task in tasks.items() for score in subset_scores(name, samples[name], task, seed=seed)]
    told = describe_contamination(samples, [*scores, *parts], tasks, leaks, seed=seed)
    return Joined({"contamination": told}, parts, {name: match_rows(task) for name, task in tasks.items()})


def subset_scores(name: str, samples: TaskSamples, task: TaskContamination, *, seed: int) -> list[Score]:
    """Return the scores of a task's clean and contaminated docs, aggregated as the original ones are."""
    scores = []
    for subset in ("clean", "contaminated"):
        part = TaskSamples(
            samples.plan,
            {
                filter_name: [sample for sample in docs if task.strict[sample.doc_id] == subset]
                for filter_name, docs in samples.by_filter.items()
            },
        )
        scores += task_scores(name, part, seed=seed, subset=subset)
    return scores


def describe_contamination(
    samples: Mapping[str, TaskSamples],
    scores: Sequence[Score],
    tasks: Mapping[str, TaskContamination],
    leaks: Leaks,
    *,
    seed: int,
) -> dict[str, Any]:
    """Return the `contamination` part of run.json."""
    manifest = leaks.results.manifest
    return {
        "matches": str(leaks.results.path.resolve()),
        "rule": manifest["rule"],
        "corpus": manifest["totals"],
        "problems": manifest["problems"],
        "tasks": {name: _describe_task(name, samples[name], scores, task, seed=seed) for name, task in tasks.items()},
    }


def match_rows(task: TaskContamination) -> list[dict[str, Any]]:
    """Return the rows of contamination/<task>.parquet: one a match."""
    return [
        {"doc_id": doc_id, **{name: row[name] for name in MATCH_COLUMNS}}
        for doc_id, rows in sorted(task.matches.items())
        for row in rows
    ]


def _describe_task(
    name: str, samples: TaskSamples, scores: Sequence[Score], task: TaskContamination, *, seed: int
) -> dict[str, Any]:
    counts = {status: sum(s == status for s in task.strict.values()) for status in ("clean", "contaminated")}
    by_subset = {(s.metric, s.filter, s.subset): s for s in scores if s.task == name}
    rows = []
    for (metric, filter_name, subset), original in by_subset.items():
        if subset != "original":
            continue
        estimate, delta = _delta(samples, samples.by_filter[filter_name], metric, task, seed=seed)
        row: dict[str, Any] = {"metric": metric, "filter": filter_name}
        for part in ("original", "clean", "contaminated"):
            score = original if part == "original" else by_subset.get((metric, filter_name, part))
            row[part] = None if score is None else [score.value, score.ci_low, score.ci_high, score.n_docs]
        rows.append({**row, "delta": [delta, estimate.ci_low, estimate.ci_high]})
    return {
        "n_docs": len(task.strict),
        "n_clean": counts["clean"],
        "n_contaminated": counts["contaminated"],
        "n_contaminated_qwen2": None
        if task.qwen2 is None
        else sum(status == "contaminated" for status in task.qwen2.values()),
        "n_not_testable": len(task.strict) - counts["clean"] - counts["contaminated"],
        "n_found_whole": sum(any(row["rule"] == "whole" for row in rows_) for rows_ in task.matches.values()),
        "scores": rows,
        "evidence": [_evidence(doc_id, match) for doc_id, match in _most_telling(task)],
    }


def _most_telling(task: TaskContamination) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the longest matches of the docs that have most in common with the corpus."""
    best = [
        (doc_id, max(rows, key=lambda row: row["longest_match"]))
        for doc_id, rows in task.matches.items()
        if task.strict[doc_id] == "contaminated"
    ]
    return sorted(best, key=lambda pair: (-pair[1]["longest_match"], pair[0]))[:N_EVIDENCE]


def _evidence(doc_id: int, match: Mapping[str, Any]) -> dict[str, Any]:
    """Return a match with the text around what was found, short enough for a report."""
    first = match["spans"][0]
    begin, end = (int(first[name]) - int(match["excerpt_begin"]) for name in ("begin", "end"))
    text, missing = match["excerpt"], {"lcs_length": int, "lcs_ratio": float, "min_df": int}
    names = ("document_path", "document_row", "rule", "n_shared_ngrams", "longest_match")
    return {
        "doc_id": doc_id,
        **{name: match[name] for name in names},
        **{name: None if match[name] != match[name] else kind(match[name]) for name, kind in missing.items()},
        "before": text[max(0, begin - CONTEXT_CHARACTERS) : begin],
        "found": text[begin:end][:FOUND_CHARACTERS],
        "after": text[end : end + CONTEXT_CHARACTERS],
    }


def _delta(
    samples: TaskSamples, docs: Sequence[DocSample], metric: str, task: TaskContamination, *, seed: int
) -> tuple[Estimate, float | None]:
    """Return clean - original of a metric, and how sure it is."""
    from lm_eval.api.metrics import mean

    scored = [sample for sample in docs if sample.metrics is not None and metric in sample.metrics]
    items = [sample.metrics[metric] for sample in scored if sample.metrics is not None]
    is_clean = [task.strict[sample.doc_id] == "clean" for sample in scored]
    if not any(is_clean):
        return UNKNOWN, None
    aggregate = (samples.plan.task.aggregation() or {}).get(metric, mean)
    of_clean = as_number(aggregate([item for item, clean in zip(items, is_clean, strict=True) if clean]))
    of_all = as_number(aggregate(items))
    delta = None if of_clean is None or of_all is None else of_clean - of_all
    column = samples.plan.cluster_column
    clusters = None if column is None else [sample.doc[column] for sample in scored]
    numbers = [as_number(item) for item in items]
    values = [number for number in numbers if number is not None]
    if aggregate is mean and len(values) == len(items):
        return part_difference(values, is_clean, clusters=clusters), delta
    try:
        return bootstrap_difference(partial(_aggregated, aggregate), items, is_clean, seed=seed), delta
    # an aggregation of a task author's may not survive a resample
    except (ValueError, ZeroDivisionError, TypeError, IndexError):
        return UNKNOWN, delta


def _aggregated(aggregate: Any, items: list[Any]) -> float:
    return float(aggregate(items))


def _status(is_testable: bool, is_found: bool) -> Status:
    if not is_testable:
        return "not_testable"
    return "contaminated" if is_found else "clean"


def _plain(text: str) -> str:
    """Return a text as the scan's folder keeps it."""
    return text.encode("utf-8", "replace").decode()
