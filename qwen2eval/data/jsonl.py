"""Reading JSON-lines files, the form in which most benchmarks are published."""

import gzip
import json
import zlib
from pathlib import Path

from qwen2eval.data.locate import Rows, require_columns
from qwen2eval.errors import DataFileError
from qwen2eval.texts import whole_texts


def read_jsonl(path: Path, *, columns: tuple[str, ...] | None) -> Rows:
    """Read a JSON-lines file, plain or .gz, naming the line that is broken or lacks one of `columns`.

    Args:
        columns: those that are kept and must be there; None: whatever there is.
    """
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
                # An escape that may be half of a pair; for all other lines a look at each text would take longer
                if "\\ud" in line or "\\uD" in line:
                    row = whole_texts(row)
                if not isinstance(row, dict):
                    raise DataFileError(f"{path}, line {number}: {line.strip()[:60]!r} is not a JSON object")
                require_columns(row, columns or (), path=path, line=number)
                rows.append(row if columns is None else {column: row[column] for column in columns})
    except json.JSONDecodeError as err:
        raise DataFileError(f"{path}, line {number}: not JSON ({err.msg}); is the line cut off?") from err
    except UnicodeDecodeError as err:
        raise DataFileError(f"{path}: not UTF-8 ({err.reason} at byte {err.start})") from err
    except (OSError, EOFError, zlib.error) as err:
        raise DataFileError(f"{path} can't be read: {getattr(err, 'strerror', None) or err}") from err
    if not rows:
        raise DataFileError(f"{path} holds no rows")
    return rows
