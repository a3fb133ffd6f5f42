"""What is wrong with a task that lm-eval can't build, in words for the one who wrote its YAML."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.errors import DataFileError, MissingDataError, Qwen2EvalError, TaskFileError, in_one_line
from qwen2eval.tasks import lm_eval_internals as internals
from qwen2eval.tasks.index import TaskEntry, read_task_yaml

if TYPE_CHECKING:
    from lm_eval.api.task import Task


def check_metrics(task: "Task") -> None:
    """Refuse names of metrics and aggregations that nobody knows; lm-eval only notices them when it scores.

    Raises:
        TaskFileError: a name is unknown.
    """
    for name in internals.missing_metrics(task):
        raise TaskFileError(f"Task {task.task_name!r} has {_unknown('metric', name, internals.known_metrics())}")
    for metric, name in internals.missing_aggregations(task):
        said = _unknown("aggregation", name, internals.known_aggregations())
        raise TaskFileError(f"Task {task.task_name!r}, metric {metric!r}: {said}")


def explained(entry: TaskEntry, err: BaseException) -> Qwen2EvalError:
    """Return what went wrong while lm-eval built a task, in words for its user."""
    said = f"{type(err).__name__}: {err}".removesuffix(": ")
    network = (
        "ConnectionError",
        "OfflineModeIsEnabled",
        "DatasetNotFoundError",
        "HfHubHTTPError",
        "LocalEntryNotFoundError",
    )
    # By name, so that neither datasets nor huggingface_hub has to be imported for their exceptions
    if isinstance(err, ConnectionError) or type(err).__name__ in network:
        return MissingDataError(
            f"The data of task {entry.name!r} could not be read from the Hugging Face hub or its cache. Download it "
            f"once without --offline, or point dataset_path in a copy of {entry.path} (--include_path) to local files. "
            f"The library said: {said}"
        )
    if isinstance(err, FileNotFoundError):
        return MissingDataError(
            f"The data of task {entry.name!r} is not there: {err}. Correct data_files in {entry.path}"
        )
    why = _broken_line(entry)
    if why is None and type(err).__name__ == "DatasetGenerationError":
        cause = err.__cause__ or err
        why = f"{type(cause).__name__}: {cause} ({entry.path} names its files)"
    if why is not None:
        return DataFileError(f"The data of task {entry.name!r} can't be read: {why}")
    if isinstance(err, ImportError):
        return missing_package(entry.name, err)
    if isinstance(err, KeyError) and (why := _missing_split(entry, err) or _unknown_metric(entry, err)):
        return TaskFileError(f"Task {entry.name!r} ({entry.path}) {why}")
    if isinstance(err, IndexError) and "string index" in said:
        return TaskFileError(f"Task {entry.name!r} ({entry.path}) has an empty choice in its first doc")
    # A KeyError's text is its key's representation, quotes and all
    said = str(err.args[0]) if isinstance(err, KeyError) and err.args and " " in str(err.args[0]) else said
    return TaskFileError(f"Task {entry.name!r} ({entry.path}) can't be built: {said}")


def missing_package(name: str, err: ImportError) -> TaskFileError:
    """Return the error of a task whose code needs a package that is not installed."""
    return TaskFileError(
        f"Task {name!r} needs a package that is not installed ({in_one_line(err)}): pip install it and run again"
    )


def _broken_line(entry: TaskEntry) -> str | None:
    """Return which line of the JSON-lines files that a task's YAML names is broken, which `datasets` doesn't report."""
    files = (read_task_yaml(Path(entry.path or "")).get("dataset_kwargs") or {}).get("data_files") or ()
    groups = files.values() if isinstance(files, dict) else [files]
    for path in [Path(p) for group in groups for p in ([group] if isinstance(group, str) else group)]:
        if path.suffix == ".jsonl" and path.is_file():
            try:
                read_jsonl(path, columns=())
            except DataFileError as err:
                return str(err)
    return None


def _missing_split(entry: TaskEntry, err: KeyError) -> str | None:
    """Say which splits the data has, if the error is that of one which it lacks."""
    splits = internals.splits_of_failed(err)
    yaml = {} if entry.path is None else read_task_yaml(Path(entry.path))
    examples = yaml.get("fewshot_config")
    named = [yaml.get(f"{kind}_split") for kind in ("test", "validation", "training", "fewshot")]
    named.append(examples.get("split") if isinstance(examples, dict) else None)
    if splits is None or not err.args or err.args[0] not in named:
        return None
    return (
        f"asks for the split {err.args[0]!r} of its data, which has: {', '.join(splits)}. Name one of these in the "
        "YAML; files of your own get their splits by `data_files: {test: PATH}`"
    )


def _unknown_metric(entry: TaskEntry, err: KeyError) -> str | None:
    """Name a metric that lm-eval doesn't know, if that is why it looked for no aggregation at all."""
    if err.args != (None,) or entry.path is None:
        return None
    known = internals.known_metrics()
    listed = read_task_yaml(Path(entry.path)).get("metric_list") or ()
    names = [one.get("metric") for one in listed if isinstance(one, dict) and "aggregation" not in one]
    unknown = [name for name in names if isinstance(name, str) and name not in known]
    return f"has {_unknown('metric', unknown[0], known)}" if unknown else None


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"lm-eval has: {', '.join(sorted(known))}"
    return f"an unknown {kind} {name!r}; {hint}"
