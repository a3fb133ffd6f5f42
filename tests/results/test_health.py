"""Each sign of ill health shows at its border and not before it."""

import math

import pytest

from qwen2eval.backends import load_spec
from qwen2eval.config import RunConfig
from qwen2eval.planning.plan import make_plan
from qwen2eval.quiet import prepared_libraries
from qwen2eval.requests import Answer
from qwen2eval.results.health import chance_score, check_health
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.score_docs import score_task
from tests.local_tasks import run_here, write_task, write_tasks

N_DOCS = 21  # the last doc asks what the first asks; 20 are left where that matters
NAN = Answer(logprob=math.nan, is_greedy=False)
FAILED = Answer(error="no room")


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), n_docs=N_DOCS)
    write_task(folder, "mutual", like="pick", metric_list=[{"metric": "acc"}, {"metric": "acc_mutual_info"}])
    write_task(folder, "yes_no", like="pick", doc_to_choice=["yes", "no"], doc_to_target=0)
    write_task(folder, "odd", like="say")
    with (folder / "odd.yaml").open("a") as file:
        file.write("process_results: !function scorer.score\n")
    scorer = "def score(doc, results):\n    return {'exact_match': 1 / (results[0] != '1313')}\n"
    (folder / "scorer.py").write_text(scorer)
    return folder


@pytest.fixture(scope="module")
def planned(tasks_dir):
    """Return a function that plans a task for a number of docs."""

    def plan(task, n_docs=20, **model_args):
        config = RunConfig(
            model="dummy", model_args=model_args, tasks=(task,), limit=n_docs, include_path=(str(tasks_dir),)
        )
        with prepared_libraries(offline=True):
            return make_plan(config, load_spec(config)).tasks[task]

    return plan


def health_of(plan, give):
    """Score a plan with the answers that `give(doc_id, index)` returns."""
    answers = {(r.digest, k): give(r.doc_id, r.index) for r in plan.requests for k in range(plan.repeats)}
    return check_health(score_task(plan, answers))


def checks(health):
    return [flag.check for flag in health.flags]


def say(doc_id, _index=0, **changes):
    """Answer a generation well."""
    return Answer(**{"response": f"#### {doc_id}", "finish_reason": "stop", "n_response_tokens": 2} | changes)


def right_choice(plan, *, wrong=()):
    """Return a function that prefers the right choice, save in the docs of `wrong`."""
    gold = {doc_id: plan.task.target(doc) for doc_id, doc in zip(plan.doc_ids, plan.docs, strict=True)}

    def give(doc_id, index):
        is_gold = index == gold[doc_id]
        return Answer(logprob=-1.0 - index / 8 if is_gold != (doc_id in wrong) else -3.0 - index / 8, is_greedy=False)

    return give


@pytest.mark.parametrize("task", ["pick", "say"])
def test_a_sound_task_has_no_flags(planned, task):
    plan = planned(task)
    health = health_of(plan, right_choice(plan) if task == "pick" else say)
    assert health.to_json() == {
        "n_docs": 20,
        "n_unscored": 0,
        "n_truncated_prompts": 0,
        "n_unfinished": 0,
        "n_empty": 0,
        "n_nan": 0,
        "n_thoughts": 0,
        "n_unfinished_thoughts": 0,
        "n_failed_requests": 0,
        "n_scoring_errors": 0,
        "n_extraction_failures": {} if task == "pick" else {"strict": 0, "loose": 0},
        "verdicts": {},
        "n_same_process": 0,
        "flags": [],
    }


@pytest.mark.parametrize(
    ("check", "changes", "count"),
    [
        ("unfinished", {"finish_reason": "length"}, lambda health: health.n_unfinished),
        ("empty", {"response": " \n"}, lambda health: health.n_empty),
        ("extraction", {"response": "many"}, lambda health: health.n_extraction_failures["strict"]),
    ],
    ids=["unfinished", "empty", "extraction"],
)
@pytest.mark.parametrize("n_bad", [2, 3])
def test_more_than_a_tenth_of_bad_answers_is_flagged(planned, check, changes, count, n_bad):
    health = health_of(planned("say"), lambda doc_id, _: say(doc_id, **changes) if doc_id < n_bad else say(doc_id))
    assert count(health) == n_bad
    assert (check in checks(health)) == (n_bad > 2)
    assert {flag.level for flag in health.flags} <= {"warning"}
    assert health.n_unscored == 0


@pytest.mark.parametrize(
    ("reason", "flag"), [("length", "unfinished"), ("stop", "open_thought")], ids=["at max_gen_toks", "by itself"]
)
def test_an_open_thought_is_flagged_once_with_what_to_do(planned, reason, flag):
    """Answers that ended by themselves were also said to be cut off, and more max_gen_toks advised."""
    health = health_of(planned("say"), lambda doc_id, _: say(doc_id, response="<think>Hm", finish_reason=reason))
    assert (health.n_unfinished, health.n_unfinished_thoughts) == (20, 20)
    assert [one for one in checks(health) if one in ("unfinished", "open_thought")] == [flag]


def test_extraction_is_counted_by_filter(planned):
    health = health_of(planned("say"), lambda doc_id, _: say(doc_id, response=f"It is {doc_id}."))
    assert health.n_extraction_failures == {"strict": 20, "loose": 0}
    assert [flag.message for flag in health.flags] == ["strict found no answer in 20 of 20 responses"]


def test_one_failed_request_is_an_error_and_names_its_cause(planned):
    """Its message used to be that of the first unscored doc, whatever had happened to it."""
    health = health_of(planned("read"), lambda doc_id, _: {3: NAN, 7: FAILED}.get(doc_id, Answer(logprob=-9.0)))
    assert (health.n_failed_requests, health.n_nan, health.n_unscored) == (1, 1, 2)
    assert [(flag.check, flag.level) for flag in health.flags] == [("failed_requests", "error"), ("nan", "error")]
    assert "1 requests were not answered (the first: no room)" in health.flags[0].message
    assert "NaN for 1 of 20 docs" in health.flags[1].message


def test_one_choice_without_an_answer_leaves_its_doc_out(planned):
    plan = planned("pick")
    give = right_choice(plan)
    health = health_of(plan, lambda doc_id, index: FAILED if (doc_id, index) == (4, 2) else give(doc_id, index))
    assert (health.n_failed_requests, health.n_unscored) == (1, 1)


def test_a_scorer_that_fails_on_one_answer_leaves_that_doc_out(planned):
    health = health_of(planned("odd"), lambda doc_id, _: say(doc_id, response=f"#### {1313 if doc_id == 5 else 2}"))
    assert (health.n_scoring_errors, health.n_unscored) == (1, 1)
    [flag] = [flag for flag in health.flags if flag.check == "scoring_error"]
    assert flag.level == "error"
    assert "1 of 20 docs could not be scored: the scorer failed: ZeroDivisionError" in flag.message


@pytest.mark.parametrize("n_flat", [0, 1])
def test_one_doc_with_equal_choices_is_an_error(planned, n_flat):
    plan = planned("pick", n_docs=5)
    give = right_choice(plan)
    health = health_of(plan, lambda doc_id, index: Answer(-2.0, False) if doc_id < n_flat else give(doc_id, index))
    assert checks(health) == ["degenerate_logprobs"] * n_flat
    assert {flag.level for flag in health.flags} <= {"error"}


@pytest.mark.parametrize(("n_docs", "n_tied"), [(20, 0), (20, 1), (19, 1)])
def test_ties_for_the_best_choice_are_flagged(planned, n_docs, n_tied):
    plan = planned("pick", n_docs=n_docs)
    give = right_choice(plan)

    def tied(doc_id, index):
        return Answer(-0.5 if index else -4.0, False) if doc_id < n_tied else give(doc_id, index)

    assert ("tied_choices" in checks(health_of(plan, tied))) == (n_docs == 20 and n_tied == 1)


@pytest.mark.parametrize(("n_docs", "n_other"), [(20, 1), (20, 2), (19, 0)])
def test_one_choice_for_more_than_nine_in_ten_docs_is_flagged(planned, n_docs, n_other):
    plan = planned("pick", n_docs=n_docs)

    def stubborn(doc_id, index):
        return Answer(logprob=-1.0 if index == (0 if doc_id < n_other else 1) else -2.0 - index, is_greedy=False)

    health = health_of(plan, stubborn)
    assert ("constant_choice" in checks(health)) == (n_docs == 20 and n_other < 2)
    messages = [flag.message for flag in health.flags if flag.check == "constant_choice"]
    assert messages in ([], ["choice 2 was taken in 19 of 20 docs"])


# guessing gives 0.5, and 1.96 * sqrt(0.5 * 0.5 / 20) = 0.219
@pytest.mark.parametrize(
    ("n_docs", "n_wrong", "is_flagged"), [(20, 6, True), (20, 5, False), (20, 15, False), (19, 9, False)]
)
def test_a_score_within_noise_of_guessing_is_flagged(planned, n_docs, n_wrong, is_flagged):
    plan = planned("yes_no", n_docs=n_docs)
    assert ("chance_level" in checks(health_of(plan, right_choice(plan, wrong=range(n_wrong))))) == is_flagged


@pytest.mark.parametrize(("task", "chance"), [("pick", 1 / 3), ("yes_no", 1 / 2), ("mutual", 1 / 3), ("say", None)])
def test_guessing_is_one_in_the_number_of_choices(planned, task, chance):
    """With `acc_mutual_info` each choice is asked twice, which used to halve it."""
    found = chance_score(TaskSamples(planned(task)))
    assert found == (None if chance is None else pytest.approx(chance))


def test_requests_without_the_question_are_no_choices(planned):
    """`acc_mutual_info` asks for each choice alone, too; those must not count as what the model chose."""
    plan = planned("mutual")
    give = right_choice(plan)
    health = health_of(plan, lambda doc_id, index: give(doc_id, index) if index < 3 else Answer(-0.1, False))
    assert checks(health) == []


@pytest.mark.parametrize(("n_docs", "n_same", "is_flagged"), [(20, 10, False), (20, 11, True), (19, 19, False)])
def test_the_same_text_for_more_than_half_of_the_docs_is_flagged(planned, n_docs, n_same, is_flagged):
    health = health_of(
        planned("say", n_docs=n_docs), lambda doc_id, _: say(doc_id, response=f"#### {max(doc_id, n_same - 1)}")
    )
    assert ("same_answer" in checks(health)) == is_flagged


@pytest.mark.parametrize("task", ["pick", "say"])
def test_prompts_that_are_cut_are_counted_from_the_first_token(planned, tiny_model, task):
    whole = planned(task, tokenizer=str(tiny_model))
    lengths = {}
    for r in whole.requests:  # lm-eval feeds all but the last token of a choice; an answer needs its room
        needed = r.n_context_tokens + (r.n_continuation_tokens - 1 if task == "pick" else 6)
        lengths[r.doc_id] = max(needed, lengths.get(r.doc_id, 0))
    longest = max(lengths.values())
    assert planned(task, tokenizer=str(tiny_model), max_length=longest).n_truncated == 0
    cut = planned(task, tokenizer=str(tiny_model), max_length=longest - 1)
    n_cut = sum(length == longest for length in lengths.values())
    health = health_of(cut, right_choice(cut) if task == "pick" else say)
    assert (cut.n_truncated, health.n_truncated_prompts) == (n_cut, n_cut)
    assert checks(health) == ["truncated_prompts"]


def test_health_is_in_run_json_and_decides_the_exit_code(tmp_path, tasks_dir):
    warned = run_here(tasks_dir, tmp_path / "a", tasks="say", empty_every=2)
    assert "empty" in [flag.check for flag in warned.info.health["say"].flags]
    failed = run_here(tasks_dir, tmp_path / "b", tasks="say", fail_every=20, exit_code=70)
    assert failed.info.health["say"].n_failed_requests == 1
