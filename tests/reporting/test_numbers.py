import math

import pytest

from qwen2eval.reporting import numbers


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.5, "50.0%"),
        (0.51349, "51.3%"),
        (1.0, "100.0%"),
        (0.9995, ">99.9%"),
        (0.99951, ">99.9%"),
        (math.nextafter(1, 0), ">99.9%"),
        (0.9994, "99.9%"),
        (0.0, "0.0%"),
        (-0.0, "0.0%"),
        (0.00049, "<0.1%"),
        (5e-324, "<0.1%"),
        (0.0006, "0.1%"),
        (-0.0001, ">-0.1%"),
        (-0.021, "-2.1%"),
        (1.02, "102.0%"),
        (None, "—"),
        (math.nan, "—"),
    ],
)
def test_percent(ratio, text):
    assert numbers.format_percent(ratio) == text


@pytest.mark.parametrize("n_docs", [7, 1319, 14_042])
def test_percent_is_full_or_empty_only_when_it_truly_is(n_docs):
    texts = [numbers.format_percent(n_right / n_docs) for n_right in range(n_docs + 1)]
    assert [place for place, text in enumerate(texts) if text == "100.0%"] == [n_docs]
    assert [place for place, text in enumerate(texts) if text == "0.0%"] == [0]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (12.0, "12"),
        (1234.5, "1,234"),
        (123.456, "123.5"),
        (12.3456, "12.35"),
        (1.23456, "1.235"),
        (9.99999, "10.000"),
        (0.123456, "0.1235"),
        (-12.3456, "-12.35"),
        (643_932_257_391.2, "6.4e+11"),
        (-5e6, "-5.0e+06"),
        (1e-9, "1e-09"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "—"),
        (None, "—"),
    ],
)
def test_number(number, text):
    assert numbers.format_number(number) == text


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("acc", 0.5, True),
        ("acc_norm", None, True),
        ("exact_match", 1.0, True),
        ("pass@10", 0.0, True),
        ("prompt_level_strict_acc", 0.3, True),
        ("contamination_rate", 0.3, True),
        ("acc", 61.2, False),
        ("acc", 1 + 1e-12, True),
        ("f1", 0.7, False),
        ("bleu", 0.7, False),
        ("word_perplexity", 0.9, False),
        ("brier_score", 0.2, False),
        ("accordion", 0.2, False),
    ],
)
def test_ratio_is_told_by_name_and_value(metric, value, expected):
    assert numbers.is_ratio(metric, value) is expected


@pytest.mark.parametrize(
    ("stderr", "in_percent", "has_value", "text"),
    [
        (0.0123, True, True, "± 1.2"),
        (0.0, True, True, "± 0.0"),
        (0.0001, True, True, "± <0.1"),
        (0.213, False, True, "± 0.213"),
        (None, True, True, "n/a"),
        (None, True, False, "—"),
        (math.nan, True, True, "n/a"),
    ],
)
def test_stderr(stderr, in_percent, has_value, text):
    assert numbers.format_stderr(stderr, in_percent=in_percent, has_value=has_value) == text


@pytest.mark.parametrize(
    ("ci", "in_percent", "has_value", "text"),
    [
        ((0.489, 0.537), True, True, "48.9 – 53.7"),
        ((0.0, 1.0), True, True, "0.0 – 100.0"),
        ((-0.12, 0.31), False, True, "-0.12 – 0.31"),
        (None, True, True, "n/a"),
        (None, True, False, "—"),
        ((math.nan, 0.5), True, True, "n/a"),
    ],
)
def test_interval(ci, in_percent, has_value, text):
    assert numbers.format_interval(ci, in_percent=in_percent, has_value=has_value) == text


@pytest.mark.parametrize(
    ("count", "total", "text"), [(8, 14_042, "8 of 14,042"), (8, 8, "8"), (8, None, "8"), (None, 8, "—")]
)
def test_part(count, total, text):
    assert numbers.format_part(count, total) == text


@pytest.mark.parametrize(
    ("n_parameters", "text"),
    [(494_032_768, "494 M"), (7_615_616_512, "7.6 B"), (1_204_480, "1.2 M"), (12_000, "12.0 k"), (12, "12")],
)
def test_parameters(n_parameters, text):
    assert numbers.format_parameters(n_parameters) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.41, "0.4 s"), (59.7, "1 min 0 s"), (225.2, "3 min 45 s"), (7500, "2 h 5 min"), (None, "—")]
)
def test_seconds(seconds, text):
    assert numbers.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-11-24T02:01:02+00:00", "2026-11-24 02:01 UTC"),
        ("2026-11-24T02:01:02+02:00", "2026-11-24 00:01 UTC"),
        ("2026-11-24T02:01:02", "2026-11-24 02:01"),
        ("yesterday", "yesterday"),
        (None, "—"),
    ],
)
def test_time(iso, text):
    assert numbers.format_time(iso) == text
