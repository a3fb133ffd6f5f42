"""The registry: which tasks and suites there are, and loading them.

Names are looked up in the user's `--include_path`, then this project's `tasks/`, then lm-eval's own; `lm_eval:NAME`
skips the first two. lm-eval is imported only by `load_tasks`.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.config import RunConfig
from qwen2eval.content import content_dir
from qwen2eval.data.hub_files import hub_or_cache
from qwen2eval.errors import (
    TASK_ERRORS,
    ConfigError,
    MissingDataError,
    Qwen2EvalError,
    TaskFileError,
    TaskNotFoundError,
)
from qwen2eval.tasks.build_errors import check_metrics, explained
from qwen2eval.tasks.eval_group import EvalGroup
from qwen2eval.tasks.group_members import check_members
from qwen2eval.tasks.index import TaskEntry, entries_of, lm_eval_entries, read_task_yaml, scan, shipped_entries
from qwen2eval.tasks.lm_eval_internals import forget_metadata, load_entry
from qwen2eval.tasks.lm_eval_task import EvalTask

if TYPE_CHECKING:
    from lm_eval.api.task import Task

LM_EVAL_PREFIX = "lm_eval:"


@dataclass(frozen=True)
class Suite:
    """A named list of tasks."""

    name: str
    summary: str
    tasks: tuple[str, ...]


@dataclass
class LoadedTasks:
    """Tasks that are ready to be planned, and those that could not be loaded."""

    tasks: dict[str, EvalTask] = field(default_factory=dict)
    """By name, in the order in which they were asked for."""
    groups: dict[str, EvalGroup] = field(default_factory=dict)
    """By name."""
    failures: dict[str, Qwen2EvalError] = field(default_factory=dict)
    """By the name that was asked for, or the task's."""
    warnings: list[str] = field(default_factory=list)
    """Files of the user that can't be read, and settings that change nothing."""


def suites() -> dict[str, Suite]:
    """Return the shipped suites by name."""
    found = {}
    for path in sorted((content_dir("tasks") / "suites").glob("*.yaml")):
        config = read_task_yaml(path)
        found[config["suite"]] = Suite(config["suite"], config.get("summary", ""), tuple(config["tasks"]))
    return found


def search_tasks(query: str = "", *, include_path: Sequence[str] = ()) -> list[TaskEntry]:
    """Return the entries whose name or summary holds `query` (or matches it as a glob), ours first.

    Args:
        query: compared without case; empty: everything.
        include_path: folders of the user's own task files.
    """
    own = {**shipped_entries(), **user_entries(include_path)}
    everything = {**{k: v for k, v in lm_eval_entries().items() if k not in own}, **own}
    wanted = query.lower()
    hits = [
        entry
        for entry in everything.values()
        if wanted in entry.name.lower() or wanted in entry.summary.lower() or fnmatch.fnmatch(entry.name, query)
    ]
    return sorted(hits, key=lambda e: (e.origin == "lm-eval", e.name.lower() != wanted, e.kind == "tag", e.name))


def user_entries(include_path: Sequence[str], *, broken: list[TaskFileError] | None = None) -> dict[str, TaskEntry]:
    """Return the tasks under the user's folders by name; later folders win, `broken` takes what can't be read."""
    entries: dict[str, TaskEntry] = {}
    for folder in include_path:
        if not Path(folder).is_dir():
            raise ConfigError(f"--include_path {folder!r} is not a folder")
        entries |= scan(Path(folder), origin=str(folder), broken=broken)
    return entries


def find_tasks(names: Iterable[str], *, include_path: Sequence[str] = ()) -> list[TaskEntry]:
    """Return the entry of each name; suites (`suite:NAME`) and globs give several.

    Raises:
        TaskNotFoundError: a name that is nowhere, with the nearest ones.
    """
    return _Registry(include_path).find_all(names)


def load_tasks(config: RunConfig) -> LoadedTasks:
    """Build the tasks and groups of a run, with the run's overrides applied.

    A task that can't be built is kept in `failures` with its error; all other tasks are loaded.

    Raises:
        TaskNotFoundError: an unknown name; nothing is loaded then.
    """
    registry = _Registry(config.include_path)
    loaded = LoadedTasks()
    loaded.warnings += [str(err) for err in registry.broken]
    is_data_missing = False
    for entry in _find_each(config.task_names, registry, loaded.failures):
        try:
            # Without a hub each set of data takes half a minute to be missing: after one, see whether there is a hub
            with hub_or_cache(offline=config.offline or not is_data_missing):
                built = _build(entry, registry, config)
        except Qwen2EvalError as err:
            loaded.failures[entry.name] = err
            is_data_missing |= isinstance(err, MissingDataError)
            continue
        for name, task in built.tasks.items():
            try:
                task.override(config)
                loaded.tasks[name] = task
            except Qwen2EvalError as err:
                loaded.failures[name] = err
        loaded.groups |= built.groups
    if config.reference_implementation and not any(task.reproduces_reference for task in loaded.tasks.values()):
        loaded.warnings.append("--reference_implementation changes nothing here: only NeedleBench's tasks support it")
    return loaded


def _find_each(names: Iterable[str], registry: "_Registry", failures: dict[str, Qwen2EvalError]) -> list[TaskEntry]:
    """Return the entries of the names; one whose file can't be read goes to `failures`."""
    found: dict[tuple[str, str], TaskEntry] = {}
    for name in _expand_suites(names):
        try:
            found |= {(entry.origin, entry.name): entry for entry in registry.find(name)}
        except TaskFileError as err:
            failures[name] = err
    return list(found.values())


class _Registry:
    """Looks names up in the user's folders, ours and lm-eval's, reading lm-eval's index only when it is needed."""

    def __init__(self, include_path: Sequence[str]) -> None:
        self.broken: list[TaskFileError] = []
        self.own = {**shipped_entries(), **user_entries(include_path, broken=self.broken)}

    @cached_property
    def lm_eval(self) -> dict[str, TaskEntry]:
        return lm_eval_entries()

    def find_all(self, names: Iterable[str]) -> list[TaskEntry]:
        """Return the entry of each name, suites and globs spelled out, each once."""
        found = {(e.origin, e.name): e for name in _expand_suites(names) for e in self.find(name)}
        return list(found.values())

    def find(self, name: str) -> list[TaskEntry]:
        if name.startswith(LM_EVAL_PREFIX):
            return self._match(name.removeprefix(LM_EVAL_PREFIX), {}) or self._unknown(name)
        if name.endswith((".yaml", ".yml")) and Path(name).is_file():
            return entries_of(Path(name).resolve(), origin=str(Path(name).parent))[:1]
        return self._match(name, self.own) or self._unknown(name)

    def needed_by(self, entry: TaskEntry) -> dict[str, TaskEntry]:
        """Return what `entry` may refer to: a task to itself only, a group of lm-eval's to lm-eval's, others to all."""
        # A task needs only itself; without this, lm-eval would be given all 14,000 entries
        if entry.kind == "task":
            return {entry.name: entry}
        return {**self.lm_eval, **({} if entry.origin == "lm-eval" else self.own), entry.name: entry}

    def _match(self, name: str, own: dict[str, TaskEntry]) -> list[TaskEntry]:
        if name in own:
            return [own[name]]
        is_glob = any(char in name for char in "*?[")
        everything = {**self.lm_eval, **own}
        if is_glob:
            return [everything[n] for n in sorted(fnmatch.filter(everything, name)) if everything[n].kind != "tag"]
        return [everything[name]] if name in everything else []

    def _unknown(self, name: str) -> list[TaskEntry]:
        if self.broken:
            raise TaskFileError(
                f"Task {name!r} was not found. It may be in a file that can't be read: {self.broken[0]}"
            )
        if name.endswith((".yaml", ".yml")):
            raise TaskNotFoundError(f"There is no task file {name!r}")
        bare = name.removeprefix(LM_EVAL_PREFIX)
        # Our tasks first: a near name among 20 is a better guess than one among 14,000
        near = difflib.get_close_matches(bare, self.own, n=2) or difflib.get_close_matches(bare, self.lm_eval, n=3)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        raise TaskNotFoundError(f"Unknown task {name!r}.{hint} List them with `qwen2eval tasks`.")


def _expand_suites(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if not name.startswith("suite:"):
            yield name
            continue
        known, wanted = suites(), name.removeprefix("suite:")
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TaskNotFoundError(f"Unknown suite {wanted!r}.{hint} There are: {', '.join(sorted(known))}.")
        yield from known[wanted].tasks


class _Built(NamedTuple):
    """What one entry of the registry is made of."""

    tasks: dict[str, EvalTask]
    groups: dict[str, EvalGroup]


def _build(entry: TaskEntry, registry: _Registry, config: RunConfig) -> _Built:
    """Build one entry with lm-eval's own factory.

    Raises:
        Qwen2EvalError: any error, with the task's name.
    """
    known = registry.needed_by(entry)
    metadata = {**config.model_args, "data_dir": config.data_dir, "offline": config.offline, "sandbox": config.sandbox}
    if config.reference_implementation:
        metadata["faithful"] = True
    check_members(entry, known)
    try:
        with ExitStack() as while_loading:
            if _runs_programs(entry, known):
                from qwen2eval.tasks.code.lm_eval_code import instead_of_code_eval

                while_loading.enter_context(instead_of_code_eval())
            built = load_entry(entry.name, known, metadata)
        tasks = {name: _evaluated(task, config) for name, task in built["tasks"].items()}
    except Qwen2EvalError:
        raise
    # Functions and data sets that a task file names may raise anything: then that task fails, not the run
    except TASK_ERRORS as err:
        raise explained(entry, err) from err
    if not tasks:
        raise TaskFileError(f"Group {entry.name!r} ({entry.path}) has no tasks: name them in `task:`, as a list")
    # A run's model arguments, keys to servers among them, are needed while data is loaded; later they would be in each
    # hash of the task and in results.json
    for part in (*built["tasks"].values(), *built["groups"].values()):
        forget_metadata(part, metadata)
    return _Built(tasks, {name: EvalGroup(group) for name, group in built["groups"].items()})


def _evaluated(task: "Task", config: RunConfig) -> EvalTask:
    """Return a task as a run uses it; programs that its own code would run unprotected go to the sandbox."""
    check_metrics(task)
    plain = EvalTask(task)
    if not plain.is_unsafe:
        return plain
    from qwen2eval.tasks.code.lm_eval_code import sandboxed

    return sandboxed(task, config.sandbox)


def _runs_programs(entry: TaskEntry, known: Mapping[str, TaskEntry], depth: int = 0) -> bool:
    """Whether an entry, or a member of it, has lm-eval's flag of tasks that run what the model wrote."""
    if entry.kind == "tag":
        members: Iterable[Any] = entry.members
    else:
        config = read_task_yaml(Path(entry.path or ""))
        if config.get("unsafe_code"):
            return True
        members = config.get("task") if isinstance(config.get("task"), list) else ()  # type: ignore[assignment]
    names = [member if isinstance(member, str) else member.get("task") or member.get("group") for member in members]
    # The depth ends the search where groups name each other in a circle
    return any(
        _runs_programs(known[name], known, depth + 1)
        for name in names
        if isinstance(name, str) and name in known and name != entry.name and depth < 8
    )
