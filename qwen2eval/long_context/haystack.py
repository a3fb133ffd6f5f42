"""The text that a needle is hidden in: the user's files, or the prose that is shipped, as paragraphs in a circle."""

import hashlib
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qwen2eval.errors import DataFileError, MissingDataError
from qwen2eval.long_context.prose import PROSE_VERSION, write_prose
from qwen2eval.long_context.sentences import sentence_ends

BETWEEN_PARAGRAPHS = "\n\n"
LONGEST_PARAGRAPH = 3_000
"""Characters: longer ones are parted behind a sentence, so that no prompt has to be tokenized in one piece."""
_WRAPPED_LINE = 120
"""Characters: where no line is longer, lines end at a margin, and paragraphs at blank lines."""
_PROSE_CHARS = {"en": 1_000_000, "zh": 350_000}
"""Of the shipped text, at least; some 200,000 tokens."""
_CHARS_PER_TOKEN = {"en": 6, "zh": 3}
"""More than any tokenizer needs, so that the shipped text is never too short."""
_GUTENBERG = re.compile(
    r"\*\*\* ?START OF[^\n]*\n(.*?)(?=\n\*\*\* ?END OF|\nEnd of (?:the )?Project Gutenberg|\Z)", re.DOTALL
)
_GUTENBERG_END = re.compile(r"\nEnd of (?:the )?Project Gutenberg[^\n]*\s*\Z")
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")
"""Scripts without spaces between words: lines are joined with nothing."""


@dataclass(frozen=True)
class Haystack:
    """A text in paragraphs."""

    source: str
    paragraphs: tuple[str, ...]

    def circle(self, start: int) -> Iterator[str]:
        """Yield the paragraphs from number `start` on, all of them, then again from another one on, and so forth."""
        rng = random.Random(f"haystack {start}")
        while True:
            yield from self.paragraphs[start:]
            yield from self.paragraphs[:start]
            start = rng.randrange(len(self.paragraphs))

    def text(self, start: int, *, n_chars: int) -> str:
        """Return the text from a paragraph on, of at least `n_chars` characters."""
        parts, n_written = [], 0
        for paragraph in self.circle(start):
            parts.append(paragraph + BETWEEN_PARAGRAPHS)
            if (n_written := n_written + len(parts[-1])) >= n_chars:
                break
        return "".join(parts)

    @cached_property
    def sha256(self) -> str:
        """Hash of the text as it is used."""
        return hashlib.sha256(BETWEEN_PARAGRAPHS.join(self.paragraphs).encode()).hexdigest()


def find_haystack(language: str, *, data_dir: str | None, max_tokens: int, is_shipped: bool = False) -> Haystack:
    """Return the user's haystack, else the shipped one.

    The user's is `*.txt`, sorted by name, in `niah/haystack/<language>`, `niah/haystack`, `haystack/<language>` or
    `haystack` of the data folder; the first of these with such files is taken.

    Args:
        language: "en" or "zh".
        data_dir: the user's folder, else `QWEN2EVAL_DATA`.
        max_tokens: length of the longest prompt; the shipped text is made long enough for it.
        is_shipped: don't look for the user's.

    Raises:
        MissingDataError: the data folder is not there.
        DataFileError: a file that can't be read, or files without text.
    """
    if not is_shipped and (chosen := data_dir or os.environ.get("QWEN2EVAL_DATA")):
        if not Path(chosen).is_dir():
            raise MissingDataError(f"The data folder {chosen!r} (--data_dir or QWEN2EVAL_DATA) does not exist")
        for inside in (f"niah/haystack/{language}", "niah/haystack", f"haystack/{language}", "haystack"):
            if files := _text_files(Path(chosen) / inside):
                return read_haystack(files)
    n_chars = max(_PROSE_CHARS[language], _CHARS_PER_TOKEN[language] * max_tokens)
    paragraphs = write_prose(language, n_chars=n_chars, seed=0)
    return Haystack(f"qwen2eval prose {PROSE_VERSION}, {language}", tuple(paragraphs))


def read_haystack(files: Sequence[Path]) -> Haystack:
    """Return the text of files as paragraphs: without Project Gutenberg's frame, lines joined, long paragraphs parted.

    Raises:
        DataFileError: a file is not UTF-8 or can't be read, or there is no text in any.
    """
    paragraphs: list[str] = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as err:
            raise DataFileError(f"The haystack file {path} can't be read as UTF-8 text: {err}") from err
        paragraphs += _paragraphs(text)
    if not paragraphs:
        raise DataFileError(f"The haystack files in {files[0].parent} hold no text: put text in them, or remove them")
    return Haystack(str(files[0].parent), tuple(paragraphs))


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if not path.name.lower().startswith(("license", "readme")))


def _paragraphs(text: str) -> list[str]:
    found = _GUTENBERG.search(text)
    lines = [" ".join(line.split()) for line in (found[1] if found else _GUTENBERG_END.sub("", text)).splitlines()]
    # One long line shows that lines are paragraphs; otherwise they are wrapped at a margin
    if max(map(len, lines), default=0) > _WRAPPED_LINE:
        blocks = [[line] for line in lines]
    else:
        blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines))]
    joined = (_joined([line for line in block if line]) for block in blocks)
    return [part for paragraph in joined if paragraph for part in _parted(paragraph)]


def _joined(lines: Sequence[str]) -> str:
    text = ""
    for line in lines:
        # Both sides must be wide: a Latin word next to a Chinese one keeps its space
        is_wide = bool(text) and bool(_WIDE.match(text[-1]) and _WIDE.match(line[0]))
        text += line if is_wide or not text else f" {line}"
    return text


def _parted(paragraph: str) -> list[str]:
    if len(paragraph) <= LONGEST_PARAGRAPH:
        return [paragraph]
    parts, begin, last = [], 0, 0
    for end in sentence_ends(paragraph):
        # `last > begin`: a single sentence that is longer than the limit is kept whole
        if end - begin > LONGEST_PARAGRAPH and last > begin:
            parts.append(paragraph[begin:last].strip())
            begin = last
        last = end
    return [*parts, paragraph[begin:].strip()]
