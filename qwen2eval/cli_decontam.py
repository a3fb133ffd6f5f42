"""The `qwen2eval decontam` commands. As in cli.py: parse -> one library call -> print."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwen2eval.errors import ConfigError
from qwen2eval.reporting.markup import visible

if TYPE_CHECKING:
    from decontam import Results, Rule
    from decontam.scan import Runner

EXIT_BAD_INPUT = 3
_RULE_OPTIONS = ("tokenizer", "ngram_size", "ngram_size_cjk", "min_lcs", "min_lcs_ratio", "sequence", "min_whole")

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
    _add_filter(commands, add_verb)
    _add_show(commands, add_verb)
    _add_apply(commands, add_verb)


def do_scan(args: argparse.Namespace) -> int:
    """qwen2eval decontam scan."""
    # arrow's own allocator keeps some 70 MB of what was freed; it is chosen when arrow is imported
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from decontam import ReferenceIndex, scan
    from qwen2eval.progress import scan_progress
    from qwen2eval.reference_items import load_references
    from qwen2eval.reporting.decontam_table import print_scan

    with decontam_errors():
        rule, runner = _rule(args), _runner(args)
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
        with scan_progress() as show:
            results = scan(
                args.corpus,
                index,
                output=args.output,
                text_field=args.text_field,
                workers=args.workers,
                strict_input=args.strict_input,
                max_line_mb=args.max_line_mb,
                on_progress=show,
                runner=runner,
            )
    if args.json:
        print(json.dumps({"path": str(results.path), "counts": results.counts, **results.manifest}, indent=1))
    else:
        print_scan(results, file=sys.stdout)
    _tell_problems(results)
    return EXIT_BAD_INPUT if results.manifest["problems"] else 0


def do_filter(args: argparse.Namespace) -> int:
    """qwen2eval decontam filter."""
    from dataclasses import asdict

    from decontam import load_results
    from decontam.filter import filter_corpus
    from decontam.filter_plan import FilterOptions
    from qwen2eval.reporting.decontam_table import print_filter

    with decontam_errors():
        options = FilterOptions(
            action=args.action,
            rule=args.rule,
            include_whole=args.include_whole,
            min_df=args.min_df,
            margin=args.margin,
            mask=args.mask,
        )
        results = load_results(args.matches)
        summary = filter_corpus(args.corpus, results, output=args.output, options=options, workers=args.workers)
    if args.json:
        files = [asdict(file) for file in summary.files]
        print(json.dumps({**summary.totals, "by_benchmark": summary.by_benchmark, "files": files}, indent=1))
    else:
        print_filter(summary, output=args.output, file=sys.stdout)
    return 0


def do_show(args: argparse.Namespace) -> int:
    """qwen2eval decontam show."""
    from dataclasses import asdict
    from pathlib import Path

    from decontam import load_results
    from decontam.evidence import print_evidence, show_matches, write_evidence_html

    with decontam_errors():
        found = show_matches(
            load_results(args.matches),
            reference=args.reference,
            document=args.document,
            min_df=args.min_df,
            limit=args.limit or None,
        )
        if args.html:
            write_evidence_html(Path(args.html), found)
    if args.json:
        print(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False))
    elif args.html:
        print(args.html)
    else:
        print_evidence(found, file=sys.stdout)
        if not found:
            print("No matches.")
    return 0


def do_apply(args: argparse.Namespace) -> int:
    """qwen2eval decontam apply."""
    from qwen2eval.reporting.console import print_summary
    from qwen2eval.rescore import rescore

    run = rescore(args.run, data_dir=args.data_dir, matches=args.matches)
    if args.json:
        contamination = {} if run.info.contamination is None else run.info.contamination.to_json()
        print(json.dumps({"run": str(run.path), **contamination}, indent=1, ensure_ascii=False))
    else:
        print_summary(run, file=sys.stdout)
    if run.report_fault is not None:
        print(f"qwen2eval: {visible(run.report_fault)}", file=sys.stderr)
    return run.exit_code


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


def _runner(args: argparse.Namespace) -> "Runner | None":
    """Return the engine that was asked for; None: threads."""
    if args.engine == "ray":
        from decontam.ray_engine import ray_runner

        return ray_runner(address=args.address, workers=args.workers)
    if args.address is not None:
        raise ConfigError("--address is of a Ray cluster: give --engine ray with it")
    return None


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


def _add_scan(commands: Any, add_verb: AddVerb) -> None:
    scan = add_verb(
        commands,
        "scan",
        do_scan,
        "Search a corpus for benchmark items: documents that share an n-gram with an item, and of these the ones that "
        "the rule of the Qwen2 report removes. A scan that was stopped goes on with the same command.",
        "qwen2eval decontam scan corpus/*.jsonl.zst --references mmlu,gsm8k,my_items.jsonl --output leaks\n"
        "  qwen2eval decontam scan /nfs/corpus --references mmlu --output leaks --engine ray --address head:6379",
    )
    add = scan.add_argument
    add(
        "corpus",
        nargs="+",
        metavar="CORPUS",
        help="files, folders, globs: jsonl, text (.gz, .zst), parquet; hf://NAME:SPLIT",
    )
    add(
        "--references",
        nargs="+",
        action="extend",
        required=True,
        metavar="LIST",
        help="tasks, groups, jsonl files or folders of them",
    )
    add("--output", required=True, metavar="DIR", help="where matches, counts and manifest go")
    add("--text_field", default="text", metavar="NAME", help="of a record, a.b for nested ones [default: text]")
    add("--workers", type=int, metavar="N", help="threads, or Ray tasks at a time [default: all cores]")
    add("--engine", choices=("local", "ray"), default="local", help="threads of this machine, or Ray [default: local]")
    add(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster that sees CORPUS under the same paths [default: $RAY_ADDRESS, else one started here]",
    )
    add("--strict_input", action="store_true", help="stop at the first record that can't be read")
    add("--max_line_mb", type=int, default=256, metavar="MB", help="leave out longer lines [default: 256]")
    add("--reference_field", default="text", metavar="NAME", help="text of an item in jsonl files [default: text]")
    add("--answer_field", metavar="NAME", help="answer of an item in jsonl files [default: none]")
    add("--data_dir", metavar="DIR", help="benchmarks in their published files [default: $QWEN2EVAL_DATA]")
    add("--include_path", action="append", default=[], metavar="DIR", help="folder with task YAML of yours")
    add("--offline", action="store_true", help="open no connection beyond this machine")
    _add_rule(scan)


def _add_filter(commands: Any, add_verb: AddVerb) -> None:
    filter_ = add_verb(
        commands,
        "filter",
        do_filter,
        "Write a cleaned copy of a corpus that was scanned: documents dropped, or what was found in them cut out or "
        "masked. Everything else stays as it was, byte for byte, in the same format and compression.",
        "qwen2eval decontam filter corpus/ --matches leaks --output clean --action cut --margin 200",
    )
    add = filter_.add_argument
    add("corpus", nargs="+", metavar="CORPUS", help="the files, folders or globs that were scanned")
    add("--matches", required=True, metavar="DIR", help="the folder of the finished scan")
    add("--output", required=True, metavar="DIR", help="where the cleaned files and the summary go")
    add("--action", choices=("drop", "cut", "mask"), default="drop", help="what is done to a match [default: drop]")
    add("--rule", choices=("qwen2", "strict"), default="qwen2", help="which matches [default: qwen2]")
    add("--include_whole", action="store_true", help="also items too short for an n-gram that were found whole")
    add("--margin", type=int, default=0, metavar="CHARS", help="cut on both sides of a match, too [default: 0]")
    add("--mask", default="[MASKED]", metavar="TEXT", help="what stands for a masked match [default: [MASKED]]")
    add("--workers", type=int, metavar="N", help="files at a time [default: one a core]")
    _add_min_df(filter_)


def _add_show(commands: Any, add_verb: AddVerb) -> None:
    show = add_verb(
        commands,
        "show",
        do_show,
        "Show matches side by side: the item, and the document in which it was found.",
        "qwen2eval decontam show leaks --reference gsm8k --html evidence.html",
    )
    add = show.add_argument
    add("matches", metavar="DIR", help="the folder of a finished scan")
    add("--reference", metavar="ID", help="an item, e.g. gsm8k/17, or a benchmark")
    add("--document", metavar="PATH[:ROW]", help="a file of the corpus, or a record of it, from 0")
    add("--limit", type=int, default=20, metavar="N", help="at most so many, 0 for all [default: 20]")
    add("--html", metavar="FILE", help="write a page instead")
    _add_min_df(show)


def _add_min_df(parser: argparse.ArgumentParser) -> None:
    text = "only matches whose rarest n-gram is in at most N documents; others are common phrases [default: all]"
    parser.add_argument("--min_df", type=int, metavar="N", help=text)


def _add_apply(commands: Any, add_verb: AddVerb) -> None:
    apply = add_verb(
        commands,
        "apply",
        do_apply,
        "Score a finished run again on the docs that a scan did not find, and on those that it found. No model is "
        "loaded; the run's samples, scores and report are replaced.",
        "qwen2eval decontam apply runs/latest --matches leaks",
    )
    apply.add_argument("run", metavar="RUN", help="a run folder, e.g. runs/latest")
    apply.add_argument("--matches", required=True, metavar="DIR", help="the folder of a finished scan")
    apply.add_argument("--data_dir", metavar="DIR", help="benchmark data, where the run's own place has moved")


def _add_rule(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rule", choices=("qwen2", "strict"), default="qwen2", help="strict: an n-gram alone [default: qwen2]")
    add("--tokenizer", metavar="NAME", help="words, or a model's tokens: qwen2, hf:PATH, hf:HUB_NAME [default: words]")
    add("--ngram_size", type=int, metavar="TOKENS", help="that must be shared in a row [default: 13]")
    add("--ngram_size_cjk", type=int, metavar="TOKENS", help="the same for Chinese, Thai … [default: as ngram_size]")
    add("--min_lcs", type=int, metavar="TOKENS", help="of the longest common subsequence [default: 13]")
    add("--min_lcs_ratio", type=float, metavar="R", help="its share of the shorter text, 0-1 [default: 0.6]")
    add("--sequence", choices=("window", "document"), help="compare the text around, or all of it [default: window]")
    add("--min_whole", type=int, metavar="TOKENS", help="shortest item to be looked for as a whole [default: 5]")
    add("--no_fold_case", action="store_true", help="upper and lower case differ")
