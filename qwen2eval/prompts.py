"""Prompt text that is cheap to build, to keep and to count.

A `PromptText` keeps a prompt as shared pieces, so memory grows with the number of docs and not with docs x few-shot
text; `TokenCounter` tokenizes each piece once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen2eval.tokenizer import Tokenizer

TURN = "<|im_start|>"
PIECE_BOUNDARY = re.compile(r"\n\n(?=\S)|<\|im_start\|>")
"""What a piece ends with (a blank line that a non-space follows) or begins with (a ChatML turn): a few-shot example."""
LONG_PIECE = 1_000
"""Characters: longer pieces are cut on, at some ends of lines or sentences."""
CUTS_ARE_KEPT = 100_000
"""Characters of a piece whose cuts are remembered: a novel in one piece hardly comes again."""
BATCH_CHARS = 1 << 21
"""Characters that are tokenized in one call; one text may have more."""
_PART_END = re.compile(r"\n(?=\S)|(?<=[A-Za-z][.!?])(?= [A-Za-z])|(?<=[\u4e00-\u9fa5])(?=[。！？])")  # noqa: RUF001
# Pre-tokenizers (Qwen2; cl100k and Llama 3) that always cut between a newline and a non-space, so that the tokens of a
# text are the tokens of its pieces. Verified against whole texts in tests/test_prompts.py.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTTING_PATTERNS = (_WORDS % "", _WORDS % "{1,3}")


def before_plain_text(system: str | None) -> str | None:
    r"""Return a system message as it comes before plain text: with a blank line between, which lm-eval leaves out.

    >>> before_plain_text("Be brief."), before_plain_text("Be brief.\n"), before_plain_text(None)
    ('Be brief.\n\n', 'Be brief.\n', None)
    """
    return system if not system or system.endswith("\n") else f"{system}\n\n"


class PromptText:
    """One prompt as a tuple of pieces; equal pieces of other prompts are the same object."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: tuple[str, ...]) -> None:
        self.pieces = pieces

    def __str__(self) -> str:
        return "".join(self.pieces)


def cut_pieces(text: str) -> Iterator[str]:
    r"""Yield the pieces of a prompt; joined they are `text`.

    >>> list(cut_pieces("Rules.\n\nQ: 1\n\nQ: 2"))
    ['Rules.\n\n', 'Q: 1\n\n', 'Q: 2']
    """
    # Plain patterns with the position picked here: look-behinds would make this four times slower
    begin = 0
    for match in PIECE_BOUNDARY.finditer(text):
        end = match.end() if match[0] == "\n\n" else match.start()
        if end > begin:
            yield from _parts(text[begin:end])
            begin = end
    yield from _parts(text[begin:])


def _parts(piece: str) -> Iterable[str]:
    """Return a piece in parts, where it is long: prompts with another sentence in it still share most of them."""
    if len(piece) <= LONG_PIECE:
        return (piece,)
    return _cut_on(piece) if len(piece) <= CUTS_ARE_KEPT else _new_parts(piece)


def _new_parts(piece: str) -> tuple[str, ...]:
    """Cut at every fourth end or so, chosen by the text between two ends: an insertion moves no cut behind it."""
    parts, begin, last = [], 0, 0
    for match in _PART_END.finditer(piece):
        end = match.end()
        if (end - last + ord(piece[end])) % 4 == 0 and end > begin:
            parts.append(piece[begin:end])
            begin = end
        last = end
    return (*parts, piece[begin:])


_cut_on = functools.lru_cache(maxsize=1024)(_new_parts)


class PromptPool:
    r"""Makes `PromptText`s that share their equal pieces (descriptions, few-shot examples).

    >>> PromptPool().add("Q: 1\n\nQ: 2").pieces
    ('Q: 1\n\n', 'Q: 2')
    """

    def __init__(self) -> None:
        self._pieces: dict[str, str] = {}
        self._last: tuple[str, PromptText] | None = None

    def add(self, text: str) -> PromptText:
        """Return `text` in pieces; the same text twice in a row (the choices of one doc) is the same object."""
        if self._last is not None and (self._last[0] is text or self._last[0] == text):
            return self._last[1]
        prompt = PromptText(tuple(self._pieces.setdefault(p, p) for p in cut_pieces(text)))
        self._last = (text, prompt)
        return prompt


class TokenCounter:
    """Token ids of prompts, each piece tokenized once where the tokenizer allows it, else whole prompts.

    Args:
        tokenizer: a Hugging Face tokenizer.
        add_bos_token: of `--model_args`; None: as the tokenizer does.
        is_whole_text: the texts themselves are scored: nothing that the tokenizer puts around a prompt counts.
    """

    def __init__(self, tokenizer: Tokenizer, *, add_bos_token: bool | None = None, is_whole_text: bool = False) -> None:
        self._tokenizer, self._add_bos_token = tokenizer, add_bos_token
        self._options = {"add_special_tokens": False} if is_whole_text else {}
        self._ids: dict[str, array[int]] = {}
        self.is_piecewise = has_cutting_pattern(tokenizer) and tokenizer("", **self._options)["input_ids"] == []
        self._knows_turns = self.is_piecewise and TURN in tokenizer.get_added_vocab()

    def prepare(self, prompts: Iterable[PromptText]) -> None:
        """Tokenize what `prompts` need in one batch."""
        texts = {text for prompt in prompts for text in self._texts(prompt)}
        for some in _batches([text for text in texts if text not in self._ids]):
            # verbose=False: no warning for prompts over the model's length, which are counted and reported
            for text, ids in zip(some, self._tokenizer(some, verbose=False, **self._options)["input_ids"], strict=True):
                self._ids[text] = array("I", ids)

    def pieces(self, prompt: PromptText) -> list[array[int]]:
        """Return the token ids of `prompt`, in the pieces they were tokenized in."""
        self.prepare([prompt])
        return [self._ids[text] for text in self._texts(prompt)]

    def count(self, prompt: PromptText) -> int:
        """Return the tokens that the model gets of `prompt`: without a BOS that backends don't add."""
        n_tokens = sum(map(len, self.pieces(prompt)))
        begin = prompt.pieces[0] if prompt.pieces else ""
        is_bare = special_token_options(self._tokenizer, begin, self._add_bos_token).get("add_special_tokens") is False
        return n_tokens - (self._n_special if is_bare and n_tokens else 0)

    @functools.cached_property
    def _n_special(self) -> int:
        return len(self._tokenizer("", **self._options)["input_ids"])

    def is_in_pieces(self, prompt: PromptText) -> bool:
        """Whether `pieces` gives the tokens of the prompt's own pieces, not of the prompt as a whole."""
        # To a tokenizer without ChatML a turn begins in the middle of a word
        return self.is_piecewise and (self._knows_turns or not any(p.startswith(TURN) for p in prompt.pieces))

    def continuation(self, text: str) -> array[int]:
        """Return the token ids of a continuation by itself."""
        key = "\0" + text
        if key not in self._ids:
            self._ids[key] = array("I", self._tokenizer.encode(text, add_special_tokens=False))
        return self._ids[key]

    def _texts(self, prompt: PromptText) -> tuple[str, ...]:
        """Return what is tokenized by itself."""
        return prompt.pieces if self.is_in_pieces(prompt) else (str(prompt),)

    def forget_prompts(self) -> None:
        """Drop what was remembered; between tasks."""
        self._ids.clear()


class PrefixCounter:
    """Counts how many prompt tokens are new if every shared prefix is computed once (at piece boundaries)."""

    def __init__(self) -> None:
        # Of each prefix the hash of its pieces: a tree of millions of nodes would take a gigabyte
        self._prefixes: set[int] = set()
        self.n_tokens = 0
        self.n_new_tokens = 0

    def add(self, prompt: PromptText, lengths: list[int]) -> None:
        """Add one prompt; `lengths` are the tokens of its pieces."""
        prefix = 0
        for piece, length in zip(prompt.pieces, lengths, strict=True):
            self.n_tokens += length
            prefix = hash((prefix, piece))
            if prefix not in self._prefixes:
                self._prefixes.add(prefix)
                self.n_new_tokens += length

    @property
    def shared_ratio(self) -> float | None:
        """Share of prompt tokens (0-1) that another prompt already has as its prefix; None without tokens."""
        return None if not self.n_tokens else 1 - self.n_new_tokens / self.n_tokens


def digest_ids(pieces: Iterable[array[int]]) -> bytes:
    """Return the sha256 of token ids, independent of how they are cut into pieces."""
    digest = hashlib.sha256()
    for ids in pieces:
        digest.update(ids.tobytes())
    return digest.digest()


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Yield texts in batches for the tokenizer, which takes some hundred bytes a token while it works."""
    batch, n_chars = list[str](), 0
    for text in texts:
        if batch and n_chars + len(text) > BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
        batch.append(text)
        n_chars += len(text)
    if batch:
        yield batch


def special_token_options(tokenizer: Tokenizer, text: str, add_bos_token: bool | None) -> dict[str, bool]:
    """Return the options with which lm-eval's backends encode a prompt: no second BOS where the text begins with one.

    Args:
        text: the prompt, or its beginning.
        add_bos_token: of `--model_args`; None: as the tokenizer does.
    """
    bos = getattr(tokenizer, "bos_token", None)
    # The template has written it, and no backend adds another
    if bos and text.startswith(bos):
        return {"add_special_tokens": False}
    return {} if add_bos_token is None else {"add_special_tokens": bool(add_bos_token)}


def has_cutting_pattern(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer parts words by one of `CUTTING_PATTERNS`, and does nothing else that crosses them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.pre_tokenizer is None:
        return False
    # The state of a part is its JSON; that of the whole tokenizer would take 0.1 s for its vocabulary
    splits = json.loads(backend.pre_tokenizer.__getstate__()).get("pretokenizers") or []
    pattern = splits[0].get("pattern", {}).get("Regex") if splits else None
    normalizer = backend.normalizer and json.loads(backend.normalizer.__getstate__())["type"]
    takes_space_before = any(token.lstrip for token in backend.get_added_tokens_decoder().values())
    return pattern in CUTTING_PATTERNS and normalizer in (None, "NFC") and not takes_space_before
