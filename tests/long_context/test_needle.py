"""The keyword rule and the judge, on recorded answers; the shipped needle sets and a user's."""

import json
from pathlib import Path

import pytest

from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.long_context.niah.needles import SHIPPED, load_needles
from qwen2eval.long_context.niah.scoring import (
    JUDGE_SCORES,
    has_keywords,
    is_found,
    judge_prompt,
    parse_judgement,
)
from qwen2eval.long_context.prose import write_prose


def test_keyword_rule_agrees_with_the_judge_on_all_recorded_answers(data_dir):
    """35 answers of Claude 2.1 at 200,000 tokens, published with the judge's scores."""
    rows = [json.loads(path.read_text()) for path in sorted((data_dir / "niah" / "claude-2.1_200k").glob("*.json"))]
    keywords = load_needles("classic")[0].keywords
    assert len(rows) == 35
    found = [has_keywords(row["model_response"], keywords) for row in rows]
    assert found == [row["score"] >= 7 for row in rows]
    assert 0 < sum(found) < 35
    assert found == [is_found(parse_judgement(f"Rating: [[{row['score']}]]")) for row in rows]


@pytest.mark.parametrize(
    ("verdict", "score"),
    [
        ("It says so. Rating: [[10]]", 10),
        ("[[1]] at first, but rather [[5]]", 5),
        (" 7\n", 7),
        ("Rating: [[8]]", None),
        ("Rating: 7 of 10", None),
        ("<think>[[1]]?</think>Rating: [[10]]", 10),
        ("<think>[[1]]? But", None),
        ("²", None),
        ("", None),
    ],
)
def test_judgement_is_read_or_there_is_none(verdict, score):
    assert parse_judgement(verdict) == score
    assert is_found(score) is (None if score is None else score >= 7)


def test_judge_is_told_question_reference_answer_and_scale():
    text = judge_prompt("Where?", "  There. ", "\nIt is there.\n")
    assert "[Question]\nWhere?\n" in text
    assert "[Reference]\nIt is there.\n" in text
    assert "[Answer]\nThere.\n" in text
    assert all(f"\n{score}: " in text for score in JUDGE_SCORES)


def test_every_keyword_counts():
    assert has_keywords("A Sandwich in\nDolores  Park", ["dolores park", "sandwich"])
    assert not has_keywords("A sandwich.", ["dolores park", "sandwich"])


@pytest.mark.parametrize("keywords", [[], [" "]])
def test_nothing_is_found_without_keywords(keywords):
    with pytest.raises(DataFileError, match="no keywords"):
        has_keywords("anything", keywords)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_needles_are_found_by_themselves_and_not_in_the_haystack(name):
    needles = load_needles(name)
    prose = " ".join(write_prose("zh" if name.endswith("zh") else "en", n_chars=400_000, seed=0)).casefold()
    for needle in needles:
        assert has_keywords(needle.needle, needle.keywords)
        assert not has_keywords(needle.question, needle.keywords), "the question gives the answer away"
        assert not all(keyword.casefold() in prose for keyword in needle.keywords)
        assert sum(has_keywords(other.needle, needle.keywords) for other in needles) == 1


def test_prose_is_the_same_each_time_and_hardly_repeats():
    texts = {language: write_prose(language, n_chars=200_000, seed=0) for language in ("en", "zh")}
    for language, paragraphs in texts.items():
        assert (
            write_prose(language, n_chars=50_000, seed=0)
            == paragraphs[: len(write_prose(language, n_chars=50_000, seed=0))]
        )
        assert len(set(paragraphs)) == len(paragraphs)
        assert write_prose(language, n_chars=50_000, seed=1)[0] != paragraphs[0]
        assert not any("{" in paragraph for paragraph in paragraphs)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"needle": "A b.", "question": "?"}, "no column 'keywords'"),
        ({"needle": "A b.", "question": "?", "keywords": []}, "row 1: no keywords"),
        ({"needle": "A b.", "question": "?", "keywords": ["c"]}, "row 1: the needle does not contain its keyword 'c'"),
        ({"needle": "A b.", "question": "?", "keywords": [3]}, r"row 1: `keywords` is \[3\]"),
        ({"needle": " ", "question": "?", "keywords": ["b"]}, "row 1: `needle` is ' '"),
        ({"needle": "A b.", "question": "?", "keywords": ["."]}, "signs and articles"),
        ({"needle": "A b.", "question": "?", "keywords": ["A"]}, "signs and articles"),
    ],
)
def test_broken_needle_files_are_named(tmp_path: Path, row, message):
    path = tmp_path / "needles.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataFileError, match=message):
        load_needles(str(path))


def test_unknown_needle_set_names_the_known_ones():
    with pytest.raises(ConfigError, match="'klassic' is neither one of fictional, "):
        load_needles("klassic")


def test_own_needles(tmp_path: Path):
    path = tmp_path / "needles.jsonl"
    path.write_text(json.dumps({"needle": "The  Key is\nRED.", "question": "Which?", "keywords": "red"}))
    assert load_needles(str(path))[0].keywords == ("red",)
    assert load_needles(str(path))[0].needle == "The Key is RED."
