"""Tasks of programs: what a model's answer becomes, where it is run, and what the run folder says of it."""

import gzip
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval import RunConfig, run
from qwen2eval.cli.main import main
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.reporting.console import print_summary
from qwen2eval.rescore import rescore
from qwen2eval.scoring.programs import extract
from qwen2eval.tasks.code.task import pass_at_k
from qwen2eval.tasks.registry import load_tasks

DOUBLE = {
    "task_id": "Own/0",
    "prompt": 'import math\n\n\ndef double(x):\n    """Return twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}
ROOT = {
    "task_id": "Own/1",
    "prompt": 'import math\n\n\ndef root(x):\n    """Return the whole part of the square root of x."""\n',
    "entry_point": "root",
    "canonical_solution": "    return math.isqrt(x)\n",
    "test": "def check(candidate):\n    assert candidate(17) == 4\n",
}
BROKEN = DOUBLE | {"task_id": "Own/2", "test": "def check(candidate:\n"}


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data" / "humaneval"
    folder.mkdir(parents=True)
    with gzip.open(folder / "HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in (DOUBLE, ROOT))
    return folder.parent


def a_run(tmp_path, data_dir, **options):
    settings = {"tasks": ("humaneval",), "offline": True, "output_path": str(tmp_path / "runs"), **options}
    return run(RunConfig(model="dummy", data_dir=str(data_dir), **settings), quiet=True)


def with_responses(finished, task, responses):
    """The same run with other answers, scored again."""
    path = finished.path / "samples" / f"{task}.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("response")
    table = table.set_column(at, "response", pa.array(responses, pa.string()))
    # as in an older run, whose responses have their thoughts still
    pq.write_table(table.drop_columns(["thought", "n_thought_tokens", "thought_unfinished"]), path)
    return rescore(finished.path)


def test_a_run_with_right_wrong_and_endless_programs(tmp_path, data_dir):
    finished = a_run(tmp_path, data_dir)
    assert finished.scores[["metric", "value", "n_unscored"]].to_numpy().tolist() == [["pass@1", 0.0, 0]]
    assert set(finished.samples("humaneval").verdict) == {"error"}
    finished = with_responses(finished, "humaneval", ["    return x + x\n", "    return x // 4\n"])
    samples = finished.samples("humaneval")
    assert samples.verdict.tolist() == ["passed", "passed"]
    assert samples["pass@1"].tolist() == [1.0, 1.0]
    finished = with_responses(finished, "humaneval", ["    return x\n", "    import os\n    os._exit(0)\n"])
    samples = finished.samples("humaneval")
    assert samples.verdict.tolist() == ["failed", "error"]
    assert "assert candidate(2) == 4" in samples.verdict_detail[0]
    assert finished.scores.value.tolist() == [0.0]
    assert finished.info.tasks["humaneval"].sandbox in ("bwrap+landlock+seccomp", "landlock+seccomp")


@pytest.mark.parametrize(
    ("answers", "n_failures"),
    [
        (["I can't.", "```python\ndef root(x):\n    return int(x ** 0.5)\n```"], 1),
        (["```python\ndef double(x):\n    return (\n```", "```python\nprint(4)\n```"], 2),
        (["```python\ndef double(x):\n    return x\n```", "    return int(x ** 0.5)\n"], 0),
    ],
)
def test_answers_without_a_program_are_extraction_failures(tmp_path, data_dir, answers, n_failures):
    finished = a_run(tmp_path, data_dir, tasks=("humaneval_instruct",))
    finished = with_responses(finished, "humaneval_instruct", answers)
    health = finished.info.health["humaneval_instruct"]
    assert health.n_extraction_failures == {"extract_code": n_failures}
    said = [flag.message for flag in health.flags if flag.check == "extraction"]
    found_none = f"extract_code found no program that is Python and has the function in {n_failures} of 2 responses"
    assert said == ([found_none] if n_failures else [])


def test_an_answer_that_ends_within_its_thoughts_is_wrong_and_unfinished(tmp_path, data_dir):
    finished = a_run(tmp_path, data_dir, tasks=("humaneval_instruct",))
    block = "```python\ndef double(x):\n    return 2 * x\n```"
    finished = with_responses(finished, "humaneval_instruct", [f"<think>\n{block}", f"<think>{block}</think>I can't."])
    assert finished.samples("humaneval_instruct").verdict.tolist() == ["error", "error"]
    health = finished.info.health["humaneval_instruct"]
    assert (health.n_unfinished_thoughts, health.n_extraction_failures) == (1, {"extract_code": 2})


def test_a_doc_whose_tests_are_broken_is_not_scored(tmp_path, data_dir):
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "at", encoding="utf-8") as file:
        file.write(json.dumps(BROKEN) + "\n")
    finished = a_run(tmp_path, data_dir)
    assert finished.scores.n_unscored.tolist() == [1]
    assert finished.samples("humaneval").verdict.tolist() == ["error", "error", "not_run"]
    assert "the tests could not be run" in finished.samples("humaneval").error[2]


def test_a_level_that_is_not_there(tmp_path, data_dir):
    with pytest.raises(Qwen2EvalError, match="glass"):
        a_run(tmp_path, data_dir, sandbox="glass")


def test_the_command_line_names_a_level(tmp_path, data_dir, capsys):
    command = ["run", "--model", "dummy", "--tasks", "humaneval", "--data_dir", str(data_dir), "--offline"]
    assert main([*command, "--output_path", str(tmp_path), "--sandbox", "glass"]) == 64
    assert "glass" in capsys.readouterr().err
    assert main([*command, "--output_path", str(tmp_path), "--sandbox", "landlock"]) == 0


def test_the_level_none_marks_the_score(tmp_path, data_dir, capsys):
    finished = a_run(tmp_path, data_dir, sandbox="none")
    assert finished.info.tasks["humaneval"].sandbox == "none"
    assert [flag.check for flag in finished.info.health["humaneval"].flags] == ["no_sandbox", "extraction"]
    print_summary(finished, file=sys.stdout)
    printed = " ".join(capsys.readouterr().out.split())
    assert "ran without a sandbox" in printed
    assert "programs humaneval: 2 error (sandbox none)" in printed
    assert "ran without a sandbox" in (finished.path / "report.html").read_text()
    assert [flag.check for flag in a_run(tmp_path, data_dir).info.health["humaneval"].flags] == ["extraction"]


def test_more_tries_than_answers_are_refused(tmp_path, data_dir):
    from qwen2eval.content import content_dir

    shipped = (content_dir("tasks") / "humaneval" / "humaneval.yaml").read_text()
    text = shipped.replace("task: humaneval\n", "task: own\n") + "  k: [1, 10]\n"
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(Qwen2EvalError, match="pass@10 needs as many answers, and `repeats` is 1"):
        a_run(tmp_path, data_dir, tasks=("own",), include_path=(str(tmp_path),))


def test_a_doc_without_a_functions_name_is_not_scored(tmp_path, data_dir):
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "at", encoding="utf-8") as file:
        file.writelines(json.dumps(DOUBLE | {"entry_point": name}) + "\n" for name in ("", "not a name"))
    finished = a_run(tmp_path, data_dir)
    assert finished.scores.n_unscored.tolist() == [2]
    assert "not the name of a function" in finished.samples("humaneval").error[3]


def test_the_report_counts_verdicts(tmp_path, data_dir):
    finished = with_responses(a_run(tmp_path, data_dir), "humaneval", ["    return x + x\n", "    return x\n"])
    health = finished.info.health["humaneval"]
    assert (health.verdicts, health.n_same_process) == ({"passed": 1, "failed": 1}, 0)
    assert "1 passed, 1 failed" in (finished.path / "report.html").read_text()
    assert "1 passed, 1 failed" in (finished.path / "report.md").read_text()


def test_several_tries(data_dir, tmp_path):
    text = "include: humaneval.yaml\ntask: own_tries\nrepeats: 4\nmetadata: {version: 1.0, k: [1, 2]}\n"
    from qwen2eval.content import content_dir

    shipped = (content_dir("tasks") / "humaneval" / "humaneval.yaml").read_text()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "humaneval.yaml").write_text(shipped.replace("task: humaneval\n", "task: own_base\n"))
    (tmp_path / "own" / "own_tries.yaml").write_text(text)
    config = RunConfig(
        model="dummy", tasks=("own_tries",), data_dir=str(data_dir), include_path=(str(tmp_path / "own"),)
    )
    loaded = load_tasks(config)
    assert loaded.failures == {}
    right, wrong = DOUBLE["prompt"] + "    return 2 * x\n", DOUBLE["prompt"] + "    return 3 * x\n"
    found = loaded.tasks["own_tries"].score(DOUBLE, [[right, wrong, wrong, right]])
    assert found == {"pass@1": 0.5, "pass@2": pytest.approx(1 - 1 / 6)}


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("```python\ndef double(x):\n    return 2 * x\n```\nIt doubles.", True),
        ("Sure:\n```py\nimport os\n```\nand\n```\ndef double(x):\n    return x + x\n```", True),
        ("    return 2 * x\n", True),
        ("```python\n    return 2 * x\n```", True),
        ("```python\ndef double(x):\n    return math.trunc(2 * x)", True),
        ("def double(x):\n    return 2 * x\n", True),
        ("I can't.", False),
        ("```python\ndef triple(x):\n    return 3 * x\n```", False),
    ],
)
def test_the_program_in_a_chat_models_answer(data_dir, answer, is_right):
    config = RunConfig(model="dummy", tasks=("humaneval_instruct",), data_dir=str(data_dir))
    task = load_tasks(config).tasks["humaneval_instruct"]
    assert task.score(DOUBLE, extract([[answer]], [DOUBLE])) == {"pass@1": float(is_right)}


@given(n=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, data):
    from itertools import combinations

    n_passed, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations(range(n), k))
    share = sum(any(one < n_passed for one in draw) for draw in draws) / len(draws)
    assert pass_at_k(n, n_passed, k) == pytest.approx(share)
