"""The table of original, clean and contaminated scores, as in the paper's Table 15: for terminal and reports."""

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.contamination_info import (
    ContaminationInfo,
    Difference,
    PartScore,
    ShownMatch,
    SubsetScores,
    TaskContaminationInfo,
)
from qwen2eval.reporting import numbers
from qwen2eval.reporting.corpus_problems import problem_words
from qwen2eval.reporting.markup import clip, fold_name, visible
from qwen2eval.reporting.metrics import ShownMetric, metric_of
from qwen2eval.run_info import RunInfo

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
    remarks: tuple[str, ...]
    """What else is to be said of how docs were found."""
    delta: str
    delta_interval: str
    is_sure: bool
    """The interval of delta doesn't hold 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where a doc occurs in the corpus."""

    doc: str
    place: str
    facts: str
    before: str
    found: str
    after: str


def evidence(info: RunInfo) -> tuple[Evidence, ...]:
    """Return the matches that are shown, a few for each task."""
    tasks = info.contamination.tasks if info.contamination else {}
    return tuple(match_evidence(name, match) for name, task in tasks.items() for match in task.evidence)


def match_evidence(task: str, match: ShownMatch) -> Evidence:
    """Return a match as it is shown."""
    facts = [f"longest run {match.longest_match:,} tokens"]
    if match.rule != "whole":
        facts.insert(0, f"{numbers.format_count(match.n_shared_ngrams)} shared n-grams")
    if match.lcs_length is not None:
        facts.append(f"common subsequence {match.lcs_length:,} tokens, {numbers.format_percent(match.lcs_ratio)}")
    if match.min_df is not None:
        facts.append(f"rarest n-gram in {match.min_df:,} document{'s' if match.min_df != 1 else ''}")
    named = {"whole": "occurs in full", "template": "template"}
    rule = named.get(match.rule, f"{match.rule} rule")
    return Evidence(
        doc=f"{task} {match.doc_id}",
        place=clip(f"{match.document_path}, record {match.document_row}", limit=300),
        facts=f"{rule}: " + ", ".join(facts),
        before=visible(match.before),
        found=visible(match.found),
        after=visible(match.after),
    )


def contamination_rows(info: RunInfo) -> tuple[ContaminationRow, ...]:
    """Return the rows of the table; none where no corpus was searched."""
    tasks = info.contamination.tasks if info.contamination else {}
    return tuple(
        _row(name, task, scores, metric_of(info, name, scores.metric))
        for name, task in tasks.items()
        for scores in task.scores
    )


def contamination_warnings(found: ContaminationInfo | None) -> tuple[str, ...]:
    """Return the warnings about the clean scores: of each task, then of the corpus."""
    if found is None:
        return ()
    warnings = [f"{name}: {warning}" for name, task in found.tasks.items() if (warning := _warning(task))]
    if found.problems:
        warnings.append(
            f"the corpus was not read in full: {problem_words(found.problems)}; leaked items in them would be missed"
        )
    return tuple(warnings)


def corpus_line(found: ContaminationInfo | None) -> str | None:
    """Say what was searched, and by which rule."""
    if found is None:
        return None
    corpus, rule = found.corpus, found.rule
    text = f"{corpus.n_documents:,} documents, {corpus.n_bytes / 1e6:,.1f} MB"
    line = f"Corpus: {text}. Contaminated: a doc that shares {rule.ngram_size} consecutive tokens with it"
    if rule.ngram_size_cjk not in (None, rule.ngram_size):
        line += f" ({rule.ngram_size_cjk} where most tokens are single characters, as in Chinese)"
    if rule.min_lcs or rule.min_lcs_ratio:
        line += (
            f"; LCS rule: in addition a common subsequence of at least {rule.min_lcs} tokens and "
            f"{rule.min_lcs_ratio:g} of the shorter text ({rule.sequence})"
        )
    return line + "."


def print_contamination(info: RunInfo, *, console: Console) -> None:
    """Print the table of a run that was joined with a corpus."""
    # All columns but the names take 64 characters
    room = max(console.width - 64, 12)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column("Task, metric", overflow="fold", min_width=12)
    for name in ("Found\n(LCS)", "Original", "Clean", "On found", "Clean -\noriginal"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in contamination_rows(info):
        names = [name for name in (row.task, row.metric, row.filter) if name]
        table.add_row(Text("\n".join(fold_name(line, room) for line in names)), *_cells(row))
    console.print(table)
    console.print()
    console.print(Text(visible(corpus_line(info.contamination) or "")))
    for name, task in (info.contamination.tasks if info.contamination else {}).items():
        if words := _not_testable(task):
            console.print(Text(visible(f"{name}: {words}; they count in the original score only.")))
        for words in _remarks(task):
            console.print(Text(visible(f"{name}: {words}.")))
    for warning in contamination_warnings(info.contamination):
        console.print(Text(f"warning  {visible(warning)}", style="yellow"))


def _cells(row: ContaminationRow) -> list[Text]:
    """Return the cells of a row after its name, each of several lines; empty lines are left out."""
    has_lcs = row.qwen2_share != numbers.NOTHING
    cells = (
        (row.contaminated_share, f"({row.qwen2_share})" if has_lcs else ""),
        (row.original, row.original_interval, f"n = {row.n_original}"),
        (row.clean, row.clean_interval, f"n = {row.n_clean}"),
        (row.contaminated, row.contaminated_interval, f"n = {row.n_contaminated}"),
        (row.delta, row.delta_interval),
    )
    return [Text("\n".join(filter(None, lines))) for lines in cells]


def _row(name: str, task: TaskContaminationInfo, scores: SubsetScores, metric: ShownMetric) -> ContaminationRow:
    in_percent = metric.in_percent(scores.original.value if scores.original else None)
    parts = {"original": scores.original, "clean": scores.clean, "contaminated": scores.contaminated}
    delta, n_docs, n_qwen2 = scores.delta, task.n_docs, task.n_contaminated_qwen2
    sign = "+" if delta.value is not None and delta.value > 0 else ""
    return ContaminationRow(
        task=name,
        metric=scores.metric,
        filter=None if scores.filter == "none" else scores.filter,
        contaminated_share=numbers.format_percent(task.n_contaminated / n_docs) if n_docs else numbers.NOTHING,
        qwen2_share=numbers.NOTHING if n_qwen2 is None or not n_docs else numbers.format_percent(n_qwen2 / n_docs),
        **{part: _value(score, in_percent=in_percent) for part, score in parts.items()},
        **{f"{part}_interval": _interval(score, in_percent=in_percent) for part, score in parts.items()},
        n_original=numbers.format_count(n_docs),
        n_clean=numbers.format_count(task.n_clean),
        n_contaminated=numbers.format_count(task.n_contaminated),
        not_testable=_not_testable(task),
        remarks=_remarks(task),
        delta=sign + _value(delta, in_percent=in_percent),
        delta_interval=_interval(delta, in_percent=in_percent),
        is_sure=delta.ci_low is not None and delta.ci_high is not None and not delta.ci_low <= 0 <= delta.ci_high,
    )


def _value(score: PartScore | Difference | None, *, in_percent: bool) -> str:
    return numbers.NOTHING if score is None else numbers.format_value(score.value, in_percent=in_percent)


def _interval(score: PartScore | Difference | None, *, in_percent: bool) -> str:
    if score is None or score.ci_low is None or score.ci_high is None:
        return ""
    return numbers.format_interval((score.ci_low, score.ci_high), in_percent=in_percent)


def _not_testable(task: TaskContaminationInfo) -> str | None:
    """Say how many docs the rule can't judge."""
    count, n_whole = task.n_not_testable, task.n_found_whole
    if not count:
        return None
    return f"{count:,} not testable" + (f", {n_whole:,} of them occur in full" if n_whole else "")


def _remarks(task: TaskContaminationInfo) -> tuple[str, ...]:
    """Say which docs were found in another way than by n-grams of their own; () where none was."""
    found = []
    if task.n_questions_found_whole:
        found.append(f"{task.n_questions_found_whole:,} found by the whole of a short question")
    if task.n_template:
        found.append(
            f"{task.n_template:,} share only a template with the corpus and count as clean; "
            f"with templates {numbers.format_count(task.n_with_templates)} docs share an n-gram"
        )
    return tuple(found)


def _warning(task: TaskContaminationInfo) -> str | None:
    if task.n_clean == task.n_docs:
        # All docs are clean: the clean score is the original one
        return None
    if task.n_clean == 0:
        return "no doc is clean, so there is no clean score"
    if task.n_clean < FEW_DOCS:
        return f"only {task.n_clean} docs are clean: their score is not reliable"
    return None
