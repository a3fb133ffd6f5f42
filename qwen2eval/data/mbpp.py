"""MBPP's published file, `mbpp.jsonl` (google-research/mbpp): 974 short Python tasks, each with three asserts."""

import ast
import builtins
from pathlib import Path
from typing import Any

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import Rows, Splits, find_folder, load_hub, missing, text_of, texts_of
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError
from qwen2eval.requests import Doc

COLUMNS = ("task_id", "text", "code", "test_list", "test_setup_code")
FILES = ("mbpp.jsonl", "mbpp.jsonl.gz")
HUB = ("google-research-datasets/mbpp", "full")
SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
"""First and last task_id of each split (Austin et al. 2021, section 2.1)."""
FEWSHOT_IDS = (2, 3, 4)
"""The examples of the paper's prompt."""


def load(
    *, package_data: str | None = None, data_dir: str | None = None, offline: bool = False, **_: Any
) -> LoadedData:
    """Return the splits of the paper with the published columns, and what a `CodeTask` needs: entry_point, test, setup.

    `fewshot` has the paper's three examples, marked `is_fewshot`.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place.
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    folder = find_folder(
        "mbpp", package_data=package_data, data_dir=data_dir, is_there=lambda path: _file_in(path) is not None
    )
    if folder is not None and (path := _file_in(folder)) is not None:
        rows = read_jsonl(path, columns=COLUMNS)
        for number, row in enumerate(rows, 1):
            _check(row, path, number)
        if len({row["task_id"] for row in rows}) < len(rows):
            raise DataFileError(f"{path}: a task_id is there twice")
        if absent := sorted({*FEWSHOT_IDS} - {row["task_id"] for row in rows}):
            raise DataFileError(f"{path} lacks the examples of the prompt: no task_id {', '.join(map(str, absent))}")
        return LoadedData.from_rows(_splits(rows), path.parent, files=[path])
    error = missing("mbpp", files=FILES[0], hub=HUB[0], data_dir=data_dir)
    hub_data = load_hub(*HUB, offline=offline, error=error)
    rows = [{column: row[column] for column in COLUMNS} for split in SPLITS for row in hub_data[split]]
    return LoadedData.from_hub(hub_data, HUB[0], tuple(SPLITS)).replaced(_splits(rows))


def called_function(tests: str, *, code: str = "") -> str:
    """Return the name of the function that tests call: unknown to Python and to the tests, defined by the solution.

    Empty where there is none.

    >>> called_function("assert set(pairs([1, 2], 3)) == {(1, 3), (2, 3)}")
    'pairs'
    """
    try:
        tree, solution = ast.parse(tests), ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
    defined = {node.name for node in solution.body if isinstance(node, ast.FunctionDef)}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [call.id for call in calls if isinstance(call, ast.Name)]
    unknown = [name for name in names if name not in bound and not hasattr(builtins, name)]
    return next((name for name in [*names, *unknown] if name in defined), next(iter(unknown), ""))


def _check(row: dict[str, object], path: Path, number: int) -> None:
    try:
        for column in ("text", "code", "test_setup_code"):
            text_of(row, column)
        if len(texts_of(row, "test_list")) < 3:
            raise TypeError("test_list has less than the three asserts that the prompt shows")
        if not isinstance(row["task_id"], int):
            raise TypeError(f"task_id is {row['task_id']!r}, not a number")
    except TypeError as err:
        raise DataFileError(f"{path}, line {number}: {err}") from err


def _splits(rows: Rows) -> Splits:
    made = [_with_tests(row) for row in rows]
    splits = {
        split: [row for row in made if first <= int(row["task_id"]) <= last] for split, (first, last) in SPLITS.items()
    }
    splits["fewshot"] = [row | {"is_fewshot": True} for row in made if row["task_id"] in FEWSHOT_IDS]
    if not splits["test"]:
        raise DataFileError("MBPP without its test split: no task_id from 11 to 510")
    return splits


def _with_tests(row: Doc) -> Doc:
    test = "\n".join([row["test_setup_code"], *row["test_list"]])
    return {**row, "entry_point": called_function(test, code=row["code"]), "test": test, "setup": ""}


def _file_in(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)
