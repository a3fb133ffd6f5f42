r"""Cutting spans out of texts, and out of the text of a JSON line, and nothing else: every other byte stays as it was.

Spans are characters of the text that `text_of` returns. Their place in the raw line is found by walking through it: an
escape is one character, two \u escapes of a surrogate pair are one, and escapes outside of the spans stay escapes.
Bytes that are no UTF-8 count as when they are replaced, and stay, too.
"""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from decontam.errors import DecontamError
from decontam.text_fields import text_places

Span = tuple[int, int]

_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL)
_DECODER = json.JSONDecoder(strict=False)
_LOST = 0xDC00


def _mark_lost(err: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are no UTF-8 as one character, as "replace" does; its code says how many they were: 1 to 3."""
    assert isinstance(err, UnicodeDecodeError)
    return chr(_LOST + err.end - err.start), err.end


# "replace" makes one character of 1 to 3 bytes, so its result can't be mapped back to places in the raw line
codecs.register_error("decontam.lost", _mark_lost)


class _Located(str):
    """A string of the line that knows where it is."""

    begin: int
    """In the raw line, behind the quotation mark."""
    end: int
    __slots__ = ("begin", "end")


class _Piece(NamedTuple):
    """A string of the line that is a part of its text."""

    begin: int
    """In the raw line, behind the quotation mark."""
    end: int
    first: int
    """In the text, in characters."""
    n_characters: int


def edited_line(line: bytes, field: str, spans: Sequence[Span], *, mask: str) -> bytes:
    """Return a line without the spans of its text, each replaced by `mask`, which may be empty.

    Raises:
        DecontamError: the line is not JSON, is nested too deeply, or has no such field.
    """
    raw = line.decode("utf-8", "decontam.lost")
    try:
        pieces = list(_pieces(raw, field))
    except (ValueError, LookupError, RecursionError) as err:
        raise DecontamError(f"a line can't be edited: {err}") from err
    shown, cuts = json.dumps(mask, ensure_ascii=False)[1:-1], list[tuple[int, int, str]]()
    begun = set[Span]()
    for piece in pieces:
        inside = [(max(a, piece.first), min(b, piece.first + piece.n_characters), (a, b)) for a, b in spans]
        kept = [(a, b, whole) for a, b, whole in inside if a < b]
        places = _raw_places(raw, piece, sorted({x for a, b, _ in kept for x in (a, b)}))
        for a, b, whole in kept:
            cuts.append((places[a], places[b], "" if whole in begun else shown))
            begun.add(whole)
    # of a key that is there twice the last value counts, in the place of the first
    return _spliced(line, raw, sorted(cuts))


def edited_bytes(data: bytes, spans: Sequence[Span], *, mask: str) -> bytes:
    r"""Return a text's bytes without spans of its characters.

    >>> edited_bytes(b"caf\xe9 one two", [(5, 9)], mask="")
    b'caf\xe9 two'
    """
    return _spliced(data, data.decode("utf-8", "decontam.lost"), [(begin, end, mask) for begin, end in spans])


def _spliced(data: bytes, decoded: str, cuts: Sequence[tuple[int, int, str]]) -> bytes:
    """Return bytes with stretches replaced, which are given in characters of what the bytes decode to."""
    out, character, at = list[bytes](), 0, 0
    for begin, end, new in cuts:
        start = at + _n_bytes(decoded[character:begin])
        out += [data[at:start], new.encode("utf-8")]
        character, at = end, start + _n_bytes(decoded[begin:end])
    return b"".join([*out, data[at:]])


def _n_bytes(decoded: str) -> int:
    if decoded.isascii():
        return len(decoded)
    n_too_many = sum((3 - n) * decoded.count(chr(_LOST + n)) for n in (1, 2))
    return len(decoded.encode("utf-8", "surrogatepass")) - n_too_many


def edited_text(text: str, spans: Sequence[Span], *, mask: str) -> str:
    """Return a text without spans that ascend and don't overlap.

    >>> edited_text("one two three", [(4, 8)], mask="")
    'one three'
    """
    out, done = [], 0
    for begin, end in spans:
        out += [text[done:begin], mask]
        done = end
    return "".join([*out, text[done:]])


def widened(spans: Sequence[Span], margin: int, n_characters: int) -> list[Span]:
    """Return spans with a margin on both sides, those that meet made one.

    >>> widened([(5, 8), (10, 12)], 1, 12)
    [(4, 12)]
    """
    found: list[Span] = []
    for begin, end in sorted((max(0, a - margin), min(n_characters, b + margin)) for a, b in spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        elif begin < end:
            found.append((begin, end))
    return found


def _raw_places(raw: str, piece: _Piece, wanted: Sequence[int]) -> dict[int, int]:
    """Return where characters of the text begin in the raw line."""
    places: dict[int, int] = {}
    at, character = piece.begin, piece.first
    waiting = list(reversed(wanted))
    for escape in _ESCAPE.finditer(raw, piece.begin, piece.end):
        n_plain = escape.start() - at
        while waiting and waiting[-1] <= character + n_plain:
            place = waiting.pop()
            places[place] = at + place - character
        at, character = escape.end(), character + n_plain + 1
    for place in waiting:
        places[place] = at + place - character
    return places


def _pieces(raw: str, field: str) -> Iterator[_Piece]:
    """Yield the strings that make up the text, with their place in it."""
    members = _members(raw, _skip_space(raw, 1 if raw.startswith(_BYTE_ORDER_MARK) else 0))
    name = field if field in members else field.split(".", maxsplit=1)[0]
    first = 0
    for place in text_places({name: _located(raw, members[name])}, field):
        if place is not None:
            text = place.holder[place.key]
            yield _Piece(text.begin, text.end, first, len(text))
            first += len(text)
        first += 1  # the line end behind it


def _located(raw: str, begin: int) -> Any:
    """Return a value whose strings know where they are; of other values than these, objects and lists, None."""
    match raw[begin]:
        case '"':
            text, end = scanstring(raw, begin + 1, False)
            located = _Located(text)
            located.begin, located.end = begin + 1, end - 1
            return located
        case "{":
            return {key: _located(raw, place) for key, place in _members(raw, begin).items()}
        case "[":
            return [_located(raw, place) for place in _elements(raw, begin)]
    return None


def _members(raw: str, begin: int) -> dict[str, int]:
    """Return where the values of an object begin, by key; of a key that is there twice the last."""
    if raw[begin : begin + 1] != "{":
        raise DecontamError("a line can't be edited: its text is not where it was")
    found: dict[str, int] = {}
    at = _skip_space(raw, begin + 1)
    while raw[at] == '"':
        key, at = scanstring(raw, at + 1, False)
        value = _skip_space(raw, _skip_space(raw, at) + 1)  # behind the colon
        found[key] = value
        at = _skip_space(raw, _value_end(raw, value))
        if raw[at] == ",":
            at = _skip_space(raw, at + 1)
    return found


def _elements(raw: str, begin: int) -> Iterator[int]:
    """Yield where the values of an array begin."""
    at = _skip_space(raw, begin + 1)
    while raw[at] != "]":
        yield at
        at = _skip_space(raw, _value_end(raw, at))
        if raw[at] == ",":
            at = _skip_space(raw, at + 1)


def _value_end(raw: str, begin: int) -> int:
    decoded: tuple[Any, int] = _DECODER.raw_decode(raw, begin)
    return decoded[1]


def _skip_space(raw: str, at: int) -> int:
    found = _SPACE.match(raw, at)
    return found.end() if found else at
