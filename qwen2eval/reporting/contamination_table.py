"""The table of original, clean and contaminated scores, as in the paper's Table 15: for terminal and reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.reporting.markup import clip, visible
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
    n_not_testable: str
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
    return tuple(_evidence(name, match) for name, task in tasks.items() for match in task["evidence"])


def contamination_rows(info: Mapping[str, Any]) -> tuple[ContaminationRow, ...]:
    """Return the rows of the table; none where no corpus was searched.

    Args:
        info: the run as in run.json.
    """
    tasks = (info.get("contamination") or {}).get("tasks", {})
    return tuple(_row(name, task, score) for name, task in tasks.items() for score in task["scores"])


def contamination_warnings(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what to mind of the clean scores, a line a task."""
    tasks = (info.get("contamination") or {}).get("tasks", {})
    return tuple(f"{name}: {warning}" for name, task in tasks.items() if (warning := _warning(task)))


def corpus_line(info: Mapping[str, Any]) -> str | None:
    """Say what was searched, and by which rule."""
    told = info.get("contamination")
    if not told:
        return None
    corpus, rule = told["corpus"], told["rule"]
    text = f"{corpus['n_documents']:,} documents, {corpus['n_bytes'] / 1e6:,.1f} MB"
    line = f"Corpus: {text}. Contaminated: a doc that shares {rule['ngram_size']} tokens in a row with it"
    if rule["min_lcs"] or rule["min_lcs_ratio"]:
        line += (
            f"; LCS rule: and a common subsequence of at least {rule['min_lcs']} tokens and {rule['min_lcs_ratio']:g} "
            f"of the shorter text ({rule['sequence']})"
        )
    problems = sum(told["problems"].values())
    return line + "." + (f" {problems:,} records of the corpus could not be read as they should." if problems else "")


def print_contamination(told: Mapping[str, Any], *, console: Console) -> None:
    """Print the table.

    Args:
        told: the `contamination` part of run.json.
    """
    info = {"contamination": told}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column("Task", overflow="fold")
    table.add_column("Metric", overflow="fold")
    for name in ("Found", "Original", "Clean", "Found docs", "Clean - original"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in contamination_rows(info):
        metric = f"{row.metric}\n{row.filter}" if row.filter else row.metric
        parts = (row.contaminated_share, row.original, row.clean, row.contaminated)
        counts = ("", row.n_original, row.n_clean, row.n_contaminated)
        cells = (Text(f"{part}\nn = {count}" if count else part) for part, count in zip(parts, counts, strict=True))
        names = (Text(visible(row.task)), Text("\n".join(visible(line) for line in metric.split("\n"))))
        table.add_row(*names, *cells, Text(f"{row.delta}\n{row.delta_interval}".rstrip()))
    console.print(table)
    console.print()
    console.print(Text(visible(corpus_line(info) or "")))
    for warning in contamination_warnings(info):
        console.print(Text(f"warning  {visible(warning)}", style="yellow"))


def _row(name: str, task: Mapping[str, Any], score: Mapping[str, Any]) -> ContaminationRow:
    metric, n_docs = str(score["metric"]), task["n_docs"]
    in_percent = is_ratio(metric, score["original"][0] if score["original"] else None)
    shown = {part: _value(score[part], in_percent=in_percent) for part in ("original", "clean", "contaminated")}
    delta, low, high = score["delta"]
    interval = None if low is None else (low, high)
    n_qwen2 = task["n_contaminated_qwen2"]
    sign = "+" if delta is not None and delta > 0 else ""
    return ContaminationRow(
        task=name,
        metric=metric,
        filter=None if score["filter"] == "none" else str(score["filter"]),
        contaminated_share=format_percent(task["n_contaminated"] / n_docs) if n_docs else NOTHING,
        qwen2_share=NOTHING if n_qwen2 is None or not n_docs else format_percent(n_qwen2 / n_docs),
        **shown,
        n_original=format_count(n_docs),
        n_clean=format_count(task["n_clean"]),
        n_contaminated=format_count(task["n_contaminated"]),
        n_not_testable=format_count(task["n_not_testable"]),
        delta=NOTHING if delta is None else sign + format_value(delta, in_percent=in_percent),
        delta_interval=format_interval(interval, in_percent=in_percent) if interval else "",
        is_sure=interval is not None and not low <= 0 <= high,
    )


def _evidence(name: str, match: Mapping[str, Any]) -> Evidence:
    facts = [f"{match['n_shared_ngrams']:,} shared n-grams", f"longest run {match['longest_match']:,} tokens"]
    if match["lcs_length"] is not None:
        facts.append(f"common subsequence {match['lcs_length']:,} tokens, {format_percent(match['lcs_ratio'])}")
    if match["min_df"] is not None:
        facts.append(f"rarest n-gram in {match['min_df']:,} document{'s' if match['min_df'] != 1 else ''}")
    return Evidence(
        doc=f"{name} {match['doc_id']}",
        place=clip(f"{match['document_path']}, record {match['document_row']}", limit=300),
        facts=f"{match['rule']} rule: " + ", ".join(facts),
        before=visible(match["before"]),
        found=visible(match["found"]),
        after=visible(match["after"]),
    )


def _value(cell: list[Any] | None, *, in_percent: bool) -> str:
    return NOTHING if cell is None else format_value(cell[0], in_percent=in_percent)


def _warning(task: Mapping[str, Any]) -> str | None:
    if not task["n_contaminated"]:
        return None
    if task["n_clean"] == 0:
        return "no doc is clean, so there is no clean score"
    if task["n_clean"] < FEW_DOCS:
        return f"only {task['n_clean']} docs are clean: their score says little"
    return None
