"""The `qwen2eval` command: parse -> config -> one library call -> print.

Heavy libraries are imported by the verb that needs them, so `--help` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval import __version__
from qwen2eval.cli_decontam import add_decontam_verbs
from qwen2eval.cli_model import add_model_verbs
from qwen2eval.cli_sandbox import add_sandbox_verbs
from qwen2eval.config import KEY_VALUES, RunConfig, load_config, parse_key_values
from qwen2eval.errors import ConfigError, Qwen2EvalError, RunFolderError, few_of
from qwen2eval.reporting.markup import told_once, visible

if TYPE_CHECKING:
    from qwen2eval.finished_run import Run

EXIT_USAGE = 64
EXIT_INTERRUPTED = 130
_CORPUS = ("corpus", "text_field", "matches")
EXIT_CODES = (
    "exit codes: 0 ok, 3 missing data or unreadable run, 64 usage, 70 a task failed or docs are missing, 130 stopped"
)


class _Parser(argparse.ArgumentParser):
    """argparse with this project's exit code, and both spellings of every flag."""

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        both = [n for name in names for n in ((name, name.replace("_", "-")) if name.startswith("--") else (name,))]
        return super().add_argument(*dict.fromkeys(both), **kwargs)

    def error(self, message: str) -> Any:
        """Exit with one line: what is wrong, the nearest flag, where to read on."""
        import difflib
        import re

        flags = [flag for action in self._actions for flag in action.option_strings]
        words = [word for word in re.findall(r"--[\w-]+", message) if word not in flags]
        near = [match for word in words for match in difflib.get_close_matches(word, flags, n=1)]
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {message}.{hint} See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)

    def _get_formatter(self) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(self.prog, max_help_position=34, width=100)


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
        print("\nqwen2eval: stopped. What was answered is kept: the same command goes on from there.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="qwen2eval",
        description="Evaluate language models by the protocols of the Qwen2 report: error bars, resumable, reported.",
        epilog="example:\n  qwen2eval run --model hf --model_args pretrained=Qwen/Qwen2-0.5B --tasks mmlu --limit 9\n\n"
        + EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"qwen2eval {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND", parser_class=_Parser)
    run = _verb(
        verbs,
        "run",
        do_run,
        "Evaluate a model and write a run folder with scores, samples and a report. The same command again goes on "
        "where it stopped. With no arguments it runs the embedded demo.",
        "qwen2eval run --model hf --model_args pretrained=Qwen/Qwen2-0.5B,dtype=float32 --tasks mmlu,gsm8k --limit 50",
    )
    _add_run_flags(run)
    run.add_argument("--dry_run", action="store_true", help="show the plan and stop, as `qwen2eval plan`")
    plan = _verb(
        verbs,
        "plan",
        do_plan,
        "Show what a run would ask: requests, tokens, cut prompts, shared prefixes, first prompts. Loads no weights.",
        "qwen2eval plan --model hf --model_args pretrained=Qwen/Qwen2-0.5B --tasks mmlu --limit 100",
    )
    _add_run_flags(plan)
    tasks = _verb(verbs, "tasks", do_tasks, "List or search tasks, groups and suites.", "qwen2eval tasks gsm")
    tasks.add_argument("query", nargs="?", default="", metavar="QUERY", help="part of a name or summary, or a glob")
    tasks.add_argument("--suites", action="store_true", help="list the suites")
    tasks.add_argument("--all", action="store_true", help="every task of lm-eval too, when no QUERY is given")
    tasks.add_argument(
        "--include_path", action="append", default=[], metavar="DIR", help="folder with task YAML of yours"
    )
    _add_finished_run_verbs(verbs)
    add_decontam_verbs(verbs, _verb)
    add_model_verbs(verbs, _verb)
    add_sandbox_verbs(verbs, _verb)
    return parser


def _add_finished_run_verbs(verbs: Any) -> None:
    """Add what is done with runs that are there."""
    score = _verb(
        verbs,
        "score",
        do_score,
        "Score a finished run again from its samples, with today's filters and metrics; the only model that may be "
        "loaded is a judge (--judge).",
        "qwen2eval score runs/latest\n"
        "  qwen2eval score runs/latest --judge hf --judge_args pretrained=Qwen/Qwen2-7B-Instruct",
    )
    score.add_argument("run", metavar="RUN", help="a run folder, e.g. runs/latest")
    score.add_argument("--data_dir", metavar="DIR", help="benchmark data, where the run's own place has moved")
    _add_judge_flags(score)
    report = _verb(
        verbs,
        "report",
        do_report,
        "Write the report of finished runs again.",
        "qwen2eval report runs/latest --format md",
    )
    report.add_argument("run", nargs="+", metavar="RUN", help="run folders, e.g. runs/latest")
    report.add_argument("--together", metavar="DIR", help="put the runs' scores and heat maps side by side, in DIR")
    report.add_argument("--format", default="html,md", metavar="LIST", help="html, md or both [default: html,md]")


def do_run(args: argparse.Namespace) -> int:
    """qwen2eval run."""
    if args.dry_run:
        return do_plan(args)
    from qwen2eval.demo.shipped import is_demo
    from qwen2eval.run import run

    config = config_from_args(args)
    made = run(config, command=_command())
    code = _show_run(made, as_json=args.json)
    if is_demo(config) and not args.json:
        from qwen2eval.demo.story import tell

        print("\n".join(["", *tell(made)]))
    return code


def do_plan(args: argparse.Namespace) -> int:
    """qwen2eval plan."""
    from qwen2eval.estimate import estimate_time, task_costs
    from qwen2eval.finished_run import find_runs
    from qwen2eval.judging import n_judge_requests
    from qwen2eval.reporting.plan_table import plan_as_dict, print_plan
    from qwen2eval.run import plan

    made = plan(config_from_args(args))
    found = find_runs(made.config.output_path)
    for err in found.unreadable:
        _warn(f"passed over: {err}")
    costs, estimate, n_judge = task_costs(made), estimate_time(made, found.runs), n_judge_requests(made)
    if args.json:
        print(json.dumps(plan_as_dict(made, costs, estimate, n_judge=n_judge), indent=1, ensure_ascii=False))
    else:
        print_plan(made, costs, estimate, n_judge=n_judge, file=sys.stdout)
    return 70 if made.failures else 0


def do_tasks(args: argparse.Namespace) -> int:
    """qwen2eval tasks."""
    from qwen2eval.reporting.task_table import print_suites, print_tasks
    from qwen2eval.task_index import index_is_built
    from qwen2eval.tasks import search_tasks, suites

    if args.suites:
        found = list(suites().values())
        rows = [{"suite": s.name, "summary": s.summary, "tasks": list(s.tasks)} for s in found]
        print(json.dumps(rows, indent=1)) if args.json else print_suites(found, file=sys.stdout)
        return 0
    if not index_is_built():
        print("Indexing lm-eval's tasks, once for this version (some seconds) …", file=sys.stderr)
    entries = search_tasks(args.query, include_path=tuple(args.include_path))
    if not args.query and not args.all:
        entries = [entry for entry in entries if entry.origin != "lm-eval"]
    if args.json:
        keys = ("name", "kind", "origin", "output_type", "summary", "path")
        print(json.dumps([{key: getattr(entry, key) for key in keys} for entry in entries], indent=1))
    else:
        print_tasks(entries, query=args.query, file=sys.stdout)
    if not entries:
        from qwen2eval.tasks import find_tasks

        find_tasks([args.query], include_path=tuple(args.include_path))  # raises with the nearest names
    return 0


def do_score(args: argparse.Namespace) -> int:
    """qwen2eval score."""
    from qwen2eval.rescore import rescore

    judge_args = _key_values(args, "judge_args", {})
    made = rescore(args.run, data_dir=args.data_dir, judge=args.judge, judge_args=judge_args)
    return _show_run(made, as_json=args.json)


def do_report(args: argparse.Namespace) -> int:
    """qwen2eval report."""
    from qwen2eval.report import FORMATS, write_report, write_together

    formats = args.format.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"--format {unknown[0]!r}: give html, md or html,md")
    runs = _readable_runs(args.run)
    if args.together:
        reports = [write_together(runs, Path(args.together))] if runs else []
    else:
        reports = [write_report(run, formats=formats) for run in runs]
    for report in reports:
        _warn(report.fault)
    paths = [str(path) for report in reports for path in report.paths]
    if args.json or paths:
        print(json.dumps(paths) if args.json else "\n".join(paths))
    return max([RunFolderError.exit_code * (len(runs) < len(args.run)), *(report.exit_code for report in reports)])


def _readable_runs(paths: Sequence[str]) -> "list[Run]":
    """Return the runs whose record and scores can be read; what is wrong with the others is said on stderr."""
    from qwen2eval.finished_run import load_run

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
    """Say on stderr, in one line, what went wrong without stopping the command."""
    if message is not None:
        print(f"qwen2eval: {visible(message)}", file=sys.stderr)


def config_from_args(args: argparse.Namespace) -> RunConfig:
    """Return the run's config: the YAML file's values, overridden by the flags that were given."""
    values: dict[str, Any] = load_config(args.config) if args.config else {}
    values.pop("config", None)
    for name in KEY_VALUES:
        if getattr(args, name):
            values[name] = _key_values(args, name, values.get(name) or {})
    if args.tasks is not None:
        values["tasks"] = [name for text in args.tasks for name in text.split(",") if name]
        if not values["tasks"]:
            raise ConfigError("--tasks names no task: list them with `qwen2eval tasks`")
        values.pop("suite", None)
    plain = (
        "model",
        "suite",
        "num_fewshot",
        "limit",
        "batch_size",
        "device",
        "apply_chat_template",
        "system_instruction",
    )
    for name in (
        *plain,
        "fewshot_as_multiturn",
        "seed",
        "include_path",
        "data_dir",
        "sandbox",
        "rope",
        "faithful",
        "judge",
        "output_path",
        "offline",
        *_CORPUS,
    ):
        if (value := getattr(args, name)) is not None:
            values[name] = value
            if name == "suite":
                values.pop("tasks", None)
    return RunConfig.from_dict(values)


def _key_values(args: argparse.Namespace, name: str, before: dict[str, Any] | str) -> dict[str, Any]:
    """Return a setting of k=v, each flag over those before it, and all over what a file says."""
    values = dict(before) if isinstance(before, dict) else parse_key_values(before, flag=f"--{name}")
    for text in (text for group in getattr(args, name) for text in group):
        values |= parse_key_values(text, flag=f"--{name}")
    return values


def _add_judge_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge", metavar="NAME", help="a second model that judges the answers of niah tasks: any that --model takes"
    )
    parser.add_argument(
        "--judge_args",
        action="append",
        nargs="+",
        default=[],
        metavar="K=V",
        help="its arguments, e.g. pretrained=DIR,max_gen_toks=512",
    )


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    default = RunConfig()
    add = parser.add_argument
    add(
        "--model",
        metavar="NAME",
        help="qwen2, hf, vllm, local-completions, local-chat-completions, dummy, demo [default: demo]",
    )
    add("--model_args", action="append", nargs="+", default=[], metavar="K=V", help="e.g. pretrained=DIR,dtype=float32")
    add("--tasks", nargs="+", metavar="NAME", help="tasks, groups, tags, globs or YAML files; commas or spaces")
    add("--suite", metavar="NAME", help="a named list of tasks [default: demo]; see `qwen2eval tasks --suites`")
    add("--num_fewshot", type=int, metavar="N", help="examples in the prompt [default: what the task says]")
    add("--limit", type=float, metavar="N", help="docs a task; below 1 a fraction [default: all]")
    add("--batch_size", type=_batch_size, metavar="N", help="rows of a forward pass, or auto [default: auto]")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 … [default: cuda if there is one]")
    add(
        "--apply_chat_template", nargs="?", const=True, metavar="NAME", help="wrap prompts in the model's chat template"
    )
    add(
        "--fewshot_as_multiturn",
        nargs="?",
        const=True,
        type=_yes_no,
        metavar="BOOL",
        help="examples as turns [default: true]",
    )
    add("--system_instruction", metavar="TEXT", help="system message, before the task's description")
    add(
        "--gen_kwargs",
        action="append",
        nargs="+",
        default=[],
        metavar="K=V",
        help="e.g. max_gen_toks=512,temperature=0.7",
    )
    add("--seed", metavar="N", help="one integer for all, or python,numpy,torch,fewshot [default: 0,1234,1234,1234]")
    add("--include_path", action="append", metavar="DIR", help="folder with task YAML of yours; repeatable")
    add("--data_dir", metavar="DIR", help="benchmarks in their published files [default: $QWEN2EVAL_DATA]")
    add("--corpus", nargs="+", metavar="PATH", help="training text: scores again on docs that are not in it")
    add("--text_field", metavar="NAME", help="of a corpus record [default: text]")
    add("--matches", metavar="DIR", help="a finished `qwen2eval decontam scan`, instead of --corpus")
    add("--sandbox", metavar="LEVEL", help="where programs that the model wrote are run [default: the strongest here]")
    add("--rope", metavar="R", help="longer contexts: none, yarn, yarn+dca [default: auto, if a task needs it]")
    add("--faithful", action="store_const", const=True, help="NeedleBench: the original's arithmetic, faults and all")
    _add_judge_flags(parser)
    add("--output_path", metavar="DIR", help=f"where run folders and the store go [default: {default.output_path}]")
    add("--config", metavar="FILE", help="YAML with any of these settings; flags win")
    add("--offline", action="store_const", const=True, help="open no connection beyond this machine")


def _verb(
    verbs: Any, name: str, do: Callable[[argparse.Namespace], int], description: str, example: str
) -> argparse.ArgumentParser:
    epilog = f"example:\n  {example}\n\n{EXIT_CODES}"
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=description.split(". ", maxsplit=1)[0].rstrip("."),
        description=description,
        epilog=epilog,
        allow_abbrev=False,
    )
    parser.set_defaults(do=do, parser=parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _show_run(run: "Run", *, as_json: bool) -> int:
    if as_json:
        scores = json.loads(run.scores.to_json(orient="records"))
        shown = {"run": str(run.path), "status": run.info.status, "failed": run.failed_tasks, "scores": scores}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        from qwen2eval.reporting.console import print_summary

        print_summary(run, file=sys.stdout)
    for names, why in told_once(run.failed_tasks):
        is_one = len(names) == 1
        said = f"task {names[0]!r}" if is_one else f"{len(names)} tasks ({few_of(names)})"
        print(f"qwen2eval: {said} failed: {visible(why)}", file=sys.stderr)
    _warn(run.report_fault)
    return run.exit_code


def _command() -> list[str]:
    """Return what the user typed, without secrets."""
    from qwen2eval.redact import redacted_command

    return ["qwen2eval", *redacted_command(sys.argv[1:])]


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number") from None


def _yes_no(text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


if __name__ == "__main__":
    sys.exit(main())
