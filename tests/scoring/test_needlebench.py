"""NeedleBench's scorers against published examples, slow versions of the formulae, and what must always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.long_context.needlebench.scoring import (
    PARTS,
    Length,
    boxed_answer,
    boxed_match,
    effective_length,
    keyword_found,
    length_weighted,
    overall,
    overall_weights,
    points_by_length,
    reasoning_v1,
    single_retrieval_v1,
    traced_length,
)

NEEDLE = "\nHidden on Emerald Island is the legendary Stardust Shard.\n"
KEYWORD = "Stardust Shard"


@pytest.mark.parametrize(
    ("response", "points"),
    [
        ("The legendary item hidden on the Emerald Island is Stardust Shard.", 100),
        ("The legendary item hidden on the Emerald Island is Ghost Pearl.", 4.9057),
        ("Hidden on Emerald Island is the legendary Ghost Pearl.", 16.3265),
        ("stardust shard", 4.8980),
        ("I do not know.", 2.4490),
        ("", 0),
    ],
)
def test_single_retrieval_of_version_1(response, points):
    assert single_retrieval_v1(response, needle=NEEDLE, keyword=KEYWORD) == pytest.approx(points, abs=5e-5)
    assert keyword_found(response, KEYWORD) == (100 if points == 100 else 0)


def slow_distance(a, b):
    """The number of insertions, deletions and changes from `a` to `b`, by the textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@given(st.text("ab \n", max_size=12), st.text("ab 针", max_size=12))
def test_a_miss_earns_up_to_20_for_likeness(response, needle):
    a, b = "".join(response.split()), "".join(needle.split())
    slow = 20 * (1 - slow_distance(a, b) / max(len(a), len(b))) if a or b else 20
    assert single_retrieval_v1(response, needle=needle, keyword="K") == pytest.approx(slow)


@given(st.text(max_size=30), st.text(max_size=30), st.text(min_size=1, max_size=5))
def test_points_are_0_to_100(response, needle, keyword):
    points = [
        single_retrieval_v1(response, needle=needle, keyword=keyword),
        keyword_found(response, keyword),
        boxed_match(response, answer=keyword),
        reasoning_v1(response, answer=keyword),
    ]
    assert all(0 <= p <= 100 for p in points if p is not None)
    assert (points[-1] is None) == (not keyword.split())


@pytest.mark.parametrize(
    ("response", "answer", "points"),
    [
        ("It was the Duke of York", "Prince Andrew, Duke of York", 60),
        ("york", "New York", 50),
        ("答案是张三", "张三", 100),
        ("anything", " ", None),
    ],
)
def test_reasoning_of_version_1(response, answer, points):
    assert reasoning_v1(response, answer=answer) == points


@pytest.mark.parametrize(
    ("response", "boxed"),
    [
        (r"\boxed{Ann}", "Ann"),
        (r"\boxed{Ann} or \boxed{Bo}", "Bo"),
        (r"\boxed{{Ann}}", "Ann"),
        (r"\boxed{\text{Ann} of \text{Ur}} etc. }", r"\text{Ann} of \text{Ur}"),
        (r"\boxed{Ann", None),
        ("Ann", None),
        ("", None),
    ],
)
def test_the_boxed_answer(response, boxed):
    assert boxed_answer(response) == boxed


@pytest.mark.parametrize(
    ("boxed", "answer", "is_right"),
    [
        (r"\text{Ann Ray}", "Ann Ray", True),
        (r"Ann~Ray", "Ann Ray", True),
        ("Ann  Ray", "Ann Ray", True),
        ('"Ann Ray"', "Ann Ray", True),
        ("ann ray", "Ann Ray", False),
        ("Ann Ray is it", "Ann Ray", False),
        ("None", "Ann", False),
        ("17", "17", True),
    ],
)
def test_a_boxed_answer_is_compared_when_cleaned(boxed, answer, is_right):
    assert boxed_match(rf"So \boxed{{{boxed}}}.", answer=answer) == (100 if is_right else 0)


def test_no_box_is_no_answer_even_where_the_answer_is_the_word_for_it():
    assert boxed_match("I can't tell", answer="None") == 0


def test_a_name_with_an_apostrophe():
    """The original cleans the prediction only, so such a name is never right."""
    assert boxed_match(r"\boxed{Ed O'Brien}", answer="Ed O'Brien") == 100
    assert boxed_match(r"\boxed{Ed O'Brien}", answer="Ed O'Brien", faithful=True) == 0


def test_the_overall_of_both_versions():
    points = {"single": 90.0, "reasoning": 50.0, "retrieval": 70.0}
    assert overall(points, version=1) == pytest.approx(0.4 * 90 + 0.3 * 50 + 0.3 * 70)
    assert overall(points, version=2) == pytest.approx(70)
    # The original's table reads single-needle retrieval from multi-needle retrieval's results
    assert overall(points, version=1, faithful=True) == pytest.approx(0.7 * 70 + 0.3 * 50)
    assert overall(points, version=2, faithful=True) == pytest.approx((2 * 70 + 50) / 3)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_the_weights_are_those_of_the_overall(version, faithful):
    weights = overall_weights(version=version, faithful=faithful)
    assert sum(weights.values()) == pytest.approx(1)
    points = dict(zip(PARTS, (11.0, 23.0, 47.0), strict=True))
    total = sum(weights[part] * points[part] for part in PARTS)
    assert total == pytest.approx(overall(points, version=version, faithful=faithful))


@pytest.mark.parametrize(
    ("points", "traced", "faithful"),
    [
        ([100, 100, 100], 4, 4),
        ([100, 60, 59], 3, 3),
        ([100, 0, 100, 0, 0], 4, 4),  # the last fall counts
        ([50, 100, 100], 4, 4),
        ([50, 40, 30], 0, 4),  # never passed: the original says "all"
    ],
)
def test_how_many_sentences_were_traced(points, traced, faithful):
    rows = [Length(n, float(p)) for n, p in enumerate(points, 2)]
    assert traced_length(rows) == traced
    assert traced_length(rows, faithful=True) == faithful


def test_the_figures_of_the_2025_paper():
    rows = points_by_length([(2, 100.0), (2, 50.0), (8, 50.0), (4, 0.0)])
    assert rows == [Length(2, 75.0), Length(4, 0.0), Length(8, 50.0)]
    assert effective_length(rows) == 8
    assert length_weighted(rows) == pytest.approx((2 * 75 + 8 * 50) / 14)
    assert effective_length([Length(2, 49.0)]) == 0
