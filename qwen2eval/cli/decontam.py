"""The `qwen2eval decontam` commands. As in main.py: parse -> one library call -> print."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qwen2eval.cli.parser import Subparsers, add_verb, add_verb_group
from qwen2eval.cli.run_flags import MOVED_DATA, add_flags
from qwen2eval.errors import ConfigError
from qwen2eval.exit_codes import ExitCode
from qwen2eval.reporting.markup import visible

if TYPE_CHECKING:
    from decontam import Results, Rule
    from decontam.scan import Runner

_RULE_OPTIONS = (
    *("tokenizer", "ngram_size", "ngram_size_cjk", "min_lcs", "min_lcs_ratio", "sequence", "min_whole"),
    "template_items",
)


def add_decontam_verbs(verbs: Subparsers) -> None:
    """Add `decontam` and the commands under it to the top-level commands."""
    commands = add_verb_group(
        verbs,
        "decontam",
        "Search training text for benchmark items, remove them, and score runs without contaminated items.",
        "qwen2eval decontam scan corpus/ --references mmlu,gsm8k --output leaks",
    )
    _add_scan(commands)
    _add_filter(commands)
    _add_show(commands)
    _add_apply(commands)


def do_scan(args: argparse.Namespace) -> int:
    """qwen2eval decontam scan."""
    # arrow's own allocator keeps some 70 MB of what was freed; it is chosen when arrow is imported
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from decontam import ReferenceIndex, scan
    from qwen2eval.progress import scan_progress
    from qwen2eval.reporting.decontam_table import print_scan
    from qwen2eval.tasks.references import load_references

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
    _print_problems(results)
    return ExitCode.MISSING_DATA if results.manifest["problems"] else ExitCode.OK


def do_filter(args: argparse.Namespace) -> int:
    """qwen2eval decontam filter."""
    from dataclasses import asdict

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
        results = _finished_scan(args.matches)
        summary = filter_corpus(args.corpus, results, output=args.output, options=options, workers=args.workers)
    if args.json:
        files = [asdict(file) for file in summary.files]
        not_copied = [one._asdict() for one in summary.unread]
        shown = {**summary.totals, "by_benchmark": summary.by_benchmark, "files": files, "not_copied": not_copied}
        shown["n_documents_with_weaker_matches"] = summary.n_weaker
        print(json.dumps(shown, indent=1))
    else:
        print_filter(summary, output=args.output, file=sys.stdout)
    return ExitCode.MISSING_DATA if summary.n_not_scanned or summary.unread else ExitCode.OK


def _finished_scan(folder: str) -> "Results":
    """Load a scan; say so where its verdicts are those of an older version."""
    from decontam import load_results

    results = load_results(folder)
    if results.is_older:
        print(
            f"qwen2eval: {folder} is a scan by another version of this program, which read some texts in another way "
            "and may have missed items. Scan again into another folder for the verdicts of this version",
            file=sys.stderr,
        )
    return results


def do_show(args: argparse.Namespace) -> int:
    """qwen2eval decontam show."""
    from pathlib import Path

    from decontam.evidence import collect_evidence
    from qwen2eval.reporting.decontam_evidence import as_json, print_evidence, write_evidence_html

    with decontam_errors():
        found = collect_evidence(
            _finished_scan(args.matches),
            reference=args.reference,
            document=args.document,
            min_df=args.min_df,
            limit=args.limit or None,
        )
        if args.html:
            write_evidence_html(Path(args.html), found)
    if args.json:
        print(json.dumps(as_json(found), indent=1, ensure_ascii=False))
    elif args.html:
        print(args.html)
    else:
        print_evidence(found, file=sys.stdout)
        if not found:
            print("No matches.")
    return ExitCode.OK


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
    """Raise the engine's errors as this program's."""
    from decontam import DecontamError

    try:
        yield
    except DecontamError as err:
        raise ConfigError(str(err)) from err


def _rule(args: argparse.Namespace) -> "Rule":
    from decontam import Rule

    given = {name: getattr(args, name) for name in _RULE_OPTIONS if getattr(args, name) is not None}
    given["fold_case"] = not args.no_fold_case
    given["markup"] = not args.no_markup
    if args.rule == "strict":
        if unused := [name for name in ("min_lcs", "min_lcs_ratio", "sequence") if name in given]:
            raise ConfigError(f"--{unused[0]} has no meaning under --rule strict, which only requires a shared n-gram")
        return Rule.strict(**given)
    return Rule(**given)


def _runner(args: argparse.Namespace) -> "Runner | None":
    """Return the chosen engine; None: threads of this machine."""
    if args.engine == "ray":
        from decontam.ray_engine import ray_runner

        return ray_runner(address=args.address, workers=args.workers)
    if args.address is not None:
        raise ConfigError("--address is the address of a Ray cluster: give --engine ray with it")
    return None


def _print_problems(results: "Results") -> None:
    """Print on stderr what of the corpus could not be read."""
    from qwen2eval.reporting.corpus_problems import problem_words

    problems = results.manifest["problems"]
    if not problems:
        return
    print(f"qwen2eval: the corpus was not read in full: {problem_words(problems)}; the first:", file=sys.stderr)
    first = results.problems.groupby("kind", sort=False).head(2)
    for problem in first.itertuples():
        line = f"  {problem.path}, record {problem.row}: {problem.kind}: {problem.detail}"
        print(visible(line)[:300], file=sys.stderr)
    print(f"all of them: {results.path / 'problems.parquet'}", file=sys.stderr)


def _add_scan(commands: Subparsers) -> None:
    scan = add_verb(
        commands,
        "scan",
        do_scan,
        "Search a corpus for benchmark items. A document matches an item if both share an n-gram; the rule of the "
        "Qwen2 report, which also compares their longest common subsequence, decides which documents are contaminated. "
        "If a scan was stopped, the same command resumes it.",
        "qwen2eval decontam scan corpus/*.jsonl.zst --references mmlu,gsm8k,my_items.jsonl --output leaks\n"
        "  qwen2eval decontam scan /nfs/corpus --references mmlu --output leaks --engine ray",
    )
    add = scan.add_argument
    add(
        "corpus",
        nargs="+",
        metavar="CORPUS",
        help="files, folders or globs of jsonl, text (both also .gz, .zst, .bz2 and .xz) or parquet; or hf://NAME:SPLIT",
    )
    add(
        "--references",
        nargs="+",
        action="extend",
        required=True,
        metavar="LIST",
        help="benchmark items to search for: names of tasks or groups, jsonl files, or folders of jsonl files",
    )
    add("--output", required=True, metavar="DIR", help="folder for the matches, the counts and the manifest")
    add_flags(scan, "text_field", has_defaults=True)
    add(
        "--reference_field",
        default="text",
        metavar="NAME",
        help="field that holds the text of an item in jsonl files of --references [default: text]",
    )
    add(
        "--answer_field",
        metavar="NAME",
        help="field that holds the answer of an item in jsonl files of --references [default: no answer]",
    )
    add_flags(scan, "data_dir", "include_path", "offline", has_defaults=True)
    add("--strict_input", action="store_true", help="stop at the first record that can't be read")
    add("--max_line_mb", type=int, default=256, metavar="MB", help="skip lines longer than this many MB [default: 256]")
    _add_engine(scan)
    _add_rule(scan)


def _add_engine(scan: argparse.ArgumentParser) -> None:
    add = scan.add_argument_group("engine").add_argument
    add("--workers", type=int, metavar="N", help="number of threads, or of concurrent Ray tasks [default: all cores]")
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what runs the scan: threads of this machine (local), or a Ray cluster (ray) [default: local]",
    )
    add(
        "--address",
        metavar="HOST:PORT",
        help="address of a Ray cluster whose machines see CORPUS under the same paths "
        "[default: $RAY_ADDRESS, else a new cluster on this machine]",
    )


def _add_filter(commands: Subparsers) -> None:
    filter_ = add_verb(
        commands,
        "filter",
        do_filter,
        "Write a cleaned copy of a scanned corpus. Contaminated documents are dropped, or the matching text in them is "
        "cut out or masked. Everything else is kept byte for byte, in the same format and compression.",
        "qwen2eval decontam filter corpus/ --matches leaks --output clean --action cut --margin 200",
    )
    add = filter_.add_argument
    add("corpus", nargs="+", metavar="CORPUS", help="the files, folders or globs that were scanned")
    add("--matches", required=True, metavar="DIR", help="folder of the finished scan")
    add("--output", required=True, metavar="DIR", help="folder for the cleaned files and the summary")
    add(
        "--action",
        choices=("drop", "cut", "mask"),
        default="drop",
        help="drop documents with a match, or cut out or mask the matching text [default: drop]",
    )
    add(
        "--rule",
        choices=("qwen2", "strict"),
        default="qwen2",
        help="matches to act on: those of the Qwen2 report's rule (qwen2), or all n-gram matches (strict) "
        "[default: qwen2]",
    )
    add(
        "--include_exact",
        "--include_whole",
        dest="include_whole",
        action="store_true",
        help="act also on items that are shorter than an n-gram and occur in full",
    )
    add(
        "--margin",
        type=int,
        default=0,
        metavar="CHARS",
        help="characters to cut on both sides of a match, in addition to it [default: 0]",
    )
    add("--mask", default="[MASKED]", metavar="TEXT", help="text that replaces a masked match [default: [MASKED]]")
    add("--workers", type=int, metavar="N", help="number of files to clean at the same time [default: all cores]")
    _add_min_df(filter_)


def _add_show(commands: Subparsers) -> None:
    show = add_verb(
        commands,
        "show",
        do_show,
        "Show matches side by side: the item, and the document that contains it.",
        "qwen2eval decontam show leaks --reference gsm8k --html evidence.html",
    )
    add = show.add_argument
    add("matches", metavar="DIR", help="folder of a finished scan")
    add(
        "--reference",
        metavar="ID",
        help="show only the matches of one item, e.g. gsm8k/17, or of one benchmark, e.g. gsm8k [default: all]",
    )
    add(
        "--document",
        metavar="PATH[:ROW]",
        help="show only the matches in one file of the corpus, or in one record of it, counted from 0 [default: all]",
    )
    add("--limit", type=int, default=20, metavar="N", help="maximum number of matches; 0 for all [default: 20]")
    add("--html", metavar="FILE", help="write the matches to an HTML file instead of printing them")
    _add_min_df(show)


def _add_min_df(parser: argparse.ArgumentParser) -> None:
    text = (
        "only matches whose rarest n-gram is in at most N documents of the corpus; n-grams in more documents are "
        "common phrases [default: all matches]"
    )
    parser.add_argument("--min_df", type=int, metavar="N", help=text)


def _add_apply(commands: Subparsers) -> None:
    apply = add_verb(
        commands,
        "apply",
        do_apply,
        "Re-score a finished run on its clean and its contaminated docs, as marked by a finished scan. No model is "
        "loaded; the run's samples, scores and report are replaced.",
        "qwen2eval decontam apply runs/latest --matches leaks",
    )
    apply.add_argument("run", metavar="RUN", help="run folder, e.g. runs/latest")
    apply.add_argument("--matches", required=True, metavar="DIR", help="folder of a finished scan")
    add_flags(apply, "data_dir", data_dir=MOVED_DATA)


def _add_rule(parser: argparse.ArgumentParser) -> None:
    """Add what counts as a match; the defaults are those of `decontam.Rule`, which a test compares."""
    group = parser.add_argument_group("rule")
    add = group.add_argument
    add(
        "--rule",
        choices=("qwen2", "strict"),
        default="qwen2",
        help="strict: a shared n-gram is enough; qwen2: the longest common subsequence counts, too [default: qwen2]",
    )
    add(
        "--ngram_size",
        type=int,
        metavar="TOKENS",
        help="n-gram size: consecutive tokens that a document and an item must share [default: 13]",
    )
    add(
        "--ngram_size_cjk",
        type=int,
        metavar="TOKENS",
        help="n-gram size for items in Chinese, Japanese, Thai and other scripts without spaces between words "
        "[default: as --ngram_size]",
    )
    add(
        "--min_lcs",
        type=int,
        metavar="TOKENS",
        help="minimum length of the longest common subsequence, in tokens [default: 13]",
    )
    add(
        "--min_lcs_ratio",
        type=float,
        metavar="RATIO",
        help="minimum length of the longest common subsequence as a share of the shorter text, 0 to 1 [default: 0.6]",
    )
    add(
        "--sequence",
        choices=("window", "document"),
        help="what of a document is compared: a window around the shared n-grams, or the whole document "
        "[default: window]",
    )
    add(
        "--min_exact_tokens",
        "--min_whole",
        dest="min_whole",
        type=int,
        metavar="TOKENS",
        help="minimum length, in tokens, of questions and items that are shorter than an n-gram and must occur in full "
        "[default: 5]",
    )
    add(
        "--template_items",
        type=int,
        metavar="N",
        help="n-grams that more than N items of a benchmark have are templates, and no evidence by themselves; "
        "0: no n-gram is a template [default: 1]",
    )
    _add_reading(group)


def _add_reading(group: argparse._ArgumentGroup) -> None:
    """Add how texts are read as tokens, in items and in the corpus alike."""
    add = group.add_argument
    add(
        "--tokenizer",
        metavar="NAME",
        help="what a token is: a word (words), or a token of a model's tokenizer (qwen2, hf:PATH or hf:HUB_NAME) "
        "[default: words]",
    )
    add("--no_fold_case", action="store_true", help="treat upper and lower case letters as different")
    add(
        "--no_markup",
        action="store_true",
        help="read the names of HTML tags and entities, and the letters of escapes such as \\n, as words of the text",
    )
