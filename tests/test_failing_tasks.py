"""Whatever a backend, a library or a task's own code raises is that task's failure: the other tasks are scored."""

from pathlib import Path

import pytest

from qwen2eval import RunConfig
from qwen2eval.answers.store import ResponseStore
from qwen2eval.backends import load_spec
from qwen2eval.backends.dummy import DummyBackend
from qwen2eval.evaluate import answer_tasks
from qwen2eval.planning.plan import make_plan
from tests.local_tasks import run_here, write_task, write_tasks


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


class BreaksOnce(DummyBackend):
    """Raises what a library raises when it is asked to generate, after `n_good` answers, and never again."""

    def __init__(self, config, error, n_good):
        super().__init__(config)
        self.error, self.n_good = error, n_good

    def answer(self, requests):
        for batch in super().answer(requests):
            if requests[0].kind == "generate_until" and self.error is not None:
                if not self.n_good:
                    error, self.error = self.error, None
                    raise error
                self.n_good -= len(batch)
            yield batch


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA error:\n device-side assert"), "RuntimeError: CUDA error: device-side assert"),
        (AssertionError(), "AssertionError"),
        (KeyError("logits"), "KeyError: 'logits'"),
        (MemoryError("no room"), "MemoryError: no room"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_an_error_of_a_library_is_one_line_and_that_tasks_failure(tmp_path, tasks_dir, error, said):
    """It was a traceback, and the finished answers of the other tasks got no scores."""
    config = RunConfig(
        model="dummy", model_args={"batch": 2}, tasks=("pick", "say", "read"), include_path=(str(tasks_dir),)
    )
    plan = make_plan(config, spec := load_spec(config))
    with ResponseStore(tmp_path / "store.sqlite") as store:
        answers = answer_tasks(plan, BreaksOnce(config, error, n_good=2), store, quiet=True)
        assert list(answers) == ["pick", "read"]
        message = str(plan.failures["say"])
        assert message.startswith(f"Task 'say' stopped while it was answered: {said}. Its finished answers are kept")
        assert "\n" not in message
        n_kept = len(store)
        again = answer_tasks(make_plan(config, spec), DummyBackend(config), store, quiet=True)
    assert (again["say"].n_from_store, again["say"].n_answered) == (2, 3)  # five distinct requests
    assert n_kept == 18 + 2 + 5


def scorer(folder: Path, name: str, body: str) -> str:
    """Write a function of a task's author and return its tag in YAML."""
    (folder / f"{name}.py").write_text(body)
    return f"!function {name}.f"


FUNCTIONS = {
    "aggregation raises": (
        "aggregation",
        "def f(items):\n    raise ValueError('no items\\nat all')\n",
        "no items at all",
    ),
    "aggregation without its package": ("aggregation", "def f(items):\n    import sacrebleau\n", "sacrebleau"),
    "aggregation gives text": ("aggregation", "def f(items):\n    return 'good'\n", "gives 'good', not a number"),
    "metric raises": (
        "process_results",
        "def f(doc, results):\n    return {'exact_match': 1 / 0}\n",
        "ZeroDivisionError",
    ),
    "metric without its package": (
        "process_results",
        "def f(doc, results):\n    import langdetekt\n",
        "pip install it",
    ),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_what_would_fail_after_hours_fails_in_the_plan(tasks_dir, kind):
    key, body, said = FUNCTIONS[kind]
    write_task(tasks_dir, "own", like="say", filter_list=None)
    tag, file = scorer(tasks_dir, "own_code", body), tasks_dir / "own.yaml"
    text = file.read_text()
    file.write_text(
        text.replace("aggregation: mean", f"aggregation: {tag}") if key in text else text + f"{key}: {tag}\n"
    )
    config = RunConfig(model="dummy", tasks=("own", "say"), include_path=(str(tasks_dir),))
    plan = make_plan(config, load_spec(config))
    assert list(plan.tasks) == ["say"]
    assert said in str(plan.failures["own"])


def test_a_scorer_that_fails_on_one_doc_leaves_that_doc_out(tmp_path, tasks_dir):
    """The first doc, too: the plan tries others before it gives the task up."""
    body = "def f(doc, results):\n    return {'exact_match': 1 / (doc['answer'] != '5')}\n"
    write_task(tasks_dir, "own", like="say", filter_list=None)
    with (tasks_dir / "own.yaml").open("a") as file:
        file.write(f"process_results: {scorer(tasks_dir, 'own_code', body)}\n")
    made = run_here(tasks_dir, tmp_path / "runs", tasks="own", exit_code=70)
    assert made.scores[["value", "n_docs", "n_unscored"]].to_numpy().tolist() == [[1.0, 6, 2]]  # docs 0 and 5 are equal
    assert "ZeroDivisionError" in made.samples("own")["error"][0]


def test_a_filter_that_fails_on_one_answer_leaves_that_doc_out(tmp_path, tasks_dir):
    """It took the score of the whole task."""
    (tasks_dir / "own_filter.py").write_text(
        "from lm_eval.api.filter import Filter\n"
        "class Odd(Filter):\n"
        "    def apply(self, resps, docs):\n"
        "        return [r[0] if d['answer'] != '5' else r[1] for r, d in zip(list(resps), docs)]\n"
    )
    write_task(tasks_dir, "own", like="say", filter_list=[{"name": "odd", "filter": [{"function": "ODD"}]}])
    file = tasks_dir / "own.yaml"
    file.write_text(file.read_text().replace("ODD", "!function own_filter.Odd"))
    made = run_here(tasks_dir, tmp_path / "runs", tasks="own", exit_code=70)
    assert made.scores[["n_docs", "n_unscored"]].to_numpy().tolist() == [[6, 2]]
    assert made.samples("own")["error"][0] == "the scorer failed in a filter: IndexError: list index out of range"


@pytest.mark.parametrize("result", ["float('nan')", "float('inf')", "-float('inf')", "__import__('math').exp(800)"])
def test_an_aggregation_without_a_number_is_an_error_and_no_zero(tmp_path, tasks_dir, result):
    """Infinity was a score, and health was ok."""
    body = f"def f(items):\n    return 0.5 if any(items) else {result}\n"
    write_task(tasks_dir, "own", like="say", filter_list=None)
    tag, file = scorer(tasks_dir, "own_code", body), tasks_dir / "own.yaml"
    file.write_text(file.read_text().replace("aggregation: mean", f"aggregation: {tag}"))
    made = run_here(tasks_dir, tmp_path / "runs", tasks="own,say", exit_code=70)
    assert made.scores.query("task == 'own'")["value"].isna().all()
    assert [flag.check for flag in made.info.health["own"].flags] == ["no_value"]


def test_a_task_that_repeats_is_tried_with_as_many_answers(tmp_path, tasks_dir):
    """Majority votes of the first k of n answers could not be run at all."""
    steps = [{"function": "take_first_k", "k": 2}, {"function": "majority_vote"}, {"function": "take_first"}]
    write_task(tasks_dir, "maj", like="draw", filter_list=[{"name": "maj@2", "filter": steps}])
    made = run_here(tasks_dir, tmp_path / "runs", tasks="maj")
    assert made.scores["filter"].tolist() == ["maj@2"]


def test_log_probabilities_of_a_model_that_thinks_are_refused_in_the_plan(tasks_dir):
    config = RunConfig(
        model="dummy", model_args={"enable_thinking": True}, tasks=("pick", "say"), include_path=(str(tasks_dir),)
    )
    plan = make_plan(config, load_spec(RunConfig(model="dummy")))
    assert list(plan.tasks) == ["say"]
    assert "needs log-probabilities" in str(plan.failures["pick"])


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("process_docs", "import sys\ndef f(docs):\n    sys.exit('no data')\n"),
        ("process_docs", "raise SystemExit('no package')\ndef f(docs):\n    return docs\n"),
        ("aggregation", "def f(items):\n    raise SystemExit(3)\n"),
        ("process_results", "def f(doc, results):\n    raise SystemExit\n"),
    ],
    ids=["process_docs", "module", "aggregation", "process_results"],
)
def test_a_task_that_calls_exit_ends_itself_and_not_the_run(tmp_path, tasks_dir, key, body):
    """The process ended with what the task's code said, and no other task was scored."""
    write_task(tasks_dir, "own", like="say", filter_list=None)
    tag, file = scorer(tasks_dir, "own_code", body), tasks_dir / "own.yaml"
    text = file.read_text()
    file.write_text(
        text.replace("aggregation: mean", f"aggregation: {tag}") if key == "aggregation" else text + f"{key}: {tag}\n"
    )
    made = run_here(tasks_dir, tmp_path / "runs", tasks="own,say", exit_code=70)
    assert "SystemExit" in made.info.tasks["own"].error
    assert made.scores.query("task == 'say'")["value"].notna().all()


def test_ctrl_c_in_a_tasks_code_ends_the_run(tasks_dir):
    write_task(tasks_dir, "own", like="say", filter_list=None)
    tag = scorer(tasks_dir, "own_code", "def f(docs):\n    raise KeyboardInterrupt\n")
    with (tasks_dir / "own.yaml").open("a") as file:
        file.write(f"process_docs: {tag}\n")
    config = RunConfig(model="dummy", tasks=("own", "say"), include_path=(str(tasks_dir),))
    with pytest.raises(KeyboardInterrupt):
        make_plan(config, load_spec(config))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: []", "Group 'own' (FILE) has no tasks"),
        ("task: say", "Group 'own' (FILE) has no tasks"),
        ("task: [say, picc]", "Group 'own' (FILE) has the member 'picc', which does not exist. Did you mean 'pick'?"),
        ("task: [{task: picc, num_fewshot: 1}]", "has the member 'picc', which does not exist"),
        ("task: [{group: inner, task: [say, picc]}]", "Group 'inner' (FILE) has the member 'picc'"),
        ("task: [say, own]", "Group 'own' (FILE) holds itself: own > own. Take 'own' out"),
        ("task: [other]", "holds itself: own > other > own"),
        ("task: [7]", "has the member 7, which is no name"),
    ],
)
def test_a_group_that_cannot_be_built_names_the_member(tasks_dir, text, said):
    """They were a traceback, a TypeError without the name, and a RecursionError."""
    (tasks_dir / "own.yaml").write_text(f"group: own\n{text}\n")
    (tasks_dir / "other.yaml").write_text("group: other\ntask: [own]\n")
    config = RunConfig(model="dummy", tasks=("own", "say"), include_path=(str(tasks_dir),))
    message = str(make_plan(config, load_spec(config)).failures["own"])
    assert said.replace("FILE", str(tasks_dir / "own.yaml")) in message
    assert "\n" not in message
