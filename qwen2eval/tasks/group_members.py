"""Do a group's members exist? lm-eval fails on one that doesn't without its name, and endlessly on a circle."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen2eval.errors import TaskFileError
from qwen2eval.tasks.index import TaskEntry, read_task_yaml


def check_members(entry: TaskEntry, known: Mapping[str, TaskEntry]) -> None:
    """Look up the members of a group and of the groups in it.

    Args:
        known: every entry that the group may name.

    Raises:
        TaskFileError: a member that does not exist, or a group that holds itself; names both.
    """
    if entry.kind == "group":
        _check(entry, read_task_yaml(Path(entry.path or "")).get("task"), known, (entry.name,))


def _check(entry: TaskEntry, members: object, known: Mapping[str, TaskEntry], path: Sequence[str]) -> None:
    """Check the members of the last group of `path`, which leads there from `entry`."""
    group = f"Group {path[-1]!r} ({(known.get(path[-1]) or entry).path})"
    for member in members if isinstance(members, list) else ():
        name = _name_of(member)
        if name is None:
            raise TaskFileError(f"{group} has the member {member!r}, which is no name of a task or group")
        if name in path and (name in known):
            circle = " > ".join([*path[path.index(name) :], name])
            raise TaskFileError(f"{group} holds itself: {circle}. Take {name!r} out of its members")
        if name in known:
            if known[name].kind == "group":
                inner = read_task_yaml(Path(known[name].path or "")).get("task")
                _check(entry, inner, known, (*path, name))
        elif isinstance(member, dict) and "group" in member:
            _check(entry, member.get("task"), known, (*path, name))
        elif not (isinstance(member, dict) and _DEFINES & set(member)):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TaskFileError(f"{group} has the member {name!r}, which does not exist.{hint}")


_DEFINES = {"dataset_path", "custom_dataset", "class", "include"}
"""Keys of a task that is written into its group."""


def _name_of(member: Any) -> str | None:
    name = (member.get("group") or member.get("task")) if isinstance(member, dict) else member
    return name if isinstance(name, str) else None
