"""Benchmarks' docs as the references that a corpus is searched for, and files of references of the user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError
from qwen2eval.libraries import prepared_libraries
from qwen2eval.tasks import load_tasks, task_metadata

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from decontam import Reference


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
        names: tasks, groups, suites (`suite:NAME`), or jsonl files.
        text_field: of the files' lines; `answer_field`, too.

    Raises:
        Qwen2EvalError: a task that isn't there, or whose data is missing.
        DecontamError: a file that can't be read.
    """
    from decontam import read_references

    files = [Path(name) for name in names if Path(name).is_file() and not name.endswith((".yaml", ".yml"))]
    tasks = tuple(name for name in names if Path(name) not in files)
    found = [item for path in files for item in read_references(path, text_field=text_field, answer_field=answer_field)]
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


def task_references(name: str, task: "Task") -> "list[Reference]":
    """Return all docs of a task as references, `<task>/<doc_id>`."""
    return [reference_of(name, doc_id, task, doc) for doc_id, doc in enumerate(task.eval_docs)]


def reference_of(name: str, doc_id: int, task: "Task", doc: Mapping[str, Any]) -> "Reference":
    """Return a doc as a reference.

    The task's `metadata.reference_fields` say what is compared: the first is the question, the others follow it. A task
    without them gives lm-eval's `doc_to_decontamination_query`, or else its prompt without examples; and its target.
    """
    from decontam import Reference

    fields = task_metadata(task).get("reference_fields")
    if fields:
        texts = [_as_text(doc[field]) for field in fields]
        return Reference(f"{name}/{doc_id}", texts[0], "\n".join(texts[1:]), name)
    query = None
    if getattr(task.config, "should_decontaminate", False):
        query = task.doc_to_decontamination_query(doc)
    question = _as_text(query if query is not None else task.doc_to_text(doc))
    return Reference(f"{name}/{doc_id}", question, _as_text(_target(task, doc)), name)


def _target(task: "Task", doc: Mapping[str, Any]) -> Any:
    """Return the choices of a doc, or the text of its answer."""
    if getattr(task.config, "doc_to_choice", None) is not None:
        return task.doc_to_choice(doc)
    return task.doc_to_target(doc)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(_as_text(part) for part in value.values())
    if isinstance(value, list | tuple):
        return "\n".join(_as_text(part) for part in value)
    return "" if value is None else str(value)
