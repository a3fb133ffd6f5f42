"""LV-Eval's published files (infinigence/LVEval): one zip a data set, in it one JSON-lines file a level of length.

The hub's set comes with a loading script, which `datasets` refuses since version 4: the zips are read as they are. A
level of one data set may be half a gigabyte, so contexts are kept in a memory-mapped table and not in memory.
"""

import json
import zipfile
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.content import cache_dir
from qwen2eval.data.hub_files import hub_file
from qwen2eval.data.locate import find_folder, missing
from qwen2eval.data.splits import LoadedData, hash_files
from qwen2eval.errors import DataFileError, Qwen2EvalError
from qwen2eval.requests import Doc

if TYPE_CHECKING:
    import datasets

HUB = "Infinigence/LVEval"
LEVELS = ("16k", "32k", "64k", "128k", "256k")
"""Words in English, characters in Chinese; not tokens."""


def load(
    *,
    dataset: str,
    level: str,
    package_data: str | None = None,
    data_dir: str | None = None,
    offline: bool = False,
) -> LoadedData:
    """Return the split `test` of one data set at one level.

    Columns: input, context, answers (list), answer_keywords (None where the set has none), length (words, characters).

    Args:
        dataset: such as "hotpotwikiqa_mixup".
        level: one of LEVELS.
        package_data: a folder inside qwen2eval that wins over every other place.
        data_dir: the user's folder: `lveval/` in it, or itself, with `<dataset>.zip` or `<dataset>_<level>.jsonl`.
        offline: forbid the hub.

    Raises:
        MissingDataError: the files are in none of the places.
        DataFileError: a broken zip or row; names file and line.
    """
    from datasets.exceptions import DatasetGenerationError

    path = _find(dataset, level, package_data=package_data, data_dir=data_dir, offline=offline)
    try:
        loaded = LoadedData({"test": _table(path, f"{dataset}_{level}.jsonl", digest := hash_files([path]))})
    except DatasetGenerationError as err:
        raise err.__cause__ if isinstance(err.__cause__, Qwen2EvalError) else err from err
    loaded.source, loaded.sha256 = str(path), digest
    return loaded


def read_rows(path: Path, name: str) -> Iterator[Doc]:
    """Yield the rows of a file, or of the file `name` in a zip.

    Raises:
        DataFileError: not a zip, no such file in it, or a broken row; names file and line.
    """
    try:
        if path.suffix != ".zip":
            with path.open(encoding="utf-8-sig") as file:
                yield from _parsed(file, path)
            return
        with zipfile.ZipFile(path) as archive:
            member = next((m for m in archive.namelist() if m.rpartition("/")[2] == name), None)
            if member is None:
                raise DataFileError(
                    f"{path} holds no {name}; it has {', '.join(sorted(archive.namelist())) or 'nothing'}"
                )
            with archive.open(member) as raw:
                yield from _parsed(TextIOWrapper(raw, encoding="utf-8-sig"), path / member)
    except UnicodeDecodeError as err:
        raise DataFileError(f"{path}: not UTF-8 ({err.reason} at byte {err.start})") from err
    except (OSError, zipfile.BadZipFile, EOFError) as err:
        raise DataFileError(
            f"{path} can't be read: {getattr(err, 'strerror', None) or err}; download it again"
        ) from err


def _find(dataset: str, level: str, *, package_data: str | None, data_dir: str | None, offline: bool) -> Path:
    name, archive = f"{dataset}_{level}.jsonl", f"{dataset}.zip"

    def files_in(folder: Path) -> list[Path]:
        return [p for p in (folder / name, folder / dataset / name, folder / archive) if p.is_file()]

    folder = find_folder(
        "lveval", package_data=package_data, data_dir=data_dir, is_there=lambda path: bool(files_in(path))
    )
    error = missing("lveval", files=f"{archive} (or, unpacked, {name})", hub=HUB, data_dir=data_dir)
    if folder is None:
        return hub_file(HUB, archive, offline=offline, error=error)
    if not (found := files_in(folder)):
        raise error
    return found[0]


def _table(path: Path, name: str, digest: str) -> "datasets.Dataset":
    """Write the rows into a table of our cache, once for each file, and map it into memory."""
    import datasets

    features = datasets.Features(
        {
            **{column: datasets.Value("string") for column in ("input", "context", "answer_keywords")},
            "answers": datasets.Sequence(datasets.Value("string")),
            "length": datasets.Value("int64"),
        }
    )
    table: datasets.Dataset = datasets.Dataset.from_generator(
        _rows_of,
        features=features,
        gen_kwargs={"path": path, "name": name, "digest": digest},
        cache_dir=str(cache_dir() / "datasets"),
        # Rows of a megabyte
        writer_batch_size=16,
    )
    return table


def _rows_of(path: Path, name: str, digest: str) -> Iterator[Doc]:  # noqa: ARG001 - keeps tables apart
    yield from read_rows(path, name)


def _parsed(lines: Any, path: Path) -> Iterator[Doc]:
    is_empty = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        is_empty = False
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            raise DataFileError(f"{path}, line {number}: not JSON ({err.msg}); is the line cut off?") from err
        yield _checked(row, f"{path}, line {number}")
    if is_empty:
        raise DataFileError(f"{path} holds no rows")


def _checked(row: object, place: str) -> Doc:
    """Return the columns that we use, or say which is not what it should be."""
    if not isinstance(row, dict):
        raise DataFileError(f"{place}: a row must be an object, not {type(row).__name__}")
    for column in ("input", "context"):
        if not isinstance(row.get(column), str):
            raise DataFileError(f"{place}: column {column!r} must be text; the row has {sorted(row)}")
    answers, keywords, length = row.get("answers"), row.get("answer_keywords"), row.get("length")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise DataFileError(f"{place}: column 'answers' must be a list of at least one text, not {answers!r}")
    if keywords is not None and not isinstance(keywords, str):
        raise DataFileError(f"{place}: column 'answer_keywords' must be text or absent, not {keywords!r}")
    if length is not None and not isinstance(length, int):
        raise DataFileError(f"{place}: column 'length' must be a whole number or absent, not {length!r}")
    return {
        "input": row["input"],
        "context": row["context"],
        "answers": answers,
        "answer_keywords": keywords,
        "length": length,
    }
