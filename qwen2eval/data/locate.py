"""Where a benchmark's data is looked for, in order: local published files, a data package, the hub.

Each loader in this folder asks these places in turn; the first that has the data wins, and a miss names all of them.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2eval.errors import DataFileError, MissingDataError

Rows = list[dict[str, Any]]
Splits = dict[str, Rows]


@dataclass(frozen=True)
class Place:
    """Where the data of one benchmark was found."""

    path: Path | None
    """A folder with the published files; None: the hub."""
    name: str
    """For run.json: the folder, or `hub:<repository>`."""


def local_folder(benchmark: str, *, data_dir: str | None, is_there: Callable[[Path], bool]) -> Path | None:
    """Return the folder of `benchmark` under `data_dir` (else `QWEN2EVAL_DATA`): `DIR/<benchmark>` or `DIR` itself."""
    chosen = data_dir or os.environ.get("QWEN2EVAL_DATA")
    if not chosen:
        return None
    if not Path(chosen).is_dir():
        raise MissingDataError(f"The data folder {chosen!r} (--data_dir or QWEN2EVAL_DATA) does not exist")
    for folder in (Path(chosen) / benchmark, Path(chosen)):
        if folder.is_dir() and is_there(folder):
            return folder
    return None


def package_folder(package: str, inside: str) -> Path | None:
    """Return folder `inside` an installed package without importing it, or None."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    return folder if folder.is_dir() else None


def missing(
    benchmark: str, *, files: str, hub: str, data_dir: str | None, package: str | None = None
) -> MissingDataError:
    """Return the error that names the three ways to get a benchmark's data."""
    looked = data_dir or os.environ.get("QWEN2EVAL_DATA") or "no --data_dir or QWEN2EVAL_DATA was given"
    second = f"install its data package (pip install {package})" if package else "no data package holds it"
    return MissingDataError(
        f"No data for benchmark {benchmark!r}. Three ways to get it: (1) put {files} in DIR/{benchmark}/ and pass "
        f"--data_dir DIR or set QWEN2EVAL_DATA (looked in: {looked}); (2) {second}; (3) run without --offline to "
        f"download {hub!r} from the Hugging Face hub."
    )


def load_hub(repository: str, name: str, *, offline: bool, error: MissingDataError) -> Any:
    """Return `datasets.load_dataset(repository, name)`, from the hub or its cache.

    Raises:
        MissingDataError: `error`, when the hub can't be reached and its cache does not hold the set.
    """
    import datasets

    try:
        return datasets.load_dataset(repository, name)
    # datasets wraps a dead network, an unknown repository and an empty cache in half a dozen unrelated types
    except Exception as err:
        why = (
            "--offline forbids the network and the cache does not hold it"
            if offline
            else f"{type(err).__name__}: {err}"
        )
        raise MissingDataError(f"{error}\nThe hub said: {why}") from err


def require_columns(row: dict[str, Any], columns: Sequence[str], *, path: Path, line: int) -> None:
    """Raise a DataFileError that names file, line and column if `row` lacks one of `columns`."""
    for column in columns:
        if row.get(column) is None:
            raise DataFileError(f"{path}, line {line}: no column {column!r}; it has {sorted(row)}")
