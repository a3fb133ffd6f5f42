"""Folding is NFKC and case folding, and words end where the slow reading ends them."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings

from decontam.kernels.words import split
from decontam.normalize import CODE_POINT, INVISIBLE, NEEDS_NFKC, TWICE, fold, fold_table
from tests.decontam.slow import fold as slow_fold
from tests.decontam.slow import stands_alone, words
from tests.decontam.texts import hard_texts


def read(text, *, fold_case=True):
    folded = fold(text, fold_case=fold_case)
    found = split(folded)
    spans = [(int(folded.begins[b]), int(folded.ends[e - 1])) for b, e in zip(found.begins, found.ends, strict=True)]
    return ["".join(map(chr, found.points[b:e])) for b, e in zip(found.begins, found.ends, strict=True)], spans


@settings(max_examples=500)
@given(text=hard_texts)
def test_words_are_those_of_the_slow_reading(text):
    for fold_case in (True, False):
        assert read(text, fold_case=fold_case)[0] == words(text, fold_case=fold_case)


@settings(max_examples=300)
@given(text=hard_texts)
def test_a_words_place_in_the_text_holds_the_word(text):
    found, spans = read(text)
    for word, (begin, end) in zip(found, spans, strict=True):
        # a place is cut where characters compose, so it can hold a little more, but never less
        assert word in "".join(words(text[begin:end]))
    assert all(a[0] <= b[0] for a, b in pairwise(spans))


def test_every_code_point_alone():
    table = fold_table(True)
    for point in range(0x110000):
        character, entry = chr(point), int(table[point])
        whole = unicodedata.normalize("NFKC", character)
        if unicodedata.category(character) in ("Cn", "Co", "Cs"):
            assert entry >> 21 & 7 == 0, hex(point)
        elif not entry & NEEDS_NFKC:
            expected = words(character)
            if len(whole) > 1:  # an ellipsis, an accent by itself: they separate words
                assert (expected, entry) == ([], ord(" ")), hex(point)
                assert words(f"a{character}b") == ["a", "b"], hex(point)
                continue
            assert chr(entry & CODE_POINT) * (1 + bool(entry & TWICE)) == slow_fold(whole, True), hex(point)
            assert (entry >> 21 & 7 in (0, 2, INVISIBLE)) == (expected == []), hex(point)
            assert (entry >> 21 & 7 == 3) == (bool(expected) and stands_alone(whole)), hex(point)


@settings(max_examples=500)
@given(text=hard_texts)
def test_texts_without_marked_characters_fold_one_by_one(text):
    table = fold_table(False)
    if not any(int(table[ord(c)]) & NEEDS_NFKC for c in text):
        assert unicodedata.normalize("NFKC", text) == "".join(unicodedata.normalize("NFKC", c) for c in text)


def test_marks_stay_in_words_and_signs_do_not():
    assert read("हिन्दी, क्षत्रिय!")[0] == ["हिन्दी", "क्षत्रिय"]
    assert read("don't soft\u00adhyphen snake_case")[0] == ["don", "t", "softhyphen", "snake", "case"]
    assert read("👍🏽\ufe0f ok")[0] == ["ok"]
    assert read("中文abc ไทย")[0] == ["中", "文", "abc", "ไ", "ท", "ย"]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("مـــحـمـد", "محمد"),
        ("مُحَمَّدٌ رَحْمٰنِ", "محمد رحمن"),
        ("שָׁלוֹם בְּרֵאשִׁ֖ית", "שלום בראשית"),
        ("کتاب یک", "كتاب يك"),
        ("GROSSE STRAẞE", "große straße"),
        ("ΟΔΥΣΣΕΎΣ", "οδυσσεύς"),
        ("İSTANBUL ışık i\u0307yi", "istanbul IŞIK iyi"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ ﬁne ①", "full width fine 1"),
        ("so\u00adft jo\u200cin\u200der \ufeffbom \u202ebi\u2066di w\u2060j", "soft joiner bom bidi wj"),
        ("1\ufe0f\u20e3 葛\U000e0100 ta\U000e0067gs g\u034fj", "1 葛 tags gj"),
        ("don\u02bct ha\u2019penny", "don't ha'penny"),
    ],
)
def test_what_tells_no_words_apart(written, plain):
    """Tatweel, vowel signs, points, forms of one letter, case, width, and what is invisible."""
    assert read(written)[0] == read(plain)[0]
    assert len(read(plain)[0]) == len(written.split()) + ("'" in plain) * 2


def test_letters_stay_apart():
    for one, other in ("اأ", "هة", "كق", "ıl", "éa", "のノ", "бв"):
        assert read(one)[0] != read(other)[0]
    assert read("ا\u0655")[0] == read("إ")[0] != read("ا")[0]
    assert read("Maße", fold_case=False)[0] != read("Masse", fold_case=False)[0]


def test_lone_surrogates_separate():
    assert read("ab\ud800cd")[0] == ["ab", "cd"]
