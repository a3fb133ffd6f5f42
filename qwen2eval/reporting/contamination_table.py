"""The table of original, clean and contaminated scores, as in the paper's Table 15: for terminal and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.reporting.markup import clip, fold_name, visible
from qwen2eval.reporting.numbers import NOTHING, format_count, format_interval, format_percent, format_value, is_ratio

FEW_DOCS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ContaminationRow:
    """One metric of one task."""

    task: str
    metric: str
    filter: str | None
    """None: the task has no named filter."""
    contaminated_share: str
    """Of all docs, by the n-gram rule."""
    qwen2_share: str
    """By n-gram and longest common subsequence."""
    original: str
    clean: str
    contaminated: str
    n_original: str
    n_clean: str
    n_contaminated: str
    original_interval: str
    clean_interval: str
    contaminated_interval: str
    """95 %; "" where unknown."""
    not_testable: str | None
    """Docs that are too short for the rule, in words; None: there are none."""
    delta: str
    delta_interval: str
    is_sure: bool
    """The interval of delta doesn't hold 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where a doc stands in the corpus."""

    doc: str
    place: str
    facts: str
    before: str
    found: str
    after: str


def evidence(info: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return the matches that are shown, a few for each task."""
    tasks = (info.get("contamination") or {}).get("tasks", {})
    return tuple(match_evidence(name, match) for name, task in tasks.items() for match in task["evidence"])


def match_evidence(task: str, match: Mapping[str, Any]) -> Evidence:
    """Return a match as it is shown.

    Args:
        match: as `qwen2eval.evidence.shown_match` makes it.
    """
    facts = [f"longest run {match['longest_match']:,} tokens"]
    if match["rule"] != "whole":
        facts.insert(0, f"{match['n_shared_ngrams']:,} shared n-grams")
    if match["lcs_length"] is not None:
        facts.append(f"common subsequence {match['lcs_length']:,} tokens, {format_percent(match['lcs_ratio'])}")
    if match["min_df"] is not None:
        facts.append(f"rarest n-gram in {match['min_df']:,} document{'s' if match['min_df'] != 1 else ''}")
    rule = "found whole" if match["rule"] == "whole" else f"{match['rule']} rule"
    return Evidence(
        doc=f"{task} {match['doc_id']}",
        place=clip(f"{match['document_path']}, record {match['document_row']}", limit=300),
        facts=f"{rule}: " + ", ".join(facts),
        before=visible(match["before"]),
        found=visible(match["found"]),
        after=visible(match["after"]),
    )


def contamination_rows(info: Mapping[str, Any]) -> tuple[ContaminationRow, ...]:
    """Return the rows of the table; none where no corpus was searched.

    Args:
        info: the run as in run.json.
    """
    tasks = (info.get("contamination") or {}).get("tasks", {})
    return tuple(_row(name, task, score) for name, task in tasks.items() for score in task["scores"])


def contamination_warnings(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what to mind of the clean scores: of each task, then of the corpus."""
    told = info.get("contamination") or {"tasks": {}, "problems": {}}
    warnings = [f"{name}: {warning}" for name, task in told["tasks"].items() if (warning := _warning(task))]
    if n_problems := sum(told["problems"].values()):
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in told["problems"].items())
        warnings.append(
            f"{n_problems:,} records of the corpus could not be read as they should ({kinds}): docs may stand there"
        )
    return tuple(warnings)


def corpus_line(info: Mapping[str, Any]) -> str | None:
    """Say what was searched, and by which rule."""
    told = info.get("contamination")
    if not told:
        return None
    corpus, rule = told["corpus"], told["rule"]
    text = f"{corpus['n_documents']:,} documents, {corpus['n_bytes'] / 1e6:,.1f} MB"
    line = f"Corpus: {text}. Contaminated: a doc that shares {rule['ngram_size']} tokens in a row with it"
    if rule["ngram_size_cjk"] not in (None, rule["ngram_size"]):
        line += f" ({rule['ngram_size_cjk']} where most tokens are single characters, as in Chinese)"
    if rule["min_lcs"] or rule["min_lcs_ratio"]:
        line += (
            f"; LCS rule: and a common subsequence of at least {rule['min_lcs']} tokens and {rule['min_lcs_ratio']:g} "
            f"of the shorter text ({rule['sequence']})"
        )
    return line + "."


def print_contamination(told: Mapping[str, Any], *, console: Console) -> None:
    """Print the table.

    Args:
        told: the `contamination` part of run.json.
    """
    info, room = {"contamination": told}, max(console.width - 64, 12)  # beside the names the table takes 64
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column("Task, metric", overflow="fold", min_width=12)
    for name in ("Found\n(LCS)", "Original", "Clean", "On found", "Clean -\noriginal"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in contamination_rows(info):
        names = (row.task, row.metric, *([row.filter] if row.filter else []))
        cells = (
            (row.contaminated_share, *([f"({row.qwen2_share})"] if row.qwen2_share != NOTHING else [])),
            (row.original, row.original_interval, f"n = {row.n_original}"),
            (row.clean, row.clean_interval, f"n = {row.n_clean}"),
            (row.contaminated, row.contaminated_interval, f"n = {row.n_contaminated}"),
            (row.delta, row.delta_interval),
        )
        table.add_row(
            Text("\n".join(fold_name(line, room) for line in names)),
            *(Text("\n".join(line for line in lines if line)) for lines in cells),
        )
    console.print(table)
    console.print()
    console.print(Text(visible(corpus_line(info) or "")))
    for name, task in told["tasks"].items():
        if words := _not_testable(task):
            console.print(Text(visible(f"{name}: {words}; they count in the original score only.")))
    for warning in contamination_warnings(info):
        console.print(Text(f"warning  {visible(warning)}", style="yellow"))


def _row(name: str, task: Mapping[str, Any], score: Mapping[str, Any]) -> ContaminationRow:
    metric, n_docs = str(score["metric"]), task["n_docs"]
    in_percent = is_ratio(metric, score["original"][0] if score["original"] else None)
    shown = {part: _value(score[part], in_percent=in_percent) for part in ("original", "clean", "contaminated")}
    delta, low, high = score["delta"]
    intervals = {
        f"{part}_interval": _interval(score[part][1:3] if score[part] else (None, None), in_percent=in_percent)
        for part in shown
    }
    n_qwen2 = task["n_contaminated_qwen2"]
    sign = "+" if delta is not None and delta > 0 else ""
    return ContaminationRow(
        task=name,
        metric=metric,
        filter=None if score["filter"] == "none" else str(score["filter"]),
        contaminated_share=format_percent(task["n_contaminated"] / n_docs) if n_docs else NOTHING,
        qwen2_share=NOTHING if n_qwen2 is None or not n_docs else format_percent(n_qwen2 / n_docs),
        **shown,
        **intervals,
        n_original=format_count(n_docs),
        n_clean=format_count(task["n_clean"]),
        n_contaminated=format_count(task["n_contaminated"]),
        not_testable=_not_testable(task),
        delta=NOTHING if delta is None else sign + format_value(delta, in_percent=in_percent),
        delta_interval=_interval((low, high), in_percent=in_percent),
        is_sure=low is not None and not low <= 0 <= high,
    )


def _value(cell: list[Any] | None, *, in_percent: bool) -> str:
    return NOTHING if cell is None else format_value(cell[0], in_percent=in_percent)


def _interval(ends: Sequence[float | None], *, in_percent: bool) -> str:
    low, high = ends
    return "" if low is None or high is None else format_interval((low, high), in_percent=in_percent)


def _not_testable(task: Mapping[str, Any]) -> str | None:
    """Say how many docs the rule can't judge."""
    count, n_whole = task["n_not_testable"], task["n_found_whole"]
    if not count:
        return None
    return f"{count:,} not testable" + (f", {n_whole:,} of them in the corpus as a whole" if n_whole else "")


def _warning(task: Mapping[str, Any]) -> str | None:
    if task["n_clean"] == task["n_docs"]:
        return None  # clean is all there is
    if task["n_clean"] == 0:
        return "no doc is clean, so there is no clean score"
    if task["n_clean"] < FEW_DOCS:
        return f"only {task['n_clean']} docs are clean: their score says little"
    return None
