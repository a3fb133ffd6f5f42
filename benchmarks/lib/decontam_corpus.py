"""A corpus of any size for the decontamination benchmark, of text that is on the machine, with items planted in it.

Text: documentation, man pages and the sources of installed packages. Where it doesn't suffice it is used again, with
8 % of the words replaced, so that no two documents are equal. Some documents get a benchmark item in their middle, in
one of five ways; the list of them is the truth that recall is measured by.
"""

import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PLACES = (Path("/usr/share/doc"), Path("/usr/share/man"), Path(sysconfig.get_paths()["purelib"]))
SUFFIXES = (".txt", ".md", ".rst", ".html", ".py", ".gz", ".pyi", "")
MAX_FILE = 2_000_000
MEAN_CHARACTERS = 2_500
REPLACED = 0.08
PLANTED_ONE_IN = 30


class Planted(NamedTuple):
    """An item in a document."""

    file: str
    row: int
    item: str
    way: str


WAYS = {
    "exact": lambda text, _: text,
    "case": lambda text, _: text.upper(),
    "signs": lambda text, _: re.sub(r"[,.;:?!]", " --", text),
    "wrapped": lambda text, _: re.sub(r"((?:\S+\s+){8})", r"\1\n", text),
    "edited": lambda text, rng: " ".join(w if rng.random() > 0.05 else "other" for w in text.split(" ")),
}


def write_corpus(folder: Path, n_bytes: int, items: Sequence[tuple[str, str]], *, n_files: int = 16) -> list[Planted]:
    """Write jsonl files of together about so many bytes, and return what was planted where.

    Args:
        items: (id, text) of benchmark items.
    """
    rng, planted = random.Random(0), []
    documents = _documents(rng, n_bytes)
    for number in range(n_files):
        path, size, row = folder / f"part-{number:03}.jsonl", 0, 0
        with path.open("w", encoding="utf-8") as file:
            while size < n_bytes // n_files:
                text = next(documents)
                if items and rng.randrange(PLANTED_ONE_IN) == 0:
                    (item, wanted), way = rng.choice(items), rng.choice(sorted(WAYS))
                    middle = text.find(" ", len(text) // 2)
                    text = f"{text[:middle]}\n\n{WAYS[way](wanted, rng)}\n\n{text[middle:]}"
                    planted.append(Planted(path.name, row, item, way))
                line = json.dumps({"id": f"{number}-{row}", "text": text, "source": "machine"}, ensure_ascii=False)
                size += file.write(line + "\n")
                row += 1
    return planted


def _documents(rng: random.Random, n_characters: int) -> Iterator[str]:
    """Yield pieces of the machine's text, as many characters as there are up to a number, again and again."""
    pieces: list[str] = []
    for text in _texts():
        pieces += _pieces(text, rng)
        n_characters -= len(text)
        if n_characters < 0:
            break
    rng.shuffle(pieces)
    yield from pieces
    words = [word for piece in pieces[:2_000] for word in piece.split()]
    while True:
        for piece in pieces:
            parts = re.split(r"(\s+)", piece)
            yield "".join(rng.choice(words) if rng.random() < REPLACED and part.strip() else part for part in parts)


def _pieces(text: str, rng: random.Random) -> Iterator[str]:
    begin = 0
    while begin < len(text):
        size = int(rng.expovariate(1 / MEAN_CHARACTERS)) + 200
        yield text[begin : begin + size]
        begin += size


def _texts() -> Iterator[str]:
    for place in PLACES:
        for path in sorted(place.rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file() or path.stat().st_size > MAX_FILE:
                continue
            try:
                data = path.read_bytes()
                yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
            except (OSError, ValueError, EOFError):
                continue
