"""The `qwen2eval` command: parse -> config -> one library call -> print.

Heavy libraries are imported by the verb that needs them, so `--help` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen2eval.cli.decontam import add_decontam_verbs
from qwen2eval.cli.model import add_model_verbs
from qwen2eval.cli.parser import Parser, Subparsers, add_verb
from qwen2eval.cli.run_flags import MOVED_DATA, add_flags, add_run_flags, config_from_args, flag_value
from qwen2eval.cli.sandbox import add_sandbox_verbs
from qwen2eval.errors import ConfigError, Qwen2EvalError, RunFolderError, summarize_names
from qwen2eval.exit_codes import ExitCode, exit_codes_line
from qwen2eval.reporting.markup import FORMATS, group_by_message, visible
from qwen2eval.version import VERSION

if TYPE_CHECKING:
    from qwen2eval.run_folder.folder import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return int(args.do(args))
    except Qwen2EvalError as err:
        print(f"qwen2eval: {visible(str(err))}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("\nqwen2eval: stopped. Finished answers are kept: run the same command again to resume.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has closed the pipe
        sys.stderr.close()
        return ExitCode.OK


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="qwen2eval",
        description="Evaluate language models by the protocols of the Qwen2 report, with error bars and an HTML "
        "report. A run that was stopped can be resumed.",
        epilog="example:\n  qwen2eval run --model hf --model_args pretrained=Qwen/Qwen2-0.5B --tasks mmlu --limit 9\n\n"
        + exit_codes_line(),
    )
    parser.add_argument("--version", action="version", version=f"qwen2eval {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND", parser_class=Parser)
    _add_run_verbs(verbs)
    tasks = add_verb(verbs, "tasks", do_tasks, "List or search tasks, groups and suites.", "qwen2eval tasks gsm")
    tasks.add_argument(
        "query", nargs="?", default="", metavar="QUERY", help="part of a task's name or summary, or a glob"
    )
    tasks.add_argument("--suites", action="store_true", help="list the suites, with their tasks")
    tasks.add_argument(
        "--all", action="store_true", help="list lm-eval's tasks, too; without it, only a QUERY searches them"
    )
    add_flags(tasks, "include_path", has_defaults=True)
    _add_finished_run_verbs(verbs)
    add_decontam_verbs(verbs)
    add_model_verbs(verbs)
    add_sandbox_verbs(verbs)
    return parser


def _add_run_verbs(verbs: Subparsers) -> None:
    """Add the commands that take all settings."""
    run = add_verb(
        verbs,
        "run",
        do_run,
        "Evaluate a model and write a run folder with scores, samples and a report. Without arguments it evaluates the "
        "embedded demo model. If a run was stopped, the same command resumes it.",
        "qwen2eval run --model hf --model_args pretrained=Qwen/Qwen2-0.5B --tasks mmlu,gsm8k --limit 50",
    )
    run.add_argument("--dry_run", action="store_true", help="show the plan and stop, as `qwen2eval plan` does")
    add_run_flags(run)
    plan = add_verb(
        verbs,
        "plan",
        do_plan,
        "Show the requests of a run without loading weights. For each task: requests, tokens, truncated prompts, "
        "shared prefixes and the first prompt; for the run: an estimate of time and memory.",
        "qwen2eval plan --model hf --model_args pretrained=Qwen/Qwen2-0.5B --tasks mmlu --limit 100",
    )
    add_run_flags(plan)


def _add_finished_run_verbs(verbs: Subparsers) -> None:
    """Add the commands that work on finished runs."""
    score = add_verb(
        verbs,
        "score",
        do_score,
        "Score a finished run again from its samples, with the current filters and metrics. The evaluated model is not "
        "loaded; a judge model is, if --judge names one.",
        "qwen2eval score runs/latest\n"
        "  qwen2eval score runs/latest --judge hf --judge_args pretrained=Qwen/Qwen2-7B-Instruct",
    )
    score.add_argument("run", metavar="RUN", help="run folder, e.g. runs/latest")
    add_flags(score, "data_dir", "judge", "judge_args", data_dir=MOVED_DATA)
    report = add_verb(
        verbs,
        "report",
        do_report,
        "Regenerate the reports of finished runs.",
        "qwen2eval report runs/latest --format md",
    )
    report.add_argument("run", nargs="+", metavar="RUN", help="run folders, e.g. runs/latest")
    report.add_argument("--together", metavar="DIR", help="write the runs' scores and heat maps side by side into DIR")
    report.add_argument(
        "--format", default="html,md", metavar="LIST", help="formats to write: html, md or html,md [default: html,md]"
    )


def do_run(args: argparse.Namespace) -> int:
    """qwen2eval run."""
    if args.dry_run:
        return do_plan(args)
    from qwen2eval.demo.shipped import is_demo
    from qwen2eval.evaluate import run

    config = config_from_args(args)
    made = run(config, command=_command())
    code = _show_run(made, as_json=args.json)
    if is_demo(config) and not args.json:
        from qwen2eval.demo.summary import summarize

        print("\n".join(["", *summarize(made)]))
    return code


def do_plan(args: argparse.Namespace) -> int:
    """qwen2eval plan."""
    from qwen2eval.evaluate import plan
    from qwen2eval.judges.asking import n_judge_requests
    from qwen2eval.planning.estimate import estimate_time, task_costs
    from qwen2eval.reporting.plan_table import plan_as_dict, print_plan
    from qwen2eval.run_folder.folder import find_runs

    made = plan(config_from_args(args))
    found = find_runs(made.config.output_path)
    for err in found.unreadable:
        _warn(f"ignored a run: {err}")
    costs, estimate, n_judge = task_costs(made), estimate_time(made, found.runs), n_judge_requests(made)
    if args.json:
        print(json.dumps(plan_as_dict(made, costs, estimate, n_judge=n_judge), indent=1, ensure_ascii=False))
    else:
        print_plan(made, costs, estimate, n_judge=n_judge, file=sys.stdout)
    return ExitCode.INCOMPLETE if made.failures else ExitCode.OK


def do_tasks(args: argparse.Namespace) -> int:
    """qwen2eval tasks."""
    from qwen2eval.reporting.task_table import print_tasks
    from qwen2eval.tasks.index import index_is_built
    from qwen2eval.tasks.registry import search_tasks

    if args.suites:
        return _show_suites(as_json=args.json)
    if not index_is_built():
        print("Indexing lm-eval's tasks, once for each version of it (a few seconds) …", file=sys.stderr)
    entries = search_tasks(args.query, include_path=tuple(args.include_path))
    if not args.query and not args.all:
        entries = [entry for entry in entries if entry.origin != "lm-eval"]
    if args.json:
        keys = ("name", "kind", "origin", "output_type", "summary", "path")
        print(json.dumps([{key: getattr(entry, key) for key in keys} for entry in entries], indent=1))
    else:
        print_tasks(entries, query=args.query, file=sys.stdout)
    if not entries:
        from qwen2eval.tasks.registry import find_tasks

        # Nothing was found: this raises an error that suggests the nearest names
        find_tasks([args.query], include_path=tuple(args.include_path))
    return ExitCode.OK


def _show_suites(*, as_json: bool) -> int:
    from qwen2eval.reporting.task_table import print_suites
    from qwen2eval.tasks.registry import suites

    found = list(suites().values())
    if as_json:
        rows = [{"suite": s.name, "summary": s.summary, "tasks": list(s.tasks)} for s in found]
        print(json.dumps(rows, indent=1))
    else:
        print_suites(found, file=sys.stdout)
    return ExitCode.OK


def do_score(args: argparse.Namespace) -> int:
    """qwen2eval score."""
    from qwen2eval.rescore import rescore

    judge_args = flag_value(args, "judge_args")
    made = rescore(args.run, data_dir=args.data_dir, judge=args.judge, judge_args=judge_args)
    return _show_run(made, as_json=args.json)


def do_report(args: argparse.Namespace) -> int:
    """qwen2eval report."""
    from qwen2eval.reporting.report import write_report, write_together

    formats = args.format.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"--format {unknown[0]!r}: give html, md or html,md")
    asked = list(dict.fromkeys(args.run))
    runs = _readable_runs(asked)
    if args.together:
        reports = [write_together(runs, Path(args.together), formats=formats)] if runs else []
    else:
        reports = [write_report(run, formats=formats) for run in runs]
    for report in reports:
        _warn(report.fault)
    paths = [str(path) for report in reports for path in report.paths]
    if args.json or paths:
        print(json.dumps(paths) if args.json else "\n".join(paths))
    return max([RunFolderError.exit_code * (len(runs) < len(asked)), *(report.exit_code for report in reports)])


def _readable_runs(paths: Sequence[str]) -> "list[Run]":
    """Return the runs whose record and scores can be read; the errors of the other runs are printed on stderr."""
    from qwen2eval.run_folder.folder import load_run

    runs = []
    for path in paths:
        try:
            run = load_run(path)
            run.score_rows()
            runs.append(run)
        except RunFolderError as err:
            _warn(str(err))
    return runs


def _warn(message: str | None) -> None:
    """Print a warning on stderr, in one line; nothing if there is none."""
    if message is not None:
        print(f"qwen2eval: {visible(message)}", file=sys.stderr)


def _show_run(run: "Run", *, as_json: bool) -> int:
    if as_json:
        scores = json.loads(run.scores.to_json(orient="records"))
        shown = {"run": str(run.path), "status": run.info.status, "failed": run.failed_tasks, "scores": scores}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        from qwen2eval.reporting.console import print_summary

        print_summary(run, file=sys.stdout)
    for names, why in group_by_message(run.failed_tasks):
        is_one = len(names) == 1
        which = f"task {names[0]!r}" if is_one else f"{len(names)} tasks ({summarize_names(names)})"
        print(f"qwen2eval: {which} failed: {visible(why)}", file=sys.stderr)
    _warn(run.report_fault)
    return run.exit_code


def _command() -> list[str]:
    """Return the command as it was typed, without secrets."""
    from qwen2eval.redact import redacted_command

    return ["qwen2eval", *redacted_command(sys.argv[1:])]


if __name__ == "__main__":
    sys.exit(main())
