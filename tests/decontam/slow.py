"""What the engine computes, said slowly and obviously: the oracle of its tests."""

import html
import re
import unicodedata
from itertools import pairwise
from typing import NamedTuple

SPACELESS = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY IDEOGRAPH",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HANGZHOU",
    "HENTAIGANA",
)
SPACELESS_SCRIPTS = ("THAI", "LAO", "KHMER", "MYANMAR")


UNSEEN = (
    *((0x34F, 0x34F), (0x115F, 0x1160), (0x180B, 0x180D), (0x180F, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)),
    *((0x590, 0x5FF), (0xFB1E, 0xFB1E), (0x600, 0x652), (0x656, 0x6FF), (0x700, 0x74F)),
    *((0x870, 0x8FF), (0x10EC0, 0x10EFF)),
)
"""Where marks, and a few signs that aren't of category Cf, tell no words apart."""


ESCAPES = r"\\+(?:u(?P<u>[0-9a-fA-F]{4})|x(?P<x>[0-9a-fA-F]{2})|[ntrbf])?"
TAGS = r"""(?:<|&(?:amp;)*lt;)/?(?:(?P<inline>b)|br|p|td)(?: class=\\*"[^"]*")?(?: ?/)?(?:>|&(?:amp;)*gt;)"""
ENTITIES = r"""&(?:amp;)*(?:\#(?P<number>\d{1,7})|\#x(?P<hex>[0-9a-fA-F]{1,5})|(?P<name>nbsp|lt|gt|amp|eacute|quot));"""
MARKUP = re.compile(f"{ESCAPES}|{TAGS}|{ENTITIES}")
"""Some of the markup that is read, by the names that tests use."""


def resolved(text):
    """A text without its markup."""

    def meaning(found):
        if digits := found["u"] or found["x"] or found["hex"]:
            return chr(int(digits, 16))
        if found["number"]:
            return chr(int(found["number"]))
        if found["inline"]:
            return "\u00ad"
        return html.unescape(f"&{found['name']};") if found["name"] else " "

    return MARKUP.sub(meaning, text)


class Token(NamedTuple):
    text: str
    is_single: bool


def tokens(text, *, fold_case=True, markup=False):
    """Words: runs of letters and digits with their marks; one character where scripts write no spaces."""
    found, current, is_single = [], "", False
    for character in seen(resolved(text) if markup else text, fold_case):
        category = unicodedata.category(character)
        if category[0] == "M":
            if current:
                current += fold(character, fold_case)
            continue
        is_letter = category[0] in "LN" and character not in "\u02bb\u02bc"
        single = is_letter and stands_alone(character)
        if current and (not is_letter or single or is_single):
            found.append(Token(current, is_single))
            current = ""
        if is_letter:
            current, is_single = current + fold(character, fold_case), single
    return [*found, *([Token(current, is_single)] if current else [])]


def seen(text, fold_case):
    """NFKC without what is as if it were not there."""
    text = unicodedata.normalize("NFKC", text)
    if fold_case:
        text = re.sub("(?<=[iI])\u0307", "", text)
    return [one for one in text if not is_unseen(one)]


def is_unseen(character):
    category = unicodedata.category(character)
    if category in ("Cf", "Me") or character == "\u0640":
        return character != "\u200b"
    in_ranges = any(low <= ord(character) <= high for low, high in UNSEEN)
    return in_ranges and (category[0] == "M" or character in "\u115f\u1160")


def fold(character, fold_case):
    character = {"\u06a9": "\u0643", "\u06cc": "\u064a"}.get(character, character)
    if fold_case:
        if character in "\u0130\u0131":
            return "i"
        if character in "ß\u1e9e":
            return "ss"
        for folded in (character.casefold(), character.lower()):
            if len(folded) == 1:
                return folded
    return character


def stands_alone(character):
    name = unicodedata.name(character, "")
    return name.startswith(SPACELESS) or name.split(" ")[0] in SPACELESS_SCRIPTS


def words(text, *, fold_case=True, markup=False):
    return [token.text for token in tokens(text, fold_case=fold_case, markup=markup)]


def ngrams(sequence, size):
    return {tuple(sequence[i : i + size]) for i in range(len(sequence) - size + 1)}


def lcs(first, second):
    row = [0] * (len(second) + 1)
    for a in first:
        above = row[:]
        for j, b in enumerate(second):
            row[j + 1] = above[j] + 1 if a == b else max(row[j], above[j + 1])
    return row[-1]


def stripped(text, *, fold_case=True):
    """What is left without separators: stretches of letters, digits and marks, with a space before each."""
    found, is_apart = "", True
    for character in seen(text, fold_case):
        category = unicodedata.category(character)
        if category[0] not in "LNM" or character in "\u02bb\u02bc":
            is_apart = True
        elif category[0] != "M" or not is_apart:
            found += (" " if is_apart else "") + fold(character, fold_case)
            is_apart = False
    return found


TOKENIZERS = {}
"""By what rules call them."""


def read(text, rule):
    """A text's tokens."""
    if rule.tokenizer == "words":
        return words(text, fold_case=rule.fold_case, markup=rule.markup)
    left = stripped(resolved(text) if rule.markup else text, fold_case=rule.fold_case)
    return TOKENIZERS[rule.tokenizer].encode(left, add_special_tokens=False).ids


def size_of(reference, rule):
    if rule.tokenizer != "words":
        return rule.ngram_size
    both = tokens(reference.text + "\n\n" + reference.answer, fold_case=rule.fold_case, markup=rule.markup)
    n_single = sum(token.is_single for token in both)
    return rule.sizes[1] if 2 * n_single > len(both) else rule.sizes[0]


def parts(reference, rule):
    """The sequences of an item: question, and question with answer."""
    question = read(reference.text, rule)
    return question, question + read(reference.answer, rule)


def is_strict(text, reference, rule):
    """Whether the text and the item share an n-gram."""
    size = size_of(reference, rule)
    both = parts(reference, rule)[1]
    return bool(ngrams(read(text, rule), size) & ngrams(both, size))


def windows(document, item, size, rule):
    """The sequences of the document: all of it, or around each run of shared n-grams."""
    if rule.sequence == "document":
        return [document]
    shared = ngrams(item, size)
    places = [i for i in range(len(document) - size + 1) if tuple(document[i : i + size]) in shared]
    starts = [places[0], *(b for a, b in pairwise(places) if b - a > size)]
    stops = [*(a for a, b in pairwise(places) if b - a > size), places[-1]]
    margin = max(2 * len(item), len(item) + size)
    return [document[max(0, a - margin) : b + size + margin] for a, b in zip(starts, stops, strict=True)]


def is_qwen2(text, reference, rule):
    """Whether a part of the item shares an n-gram, and a long enough subsequence, with the text."""
    document, size = read(text, rule), size_of(reference, rule)
    for item in parts(reference, rule):
        if not ngrams(document, size) & ngrams(item, size):
            continue
        for sequence in windows(document, item, size, rule):
            length = lcs(sequence, item)
            if length >= rule.min_lcs and length >= rule.min_lcs_ratio * min(len(sequence), len(item)) - 1e-9:
                return True
    return False


def is_whole(text, reference, rule):
    """Whether a short item, or its question, stands in the text as a whole."""
    question, both = parts(reference, rule)
    document = read(text, rule)
    if len(both) >= size_of(reference, rule) or len(both) < rule.min_whole:
        return False
    return any(len(part) >= rule.min_whole and tuple(part) in ngrams(document, len(part)) for part in (question, both))
