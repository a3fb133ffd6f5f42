"""EvalPlus' published files (Liu et al. 2023): HumanEval and MBPP with dozens of times more tests.

Two forms are read: that of the hub sets `evalplus/humanevalplus` and `evalplus/mbppplus`, whose rows have their tests
as source, and HumanEval+'s release file, whose rows have inputs and a reference solution.
"""

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import Rows, find_folder, load_hub, missing, text_of, texts_of
from qwen2eval.data.mbpp import called_function
from qwen2eval.data.parquet import read_parquet
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError
from qwen2eval.requests import Doc

Row = Doc
HUMANEVAL_HUB, MBPP_HUB = "evalplus/humanevalplus", "evalplus/mbppplus"
HUMANEVAL_FILES, MBPP_FILES = ("HumanEvalPlus", "humanevalplus"), ("MbppPlus", "mbppplus")
"""What published files are called, a version left out; `.jsonl`, `.jsonl.gz` and `.parquet` are read."""
RELEASE = "base_input"
"""A column that only EvalPlus' release files have."""
_RELEASE_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
_HUMANEVAL_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
FLOAT_ATOL = 1e-6
RTOL = 1e-7
"""What EvalPlus allows a float that is expected to differ, absolutely and relatively."""


def load_humaneval(*, data_dir: str | None = None, offline: bool = False, **_: Any) -> LoadedData:
    """Return HumanEval+'s split `test` with the hub's columns.

    Args:
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    return _load("humaneval_plus", HUMANEVAL_FILES, HUMANEVAL_HUB, _humaneval_doc, data_dir=data_dir, offline=offline)


def load_mbpp(*, data_dir: str | None = None, offline: bool = False, **_: Any) -> LoadedData:
    """Return MBPP+'s split `test`: its prompt as EvalPlus asks it, `test` with all tests, `base_test` with MBPP's own.

    Args:
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    return _load("mbpp_plus", MBPP_FILES, MBPP_HUB, _mbpp_doc, data_dir=data_dir, offline=offline)


def _load(
    benchmark: str,
    names: tuple[str, ...],
    hub: str,
    make_doc: Callable[[dict[str, object]], dict[str, object]],
    *,
    data_dir: str | None,
    offline: bool,
) -> LoadedData:
    folder = find_folder(
        benchmark, package_data=None, data_dir=data_dir, is_there=lambda path: bool(_files_in(path, benchmark, names))
    )
    if folder is not None:
        files = _files_in(folder, benchmark, names)
        rows = [row for path in files for row in _read(path)]
        return LoadedData.from_rows({"test": _docs(rows, make_doc, files[0])}, folder, files=files)
    error = missing(benchmark, files=f"{names[0]}.jsonl", hub=hub, data_dir=data_dir)
    hub_data = load_hub(hub, "default", offline=offline, error=error)
    docs = _docs(hub_data["test"], make_doc, Path(f"hub:{hub}"))
    return LoadedData.from_hub(hub_data, hub, ("test",)).replaced({"test": docs})


def _docs(rows: Iterable[Row], make_doc: Callable[[Row], Row], source: Path) -> list[Row]:
    docs = []
    for number, row in enumerate(rows, 1):
        try:
            docs.append(make_doc(row))
        except KeyError as err:
            raise DataFileError(f"{source}, row {number}: no column {err}; it has {sorted(row)}") from err
        except (TypeError, ValueError, SyntaxError, RecursionError) as err:
            raise DataFileError(f"{source}, row {number}: {err}") from err
    return docs


def _files_in(folder: Path, benchmark: str, names: tuple[str, ...]) -> list[Path]:
    """Return the files of a set: of several versions (`HumanEvalPlus-v0.1.10.jsonl.gz`) the newest.

    EvalPlus' Mini and NoExtreme files are other sets. Files called as all of the hub's are (`test-*.parquet`) count
    only in the benchmark's own folder.
    """
    pattern = re.compile(rf"(?:{'|'.join(names)})(?:-v(\d+(?:\.\d+)*))?\.(?:jsonl|jsonl\.gz|parquet)")
    found = [(match, path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    if found:
        return [max(found, key=lambda pair: [int(part) for part in (pair[0][1] or "0").split(".")])[1]]
    if folder.name != benchmark:
        return []
    return sorted(folder.glob("test-*.parquet")) or sorted((folder / "data").glob("test-*.parquet"))


def _read(path: Path) -> Rows:
    return read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path, columns=None)


def _humaneval_doc(row: Row) -> Row:
    if RELEASE in row:
        row = {column: row[column] for column in _RELEASE_COLUMNS} | {"test": release_tests(row)}
    return {column: text_of(row, column) for column in _HUMANEVAL_COLUMNS}


def _mbpp_doc(row: Row) -> Row:
    if RELEASE in row:
        raise DataFileError(
            "MBPP+'s release file leaves out which of its lists are tuples and sets. Take the hub's form, whose tests "
            f"are complete: {MBPP_HUB!r} (as .jsonl or .parquet)"
        )
    text, code, tests = text_of(row, "prompt"), text_of(row, "code"), texts_of(row, "test_list")
    base_test = "\n".join([*(row.get("test_imports") or ()), *tests])
    return {
        "task_id": row["task_id"],
        "text": text,
        "prompt": f'"""\n{text}\n{tests[0]}\n"""\n',
        "code": code,
        "entry_point": called_function(base_test, code=code),
        "test": text_of(row, "test"),
        "base_test": base_test,
        "setup": "",
    }


def release_tests(row: Row) -> str:
    """Return tests for a row of HumanEval+'s release file: the candidate against the reference solution on all inputs.

    They compare as EvalPlus does: equal, or floats within 1e-6 (or the row's `atol`) and a relative 1e-7; the roots
    that `find_zero` returns are put into the polynomial.
    """
    reference = _renamed(row["prompt"] + row["canonical_solution"], row["entry_point"], "_reference")
    inputs = [*row["base_input"], *row["plus_input"]]
    return _RELEASE_TESTS.format(
        reference=reference,
        entry_point=row["entry_point"],
        inputs=inputs,
        atol=row["atol"] or 0,
        float_atol=FLOAT_ATOL,
        rtol=RTOL,
    )


def _renamed(source: str, old: str, new: str) -> str:
    """Return a program with a function under another name, in its own calls, too."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == old:
            node.name = new
        elif isinstance(node, ast.Name) and node.id == old:
            node.id = new
    return ast.unparse(tree)


_RELEASE_TESTS = """
import copy as _copy
{reference}
inf, nan = float("inf"), float("nan")
_inputs = {inputs!r}

def _is_floats(value):
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)

def _is_close(got, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        return isinstance(got, (list, tuple)) and len(got) == len(wanted) and all(
            _is_close(one, other, atol) for one, other in zip(got, wanted)
        )
    if not isinstance(got, (int, float)) or not isinstance(wanted, (int, float)):
        return got == wanted
    return got == wanted or (got != got and wanted != wanted) or abs(got - wanted) <= atol + {rtol} * abs(wanted)

def check(candidate):
    for arguments in _inputs:
        if {entry_point!r} == "find_zero":
            root = candidate(*_copy.deepcopy(arguments))
            value = sum(factor * root ** power for power, factor in enumerate(arguments[0]))
            assert abs(value) <= {atol}, (arguments, root)
            continue
        wanted = _reference(*_copy.deepcopy(arguments))
        got = candidate(*_copy.deepcopy(arguments))
        atol = {atol} or ({float_atol} if _is_floats(wanted) else 0)
        assert got == wanted or (atol and _is_close(got, wanted, atol)), (arguments, got, wanted)
"""
