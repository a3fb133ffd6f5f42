"""What the engine computes, said slowly and obviously: the oracle of its tests."""

import html
import re
import unicodedata
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise, permutations
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


@lru_cache(maxsize=100)
def size_of(reference, rule):
    if rule.tokenizer != "words":
        return rule.ngram_size
    both = tokens(reference.text + "\n\n" + reference.answer, fold_case=rule.fold_case, markup=rule.markup)
    n_single = sum(token.is_single for token in both)
    return rule.sizes[1] if 2 * n_single > len(both) else rule.sizes[0]


LABELS = [
    *(("", "ABCDEFGH"), ("", "12345678"), ("", "01234567"), ("CJK", "甲乙丙丁戊己庚辛"), ("CJK", "一二三四五六七八")),
    *(("DEVANAGARI", "कखगघङचछज"), ("DEVANAGARI", "१२३४५६७८")),
]
ANSWERS = [("", "Answer"), ("", "A"), ("CJK", "答案"), ("CJK", "答")]
"""What stands before choices and answers, and in which script's questions only."""


def of_script(named, text):
    return [label for script, label in named if any(unicodedata.name(c, "").startswith(script) for c in text)]


@lru_cache(maxsize=100)
def searched(reference, rule):
    """The n-grams of question and answer, and those of the other forms of an item, which are all that is looked for."""
    question, both = parts(reference, rule)
    size = size_of(reference, rule)
    pieces = [read(part, rule) for part in reference.parts]
    others = set().union(*(ngrams(read(form, rule), size) for form in reference.forms))
    if len(question) < size and any(reference.parts):
        for label in of_script(ANSWERS, reference.text):
            if label == "A" and len(pieces) > 1:
                continue
            for piece in pieces:
                run = question + read(label, rule) + piece
                starts = range(len(run) - size + 1) if len(pieces) == 1 else range(min(1, len(run) - size + 1))
                others |= {tuple(run[i : i + size]) for i in starts if i < len(question) < i + size}
        if len(pieces) > 1:
            for labels in ["", *of_script(LABELS, reference.text)]:
                others |= orders(question, pieces, [read(label, rule) for label in labels[: len(pieces)]], size)
    return ngrams(both, size), others


def orders(question, pieces, labels, size):
    """N-grams from question to a label, choices in their order, and the first one in other orders, if they are few."""
    labels = labels or [[] for _ in pieces]
    run, is_label = list(question), [False] * len(question)
    for label, piece in zip(labels, pieces, strict=True):
        run, is_label = run + label + piece, is_label + [True] * len(label) + [False] * len(piece)
    found = {
        tuple(run[i : i + size])
        for i in range(len(run) - size + 1)
        if i < len(question) and any(is_label[i : i + size])
    }
    begins = set()
    for order in permutations(range(len(pieces))):
        n, chosen = len(question), ()
        for label, choice in zip(labels, order, strict=True):
            if n < size:
                n, chosen = n + len(label) + len(pieces[choice]), (*chosen, choice)
        if n >= size:
            begins.add(chosen)
    if len(begins) <= 24:
        for chosen in begins:
            run = question + [x for label, i in zip(labels, chosen, strict=False) for x in label + pieces[i]]
            found.add(tuple(run[:size]))
    return found


@lru_cache(maxsize=100)
def group(reference, rule):
    """Items of one text are one."""
    question, both = parts(reference, rule)
    return tuple(question if len(question) >= size_of(reference, rule) else both)


def holders_of(ngram, size, items, rule):
    """The different items that have an n-gram, by benchmark."""
    found = defaultdict(set)
    for item in items:
        if size_of(item, rule) == size and ngram in set().union(*searched(item, rule)):
            found[item.benchmark].add(group(item, rule))
    return found


def is_own(ngram, reference, items, rule):
    """Whether in each benchmark few enough items have an n-gram."""
    holders = holders_of(ngram, size_of(reference, rule), items, rule)
    return not rule.template_items or max(map(len, holders.values()), default=0) <= rule.template_items


def verdict(text, reference, items, rule):
    """By which rule a text holds an item; None: by none."""
    document, size = read(text, rule), size_of(reference, rule)
    question, both = parts(reference, rule)
    of_item, of_forms = (one & ngrams(document, size) for one in searched(reference, rule))
    own = {ngram for ngram in of_item | of_forms if is_own(ngram, reference, items, rule)}
    full = question if len(question) >= size else both
    is_full = bool(of_item) and tuple(full) in ngrams(document, len(full))
    if own or is_full:
        if rule.name == "qwen2" and is_qwen2(text, reference, rule, of_item | (of_forms & own)):
            return "qwen2"
        return "strict"
    if is_whole(text, reference, items, rule):
        return "whole"
    return "template" if of_item else None


def parts(reference, rule):
    """The sequences of an item: question, and question with answer."""
    question = read(reference.text, rule)
    return question, question + read(reference.answer, rule)


def is_strict(text, reference, rule):
    """Whether the text and the item share an n-gram."""
    size = size_of(reference, rule)
    both = parts(reference, rule)[1]
    return bool(ngrams(read(text, rule), size) & ngrams(both, size))


def windows(document, item, size, rule, shared):
    """The sequences of the document: all of it, or around each run of shared n-grams."""
    if rule.sequence == "document":
        return [document]
    places = [i for i in range(len(document) - size + 1) if tuple(document[i : i + size]) in shared]
    starts = [places[0], *(b for a, b in pairwise(places) if b - a > size)]
    stops = [*(a for a, b in pairwise(places) if b - a > size), places[-1]]
    margin = max(2 * len(item), len(item) + size)
    return [document[max(0, a - margin) : b + size + margin] for a, b in zip(starts, stops, strict=True)]


def is_qwen2(text, reference, rule, shared):
    """Whether a part of the item shares an n-gram, and a long enough subsequence, with the text."""
    document, size = read(text, rule), size_of(reference, rule)
    question, both = parts(reference, rule)
    for item, asked in ((question, ngrams(question, size)), (both, ngrams(both, size)), (both, shared)):
        if not shared & asked:
            continue
        for sequence in windows(document, item, size, rule, shared & asked):
            length = lcs(sequence, item)
            if length >= rule.min_lcs and length >= rule.min_lcs_ratio * min(len(sequence), len(item)) - 1e-9:
                return True
    return False


def is_whole(text, reference, items, rule):
    """Whether a short item, or its question, stands in the text as a whole, and in no other item of the benchmark."""
    document = read(text, rule)
    others = [item for item in items if item.benchmark == reference.benchmark]
    others = {group(item, rule): parts(item, rule)[1] for item in others if group(item, rule) != group(reference, rule)}
    for part in parts(reference, rule):
        if rule.min_whole <= len(part) < size_of(reference, rule) and tuple(part) in ngrams(document, len(part)):
            holders = {name for name, other in others.items() if tuple(part) in ngrams(other, len(part))}
            if not rule.template_items or len(holders) < rule.template_items:
                return True
    return False
