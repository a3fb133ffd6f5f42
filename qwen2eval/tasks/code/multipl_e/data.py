"""MultiPL-E's published data (nuprl/MultiPL-E): HumanEval and MBPP in other languages, a file for each of both.

`configuration` is the hub's name of one: `humaneval-cpp`, `mbpp-js`.
"""

from pathlib import Path
from typing import Any

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import Rows, find_folder, load_hub, missing, require_columns
from qwen2eval.data.parquet import read_parquet
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError, TaskFileError
from qwen2eval.sandbox.compiled.languages import LANGUAGES

COLUMNS = ("name", "language", "prompt", "tests", "stop_tokens")
HUB = "nuprl/MultiPL-E"


def load(
    *,
    configuration: str,
    package_data: str | None = None,
    data_dir: str | None = None,
    offline: bool = False,
    **_: Any,
) -> LoadedData:
    """Return the split `test` with columns name, language, prompt, tests and stop_tokens, a list of texts.

    Args:
        configuration: which problems in which language.
        package_data: a folder inside qwen2eval that wins over every other place.
        data_dir: the user's folder: `multipl_e/humaneval-cpp.jsonl`, or parquet files as on the hub.
        offline: forbid the hub.

    Raises:
        TaskFileError: `configuration` names no language that there is.
    """
    language_of(configuration)
    folder = find_folder(
        "multipl_e",
        package_data=package_data,
        data_dir=data_dir,
        is_there=lambda path: bool(_files_in(path, configuration)),
    )
    if folder is not None:
        files = _files_in(folder, configuration)
        rows = [row for path in files for row in _read(path)]
        return LoadedData.from_rows({"test": rows}, folder, files=files)
    error = missing("multipl_e", files=f"{configuration}.jsonl", hub=HUB, data_dir=data_dir)
    hub_data = load_hub(HUB, configuration, offline=offline, error=error)
    return LoadedData.from_hub(hub_data, f"{HUB}/{configuration}", ("test",))


def language_of(configuration: str) -> str:
    """Return the language of a configuration.

    Raises:
        TaskFileError: there is none of that name.

    >>> language_of("humaneval-cpp")
    'cpp'
    """
    language = configuration.rpartition("-")[2]
    if language not in LANGUAGES:
        raise TaskFileError(
            f"MultiPL-E configuration {configuration!r}: unknown language {language!r}; available: "
            f"{', '.join(LANGUAGES)}"
        )
    return language


def _files_in(folder: Path, configuration: str) -> list[Path]:
    names = (f"{configuration}.jsonl", f"{configuration}.jsonl.gz", f"{configuration}.parquet")
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
    return sorted((folder / configuration).glob("test-*.parquet"))


def _read(path: Path) -> Rows:
    rows = _read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path, columns=COLUMNS)
    for number, row in enumerate(rows, 1):
        for column in ("name", "language", "prompt", "tests"):
            if not isinstance(row[column], str):
                raise DataFileError(f"{path}, row {number}: {column} is {row[column]!r}, not a text")
        stops = row["stop_tokens"]
        if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
            raise DataFileError(f"{path}, row {number}: stop_tokens is {stops!r}, not a list of texts")
    return rows


def _read_parquet(path: Path) -> Rows:
    rows = read_parquet(path)
    for number, row in enumerate(rows, 1):
        require_columns(row, COLUMNS, path=path, line=number)
    return [{column: row[column] for column in COLUMNS} for row in rows]
