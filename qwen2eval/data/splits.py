"""Benchmark rows as lm-eval wants them (a dataset a split), with a note of where they came from."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from qwen2eval.data.locate import Splits

if TYPE_CHECKING:
    import datasets


class LoadedData(dict[str, "datasets.Dataset"]):
    """Splits by name, plus `source` and `sha256` for run.json."""

    source: str
    sha256: str | None
    warning: str | None = None
    """What a reader of the scores must know of the data."""

    @classmethod
    def from_rows(cls, splits: Splits, source: Path, *, files: Iterable[Path]) -> Self:
        """Turn rows in memory into datasets; `source` is their folder, `files` are hashed in the order given."""
        import datasets

        loaded = cls({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})
        loaded.source, loaded.sha256 = str(source), hash_files(files)
        return loaded

    @classmethod
    def from_hub(cls, hub_data: Any, repository: str, splits: Sequence[str]) -> Self:
        """Keep the wanted splits of what `datasets.load_dataset` returned."""
        loaded = cls({split: hub_data[split] for split in splits})
        loaded.source = f"hub:{repository}"
        loaded.sha256 = hashlib.sha256("".join(loaded[s]._fingerprint for s in splits).encode()).hexdigest()
        return loaded

    def replaced(self, splits: Splits) -> "LoadedData":
        """Return other rows, made of these ones, with their source and sha256."""
        import datasets

        made = LoadedData({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})
        made.source, made.sha256 = self.source, self.sha256
        return made


def hash_files(files: Iterable[Path]) -> str:
    """Return the sha256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
