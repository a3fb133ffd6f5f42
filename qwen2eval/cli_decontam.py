"""The `qwen2eval decontam` commands. As in cli.py: parse -> one library call -> print."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwen2eval.errors import ConfigError

if TYPE_CHECKING:
    from decontam import Results, Rule
    from decontam.scan import Progress

EXIT_BAD_INPUT = 3
_RULE_OPTIONS = ("ngram_size", "ngram_size_cjk", "min_lcs", "min_lcs_ratio", "sequence", "min_whole")

AddVerb = Callable[..., argparse.ArgumentParser]


def add_decontam_verbs(verbs: Any, add_verb: AddVerb) -> None:
    """Add `decontam` and the commands under it.

    Args:
        verbs: the subparsers of the whole command line.
        add_verb: adds one command to such, with its function, description and example.
    """
    description = "Search training text for benchmark items, clean it, and score runs on what was not leaked."
    example = "example:\n  qwen2eval decontam scan corpus/ --references mmlu,gsm8k --output leaks"
    decontam = verbs.add_parser("decontam", help=description.rstrip("."), description=description, epilog=example)
    decontam.set_defaults(parser=decontam)
    commands = decontam.add_subparsers(dest="decontam_verb", required=True, metavar="COMMAND")
    _add_scan(commands, add_verb)


def do_scan(args: argparse.Namespace) -> int:
    """qwen2eval decontam scan."""
    from decontam import ReferenceIndex, scan
    from qwen2eval.reference_items import load_references
    from qwen2eval.reporting.decontam_table import print_scan

    with decontam_errors():
        rule = _rule(args)
        references = load_references(
            [name for text in args.references for name in text.split(",") if name],
            data_dir=args.data_dir,
            include_path=args.include_path,
            offline=args.offline,
            text_field=args.reference_field,
            answer_field=args.answer_field,
        )
        print(f"Indexing {len(references):,} items …", file=sys.stderr)
        index = ReferenceIndex.build(references, rule)
        with _progress() as show:
            results = scan(
                args.corpus,
                index,
                output=args.output,
                text_field=args.text_field,
                workers=args.workers,
                strict_input=args.strict_input,
                max_line_mb=args.max_line_mb,
                on_progress=show,
            )
    if args.json:
        print(json.dumps({"path": str(results.path), "counts": results.counts, **results.manifest}, indent=1))
    else:
        print_scan(results, file=sys.stdout)
    _tell_problems(results)
    return EXIT_BAD_INPUT if results.manifest["problems"] else 0


@contextmanager
def decontam_errors() -> Iterator[None]:
    """Turn the engine's errors into this program's."""
    from decontam import DecontamError

    try:
        yield
    except DecontamError as err:
        raise ConfigError(str(err)) from err


def _rule(args: argparse.Namespace) -> "Rule":
    from decontam import Rule

    given = {name: getattr(args, name) for name in _RULE_OPTIONS if getattr(args, name) is not None}
    given["fold_case"] = not args.no_fold_case
    if args.rule == "strict":
        if unused := [name for name in ("min_lcs", "min_lcs_ratio", "sequence") if name in given]:
            raise ConfigError(f"--{unused[0]} has no meaning under --rule strict, which asks for an n-gram alone")
        return Rule.strict(**given)
    return Rule(**given)


def _tell_problems(results: "Results") -> None:
    """Say on stderr what could not be read."""
    problems = results.manifest["problems"]
    if not problems:
        return
    told = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in problems.items())
    print(f"qwen2eval: records with problems: {told}; the first ones:", file=sys.stderr)
    for problem in results.problems.head(5).itertuples():
        print(f"  {problem.path}, record {problem.row}: {problem.kind}: {problem.detail}"[:300], file=sys.stderr)
    print(f"all of them: {results.path / 'problems.parquet'}", file=sys.stderr)


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """Show bytes, rate and time left on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"))
    with Bars(*columns, TimeRemainingColumn(), TextColumn("{task.description}"), console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None)

        def show(progress: "Progress") -> None:
            found = f"{progress.n_documents:,} documents, {progress.n_matches:,} matches"
            bars.update(task, completed=progress.n_bytes, total=progress.n_bytes_total, description=found)

        yield show


def _add_scan(commands: Any, add_verb: AddVerb) -> None:
    scan = add_verb(
        commands,
        "scan",
        do_scan,
        "Search a corpus for benchmark items: documents that share an n-gram with an item, and of these the ones that "
        "the rule of the Qwen2 report removes. A scan that was stopped goes on with the same command.",
        "qwen2eval decontam scan corpus/*.jsonl.zst --references mmlu,gsm8k,my_items.jsonl --output leaks",
    )
    add = scan.add_argument
    add("corpus", nargs="+", metavar="CORPUS", help="files, folders, globs: jsonl, text (.gz, .zst), parquet")
    add("--references", nargs="+", action="extend", required=True, metavar="LIST", help="tasks, groups, or jsonl files")
    add("--output", required=True, metavar="DIR", help="where matches, counts and manifest go")
    add("--text_field", default="text", metavar="NAME", help="of a record, a.b for nested ones [default: text]")
    add("--workers", type=int, metavar="N", help="threads [default: one a core]")
    add("--strict_input", action="store_true", help="stop at the first record that can't be read")
    add("--max_line_mb", type=int, default=256, metavar="MB", help="leave out longer lines [default: 256]")
    add("--reference_field", default="text", metavar="NAME", help="text of an item in jsonl files [default: text]")
    add("--answer_field", metavar="NAME", help="answer of an item in jsonl files [default: none]")
    add("--data_dir", metavar="DIR", help="benchmarks in their published files [default: $QWEN2EVAL_DATA]")
    add("--include_path", action="append", default=[], metavar="DIR", help="folder with task YAML of yours")
    add("--offline", action="store_true", help="open no connection beyond this machine")
    _add_rule(scan)


def _add_rule(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rule", choices=("qwen2", "strict"), default="qwen2", help="strict: an n-gram alone [default: qwen2]")
    add("--ngram_size", type=int, metavar="TOKENS", help="that must be shared in a row [default: 13]")
    add("--ngram_size_cjk", type=int, metavar="TOKENS", help="the same for Chinese, Thai … [default: as ngram_size]")
    add("--min_lcs", type=int, metavar="TOKENS", help="of the longest common subsequence [default: 13]")
    add("--min_lcs_ratio", type=float, metavar="R", help="its share of the shorter text, 0-1 [default: 0.6]")
    add("--sequence", choices=("window", "document"), help="compare the text around, or all of it [default: window]")
    add("--min_whole", type=int, metavar="TOKENS", help="shortest item to be looked for as a whole [default: 5]")
    add("--no_fold_case", action="store_true", help="upper and lower case differ")
