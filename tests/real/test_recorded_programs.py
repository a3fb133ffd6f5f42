"""Recorded answers of models: the programs that are taken from them, and the verdicts of the official scorers.

Needs the published files (QWEN2EVAL_DATA, or `shared/data` beside the project).
"""

import gzip
import json
import re
from collections import defaultdict

import pytest

from qwen2eval import RunConfig
from qwen2eval.content import content_dir
from qwen2eval.sandbox import Check, Sandbox
from qwen2eval.scoring.programs import complete, extract, extract_contest, with_imports
from qwen2eval.tasks.registry import load_tasks

pytestmark = [pytest.mark.real, pytest.mark.slow]
# EvalPlus leaves out an input of HumanEval's own test, on which this answer fails
CHANGED_BY_EVALPLUS = {"HumanEval/95"}


@pytest.mark.parametrize("taken", [complete, extract])
def test_completions_have_evalplus_verdicts(data_dir, taken):
    """Also where a chat model goes on with the prompt: its answer is the same text."""
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        problems = {row["task_id"]: row for row in map(json.loads, file)}
    answers = defaultdict(list)
    with (data_dir / "evalplus_outputs" / "codegen-16b_samples.jsonl").open() as file:
        for row in map(json.loads, file):
            answers[row["task_id"]].append(row["completion"])
    recorded = json.loads((data_dir / "evalplus_outputs" / "codegen-16b_eval_results.json").read_text())["eval"]
    checks, wanted = [], []
    for task_id, verdicts in recorded.items():
        doc = problems[task_id]
        setting = {"entry_point": doc["entry_point"], "tests": doc["test"], "setup": doc["prompt"]}
        checks += [Check(program, timeout_seconds=3, **setting) for program in taken([answers[task_id]], [doc])[0]]
        wanted += [(task_id, one["base_status"]) for one in verdicts]
    with Sandbox(packages=("numpy",)) as sandbox:
        found = ["pass" if one.passed else "fail" for one in sandbox.check_many(checks)]
    assert len(wanted) == 71
    wrong = {task_id for (task_id, status), verdict in zip(wanted, found, strict=True) if status != verdict}
    assert wrong == CHANGED_BY_EVALPLUS


def test_programs_and_verdicts_are_livecodebenchs(data_dir, tmp_path):
    shipped = content_dir("tasks") / "livecodebench" / "livecodebench.yaml"
    metadata = {"version": 1.0, "window": ["2000-01-01", "2099-12-31"], "timeout_seconds": 6, "memory_mb": 1024}
    own = f"include: {shipped}\ntask: all_dates\nrepeats: 1\nmetadata: {json.dumps(metadata)}\n"
    (tmp_path / "all_dates.yaml").write_text(own)
    config = RunConfig(model="dummy", tasks=(str(tmp_path / "all_dates.yaml"),), data_dir=str(data_dir), offline=True)
    task = load_tasks(config).tasks["all_dates"].lm_eval
    docs = {doc["question_id"]: doc for doc in task.eval_docs}
    answered, wanted, n_recorded = [], [], 0
    for path in sorted((data_dir / "livecodebench").rglob("*_eval_all.json")):
        for row in json.loads(path.read_text()):
            named = re.search(r"def (\w+)", row["starter_code"])
            doc = docs.get(row["question_id"]) or {**row, "func_name": named[1] if named else ""}
            programs = extract_contest([row["output_list"]], [doc])[0]
            assert [one.strip() for one in programs] == [with_imports(code).strip() for code in row["code_list"]]
            n_recorded += len(programs)
            if row["question_id"] in docs:
                answered.append((doc, [programs]))
                wanted += row["graded_list"]
    assert (n_recorded, len(wanted)) == (56, 48)
    task.run_programs(answered)
    found = [one.passed for doc, programs in answered for one in task.executions(doc, programs)]
    assert found == wanted
