"""Columns of arrow from numpy and text. `pa.array` does the same, but imports pandas first: 0.15 s and 40 MB."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


def numbers(values: npt.NDArray[Any], kind: Any, *, is_null: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return a column of integers or floats, of arrow's type `kind`."""
    data = np.ascontiguousarray(values, kind.to_pandas_dtype())
    valid = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(kind, len(data), [valid, pa.py_buffer(data)])


def flags(values: npt.NDArray[Any]) -> Any:
    """Return a column of truth values."""
    bits = np.packbits(values.astype(np.bool_), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def strings(texts: Sequence[str], *, is_large: bool = False) -> Any:
    """Return a column of text; a large one may have more than 2 GB.

    Raises:
        UnicodeEncodeError: half a surrogate pair.
        OverflowError: more than 2 GB in a column that isn't large.
    """
    encoded = [text.encode() for text in texts]
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in encoded], dtype=np.int64)))
    if not is_large and offsets[-1] >= 1 << 31:
        raise OverflowError("more than 2 GB of text in one column")
    kind = pa.LargeStringArray if is_large else pa.StringArray
    places = offsets if is_large else offsets.astype(np.int32)
    return kind.from_buffers(len(texts), pa.py_buffer(places), pa.py_buffer(b"".join(encoded)))


def lists(stops: Ints, values: Any) -> Any:
    """Return a column of lists, given where each list stops among the values."""
    return pa.ListArray.from_arrays(numbers(np.concatenate(([0], stops)), pa.int32()), values)
