"""Imports, once a worker, what the programs of code benchmarks import: each fork has it at once."""

import builtins
import importlib

_MODULES = (
    "abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal enum "
    "fractions functools heapq inspect io itertools json linecache math numbers operator random re statistics string "
    "struct sys textwrap threading time traceback types typing unicodedata"
)


def preload(packages: list[str]) -> None:
    """Import the modules, and the packages that were asked for.

    Adds what `site` adds to the built-ins, since contest programs call `exit()`.
    """
    for name in (*_MODULES.split(), *packages):
        importlib.import_module(name)
    quitter = importlib.import_module("_sitebuiltins").Quitter
    for name in ("exit", "quit"):
        setattr(builtins, name, quitter(name, "Ctrl-D (i.e. EOF)"))
