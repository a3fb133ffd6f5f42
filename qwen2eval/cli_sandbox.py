"""The `qwen2eval sandbox` commands. As in cli.py: parse -> one library call -> print."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen2eval.sandbox.self_check import SelfCheck

EXIT_NO_LEVEL, EXIT_NOT_CONTAINED = 3, 70

AddVerb = Callable[..., argparse.ArgumentParser]


def add_sandbox_verbs(verbs: Any, add_verb: AddVerb) -> None:
    """Add `sandbox` and the command under it.

    Args:
        verbs: the subparsers of the whole command line.
        add_verb: adds one command to such, with its function, description and example.
    """
    description = "Run programs that a model wrote where they can do no harm."
    example = "example:\n  qwen2eval sandbox check"
    sandbox = verbs.add_parser("sandbox", help=description.rstrip("."), description=description, epilog=example)
    sandbox.set_defaults(parser=sandbox)
    commands = sandbox.add_subparsers(dest="sandbox_verb", required=True, metavar="COMMAND")
    check = add_verb(
        commands,
        "check",
        do_check,
        "Tell what this machine can contain: the levels of protection, each tried with real programs, and a dozen "
        "attacks run at the strongest. Exit code 0: contained; 3: no level works; 70: an attack was not contained.",
        "qwen2eval sandbox check --json",
    )
    check.add_argument("--level", default="auto", metavar="LEVEL", help="only this one, e.g. container [default: auto]")


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
        return EXIT_NO_LEVEL
    return 0 if found.is_contained else EXIT_NOT_CONTAINED


def print_check(found: "SelfCheck") -> None:
    """Print levels and attacks, a line each."""
    for tried in found.probes:
        print(f"{tried.level:<24} {'works' if tried.works else 'no: ' + tried.reason.removeprefix(tried.level + ': ')}")
    if found.level is None:
        print("\nPrograms of a model can't be run safely here.")
    else:
        n_contained = sum(attack.contained for attack in found.attacks)
        print(f"\n{n_contained} of {len(found.attacks)} attacks contained at level {found.level}")
        for attack in found.attacks:
            print(f"  {'contained' if attack.contained else 'NOT CONTAINED':<14} {attack.name}")
    for line in found.advice:
        print(line)
