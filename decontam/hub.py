"""Data sets of the Hugging Face hub, `hf://NAME` (its split "train") or `hf://NAME:SPLIT`, read through `datasets`.

A name may also be a local folder: one that `save_to_disk` wrote, or one of data files. `datasets` keeps what it
downloads in its own cache, and takes it from there again; the HF_* variables say where, and whether the network may be
used.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.files import DATASET_PREFIX
from decontam.records import Chunk, Part, Problem, ReadOptions
from decontam.tables import column_chunk

_DEFAULT_SPLIT = "train"
_PART_ROWS, _BATCH_ROWS = 50_000, 2_000


def dataset_parts(name: str) -> Iterator[Part]:
    """Cut a data set into parts of rows; their stamp is the fingerprint of the data set."""
    data = _load(name)
    stamp = (len(data), int(str(data._fingerprint)[:15], 16))
    row_bytes = (data.data.nbytes // len(data)) if len(data) else 0
    for begin in range(0, max(1, len(data)), _PART_ROWS):
        end = min(begin + _PART_ROWS, len(data))
        yield Part(name, begin, end, row_bytes * (end - begin), stamp)


def dataset_chunks(part: Part, options: ReadOptions, problems: list[Problem]) -> Iterator[Chunk]:
    """Yield the texts of a part's rows."""
    data = _load(part.path)
    column = options.text_field if options.text_field in data.column_names else options.text_field.split(".")[0]
    if column not in data.column_names:
        known = ", ".join(map(repr, data.column_names))
        problems.append(Problem("missing_column", 0, f"no column {column!r}; there are {known}"))
        return
    rows = data.select_columns([column]).with_format("arrow")
    for begin in range(part.begin, part.end, _BATCH_ROWS):
        values = rows[begin : min(begin + _BATCH_ROWS, part.end)].column(column).combine_chunks()
        yield column_chunk(values, column, begin - part.begin, options, problems)


@lru_cache(maxsize=4)
def _load(name: str) -> Any:
    try:
        import datasets
    except ImportError as err:
        raise DecontamError(f"{name} is read through `datasets`: pip install datasets") from err
    path, _, split = name.removeprefix(DATASET_PREFIX).partition(":")
    try:
        if (Path(path) / "state.json").is_file() or (Path(path) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(path)
            return loaded[split or _DEFAULT_SPLIT] if isinstance(loaded, datasets.DatasetDict) else loaded
        return datasets.load_dataset(path, split=split or _DEFAULT_SPLIT)
    # the library raises what it likes: unknown names, splits, no network
    except Exception as err:
        why = str(err).split("\n")[0]
        raise DecontamError(f"{name} can't be loaded: {type(err).__name__}: {why}. Give hf://NAME:SPLIT") from err
