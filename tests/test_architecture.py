"""docs/architecture.md says what is there: every name in it is looked up, and the steps are as many as it says."""

import importlib
import re
from importlib.util import find_spec
from operator import attrgetter

import pytest

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted(
    {
        name
        for name in re.findall(r"`([a-z_0-9]+(?:\.\w+)+)`", PAGE)
        if not name.endswith((".md", ".toml", ".py", ".json", ".parquet")) and not name.startswith("metadata.")
    }
)


def look_up(name: str) -> object:
    """Return the module, class or function of a dotted name below qwen2eval or decontam."""
    full = name if name.startswith("decontam") else f"qwen2eval.{name}"
    parts = full.split(".")
    # the longest part that is a module: `decontam.scan` is a function, too, where the package has it
    n_module = next(n for n in range(len(parts), 0, -1) if is_module(".".join(parts[:n])))
    found: object = importlib.import_module(".".join(parts[:n_module]))
    return attrgetter(".".join(parts[n_module:]))(found) if n_module < len(parts) else found


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of what is no package
        return False


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    look_up(name)


def test_the_four_lives_have_eight_steps():
    lives = re.findall(r"## The life of [^\n]+\n\n(.*?)\n\n", PAGE, re.DOTALL)
    assert len(lives) == 4
    for life in lives:
        assert [line[:2] for line in life.split("\n")] == [f"{i}." for i in range(1, 9)]
        assert all("`" in line for line in life.split("\n")[:7])


def test_every_room_is_described():
    packages = {path.parent.name for path in (REPOSITORY / "qwen2eval").glob("*/__init__.py")}
    table = PAGE[PAGE.index("## The rooms") : PAGE.index("## The life of a benchmark")]
    assert {name for name in packages if f"`{name}/`" not in table} == set()
