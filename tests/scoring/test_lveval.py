"""LV-Eval's scorers against the recorded outputs and scores of its authors' code, and published examples."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.long_context.lveval.scoring import (
    BLACKLIST,
    METRICS,
    _jieba,
    chinese_words,
    english_words,
    f1,
    recall,
    rouge_l,
    rouge_words,
    score,
)

DIGITAL = "Martin began independent publishing her books as digital books in 2020."
NO_MENTION = (
    "There is no mention of Martin or independent publishing of digital books in the passage. The passage appears to "
    "be about a research paper on contour completion using deep structure priors."
)


def in_english(response, answer, keywords=None, kind="two_stage"):
    return score(response, answer=answer, keywords=keywords, language="en", kind=kind)


@pytest.mark.parametrize(
    ("response", "answer", "keywords", "plain_f1", "two_stage", "keyword_recall"),
    [
        (NO_MENTION, DIGITAL, "2020", 0.307692, 0, 0),
        ("Martin started publishing digital books in 2020.", DIGITAL, "2020", 0.666667, 0.666667, 1),
        (
            "For services to Medicine and to the community in the Cayman Islands.",
            "For his services to music.",
            "services to music",
            0.4,
            0.4,
            0.666667,
        ),
        *[("Low mechanical flexibility.", *["Increased mechanical flexibility."] * 2, 0.666667, 0.666667, 0.666667)],
        ("Ludwig Beethoven.", "Ludwig Beethoven", None, 1, 1, 1),
        ("The scientist is Ludwig Beethoven, the foundational figure", "Ludwig Beethoven", None, 0.5, 0.5, 1),
    ],
)
def test_published_examples_in_english(response, answer, keywords, plain_f1, two_stage, keyword_recall):
    found = in_english(response, answer, keywords)
    assert f1(english_words(response), english_words(answer)) == pytest.approx(plain_f1, abs=1e-6)
    assert found["lveval_score"] == pytest.approx(two_stage, abs=1e-6)
    assert found["keyword_recall"] == pytest.approx(keyword_recall, abs=1e-6)


def test_the_worked_contrast_of_the_recalls():
    response = "For services to Medicine and to the community in the Cayman Islands."
    found = in_english(response, "For his services to music.", "services to music")
    assert found["keyword_recall_official"] == pytest.approx(1 / 3)
    assert found["keyword_recall_filtered"] == pytest.approx(1 / 2)


def test_published_examples_in_chinese():
    assert score("贝克汉姆。", answer="贝多芬", keywords=None, language="zh", kind="f1")["lveval_score"] == 0
    response, answer = "导演是张三，他出生于北京。", "这部电影的导演是张三。"  # noqa: RUF001
    as_cut = [list(_jieba().cut(text)) for text in (response, answer)]
    assert rouge_l(*as_cut) == pytest.approx(0.588235, abs=1e-6)
    found = score(response, answer=answer, keywords=None, language="zh", kind="rouge")
    assert found["lveval_score"] == pytest.approx(0.545455, abs=1e-6)
    assert "keyword_recall_official" not in found


@pytest.mark.parametrize(("number", "points"), [("0", 29.37), ("1", 11.35), ("34", 30.76)])
def test_recorded_outputs_have_the_recorded_score(data_dir, number, points):
    folder = data_dir / "lveval" / "scored_outputs"
    with (folder / "result.csv").open(encoding="utf-8") as file:
        (recorded,) = csv.DictReader(file)
    lines = (folder / f"hotpotwikiqa_mixup_16k.jsonl_{number}").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    scores = [in_english(row["pred"], row["answers"][0], row["gold_ans"])["lveval_score"] for row in rows]
    assert round(100 * sum(scores) / len(scores), 2) == points == float(recorded[number])


def test_a_low_recall_of_keywords_ends_the_benchmarks_own_score():
    answer = "alpha beta gamma delta epsilon"
    assert in_english("alpha", answer, answer)["lveval_score"] > 0  # recall 0.2
    assert in_english("alpha", answer, answer + " zeta")["lveval_score"] == 0
    # Chinese without keywords: the answer itself stands for them, and the threshold is higher
    chinese = score("北京", answer="北京上海广州", keywords=None, language="zh", kind="two_stage")
    assert chinese["keyword_recall_official"] == pytest.approx(1 / 3)
    assert chinese["lveval_score"] == 0
    assert score("北京", answer="北京上海广州", keywords=None, language="zh", kind="f1")["lveval_score"] > 0


@pytest.mark.parametrize("keywords", ["the", "?!", "", None, " a, an. "])
def test_keywords_without_a_word_fall_back_to_the_answer(keywords):
    """The source divides by zero."""
    found = in_english("Paris it is", "Paris", keywords)
    assert found["keyword_recall"] == 1
    assert found["lveval_score"] == pytest.approx(0.5)
    assert "keyword_recall_official" not in found


def test_an_answer_without_a_word_is_not_scored():
    assert in_english("the", "The.", None) == {}
    assert score("的", answer="。", keywords="？", language="zh", kind="two_stage") == {}  # noqa: RUF001
    # it has words, but none that dureader's metric counts
    assert list(score("x", answer="的", keywords=None, language="zh", kind="rouge")) == list(METRICS[:2])


def test_a_blacklisted_answer_counts_unfiltered():
    assert in_english("with her", "with her", "with")["keyword_recall_filtered"] == 1


def test_the_mark_of_the_end_is_no_word():
    assert in_english("Paris</s>", "Paris")["keyword_recall"] == 1
    assert in_english("Paris</s>Paris", "Paris")["lveval_score"] == pytest.approx(2 / 3)


def test_long_texts_do_not_exhaust_the_stack():
    """`rouge` walks back by recursion; the source turns the RecursionError into 0."""
    words = [f"w{i}" for i in range(1100)]
    assert rouge_l(words, words) == pytest.approx(1)


def test_the_lists_are_whole():
    assert [len(BLACKLIST[language]) for language in ("en", "zh")] == [38, 85]
    assert all(english_words(word) == [word] for word in BLACKLIST["en"])


def longest_common(a, b):
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@given(st.permutations("abcdefgh"), st.integers(1, 8), st.permutations("abcdefgh"), st.integers(1, 8))
def test_rouge_of_words_that_occur_once(a, n_a, b, n_b):
    a, b = a[:n_a], b[:n_b]
    n_common = longest_common(a, b)
    slow = 2 * n_common / (len(a) + len(b))
    assert rouge_l(a, b) == pytest.approx(slow, abs=1e-6)


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd"), min_size=1))
def test_recall_counts_each_word_as_often_as_it_is_there(given_words, wanted):
    left, n_found = list(given_words), 0
    for word in wanted:
        if word in left:
            left.remove(word)
            n_found += 1
    assert recall(given_words, wanted) == n_found / len(wanted)


@given(
    st.text(max_size=40),
    st.text(max_size=20),
    st.none() | st.text(max_size=10),
    st.sampled_from([("en", "two_stage"), ("en", "f1"), ("zh", "two_stage"), ("zh", "f1"), ("zh", "rouge")]),
)
def test_scores_are_0_to_1_whatever_the_text(response, answer, keywords, kind):
    found = score(response, answer=answer, keywords=keywords, language=kind[0], kind=kind[1])
    assert set(found) <= set(METRICS)
    assert all(0 <= value <= 1 for value in found.values())


@given(st.text(max_size=30))
def test_the_answer_itself_is_right(text):
    assert all(value == pytest.approx(1) for value in in_english(text, text).values() if english_words(text))
    if rouge_words(text):
        found = score(text, answer=text, keywords=None, language="zh", kind="rouge")
        assert found["lveval_score"] == pytest.approx(1, abs=1e-6)
    assert chinese_words(text) == [word for word in chinese_words(text) if word]
