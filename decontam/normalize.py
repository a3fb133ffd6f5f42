"""What text is compared as: code points after NFKC, folded in case, in classes that say where a token begins and ends.

All of it is in one table with an entry for each code point, so that kernels can follow it:

    low 21 bits   the folded code point
    3 bits        its class
    TWICE         the folded code point stands there twice: ß is ss
    MAY_COMPOSE   the character can compose with the one before it (combining marks, vowel signs, Hangul jamo)
    NEEDS_NFKC    NFKC of a text with it is not found character by character

NFKC of a text with none of the two is its characters' own NFKC in a row, or, for what is several separators (an
ellipsis, an accent by itself), a space. Symbols and punctuation separate. Marks stay
in their word, so that words of Indic scripts are not cut. What is invisible (soft hyphen, joiners, variation selectors)
is as if it were not there, and so is what tells no words apart: the filler and the vowel signs of Arabic, the points of
Hebrew and Syriac. An apostrophe that Unicode calls a letter (U+02BC) separates as every other.

Case is folded as `str.casefold` does where a character becomes one, and for ß. The four letters i of Turkish are
one: which of two an I is, only the language says. The Persian and the Arabic form of kaf and of yeh are one, too.

A run of letters and digits is one token; a character of a script that writes no spaces between words (Han, kana, Thai,
Lao, Khmer, Myanmar) is a separate token.
"""

import unicodedata
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SEPARATOR, LETTER, MARK, SINGLE, INVISIBLE = range(5)
"""Classes of characters."""
CLASS_SHIFT = 21
CODE_POINT = (1 << CLASS_SHIFT) - 1
TWICE, MAY_COMPOSE, NEEDS_NFKC = 1 << 29, 1 << 30, 1 << 31
TEXT_VERSION = 2
"""Of the way from a text to its tokens; a change of it makes every scan begin again."""

_SINGLE_SCRIPTS = (
    *((0x0E00, 0x0E7F), (0x0E80, 0x0EFF)),  # Thai, Lao
    *((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),  # Han
    *((0x3041, 0x30FF), (0x31F0, 0x31FF), (0x1AFF0, 0x1B16F)),  # kana
    *((0x1D372, 0x1D376), (0x20000, 0x323AF)),  # tally marks, Han beyond the first plane
)
_PLAIN_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x2F7FF), (0x30000, 0x323AF))
"""Han blocks whose characters have one class and fold to themselves: filled in one step, as they are some 100,000."""
_HANGUL = (0xAC00, 0xD7A3)
_LAST_OTHER = 0x1FFFF
"""The last code point but for Han and the few characters that `fold_table` names."""
_BEYOND = ((0x2F800, 0x2FA1F), (0xE0001, 0xE0001), (0xE0020, 0xE007F), (0xE0100, 0xE01EF))
"""Han, and invisible characters, beyond `_LAST_OTHER`."""
_ZERO_WIDTH_SPACE = 0x200B
_UNSEEN = frozenset((0x34F, 0x640, 0x115F, 0x1160, 0x180B, 0x180C, 0x180D, 0x180F))
"""Invisible or fillers, but not of category Cf: joiner of graphemes, tatweel, Hangul fillers, Mongolian selectors."""
_UNSEEN_MARKS = ("ARABIC", "HEBREW", "SYRIAC", "VARIATION SELECTOR")
"""How names of marks begin that tell no words apart."""
_MARKS_OF_LETTERS = range(0x653, 0x656)
"""Madda and hamza, which make another letter of the Arabic one below."""
_APOSTROPHES = frozenset((0x2BB, 0x2BC))
_ONE_LETTER = {"\u0130": "i", "\u0131": "i"}
_ONE_FORM = {"\u06a9": "\u0643", "\u06cc": "\u064a"}
_DOT_ABOVE = 0x307


class Folded(NamedTuple):
    """A text as table entries, those of invisible characters left out."""

    entries: npt.NDArray[np.uint32]
    """(characters after NFKC,)"""
    begins: npt.NDArray[np.int64]
    """Where in the text each is: its first character, counted in code points."""
    ends: npt.NDArray[np.int64]
    """One past its last."""


def fold(text: str, *, fold_case: bool = True) -> Folded:
    """Return what a text without markup is compared as; see `resolved.fold_resolved` for one with it.

    >>> "".join(chr(entry & CODE_POINT) for entry in fold("Ｆｉ² é").entries)
    'fi2 é'
    """
    table = fold_table(fold_case)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    entries, begins = table[points], np.arange(len(points), dtype=np.int64)
    ends = begins + 1
    if not unicodedata.is_normalized("NFKC", text):
        entries, begins, ends = _composed(text, entries, table)
    seen = (entries >> CLASS_SHIFT) & 7 != INVISIBLE
    if fold_case:
        points = entries & CODE_POINT
        seen[1:] &= (points[1:] != _DOT_ABOVE) | (points[:-1] != ord("i"))  # İ in lower case
        if (twice := entries & TWICE != 0).any():
            entries, begins, ends, seen = (np.repeat(column, 1 + twice) for column in (entries, begins, ends, seen))
    return Folded(entries, begins, ends) if seen.all() else Folded(entries[seen], begins[seen], ends[seen])


@cache
def fold_table(fold_case: bool) -> npt.NDArray[np.uint32]:
    """Return the entry of each code point, (0x110000,)."""
    table = np.arange(0x110000, dtype=np.uint32)  # unassigned: separators
    for ranges, kind in ((_PLAIN_HAN, SINGLE), ((_HANGUL,), LETTER)):
        for low, high in ranges:
            # the blocks have gaps, which grow smaller with each version of Unicode
            is_letter = [unicodedata.category(chr(point)) == "Lo" for point in range(low, high + 1)]
            table[low : high + 1][is_letter] |= kind << CLASS_SHIFT
    plain = {point for low, high in (*_PLAIN_HAN[:2], _HANGUL) for point in range(low, high + 1)}
    others = [point for low, high in ((0, _LAST_OTHER), *_BEYOND) for point in range(low, high + 1)]
    others = [point for point in others if point not in plain and unicodedata.category(chr(point)) != "Cn"]
    maybe = _can_compose(others)
    for point in others:
        table[point] = _entry(point, maybe, fold_case=fold_case)
    table.setflags(write=False)
    return table


def _entry(point: int, maybe: frozenset[int], *, fold_case: bool) -> int:
    character = chr(point)
    whole = unicodedata.normalize("NFKC", character)
    entry = 0
    if point in maybe or ord(unicodedata.normalize("NFKD", character)[0]) in maybe:
        entry |= MAY_COMPOSE | NEEDS_NFKC
    if len(whole) != 1:
        kinds = [_class_of(one) for one in whole]
        # an ellipsis is three full stops, an accent by itself a space with a mark, which belongs to no word
        is_separator = kinds[0] == SEPARATOR and {*kinds} <= {SEPARATOR, MARK, INVISIBLE}
        return entry | SEPARATOR << CLASS_SHIFT | ord(" ") if is_separator else entry | NEEDS_NFKC | point
    folded = _ONE_FORM.get(whole, whole)
    if fold_case:
        if whole.casefold() == "ss":
            return entry | TWICE | LETTER << CLASS_SHIFT | ord("s")
        folded = _fold_case(folded)
    return entry | _class_of(whole) << CLASS_SHIFT | ord(folded)


def _fold_case(character: str) -> str:
    for folded in (_ONE_LETTER.get(character, ""), character.casefold(), character.lower()):
        if len(folded) == 1:
            return folded
    return character


def _class_of(character: str) -> int:
    point, category = ord(character), unicodedata.category(character)
    if point in _UNSEEN or category == "Me":
        return INVISIBLE
    if category[0] == "M":
        tells_nothing = unicodedata.name(character, "").startswith(_UNSEEN_MARKS) and point not in _MARKS_OF_LETTERS
        return INVISIBLE if tells_nothing else MARK
    if category[0] in "LN" and point not in _APOSTROPHES:
        return SINGLE if any(low <= point <= high for low, high in _SINGLE_SCRIPTS) else LETTER
    return INVISIBLE if category == "Cf" and point != _ZERO_WIDTH_SPACE else SEPARATOR


def _can_compose(points: list[int]) -> frozenset[int]:
    """Return the code points that compose with, or are put in order among, those before them."""
    found = {point for point in points if unicodedata.combining(chr(point))}
    for point in points:
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    jamo = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    return frozenset(found | jamo)


@lru_cache(1 << 14)
def _composed_piece(piece: str) -> str:
    return unicodedata.normalize("NFKC", piece)


def _composed(
    text: str, entries: npt.NDArray[np.uint32], table: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Apply NFKC piece by piece: a piece is a character and all that composes with it, where something does."""
    is_start = entries & MAY_COMPOSE == 0
    is_start[:1] = True
    is_start[1:] |= entries[:-1] & CODE_POINT == ord("\n")  # texts that are folded together stay apart
    is_settled = np.zeros(len(entries), np.bool_)
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], len(entries))
    # pieces that are composed already keep their entries
    several = stops - starts > 1
    for begin, end in zip(starts[several].tolist(), stops[several].tolist(), strict=True):
        if _composed_piece(text[begin:end]) == text[begin:end]:
            is_start[begin:end] = is_settled[begin:end] = True
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], len(entries))
    is_special = ~is_settled[starts] & ((stops - starts > 1) | (entries[starts] & NEEDS_NFKC != 0))
    special = np.flatnonzero(is_special)
    pieces = [_composed_piece(text[begin:end]) for begin, end in zip(starts[special], stops[special], strict=True)]
    sizes = np.ones(len(starts), np.int64)
    sizes[special] = [len(piece) for piece in pieces]
    of_special = np.repeat(is_special, sizes)
    out = np.empty(len(of_special), np.uint32)
    out[~of_special] = entries[starts[~is_special]]
    out[of_special] = table[np.frombuffer("".join(pieces).encode("utf-32-le", "surrogatepass"), "<u4")]
    return out, np.repeat(starts, sizes).astype(np.int64), np.repeat(stops, sizes).astype(np.int64)
