"""Benchmarks' docs as the references that a corpus is searched for, and files of references of the user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError, TaskFileError
from qwen2eval.quiet import prepared_libraries
from qwen2eval.requests import Doc
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.registry import load_tasks

if TYPE_CHECKING:
    from decontam import Reference

MOST_CHARACTERS = 20_000
"""Of a prompt that is searched for: a longer one is mostly a text that many docs share."""
_SUFFIXES = tuple(
    f".{name}{packed}" for name in ("jsonl", "ndjson", "json") for packed in ("", ".gz", ".zst", ".bz2", ".xz")
)


_TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".zip")
"""What may hold items; other files beside them, such as a README, may not."""


def load_references(
    names: Sequence[str],
    *,
    data_dir: str | None = None,
    include_path: Sequence[str] = (),
    offline: bool = False,
    text_field: str = "text",
    answer_field: str | None = None,
) -> "list[Reference]":
    """Return the items of benchmarks and files.

    Args:
        names: tasks, groups, suites (`suite:NAME`), jsonl files, or folders of these (`items/`, with a
            slash, as a folder may be called like a task).
        text_field: of the files' lines; `answer_field`, too.

    Raises:
        Qwen2EvalError: a task that isn't there, or whose data is missing.
        DecontamError: a file that can't be read.
    """
    from decontam import read_references

    files = {name: _files(name) for name in dict.fromkeys(names)}
    tasks = tuple(name for name, paths in files.items() if not paths)
    found = [
        item
        for path in dict.fromkeys(path for paths in files.values() for path in paths)
        for item in read_references(path, text_field=text_field, answer_field=answer_field)
    ]
    if tasks:
        config = RunConfig(
            model="dummy", tasks=tasks, data_dir=data_dir, include_path=tuple(include_path), offline=offline
        )
        with prepared_libraries(offline=offline):
            loaded = load_tasks(config)
            for error in loaded.failures.values():
                raise error
            found += [item for name, task in loaded.tasks.items() for item in task_references(name, task)]
    if not found:
        raise ConfigError("--references names no item: give tasks (see `qwen2eval tasks`) or jsonl files")
    return found


def _files(name: str) -> list[Path]:
    """Return the files that a name means; none if it is a task's.

    Raises:
        ConfigError: it is a folder without any, or a file that isn't there.
    """
    path = Path(name)
    if path.is_file():
        return [] if path.suffix in (".yaml", ".yml") else [path]
    if path.is_dir() and "/" in name:
        if found := _files_below(name):
            return found
        raise ConfigError(f"--references {name!r} is a folder without jsonl files: give one with items, or a task")
    if name.lower().endswith(_SUFFIXES):
        raise ConfigError(f"--references {name!r}: no such file")
    return []


def _files_below(name: str) -> list[Path]:
    """Return a folder's jsonl files; what can't be read is an error, since its items would pass for searched.

    Raises:
        ConfigError: a folder below that can't be listed, a link to nothing, or a table that isn't jsonl.
    """
    from decontam import DecontamError
    from decontam.walk import expand

    try:
        found = expand([name])
    except DecontamError:
        return []
    if faults := [one for one in found.unread if one.kind == "unreadable"]:
        raise ConfigError(f"--references {name!r}: {faults[0].path}: {faults[0].detail}")
    everything = (*found.files, *(one.path for one in found.unread))
    if tables := [path for path in everything if Path(path).suffix.lower() in _TABLES]:
        raise ConfigError(f"--references {name!r}: {tables[0]} is not jsonl: convert it, or leave it out")
    return sorted(Path(file) for file in found.files if file.lower().endswith(_SUFFIXES))


def task_references(name: str, task: EvalTask) -> "list[Reference]":
    """Return all docs of a task as references, `<task>/<doc_id>`."""
    return [reference_of(name, doc_id, task, doc) for doc_id, doc in enumerate(task.docs)]


def reference_of(name: str, doc_id: int, task: EvalTask, doc: Doc, *, has_forms: bool = True) -> "Reference":
    """Return a doc as a reference; without its other forms where only question and answer are asked for.

    The task's `metadata.reference_fields` say what is compared: the first is the question, the other fields follow it;
    a list of texts that follows it alone is the choices. A task without them gives lm-eval's
    `doc_to_decontamination_query`, or else its prompt without examples; and its target. The prompt and the fields of
    `metadata.reference_forms` are searched for, too.
    """
    from decontam import Reference

    forms = _other_forms(name, doc_id, task, doc) if has_forms else ()
    fields = task.metadata.get("reference_fields")
    if fields:
        fields = [fields] if isinstance(fields, str) else list(fields)
        _check_fields("reference_fields", fields, name, doc_id, doc)
        texts = [_as_text(doc[field]) for field in fields]
        choices = _choices(doc[fields[1]]) if len(fields) == 2 else ()
        return Reference(f"{name}/{doc_id}", texts[0], "\n".join(texts[1:]), name, choices, forms)
    answer = task.choices(doc) if task.has_choices else task.target(doc)
    choices = _choices(answer)
    return Reference(f"{name}/{doc_id}", _as_text(task.question(doc)), _as_text(answer), name, choices, forms)


def _other_forms(name: str, doc_id: int, task: EvalTask, doc: Doc) -> tuple[str, ...]:
    """Return the prompt without examples, and the texts of `metadata.reference_forms`."""
    fields = list(task.metadata.get("reference_forms") or ())
    _check_fields("reference_forms", fields, name, doc_id, doc)
    prompt = task.own_prompt(doc)
    found = [*(_as_text(doc[field]) for field in fields), prompt if prompt and len(prompt) <= MOST_CHARACTERS else ""]
    return tuple(text for text in found if text)


def _check_fields(key: str, fields: Sequence[str], name: str, doc_id: int, doc: Doc) -> None:
    if missing := [field for field in fields if field not in doc]:
        raise TaskFileError(
            f"Task {name!r}: metadata.{key} names {missing[0]!r}, which doc {doc_id} lacks; it has " + ", ".join(doc)
        )


def _choices(value: object) -> tuple[str, ...]:
    """Return the choices in a value: a list of two texts or more; () for all else."""
    is_list = isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(one, str) for one in value)
    return tuple(value) if is_list and isinstance(value, list | tuple) else ()


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(_as_text(part) for part in value.values())
    if isinstance(value, list | tuple):
        return "\n".join(_as_text(part) for part in value)
    return "" if value is None else str(value)
