import numpy as np
import pytest

from qwen2eval.reporting.examples import LONG_TEXT_CHARS, choose_examples
from tests.reporting.made_up import read


def test_some_of_each_verdict_are_kept(info, samples):
    chosen = choose_examples(samples, read(info))
    found = {task: [(example.doc_id, example.verdict) for example in examples] for task, examples in chosen.items()}
    assert found == {
        "colours": [("0", "right"), ("1", "wrong"), ("2", "right")],
        "sums": [("0", "wrong"), ("1", "unscored"), ("2", "wrong")],
        "running_text": [("0", "scored")],
    }


def test_one_doc_shows_all_its_filters(info, samples):
    example = choose_examples(samples, read(info))["sums"][0]
    outcomes = [(each.filter, each.extracted, each.verdict, each.scores) for each in example.outcomes]
    assert outcomes == [
        ("strict-match", "[invalid]", "wrong", (("exact_match", "0"),)),
        ("flexible-extract", "36", "right", (("exact_match", "1"),)),
    ]


@pytest.mark.parametrize("by_filter", [False, True])
def test_filters_may_come_doc_by_doc_or_one_after_the_other(info, samples, by_filter):
    names = ("strict-match", "flexible-extract")
    rows = [samples["sums"][0] | {"doc_id": doc_id, "filter": name} for doc_id in range(5) for name in names]
    if by_filter:
        rows.sort(key=lambda row: names.index(row["filter"]))
    kept = choose_examples({"sums": rows}, read(info), n_each=2)["sums"]
    assert [(example.doc_id, tuple(each.filter for each in example.outcomes)) for example in kept] == [
        ("0", names),
        ("1", names),
    ]


def test_samples_of_other_tasks_are_left_out(info, samples):
    given = {"another": samples["sums"], "colours": samples["colours"]}
    assert list(choose_examples(given, read(info))) == ["colours"]


def test_notes_tell_what_was_cut(info, samples):
    chosen = choose_examples(samples, read(info))
    assert chosen["colours"][1].notes == ("prompt truncated",)
    assert chosen["sums"][2].notes == ("answer cut off at its length limit",)
    assert chosen["sums"][1].error == "the server said 500"
    assert chosen["sums"][1].response is None
    assert chosen["sums"][2].response == ""


@pytest.mark.parametrize(
    ("score", "verdict", "shown"),
    [
        (1, "right", "1"),
        (True, "right", "1"),
        (np.float64(0), "wrong", "0"),
        (0.5, "scored", "50.0%"),
        (float("nan"), "unscored", "—"),
        (None, "unscored", "—"),
        ([1, 2], "unscored", "—"),
        (np.array([1.0, 2.0]), "unscored", "—"),
    ],
)
def test_verdict(info, samples, score, verdict, shown):
    (example,) = choose_examples({"colours": [samples["colours"][0] | {"acc": score}]}, read(info))["colours"]
    assert (example.verdict, example.outcomes[0].scores) == (verdict, (("acc", shown),))


def test_cells_of_any_type_become_text(info, samples):
    row = samples["colours"][0] | {"response": np.array([1.5, 2.5]), "extracted": {"a": "é"}, "target": 3}
    (example,) = choose_examples({"colours": [row]}, read(info))["colours"]
    assert (example.response, example.outcomes[0].extracted, example.target) == ("[1.5, 2.5]", '{"a": "é"}', "3")


def test_long_texts_are_cut(info, samples):
    (example,) = choose_examples({"colours": [samples["colours"][0] | {"prompt": "x" * 100_000}]}, read(info))[
        "colours"
    ]
    assert len(example.prompt) < LONG_TEXT_CHARS + 100
    assert "97,000 characters left out" in example.prompt


def test_log_probabilities_are_listed(info, samples):
    example = choose_examples(samples, read(info))["colours"][0]
    assert example.response.splitlines() == [
        "1: log-probability -1.500",
        "2: log-probability -0.25, greedy",
        "3: log-probability —",
    ]
    assert choose_examples(samples, read(info))["running_text"][0].response == "log-probability -812.5"


@pytest.mark.parametrize("response", ["[[1]]", "{}", "not JSON", "[[1, 2], 3]"])
def test_a_response_that_is_no_log_probabilities_is_shown_as_it_is(info, samples, response):
    (example,) = choose_examples({"colours": [samples["colours"][0] | {"response": response}]}, read(info))["colours"]
    assert example.response == response


def test_generated_text_is_never_taken_for_log_probabilities(info, samples):
    (example,) = choose_examples({"sums": [samples["sums"][0] | {"response": "[[1, 2]]"}]}, read(info))["sums"]
    assert example.response == "[[1, 2]]"
