"""Which tasks exist: ours at once, lm-eval's 14,000 through an index that is built once for each lm-eval version.

Only names, kinds and paths are kept, so a search needs neither lm-eval nor a YAML parser in memory.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from qwen2eval.content import cache_dir, content_dir
from qwen2eval.errors import TaskFileError

Kind = Literal["task", "group", "tag"]
INDEX_FORMAT = 1


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One name that `--tasks` takes."""

    name: str
    kind: Kind
    origin: str
    """Where it comes from: "qwen2eval", "lm-eval", or the user's folder."""
    path: str | None = None
    """The YAML file; None for tags."""
    output_type: str = ""
    summary: str = ""
    members: tuple[str, ...] = ()
    """Tasks that carry a tag; empty for tasks and groups."""
    is_python: bool = False
    """Whether the YAML names a Python class."""


def shipped_entries() -> dict[str, TaskEntry]:
    """Return this project's own tasks by name."""
    return scan(content_dir("tasks"), origin="qwen2eval")


def scan(folder: Path, *, origin: str, broken: list[TaskFileError] | None = None) -> dict[str, TaskEntry]:
    """Read every task YAML under `folder`.

    Args:
        folder: where to look.
        origin: whose tasks they are.
        broken: takes the errors of files that can't be read, so that the other tasks still run.

    Raises:
        TaskFileError: a file that can't be read, where `broken` is None.
    """
    entries: dict[str, TaskEntry] = {}
    for path in sorted(folder.rglob("*.yaml")):
        if path.parent.name == "suites" and origin == "qwen2eval":
            continue
        try:
            _add(entries, entries_of(path, origin=origin))
        except TaskFileError as err:
            if broken is None:
                raise
            broken.append(err)
    return entries


def entries_of(path: Path, *, origin: str) -> list[TaskEntry]:
    """Return what one YAML file defines: a task or group, and the tags it carries.

    Raises:
        TaskFileError: the file can't be read or is not YAML; says where.
    """
    config = read_task_yaml(path)
    tags = config.get("tag") or []
    names = [tags] if isinstance(tags, str) else list(tags)
    name = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
    if not isinstance(name, str):
        return []
    metadata = config.get("metadata")
    is_group = "group" in config and "class" not in config
    entry = TaskEntry(
        name=str(config["group"]) if is_group else name,
        kind="group" if is_group else "task",
        origin=origin,
        path=str(path),
        output_type=str(config.get("output_type") or ""),
        summary=str(metadata.get("summary") or "") if isinstance(metadata, dict) else "",
        is_python="class" in config,
    )
    # As in lm-eval, only tasks are registered under their tags, groups are not
    if is_group:
        return [entry]
    return [entry, *(TaskEntry(name=tag, kind="tag", origin=origin, members=(name,)) for tag in names if tag != name)]


def read_task_yaml(path: Path, _seen: frozenset[Path] = frozenset()) -> dict[str, Any]:
    """Read a task YAML with its includes, leaving `!function` names as text.

    Raises:
        TaskFileError: unreadable file, broken YAML, or an include that is missing or includes itself.
    """
    import yaml

    try:
        with path.open("rb") as file:
            config = yaml.load(file, Loader=_loader())  # noqa: S506 - a SafeLoader that also knows !function
    except OSError as err:
        raise TaskFileError(f"Task file {path} can't be read: {err.strerror}") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise TaskFileError(f"Task file {path} is not valid YAML: {err}") from err
    if not isinstance(config, dict):
        raise TaskFileError(f"Task file {path} must hold `key: value` lines, not {type(config).__name__}")
    includes = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    for include in [includes] if isinstance(includes, str) else includes:
        target = (path.parent / include).resolve()
        if target in _seen:
            raise TaskFileError(f"Task file {path} includes itself through {include!r}")
        merged.update(read_task_yaml(target, _seen | {path.resolve()}))
    # A later include overrides an earlier one, and the file itself overrides all of them
    return merged | config


def lm_eval_entries() -> dict[str, TaskEntry]:
    """Return lm-eval's tasks, groups and tags by name, from the cache, which is built first (some 15 s) if need be."""
    cache = _index_file()
    root = lm_eval_tasks_dir()
    if cache.is_file():
        rows = json.loads(cache.read_text(encoding="utf-8"))
    else:
        rows = [asdict(entry) for entry in _parse_lm_eval(root).values()]
        cache.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: another process may read or build the index at the same moment
        draft = cache.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(rows), encoding="utf-8")
        draft.replace(cache)
    return {row["name"]: _from_row(row, root) for row in rows}


def index_is_built() -> bool:
    """Whether the index of the installed lm-eval is there already."""
    return _index_file().is_file()


def lm_eval_tasks_dir() -> Path:
    """Return the folder of lm-eval's task files, without importing lm-eval."""
    spec = find_spec("lm_eval")
    assert spec is not None, "lm-eval is a dependency"
    assert spec.origin is not None, "lm-eval is an ordinary package"
    return Path(spec.origin).parent / "tasks"


def _index_file() -> Path:
    return cache_dir() / f"lm_eval_tasks_{version('lm_eval')}_{INDEX_FORMAT}.json"


def _from_row(row: dict[str, Any], root: Path) -> TaskEntry:
    # As text: with pathlib, all 14,000 rows would take 0.2 s
    path = None if row["path"] is None else f"{root}/{row['path']}"
    return TaskEntry(**{**row, "path": path, "members": tuple(row["members"])})


def _parse_lm_eval(root: Path) -> dict[str, TaskEntry]:
    paths = [p for p in sorted(root.rglob("*.yaml"), key=Path.as_posix) if "__pycache__" not in p.parts]
    chunks = [paths[i : i + 250] for i in range(0, len(paths), 250)]
    entries: dict[str, TaskEntry] = {}
    with ProcessPoolExecutor() as pool:
        for files in pool.map(_entries_relative, chunks, [root] * len(chunks)):
            for found in files:
                _add(entries, found)
    return entries


def _entries_relative(paths: list[Path], root: Path) -> list[list[TaskEntry]]:
    files: list[list[TaskEntry]] = []
    for path in paths:
        try:
            found = entries_of(path, origin="lm-eval")
        except TaskFileError:  # lm-eval ships a few files that it skips itself
            continue
        inside = path.relative_to(root).as_posix()
        files.append([entry if entry.path is None else replace(entry, path=inside) for entry in found])
    return files


def _add(entries: dict[str, TaskEntry], found: list[TaskEntry]) -> None:
    """Add what one file defines; as in lm-eval, the first file of a name wins and a later one adds no tags either."""
    if found and found[0].name in entries:
        return
    for entry in found:
        before = entries.get(entry.name)
        if entry.kind == "tag" and before is not None:
            if before.kind == "tag":
                entries[entry.name] = replace(before, members=tuple(sorted({*before.members, *entry.members})))
        else:
            entries[entry.name] = entry


def _loader() -> type:
    """Return a safe YAML loader to which `!function x` is the text x."""
    import yaml

    base: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = type("TaskLoader", (base,), {})
    yaml.add_constructor("!function", lambda load, node: load.construct_scalar(node), Loader=loader)
    return loader
