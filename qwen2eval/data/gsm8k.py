"""GSM8K's published files: `train.jsonl` and `test.jsonl` with `question` and `answer` (openai/grade-school-math)."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from qwen2eval.data.locate import Rows, Splits, find_folder, load_hub, missing, require_columns
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError

SPLITS = ("train", "test")
HUB = ("openai/gsm8k", "main")


def load(
    *, package_data: str | None = None, data_dir: str | None = None, offline: bool = False, **_: Any
) -> LoadedData:
    """Return the splits `train` and `test` with columns question, answer.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place (the demo's samples).
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    folder = find_folder(
        "gsm8k",
        package_data=package_data,
        data_dir=data_dir,
        is_there=lambda path: any((path / f"{s}.jsonl").is_file() for s in SPLITS),
    )
    if folder is not None:
        splits: Splits = {
            split: read_jsonl(folder / f"{split}.jsonl", columns=("question", "answer")) for split in SPLITS
        }
        return LoadedData.from_rows(splits, folder, files=[folder / f"{s}.jsonl" for s in SPLITS])
    error = missing("gsm8k", files="train.jsonl and test.jsonl", hub=HUB[0], data_dir=data_dir)
    return LoadedData.from_hub(load_hub(*HUB, offline=offline, error=error), HUB[0], SPLITS)


def read_jsonl(path: Path, *, columns: tuple[str, ...]) -> Rows:
    """Read a JSON-lines file, plain or .gz, naming the line that is broken or lacks one of `columns`."""
    rows: Rows = []
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                require_columns(row, columns, path=path, line=number)
                rows.append({column: row[column] for column in columns})
    except json.JSONDecodeError as err:
        raise DataFileError(f"{path}, line {number}: not JSON ({err.msg}); is the line cut off?") from err
    except UnicodeDecodeError as err:
        raise DataFileError(f"{path}: not UTF-8 ({err.reason} at byte {err.start})") from err
    except (OSError, EOFError, zlib.error) as err:
        raise DataFileError(f"{path} can't be read: {getattr(err, 'strerror', None) or err}") from err
    if not rows:
        raise DataFileError(f"{path} holds no rows")
    return rows
