"""The `qwen2eval sandbox` commands. As in main.py: parse -> one library call -> print."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from qwen2eval.cli.parser import Subparsers, add_verb, add_verb_group
from qwen2eval.exit_codes import ExitCode

if TYPE_CHECKING:
    from qwen2eval.sandbox.self_check import SelfCheck


def add_sandbox_verbs(verbs: Subparsers) -> None:
    """Add `sandbox` and the command under it to the top-level commands."""
    commands = add_verb_group(
        verbs, "sandbox", "Check how programs that a model wrote can be isolated.", "qwen2eval sandbox check"
    )
    check = add_verb(
        commands,
        "check",
        do_check,
        "Report which isolation levels work on this machine, each tried with real programs, and run a dozen attacks at "
        "the strongest one. Exit code 0: all attacks were contained; 3: no level works; 70: an attack was not "
        "contained.",
        "qwen2eval sandbox check --json",
    )
    check.add_argument(
        "--level",
        default="auto",
        metavar="LEVEL",
        help="try only this level, e.g. container [default: auto, all levels that may be chosen automatically]",
    )


def do_check(args: argparse.Namespace) -> int:
    """qwen2eval sandbox check."""
    from qwen2eval.sandbox.levels import STRONG_LEVELS, level_name
    from qwen2eval.sandbox.self_check import check_machine

    name = level_name(args.level)
    found = check_machine(STRONG_LEVELS if name == "auto" else (name,))
    if args.json:
        print(json.dumps({**asdict(found), "is_contained": found.is_contained}, indent=1))
    else:
        print_check(found)
    if found.level is None:
        return ExitCode.MISSING_DATA
    return ExitCode.OK if found.is_contained else ExitCode.INCOMPLETE


def print_check(found: "SelfCheck") -> None:
    """Print one line for each level and each attack."""
    for tried in found.probes:
        print(f"{tried.level:<24} {'works' if tried.works else 'no: ' + tried.reason.removeprefix(tried.level + ': ')}")
    if found.level is None:
        print("\nPrograms that a model wrote can't be run safely on this machine.")
    else:
        n_contained = sum(attack.contained for attack in found.attacks)
        print(f"\n{n_contained} of {len(found.attacks)} attacks contained at level {found.level}")
        for attack in found.attacks:
            print(f"  {'contained' if attack.contained else 'NOT CONTAINED':<14} {attack.name}")
    for line in found.advice:
        print(line)
