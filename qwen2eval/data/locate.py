"""Where a benchmark's data is looked for, in order: local published files, a data package, the hub.

Each loader in this folder asks these places in turn; the first that has the data wins, and a miss names all of them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2eval.content import package_folder
from qwen2eval.data.hub_files import hub_or_cache, not_at_hub
from qwen2eval.errors import DataFileError, MissingDataError, Qwen2EvalError, summarize_names
from qwen2eval.requests import Doc

Rows = list[Doc]
Splits = dict[str, Rows]


DATA_PACKAGES = "qwen2eval.data"
"""Entry-point group of data packages: benchmark name -> dotted path of the folder with its published files."""


def find_folder(
    benchmark: str, *, package_data: str | None, data_dir: str | None, is_there: Callable[[Path], bool]
) -> Path | None:
    """Return the folder that holds a benchmark's published files, or None if only the hub is left.

    Args:
        benchmark: its name, which is also that of its folder.
        package_data: a folder inside qwen2eval that wins over every other place (the demo's samples).
        data_dir: the user's folder (else `QWEN2EVAL_DATA`): `DIR/<benchmark>` or `DIR` itself.
        is_there: whether a folder holds the files.
    """
    if package_data:
        return package_folder(package_data) / benchmark
    candidates: list[Path] = []
    if chosen := data_dir or os.environ.get("QWEN2EVAL_DATA"):
        if not Path(chosen).is_dir():
            raise MissingDataError(f"The data folder {chosen!r} (--data_dir or QWEN2EVAL_DATA) does not exist")
        # The benchmark's own folder first: DIR may hold files of several benchmarks with the same names
        candidates += [Path(chosen) / benchmark, Path(chosen)]
    candidates += _package_folders(benchmark)
    return next((folder for folder in candidates if folder.is_dir() and is_there(folder)), None)


def missing(benchmark: str, *, files: str, hub: str, data_dir: str | None) -> MissingDataError:
    """Return the error that names the three ways to get a benchmark's data."""
    looked = data_dir or os.environ.get("QWEN2EVAL_DATA") or "no --data_dir or QWEN2EVAL_DATA was given"
    return MissingDataError(
        f"No data for benchmark {benchmark!r}. Three ways to get it: (1) put {files} in DIR/{benchmark}/ and pass "
        f"--data_dir DIR or set QWEN2EVAL_DATA (looked in: {looked}); (2) install a data package that offers it (entry "
        f"point {DATA_PACKAGES!r}); (3) download {hub!r} from the Hugging Face hub (run once without --offline).",
        benchmark=benchmark,
        files=files,
    )


def merge_missing_data(failures: Mapping[str, Qwen2EvalError]) -> dict[str, Qwen2EvalError]:
    """Return the failures of tasks; those that lack data of one benchmark all say the same, with the files of all."""
    lacking = {name: err for name, err in failures.items() if isinstance(err, MissingDataError) and err.files}
    files = dict[str, dict[str, None]]()
    for err in lacking.values():
        # A dict as an ordered set: the message lists files in the order of the tasks
        files.setdefault(err.benchmark, {})[err.files] = None
    merged = dict(failures)
    for name, err in lacking.items():
        listed = summarize_names(list(files[err.benchmark]))
        message = str(err).replace(err.files, listed, 1)
        merged[name] = MissingDataError(message, benchmark=err.benchmark, files=listed)
    return merged


def load_hub(repository: str, name: str, *, offline: bool, error: MissingDataError) -> Any:
    """Return `datasets.load_dataset(repository, name)`, from the hub or its cache.

    Raises:
        MissingDataError: `error`, when the hub can't be reached and its cache does not hold the set.
    """
    import datasets

    try:
        with hub_or_cache(offline=offline):
            return datasets.load_dataset(repository, name)
    # datasets wraps a dead network, an unknown repository and an empty cache in half a dozen unrelated types
    except Exception as err:
        raise not_at_hub(error, err, offline=offline) from err


def require_columns(row: dict[str, object], columns: Sequence[str], *, path: Path, line: int) -> None:
    """Raise a DataFileError that names file, line and column if `row` lacks one of `columns`."""
    for column in columns:
        if row.get(column) is None:
            raise DataFileError(f"{path}, line {line}: no column {column!r}; it has {sorted(row)}")


def text_of(row: dict[str, object], column: str) -> str:
    """Return a column that has to be a text.

    Raises:
        KeyError: it is not there.
        TypeError: it is something else.
    """
    if not isinstance(value := row[column], str):
        raise TypeError(f"{column} is {value!r:.100}, not a text")
    return value


def texts_of(row: dict[str, object], column: str) -> list[str]:
    """Return a column that has to be a list of texts, at least one; raises as `text_of`."""
    value = row[column]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{column} is {value!r:.100}, not a list of texts")
    return value


def _package_folders(benchmark: str) -> list[Path]:
    """Return the folders that installed data packages name for a benchmark; nothing of theirs is imported."""
    folders = []
    for entry in entry_points(group=DATA_PACKAGES, name=benchmark):
        # Only the top package is looked up: finding a deeper one would import its parents
        package, *inside = entry.value.split(".")
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(next(iter(spec.submodule_search_locations))).joinpath(*inside))
    return folders
