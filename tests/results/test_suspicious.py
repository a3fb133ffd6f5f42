"""Answers that say the target in other words and score 0 are counted and listed, whatever filter and metric score."""

import pytest

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.planning.plan import make_plan
from qwen2eval.requests import Answer
from qwen2eval.results.health import check_health
from qwen2eval.results.score_docs import score_task
from qwen2eval.results.suspicious import says
from tests.local_tasks import write_rows, write_task


@pytest.mark.parametrize(
    ("response", "target"),
    [
        ("B. 4", "B"),
        ("Answer: B", "B"),
        ("The answer is (B).", "B"),
        (r"\boxed{B}", "B"),
        ("**B**", "B"),
        ("Let me think. A is too small.\n\nFinal answer: B", "B"),
        ("答案是B。", "B"),
        ("So it costs $1,200.", "1200"),
        ("12 plus 1 is 13", "13.0"),
        (r"Thus \boxed{\text{Paris}}", "Paris"),
        ("It is paris, of course.", "Paris"),
        ("Das ist also Köln.", "köln"),
        ("它是北京。", "北京"),
        ("The result is 8.", "Five and three.\n#### 8"),
        ("Die Antwort ist: nein", "nein"),
        ("B\n\nExplanation: one and one are two.", "B"),
        ("**B. 2**\n\nOne plus one is two.", "B"),
        ("(b)", "B"),
        ("(b) 2\n\nAs A is too small.", "B"),
        ("The correct option is B, since 1 + 1 = 2.\n\nNote that A is too small.", "B"),
        ("B) 2\n\nHope this helps!", "B"),
        ("7\n\nThere are 3 red ones and 4 blue ones.", "7"),
        ("7.\n\nAll in all, a small box.", "7"),
        ("No.\n\nBirds fly.", "no"),
        ("Yes it is.", "yes"),
        ("So the result is no.", "no"),
        ("**B**: two\n\nThat is all.", "B"),
        ("The answer is (b).", "B"),
        ("Yes, since birds fly.\n\nSome do not.", "yes"),
    ],
)
def test_the_end_of_an_answer_says_the_target(response, target):
    assert says(response, target)


@pytest.mark.parametrize(
    ("response", "target"),
    [
        ("A. 3", "B"),
        ("A or B", "B"),
        ("A dog is an animal.", "A"),
        ("I think so.", "I"),
        ("Bees", "B"),
        ("First 13, so 12", "13"),
        ("113", "13"),
        ("It could be B.\nNo: the answer is C", "B"),
        ("Parisian", "Paris"),
        ("anything", ""),
        ("It is not Paris.", "Paris"),
        ("It isn't Paris.", "Paris"),
        ("There is no way to tell", "no"),
        ("entailment is false", "entailment"),
        ("Answer: 3/4", "4"),
        ("A dog.\n\nIt barks.", "A"),
        ("A or B?\n\nHard to say.", "A"),
        ("7 is too many.\n\nSo there are 6.", "7"),
        ("B\n\nNo, wait. The answer is C.", "B"),
        ("The answer is not B", "B"),
        ("A - B\n\nHard to say.", "A"),
        ("The option is a good one.\n\nTake it.", "A"),
        ("No idea.\n\nSorry.", "no"),
        ("", "B"),
    ],
)
def test_other_answers_do_not(response, target):
    assert not says(response, target)


@pytest.fixture
def health_of(tmp_path):
    """Return a function that scores answers to a task with one target a doc, and returns its health."""

    def score(responses, target="B", **changes):
        write_rows(tmp_path / "test.jsonl", [{"question": f"{i}?", "answer": target} for i in range(len(responses))])
        write_rows(tmp_path / "train.jsonl", [{"question": "x?", "answer": target}])
        write_task(tmp_path, "own", like="say", **{"filter_list": None, **changes})
        config = RunConfig(model="dummy", tasks=("own",), include_path=(str(tmp_path),))
        plan = make_plan(config, load_spec(config)).tasks["own"]
        answers = {(r.digest, 0): Answer(response=responses[r.doc_id], finish_reason="stop") for r in plan.requests}
        return check_health(score_task(plan, answers))

    return score


SAID = ["B. 4", "Answer: B", "The answer is (B).", "B", r"\boxed{B}"]


def test_without_any_filter_they_are_flagged_and_listed(health_of):
    """4 of 5 said B and scored 0, and the health was ok."""
    health = health_of(SAID)
    assert health.n_suspicious == {"none": 4}
    (flag,) = health.flags
    assert flag.check == "suspicious_answers"
    assert "4 of 5 answers seem to say the target and score 0 (docs 0, 1, 2, 4;" in flag.message


def test_by_filter(health_of):
    steps = {
        "strict": [{"function": "regex", "regex_pattern": "^([A-D])$"}, {"function": "take_first"}],
        "loose": [{"function": "regex", "regex_pattern": "([A-D])\\b(?!nswer)"}, {"function": "take_first"}],
    }
    health = health_of(SAID, filter_list=[{"name": name, "filter": chain} for name, chain in steps.items()])
    assert health.n_suspicious == {"strict": 4}


def test_wrong_answers_are_not_suspicious(health_of):
    health = health_of(["C", "The answer is (A).", "B", "I don't know", "no B, but C"])
    assert health.n_suspicious is None
    assert health.flags == ()


def test_a_thought_is_not_the_answer(health_of):
    assert health_of(["<think>B?</think>C"]).n_suspicious is None
