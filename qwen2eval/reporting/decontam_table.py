"""What `qwen2eval decontam` prints of a scan."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.reporting.corpus_problems import problem_words
from qwen2eval.reporting.markup import visible
from qwen2eval.reporting.numbers import NOTHING, format_count, format_percent

if TYPE_CHECKING:
    from decontam import Results
    from decontam.filter_plan import FilterSummary

_COLUMNS = ("Benchmark", "Items", "Testable", "13-gram", "LCS rule", "Whole", "Template", "Documents")


def print_scan(results: "Results", *, file: TextIO) -> None:
    """Print how many items of each benchmark were found, and by which rule."""
    console = Console(file=file, highlight=False, emoji=False)
    rule, totals = results.manifest["rule"], results.manifest["totals"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True, show_edge=False)
    width = min(10, max((len(visible(row["benchmark"])) for row in results.counts), default=0))
    for name in (*_COLUMNS[:3], f"{rule['ngram_size']}-gram", *_COLUMNS[4:]):
        is_name, is_share = name == "Benchmark", name in (f"{rule['ngram_size']}-gram", "LCS rule")
        # a share may stand below its count where the terminal is narrow
        table.add_column(
            name,
            justify="left" if is_name else "right",
            no_wrap=not (is_name or is_share),
            min_width=width if is_name else 8 if is_share else None,
        )
    for row in results.counts:
        counts = (format_count(row[name]) for name in ("n_references", "n_testable"))
        found = (_share(row[name], row["n_testable"]) for name in ("n_contaminated_strict", "n_contaminated_qwen2"))
        last = (format_count(row[name]) for name in ("n_whole", "n_template", "n_documents"))
        table.add_row(Text(visible(row["benchmark"])), *counts, *found, *last)
    console.print(table)
    console.print()
    seconds = results.manifest["seconds"]
    rate = f", {totals['n_bytes'] / 1e6 / seconds:,.0f} MB/s" if seconds else ""
    read = f"{_documents(totals['n_documents'])}, {totals['n_bytes'] / 1e6:,.1f} MB in {seconds:,.1f} s{rate}"
    console.print(Text(f"{read}; n-grams of items are in {_documents(totals['n_documents_matched'])}"))
    if results.manifest.get("again"):
        console.print(Text(f"{len(results.manifest['again']):,} links lead to what was read under another name"))
    if n_empty := sum(int(row["n_documents"]) + int(row["n_problems"]) == 0 for row in results.shards.values()):
        console.print(Text(f"{n_empty:,} of {_files(len(results.shards))} hold no document: see shards.csv"))
    for note in _notes(results.counts, rule["ngram_size"]):
        console.print(Text(note))
    line = Text.assemble(("matches  ", "bold"), visible(str(results.path / "matches.parquet")))
    console.print(line, soft_wrap=True)


def _notes(counts: Sequence[Mapping[str, Any]], size: int) -> Iterator[str]:
    """Say what can't be found, and by what else items were found."""

    def total(name: str) -> int:
        return sum(row[name] for row in counts)

    if short := total("n_references") - total("n_testable"):
        yield f"{short:,} items have fewer than {size} tokens: not testable, searched for in full only"
    if whole := total("n_testable_whole_question"):
        yield f"{whole:,} questions have fewer than {size} tokens: without the answer they are found in full only"
    if lost := total("n_references") - total("n_testable_question"):
        yield f"{lost:,} questions can't be found without the answer: they are even shorter, or in other items"
    if total("n_template"):
        yield (
            f"Template: only text was found that other items of the benchmark have, too. "
            f"{total('n_any_ngram'):,} items share any {size}-gram of their question and answer, templates included"
        )


def print_filter(summary: "FilterSummary", *, output: str, file: TextIO) -> None:
    """Print what became of a corpus."""
    console = Console(file=file, highlight=False, emoji=False)
    totals = summary.totals
    console.print(
        Text(
            f"{_files(len(summary.files))}: {totals['n_documents_dropped']:,} documents dropped, "
            f"{totals['n_documents_edited']:,} edited, {totals['n_characters_cut']:,} characters cut"
        )
    )
    for name, count in summary.by_benchmark.items():
        console.print(Text(f"  {visible(name)}: {count:,} documents"), soft_wrap=True)
    if summary.n_weaker:
        note = f"{_documents(summary.n_weaker)} with weaker matches kept: see --rule, --include_exact and --min_df"
        console.print(Text(note), soft_wrap=True)
    if totals["n_not_editable"]:
        console.print(Text(f"{totals['n_not_editable']:,} of them dropped: nested too deeply to edit", style="yellow"))
    if totals["n_not_scanned"]:
        note = (
            f"{totals['n_not_scanned']:,} records could not be scanned and are kept as they are: see problems.parquet"
        )
        console.print(Text(note, style="yellow"))
    if summary.unread:
        kinds = problem_words(Counter(one.kind for one in summary.unread))
        note = f"not in the copy: {kinds}; the first: {visible(summary.unread[0].path)}"
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if summary.again:
        note = f"not in the copy: {len(summary.again):,} links to files that are in it under another name"
        console.print(Text(note), soft_wrap=True)
    if summary.n_left_out:
        console.print(Text(f"{summary.n_left_out:,} more files were scanned, and not given to this filter"))
    is_clean = not (totals["n_not_scanned"] or summary.unread)
    head = "cleaned  " if is_clean else "cleaned where it was scanned  "
    console.print(Text.assemble((head, "bold"), visible(output)), soft_wrap=True)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"


def _share(count: int | None, total: int) -> str:
    if count is None:
        return NOTHING
    return f"{count:,} ({format_percent(count / total)})" if total else f"{count:,}"
