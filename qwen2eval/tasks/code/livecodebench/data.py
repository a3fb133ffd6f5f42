"""LiveCodeBench's published file, `test.jsonl` (livecodebench/code_generation_lite): contest problems with their tests.

The tests are a gigabyte, so docs don't hold them: `CaseFile` reads those of one problem when they are needed.
"""

import base64
import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from qwen2eval.data.hub_files import hub_file
from qwen2eval.data.locate import find_folder, missing, text_of
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError

COLUMNS = (
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "contest_date",
    "starter_code",
    "difficulty",
)
FILES = ("test.jsonl", "livecodebench.jsonl")
HUB = "livecodebench/code_generation_lite"
WINDOW = ("2023-05-01", "2024-03-31")
"""Contest dates of `release_v1`, its 400 problems (LiveCodeBench's README)."""
MAX_TESTS_BYTES = 1 << 30
"""Of one problem's tests, unpacked: more is taken for a bomb."""


class Case(NamedTuple):
    """One test: what goes in and what has to come out."""

    input: str
    output: str


class CaseFile:
    """The tests of problems, read from the published file one problem at a time.

    Args:
        offsets: for each question_id the byte at which its line begins.
    """

    def __init__(self, path: Path, offsets: Mapping[str, int]) -> None:
        self.path, self.offsets = path, dict(offsets)

    def cases(self, question_id: str) -> list[Case]:
        """Return the public and the private tests of a problem.

        Raises:
            DataFileError: they can't be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offsets[question_id])
            row = json.loads(file.readline())
        try:
            tests = [*json.loads(row["public_test_cases"]), *unpack_tests(row["private_test_cases"])]
            return [Case(test["input"], test["output"]) for test in tests]
        except (KeyError, TypeError, ValueError, EOFError, zlib.error, pickle.UnpicklingError) as err:
            raise DataFileError(f"{self.path}: the tests of {question_id!r} can't be read: {err}") from err


class LiveCodeData(LoadedData):
    """The problems, and where their tests are."""

    case_file: CaseFile


def load(
    *, data_dir: str | None = None, offline: bool = False, window: tuple[str, str] = WINDOW, **_: Any
) -> LiveCodeData:
    """Return the split `test`: problems with the published columns and `func_name`, by contest date.

    In place of the tests they have `tests_sha256`.

    Args:
        data_dir: the user's folder of published files.
        offline: forbid the hub.
        window: first and last contest date, as in the YAML's metadata.
    """
    folder = find_folder(
        "livecodebench", package_data=None, data_dir=data_dir, is_there=lambda path: _file_in(path) is not None
    )
    path = _file_in(folder) if folder is not None else None
    source = None if path is None else str(path.parent)
    if path is None:
        error = missing("livecodebench", files=FILES[0], hub=HUB, data_dir=data_dir)
        path, source = hub_file(HUB, FILES[0], offline=offline, error=error), f"hub:{HUB}"
    rows, offsets = _problems(path, window)
    loaded = LiveCodeData.from_rows({"test": rows}, path.parent, files=[path])
    loaded.source, loaded.case_file = str(source), CaseFile(path, offsets)
    return loaded


def unpack_tests(packed: str) -> list[dict[str, Any]]:
    """Return the tests that the published file holds as JSON, or as JSON in a pickle in zlib in base64.

    A pickle can run code; this one may hold one text and nothing else.

    Raises:
        ValueError, pickle.UnpicklingError, zlib.error: it is something else.
    """
    try:
        return list(json.loads(packed))
    except json.JSONDecodeError:
        pass
    unzip = zlib.decompressobj()
    data = unzip.decompress(base64.b64decode(packed, validate=True), MAX_TESTS_BYTES)
    if unzip.unconsumed_tail:
        raise ValueError(f"more than {MAX_TESTS_BYTES >> 30} GiB of tests")
    text = _TextUnpickler(io.BytesIO(data)).load()
    if not isinstance(text, str | bytes):
        raise pickle.UnpicklingError(f"a {type(text).__name__} where a text is expected")
    return list(json.loads(text))


class _TextUnpickler(pickle.Unpickler):
    """Makes plain values only: any class or function that a pickle names is refused."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}; only a text is allowed")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it refers to {pid!r} outside")


def _problems(path: Path, window: tuple[str, str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the problems of a window, by date and id, and where the line of each begins."""
    first, last = window
    rows: list[dict[str, Any]] = []
    offsets: dict[str, int] = {}
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _problem(line, path=path, number=number)
                if row["question_id"] in offsets:
                    raise DataFileError(f"{path}, line {number}: a second problem {row['question_id']!r}")
                if first <= row["contest_date"][:10] <= last:
                    rows.append(row)
                    offsets[row["question_id"]] = offset
            offset += len(line)
    if not rows:
        raise DataFileError(f"{path} holds no problem of contests from {first} to {last}")
    return sorted(rows, key=lambda row: (row["contest_date"], row["question_id"])), offsets


def _problem(line: bytes, *, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        made = {column: text_of(row, column) for column in COLUMNS if column != "starter_code"}
        made["starter_code"] = row["starter_code"] or ""
        tests = text_of(row, "public_test_cases") + text_of(row, "private_test_cases")
        about = row.get("metadata") or {}
        about = json.loads(about) if isinstance(about, str) else about
        made["func_name"] = about.get("func_name") or ""
        return {**made, "tests_sha256": hashlib.sha256(tests.encode("utf-8", "surrogatepass")).hexdigest()}
    except UnicodeDecodeError as err:
        raise DataFileError(f"{path}, line {number}: not UTF-8") from err
    except json.JSONDecodeError as err:
        raise DataFileError(f"{path}, line {number}: not JSON ({err.msg}); is the line cut off?") from err
    except (KeyError, TypeError, AttributeError) as err:
        raise DataFileError(f"{path}, line {number}: not a problem of LiveCodeBench: {err}") from err


def _file_in(folder: Path) -> Path | None:
    """Return the published file; `test.jsonl` is GSM8K's name, too, so its first line has to be a problem."""
    for name in FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                if b'"contest_date"' in next(filter(bytes.strip, file), b""):
                    return folder / name
    return None
