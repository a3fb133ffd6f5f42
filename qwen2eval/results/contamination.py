"""A scan's matches joined with a run's samples: which docs were in the corpus, and the scores with and without them.

As in the Qwen2 report (arXiv 2407.10671, section 5.2.6, Table 15): a doc is contaminated if it shares an n-gram with
the corpus (the strict rule), and the clean score is that of all other docs. The verdict of its LCS rule is recorded,
too. Docs that are shorter than an n-gram are neither: they count in the original score only.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from qwen2eval.columns import Row
from qwen2eval.contamination_info import (
    ContaminationInfo,
    Difference,
    PartScore,
    SubsetScores,
    TaskContaminationInfo,
)
from qwen2eval.errors import ConfigError
from qwen2eval.results.sample import DocSample, TaskSamples
from qwen2eval.results.scores import Score, aggregated, task_scores
from qwen2eval.run_folder.evidence import match_rows, most_telling
from qwen2eval.stats.errors import UNKNOWN, Estimate, bootstrap_difference, part_difference
from qwen2eval.tasks.metric_spec import Aggregate, MetricItem, as_number
from qwen2eval.tasks.references import reference_of, task_references
from qwen2eval.tasks.task_values import Aggregation
from qwen2eval.typed_json import read_json

if TYPE_CHECKING:
    from decontam import Results
    from decontam.scan import Progress
    from qwen2eval.config import RunConfig
    from qwen2eval.planning.planned import TaskPlan
    from qwen2eval.run_folder.folder import Run

Status = Literal["clean", "contaminated", "not_testable", "template"]
CLEAN: tuple[Status, ...] = ("clean", "template")
"""What counts as clean: of a doc in "template" the corpus holds only what other docs of the task have, too."""


@dataclass(frozen=True)
class TaskContamination:
    """What a corpus holds of one task's docs."""

    strict: Mapping[int, Status]
    """By doc_id: the n-gram rule."""
    qwen2: Mapping[int, Status] | None
    """By doc_id: n-gram and longest common subsequence; None: the scan didn't ask."""
    matches: Mapping[int, Sequence[Row]]
    """By doc_id: rows of the scan's matches; a document with many items in it has rows for some of them only."""
    n_found_whole: int
    """Docs that are shorter than an n-gram and occur in the corpus in full."""
    n_questions_found_whole: int = 0
    """Testable docs of which the corpus holds the whole short question, and no n-gram of their own."""
    n_with_templates: int | None = None
    """Docs that share an n-gram with the corpus, be it a template or not; None: an older scan didn't count them."""


@dataclass(frozen=True)
class Contamination:
    """What a corpus holds of a run's tasks."""

    source: ContaminationInfo
    """For run.json: the scan's folder, its rule, and what it read; without tasks."""
    tasks: Mapping[str, TaskContamination]


def find_contamination(
    config: "RunConfig",
    plans: "Mapping[str, TaskPlan]",
    *,
    on_progress: "Callable[[Progress], None] | None" = None,
) -> Contamination | None:
    """Look up a run's docs in a finished scan, or in a new one of its corpus; None: the config names neither.

    A scan of the same corpus for the same items resumes.

    Raises:
        ConfigError: no such scan or corpus, one of which nothing could be read, or a scan for other tasks or docs.
    """
    from decontam import DecontamError, load_results

    try:
        if config.matches is not None:
            scanned = _Scanned(load_results(config.matches))
        elif config.corpus:
            scanned = _Scanned(_scan_corpus(config, plans, on_progress))
        else:
            return None
    except DecontamError as err:
        raise ConfigError(str(err)) from err
    return Contamination(scanned.source, {name: scanned.of_task(plan) for name, plan in plans.items()})


def own_contamination(run: "Run") -> Contamination | None:
    """Return what a finished run's own files say of its docs; None: it was never joined with a corpus.

    The scan may have been removed since, or replaced by another one.
    """
    source = run.info.contamination
    if source is None:
        return None
    tasks = {name: _own_task(run, name, found) for name, found in source.tasks.items()}
    return Contamination(replace(source, tasks={}), tasks)


@dataclass(frozen=True)
class Joined:
    """What a corpus adds to a run."""

    info: ContaminationInfo | None = None
    """For run.json; None: no corpus was searched."""
    scores: list[Score] = field(default_factory=list)
    """Of the clean and the contaminated docs."""
    matches: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """By task: rows of contamination/<task>.parquet."""


def join(
    samples: Mapping[str, TaskSamples], scores: Sequence[Score], contamination: Contamination | None, *, seed: int
) -> Joined:
    """Mark the samples of all tasks, and score their clean and contaminated docs.

    Args:
        scores: of all docs.
        contamination: None: no corpus was searched, and nothing is added.
    """
    if contamination is None:
        return Joined()
    described: dict[str, TaskContaminationInfo] = {}
    parts: list[Score] = []
    matches: dict[str, list[dict[str, Any]]] = {}
    for name, task_samples in samples.items():
        task = contamination.tasks[name]
        task_samples.contamination, task_samples.contamination_qwen2 = task.strict, task.qwen2
        own = subset_scores(name, task_samples, task, seed=seed)
        described[name] = _describe_task(name, task_samples, [*scores, *own], task, seed=seed)
        parts += own
        matches[name] = match_rows(task.matches)
    return Joined(replace(contamination.source, tasks=described), parts, matches)


def subset_scores(name: str, samples: TaskSamples, task: TaskContamination, *, seed: int) -> list[Score]:
    """Return the scores of a task's clean and contaminated docs, aggregated as the original ones are."""
    scores = []
    for subset, marks in (("clean", CLEAN), ("contaminated", ("contaminated",))):
        part = replace(
            samples,
            by_filter={
                filter_name: [sample for sample in docs if task.strict[sample.doc_id] in marks]
                for filter_name, docs in samples.by_filter.items()
            },
        )
        scores += task_scores(name, part, seed=seed, subset=subset)
    return scores


def _scan_corpus(
    config: "RunConfig", plans: "Mapping[str, TaskPlan]", on_progress: "Callable[[Progress], None] | None"
) -> "Results":
    """Scan a run's corpus for the docs of its tasks, into a separate folder next to the runs."""
    from decontam import ReferenceIndex, Rule, scan

    references = [item for name, plan in plans.items() for item in task_references(name, plan.task)]
    index = ReferenceIndex.build(references, Rule())
    places = sorted(path if "://" in path else str(Path(path).absolute()) for path in config.corpus)
    key = hashlib.sha256(json.dumps([index.fingerprint, config.text_field, places]).encode()).hexdigest()
    folder = Path(config.output_path) / "decontam" / key[:16]
    return scan(config.corpus, index, output=folder, text_field=config.text_field, on_progress=on_progress)


class _Item(NamedTuple):
    id: str
    strict: Status
    qwen2: Status
    is_whole: bool
    """Found in full, although shorter than an n-gram."""
    has_ngram: bool | None
    """Whether the corpus holds an n-gram of it, be it a template or not; None: an older scan didn't say."""


class _Scanned:
    """A finished scan, by the texts of its items."""

    def __init__(self, results: "Results") -> None:
        self._path, manifest = results.path, results.manifest
        problems, totals, rule = manifest["problems"], manifest["totals"], manifest["rule"]
        # With no document read, every doc would be reported as clean
        if not totals["n_documents"]:
            why = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in problems.items()) or "it is empty"
            raise ConfigError(
                f"{self._path}: no document of the corpus could be read ({why}), so nothing is known of "
                "contamination: see problems.parquet there, or name the text with --text_field"
            )
        source = {"matches": str(self._path.resolve()), "rule": rule, "corpus": totals, "problems": problems}
        self.source = read_json(ContaminationInfo, {**source, "tasks": {}})
        self._has_lcs = bool(rule["min_lcs"] or rule["min_lcs_ratio"])
        self._items: dict[str, dict[tuple[str, str], _Item]] = defaultdict(dict)
        for row in results.references.to_dict("records"):
            strict, qwen2 = (_status(row, rule) for rule in ("strict", "qwen2"))
            # folders of older scans lack the last column
            n_with_ngram = row.get("n_documents_ngram")
            has_ngram = None if n_with_ngram is None else bool(n_with_ngram)
            item = _Item(str(row["id"]), strict, qwen2, _is_only_whole(row), has_ngram)
            self._items[str(row["benchmark"])].setdefault((str(row["text"]), str(row["answer"])), item)
        self._matches: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in results.matches.to_dict("records"):
            self._matches[row["reference_id"]].append({str(name): _known(value) for name, value in row.items()})

    def of_task(self, plan: "TaskPlan") -> TaskContamination:
        """Find each doc of a task among the items that were searched for, by its text.

        Raises:
            ConfigError: the scan didn't search for the task, or for other docs than these.
        """
        name, items = plan.name, self._items.get(plan.name)
        if items is None:
            there = ", ".join(sorted(self._items)) or "none"
            raise ConfigError(
                f"{self._path}: the scan did not search for {name!r}, only for {there}: scan with --references {name}"
            )
        found: dict[int, _Item] = {}
        for doc_id, doc in zip(plan.doc_ids, plan.docs, strict=True):
            reference = reference_of(name, doc_id, plan.task, doc, has_forms=False)
            item = items.get((_plain(reference.text), _plain(reference.answer)))
            if item is None:
                raise ConfigError(
                    f"{self._path}: doc {doc_id} of {name!r} was not among the items of that scan: the data or "
                    "the task's reference_fields have changed since; scan again"
                )
            found[doc_id] = item
        return TaskContamination(
            strict={doc_id: item.strict for doc_id, item in found.items()},
            qwen2={doc_id: item.qwen2 for doc_id, item in found.items()} if self._has_lcs else None,
            matches={doc_id: self._matches.get(item.id, []) for doc_id, item in found.items()},
            n_found_whole=sum(item.is_whole and item.strict == "not_testable" for item in found.values()),
            n_questions_found_whole=sum(item.is_whole and item.strict != "not_testable" for item in found.values()),
            n_with_templates=None
            if any(item.has_ngram is None for item in found.values())
            else sum(bool(item.has_ngram) for item in found.values()),
        )


def _own_task(run: "Run", name: str, found: TaskContaminationInfo) -> TaskContamination:
    strict: dict[int, Status] = {}
    qwen2: dict[int, Status] = {}
    for row in run.sample_rows(name):
        strict[row["doc_id"]] = cast(Status, row["contamination"])
        if row["contamination_qwen2"] is not None:
            qwen2[row["doc_id"]] = cast(Status, row["contamination_qwen2"])
    matches: dict[int, list[Row]] = defaultdict(list)
    for row in run.match_rows(name):
        matches[row["doc_id"]].append(row)
    counts = found.n_found_whole, found.n_questions_found_whole or 0, found.n_with_templates
    return TaskContamination(strict, qwen2 or None, matches, *counts)


def _describe_task(
    name: str, samples: TaskSamples, scores: Sequence[Score], task: TaskContamination, *, seed: int
) -> TaskContaminationInfo:
    counts = Counter(task.strict.values())
    n_clean = sum(counts[status] for status in CLEAN)
    by_subset = {(s.metric, s.filter, s.subset): s for s in scores if s.task == name}
    rows = []
    for (metric, filter_name, subset), original in by_subset.items():
        if subset != "original":
            continue
        estimate, delta = _delta(samples, samples.by_filter[filter_name], metric, task, seed=seed)
        clean, contaminated = (
            _part_score(by_subset.get((metric, filter_name, part))) for part in ("clean", "contaminated")
        )
        difference = Difference(delta, estimate.ci_low, estimate.ci_high)
        rows.append(SubsetScores(metric, filter_name, _part_score(original), clean, contaminated, difference))
    return TaskContaminationInfo(
        n_docs=len(task.strict),
        n_clean=n_clean,
        n_contaminated=counts["contaminated"],
        n_contaminated_qwen2=None
        if task.qwen2 is None
        else sum(status == "contaminated" for status in task.qwen2.values()),
        n_not_testable=counts["not_testable"],
        n_found_whole=task.n_found_whole,
        n_template=counts["template"],
        n_with_templates=task.n_with_templates,
        n_questions_found_whole=task.n_questions_found_whole,
        scores=tuple(rows),
        evidence=most_telling(match_rows(task.matches)),
    )


def _part_score(score: Score | None) -> PartScore | None:
    return None if score is None else PartScore(score.value, score.ci_low, score.ci_high, score.n_docs)


def _delta(
    samples: TaskSamples, docs: Sequence[DocSample], metric: str, task: TaskContamination, *, seed: int
) -> tuple[Estimate, float | None]:
    """Return the error of clean - original of a metric, and the difference itself."""
    scored = [sample for sample in docs if sample.metrics is not None and metric in sample.metrics]
    items = [sample.metrics[metric] for sample in scored if sample.metrics is not None]
    is_clean = [task.strict[sample.doc_id] in CLEAN for sample in scored]
    if not any(is_clean):
        return UNKNOWN, None
    aggregation = samples.plan.task.aggregation(metric)
    clean_items = [item for item, clean in zip(items, is_clean, strict=True) if clean]
    of_clean = aggregated(aggregation.function, clean_items, is_part=True)
    of_all = as_number(aggregation.function(items))
    delta = None if of_clean is None or of_all is None else of_clean - of_all
    column = samples.plan.task.cluster_column
    clusters = None if column is None else [sample.doc[column] for sample in scored]
    return _delta_estimate(aggregation, items, is_clean, clusters, seed=seed), delta


def _delta_estimate(
    aggregation: Aggregation, items: list[MetricItem], is_clean: list[bool], clusters: list[object] | None, *, seed: int
) -> Estimate:
    """Return the error of clean - original: in closed form for a mean of numbers, else from resamples."""
    numbers = [as_number(item) for item in items]
    values = [number for number in numbers if number is not None]
    if aggregation.is_mean and len(values) == len(items):
        return part_difference(values, is_clean, clusters=clusters)
    try:
        return bootstrap_difference(partial(_as_float, aggregation.function), items, is_clean, seed=seed)
    # An aggregation of a task author may fail on a resample
    except (ValueError, ZeroDivisionError, TypeError, IndexError):
        return UNKNOWN


def _as_float(aggregate: Aggregate, items: list[MetricItem]) -> float:
    return float(aggregate(items))


def _status(row: Mapping[Hashable, Any], rule: str) -> Status:
    """Return what a row of a scan's references.parquet says; folders of older scans have no templates."""
    if not row["testable"]:
        return "not_testable"
    if row[f"n_documents_{rule}"] or (rule == "strict" and _is_only_whole(row)):
        return "contaminated"
    return "template" if rule == "strict" and row.get("n_documents_template") else "clean"


def _is_only_whole(row: Mapping[Hashable, Any]) -> bool:
    """Whether an item was found in full, and by no n-gram of its own."""
    return bool(row["n_documents_whole"]) and not row["n_documents_strict"]


def _plain(text: str) -> str:
    """Return a text as the scan's folder keeps it."""
    return text.encode("utf-8", "replace").decode()


def _known(value: object) -> object:
    """Return a cell of a data frame, None for a missing number."""
    return None if isinstance(value, float) and value != value else value
