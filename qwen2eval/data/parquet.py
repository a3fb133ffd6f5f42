"""Reading parquet files of benchmark rows, as the Hugging Face hub holds them."""

from pathlib import Path

from qwen2eval.data.locate import Rows
from qwen2eval.errors import DataFileError


def read_parquet(path: Path) -> Rows:
    """Return all rows of a file.

    Raises:
        DataFileError: it can't be read, or has none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: Rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as err:
        raise DataFileError(f"{path} can't be read as parquet: {err}") from err
    if not rows:
        raise DataFileError(f"{path} holds no rows")
    return rows
