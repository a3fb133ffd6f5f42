"""The parser of the command line: flags are shown with `_` and accepted with `-` too; help fits the terminal."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NoReturn, TypeAlias

from qwen2eval.exit_codes import ExitCode, exit_codes_line

MAX_COLUMNS = 100
# A text, because argparse's class can't be subscripted at run time
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"
"""The commands of a parser or of a command group: `add_verb` adds one."""


class HelpFormatter(argparse.HelpFormatter):
    """argparse's help, with paragraphs wrapped and indented blocks kept, in at most 100 columns."""

    def __init__(self, prog: str, **options: Any) -> None:
        width = min(_columns(os.environ.get("COLUMNS", "")), MAX_COLUMNS)
        super().__init__(prog, max_help_position=32 if width > 70 else 20, width=width, **options)

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None
    ) -> str:
        """Show the required parts of a command only: positional arguments, then required flags."""
        # With a prefix, argparse asks for the text before a subcommand's name, not for the usage
        if prefix is not None:
            return super()._format_usage(usage, actions, groups, prefix)
        places = [self._format_args(one, one.dest) for one in actions if not one.option_strings]
        needed = [self._format_action_invocation(one) for one in actions if one.option_strings and one.required]
        text = " ".join(["usage:", self._prog, *places, *needed, "[options]"])
        return "\n".join(self._wrapped(text, self._width, hanging=" " * 7)) + "\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap each paragraph; one with an indented line is an example, which is kept."""
        return "\n\n".join(
            part if "\n  " in part else "\n".join(self._wrapped(indent + part, width, hanging=indent))
            for part in text.split("\n\n")
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return self._wrapped(text, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Show a flag by its first name: others are old ones."""
        if not action.option_strings or "-h" in action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return action.option_strings[0] + value

    @staticmethod
    def _wrapped(text: str, width: int, *, hanging: str = "") -> list[str]:
        import textwrap

        # Names of models and flags are not broken at their hyphens
        return textwrap.wrap(text, width, subsequent_indent=hanging, break_on_hyphens=False, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """argparse with this project's exit codes and help; `-` and `_` in a flag mean the same."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with every known flag spelled with underscores, as the fields of the settings are."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._with_underscores(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with one line: the error, the nearest known flag, the command that shows the help."""
        import difflib

        flags = [flag for action in self._actions for flag in action.option_strings]
        words = [word for word in re.findall(r"--[\w-]+", message) if word not in flags]
        near = [match for word in words for match in difflib.get_close_matches(word, flags, n=1)]
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {message}.{hint} See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE)

    def _with_underscores(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        known = "--" + flag[2:].replace("-", "_")
        is_flag = flag.startswith("--") and known in self._option_string_actions
        return known + equals + value if is_flag else word


def add_verb(
    verbs: Subparsers, name: str, do: Callable[[argparse.Namespace], int], description: str, example: str
) -> Parser:
    """Add a command.

    Args:
        verbs: the subparsers that it belongs to.
        do: what runs it; returns the exit code.
        description: its first sentence is shown in the list of commands.
        example: a command line that can be run, or several, each indented by two spaces.
    """
    parser = verbs.add_parser(
        name,
        help=description.split(". ", maxsplit=1)[0].rstrip("."),
        description=description,
        epilog=f"example:\n  {example}\n\n{exit_codes_line()}",
    )
    parser.set_defaults(do=do, parser=parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def add_verb_group(verbs: Subparsers, name: str, description: str, example: str) -> Subparsers:
    """Add a command that only holds others, and return the subparsers for these."""
    parser = verbs.add_parser(
        name, help=description.rstrip("."), description=description, epilog=f"example:\n  {example}"
    )
    parser.set_defaults(parser=parser)
    return parser.add_subparsers(dest=f"{name}_verb", required=True, metavar="COMMAND")


@cache  # argparse makes a formatter for each flag
def _columns(given: str) -> int:
    """Return the terminal's width less argparse's margin, or the maximum if the output is not a terminal.

    Args:
        given: the environment's COLUMNS, which wins.
    """
    try:  # shutil.get_terminal_size does the same, but takes milliseconds to import
        columns = int(given) if given.isdigit() else os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 0
    return columns - 2 if columns else MAX_COLUMNS
