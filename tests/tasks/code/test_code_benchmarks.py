"""MBPP, EvalPlus and LiveCodeBench: their published forms (self-written rows), prompts, programs and verdicts."""

import base64
import json
import pickle
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.data.mbpp import called_function
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.evaluate import plan
from qwen2eval.sandbox import Sandbox
from qwen2eval.scoring.programs import code_blocks, extract_contest, with_imports
from qwen2eval.tasks.code.livecodebench.data import unpack_tests
from qwen2eval.tasks.registry import load_tasks
from qwen2eval.tasks.task_values import doc_hash


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent.parent


def load(name, data_dir):
    loaded = load_tasks(RunConfig(model="dummy", tasks=(name,), data_dir=str(data_dir), offline=True))
    if loaded.failures:
        raise loaded.failures[name]
    return loaded.tasks[name].lm_eval


def verdicts(task, doc, *programs):
    return [one.verdict for one in task.executions(doc, [list(programs)])]


# ---- MBPP


def mbpp_row(number, **changes):
    row = {
        "task_id": number,
        "text": f"Write a function that adds {number} to a number.",
        "code": f"def add_{number}(x):\r\n    return x + {number}",
        "test_list": [f"assert add_{number}({x}) == {x + number}" for x in range(3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    return {**row, **changes}


def test_mbpp_has_the_papers_splits_and_lm_evals_prompt(tmp_path):
    data_dir = write_rows(tmp_path / "mbpp" / "mbpp.jsonl", [mbpp_row(i) for i in (1, 2, 3, 4, 11, 12, 600, 700)])
    task = load("mbpp", data_dir)
    assert [doc["task_id"] for doc in task.eval_docs] == [11, 12]
    doc = task.eval_docs[0]

    # lm_eval/tasks/mbpp/mbpp.yaml, written out
    def asked(i):
        tests = "\n".join(mbpp_row(i)["test_list"])
        intro = f"You are an expert Python programmer, and here is your task: {mbpp_row(i)['text']}"
        return f"{intro} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"

    examples = "".join(f"{asked(i)}{mbpp_row(i)['code']}\n[DONE]\n\n" for i in (2, 3, 4))
    assert task.fewshot_context(doc, 3) == examples + asked(11)
    assert task.config.generation_kwargs["until"] == ["[DONE]"]
    right, wrong = "def add_11(x): return 11 + x", "def add_11(x): return x + 12"
    assert verdicts(task, doc, right, wrong, "", right + "\n1/0") == ["passed", "failed", "error", "error"]


def test_mbpp_runs_its_setup_code_and_needs_its_examples(tmp_path):
    rows = [mbpp_row(i) for i in (2, 3, 4)] + [
        mbpp_row(11, test_setup_code="LIMIT = 3", test_list=["assert add_11(LIMIT) == 14"] * 3)
    ]
    task = load("mbpp", write_rows(tmp_path / "mbpp" / "mbpp.jsonl", rows))
    assert verdicts(task, task.eval_docs[0], "def add_11(x): return 11 + x") == ["passed"]
    with pytest.raises(Qwen2EvalError, match="no task_id 3, 4"):
        load("mbpp", write_rows(tmp_path / "mbpp" / "mbpp.jsonl", [rows[0], rows[3]]))


@pytest.mark.parametrize(
    ("tests", "code", "name"),
    [
        ("assert f(1) == 2", "", "f"),
        ("assert set(f(1)) == set(g(2))", "def g(x): ...\ndef f(x): ...", "f"),
        ("import math\nassert math.isclose(f(1), 2)", "", "f"),
        ("pairs = [1]\ndef own(x): return x\nassert own(f(pairs)) == 1", "", "f"),
        ("assert check(1) == 2", "def helper(): ...\ndef check(x): ...", "check"),
        ("assert len([1]) == 1", "", ""),
        ("assert (", "", ""),
    ],
)
def test_the_function_that_tests_call(tests, code, name):
    assert called_function(tests, code=code) == name


def test_answers_may_import_numpy(tmp_path):
    task = load("mbpp", write_rows(tmp_path / "mbpp" / "mbpp.jsonl", [mbpp_row(i) for i in (2, 3, 4, 11)]))
    assert verdicts(task, task.eval_docs[0], "import numpy as np\ndef add_11(x): return int(np.int64(x) + 11)") == [
        "passed"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": "assert f(1)"}, "line 4: test_list"),
        ({"test_list": []}, "line 4: test_list"),
        ({"test_list": ["assert add_11(1) == 12"]}, "three asserts"),
        ({"code": 5}, "line 4: code"),
        ({"task_id": "11"}, "line 4: task_id"),
        ({"task_id": 4}, "there twice"),
        ({"task_id": 700}, "without its test split"),
    ],
)
def test_broken_rows_of_mbpp_are_named(tmp_path, change, message):
    rows = [mbpp_row(i) for i in (2, 3, 4)] + [mbpp_row(11, **change)]
    with pytest.raises(Qwen2EvalError, match=message):
        load("mbpp", write_rows(tmp_path / "mbpp" / "mbpp.jsonl", rows))


@pytest.mark.parametrize("line", ["[1]", "3", "null"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "mbpp").mkdir()
    (tmp_path / "mbpp" / "mbpp.jsonl").write_text(f"{line}\n")
    with pytest.raises(Qwen2EvalError, match=r"line 1: .* is not a JSON object"):
        load("mbpp", tmp_path)


# ---- EvalPlus

HUB_TEST = """
import numpy as np

def close(got, wanted):
    return np.allclose(got, wanted, rtol=1e-7, atol=1e-6)

def check(candidate):
    for x, wanted in zip([[1.0, 2.0], [4.0]], [1.5, 4.0]):
        assert close(candidate(x), wanted)
"""
MEAN = {
    "task_id": "HumanEval/0",
    "prompt": 'def average(values):\n    """The mean of values."""\n',
    "entry_point": "average",
    "canonical_solution": "    return sum(values) / len(values)\n",
    "test": HUB_TEST,
}
MEAN_RELEASE = {
    **{key: MEAN[key] for key in ("task_id", "prompt", "entry_point", "canonical_solution")},
    "base_input": [[[1.0, 2.0]]],
    "plus_input": [[[4.0]], [[1e9, -1e9, 3.0]]],
    "atol": 0,
    "contract": "",
}


@pytest.mark.parametrize("name", ["HumanEvalPlus.jsonl", "HumanEvalPlus-v0.1.10.jsonl"])
@pytest.mark.parametrize("row", [MEAN, MEAN_RELEASE], ids=["hub", "release"])
def test_humaneval_plus_in_both_forms(tmp_path, row, name):
    task = load("humaneval_plus", write_rows(tmp_path / "humaneval_plus" / name, [row]))
    doc = task.eval_docs[0]
    bodies = [
        "    return sum(values) / len(values)\n",
        "    import statistics\n    return statistics.fmean(values) + 1e-9\n",  # within what EvalPlus allows
        "    return sum(values) / len(values) + 1e-3\n",
        "    return values\n",
    ]
    found = verdicts(task, doc, *(MEAN["prompt"] + body for body in bodies))
    assert found[:3] == ["passed", "passed", "failed"]
    assert found[3] in ("failed", "error")


def test_the_roots_of_find_zero_are_put_into_the_polynomial(tmp_path):
    row = {
        **MEAN_RELEASE,
        "task_id": "HumanEval/32",
        "entry_point": "find_zero",
        "prompt": 'def find_zero(xs):\n    """A root."""\n',
        "canonical_solution": "    return -xs[0] / xs[1]\n",
        "base_input": [[[-2, 1]]],
        "plus_input": [[[-4, 0, 1, 0]]],
        "atol": 1e-4,
    }
    task = load("humaneval_plus", write_rows(tmp_path / "humaneval_plus" / "HumanEvalPlus.jsonl", [row]))
    assert task.executions(task.eval_docs[0], [["def find_zero(xs): return 2.0"]])[0].separated
    programs = [f"def find_zero(xs): return {body}" for body in ("2.00001", "2.0 if xs[2:] else -2.0", "2.1")]
    assert verdicts(task, task.eval_docs[0], *programs) == ["passed", "failed", "failed"]


MBPP_PLUS = {
    "task_id": 2,
    "code": "def shared(a, b):\n    return tuple(set(a) & set(b))",
    "prompt": "Write a function that finds what two tuples share.",
    "source_file": "none",
    "test_imports": ["import math"],
    "test_list": ["assert set(shared((1, 2), (2, 3))) == set((2,))"],
    "test": "import numpy as np\nfor a, b, wanted in [((1, 2), (2, 3), {2}), ((), (1,), set()), ((5,), (5, 5), {5})]:\n"
    "    assert set(shared(a, b)) == wanted\n",
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_mbpp_plus_has_mbpps_tests_and_its_own(tmp_path, suffix):
    folder = tmp_path / "mbpp_plus"
    if suffix == "jsonl":
        write_rows(folder / "MbppPlus.jsonl", [MBPP_PLUS])
    else:
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist([MBPP_PLUS]), folder / "test-00000-of-00001.parquet")
    task, base = load("mbpp_plus", tmp_path), load("mbpp_plus_base", tmp_path)
    doc = task.eval_docs[0]
    wanted = '"""\nWrite a function that finds what two tuples share.\n' + MBPP_PLUS["test_list"][0] + '\n"""\n'
    assert task.doc_to_text(doc) == base.doc_to_text(doc) == wanted
    assert doc["entry_point"] == "shared"
    program = wanted + "def shared(a, b):\n    return (2,) if a else ()\n"
    assert (verdicts(base, doc, program), verdicts(task, doc, program)) == (["passed"], ["failed"])
    assert verdicts(task, doc, wanted + MBPP_PLUS["code"]) == ["passed"]


def test_of_several_files_the_newest_whole_set_is_taken(tmp_path):
    def write(name, task_id):
        write_rows(tmp_path / "humaneval_plus" / name, [MEAN | {"task_id": task_id}])

    write("HumanEvalPlus-v0.1.9.jsonl", "old")
    write("HumanEvalPlus-v0.1.10.jsonl", "new")
    for variant in ("Mini", "NoExtreme"):
        write(f"HumanEvalPlus-{variant}-v0.1.11.jsonl", variant)
    assert load("humaneval_plus", tmp_path).eval_docs["task_id"] == ["new"]


def test_parquet_files_called_as_all_are_count_in_the_own_folder_only(tmp_path):
    pq.write_table(pa.Table.from_pylist([MEAN | {"task_id": "other"}]), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(Qwen2EvalError, match="No data for benchmark 'humaneval_plus'"):
        load("humaneval_plus", tmp_path)
    (tmp_path / "humaneval_plus" / "data").mkdir(parents=True)
    for shard in range(2):
        name = tmp_path / "humaneval_plus" / "data" / f"test-0000{shard}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist([MEAN | {"task_id": str(shard)}]), name)
    assert load("humaneval_plus", tmp_path).eval_docs["task_id"] == ["0", "1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (MEAN | {"test": None}, "row 2: test is None"),
        ({key: value for key, value in MEAN.items() if key != "prompt"}, "row 2: no column 'prompt'"),
        (MEAN_RELEASE | {"plus_input": None}, "row 2"),
        (MEAN_RELEASE | {"canonical_solution": "    return (\n"}, "row 2"),
    ],
)
def test_broken_rows_of_evalplus_are_named(tmp_path, row, message):
    with pytest.raises(Qwen2EvalError, match=message):
        load("humaneval_plus", write_rows(tmp_path / "humaneval_plus" / "HumanEvalPlus.jsonl", [MEAN, row]))


def test_a_release_file_of_mbpp_plus_is_refused_with_the_way_out(tmp_path):
    write_rows(tmp_path / "mbpp_plus" / "MbppPlus.jsonl", [{"task_id": "Mbpp/2", "base_input": []}])
    with pytest.raises(Qwen2EvalError, match="evalplus/mbppplus"):
        load("mbpp_plus", tmp_path)


def test_evalplus_is_the_mean_of_its_four(tmp_path):
    plain = MEAN | {"test": "def check(candidate):\n    assert candidate([1, 2]) == 1.5\n"}
    write_rows(tmp_path / "data" / "humaneval" / "HumanEval.jsonl", [plain])
    write_rows(tmp_path / "data" / "humaneval_plus" / "HumanEvalPlus.jsonl", [MEAN])
    write_rows(tmp_path / "data" / "mbpp_plus" / "MbppPlus.jsonl", [MBPP_PLUS])
    config = RunConfig(
        model="dummy",
        tasks=("evalplus",),
        data_dir=str(tmp_path / "data"),
        output_path=str(tmp_path / "runs"),
        offline=True,
    )
    scores = run(config, quiet=True).scores
    by_task = scores.set_index("task").value
    assert list(by_task.index) == ["humaneval", "humaneval_plus", "mbpp_plus_base", "mbpp_plus", "evalplus"]
    assert by_task["evalplus"] == pytest.approx(by_task.drop("evalplus").mean())
    assert scores.set_index("task").n_docs["evalplus"] == 4


# ---- LiveCodeBench


def problem(number, *, tests, func_name="", private=None, date="2023-06-01T00:00:00"):
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(private or tests)))).decode()
    return {
        "question_title": f"Problem {number}",
        "question_content": "Read two numbers and print their sum.",
        "platform": "leetcode" if func_name else "atcoder",
        "question_id": f"q{number}",
        "contest_id": "c",
        "contest_date": date,
        "starter_code": "class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        "
        if func_name
        else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(tests),
        "private_test_cases": packed,
        "metadata": json.dumps({"func_name": func_name} if func_name else {}),
    }


STDIN = problem(
    1,
    tests=[{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}],
    private=[{"input": "2 2\n", "output": "4.0\nend\n", "testtype": "stdin"}],
)
CALLED = problem(
    2,
    tests=[{"input": "1\n[2, 3]", "output": "[3, 4]", "testtype": "functional"}],
    func_name="add",
)
LATE = problem(3, tests=[{"input": "", "output": "", "testtype": "stdin"}], date="2024-05-01T00:00:00")


@pytest.fixture
def contests(tmp_path):
    return load("livecodebench", write_rows(tmp_path / "livecodebench" / "test.jsonl", [LATE, CALLED, STDIN]))


def test_problems_of_the_window_and_their_prompts(contests):
    stdin, called = contests.eval_docs
    assert (stdin["question_id"], called["question_id"]) == ("q1", "q2")
    assert "private_test_cases" not in stdin
    ends = "### Answer: (use the provided format with backticks)\n\n"
    assert contests.doc_to_text(stdin).endswith("```python\n# YOUR CODE HERE\n```\n\n" + ends)
    assert contests.doc_to_text(called).endswith(f"```python\n{CALLED['starter_code']}\n```\n\n{ends}")


def test_whole_programs_are_compared_as_numbers_and_have_to_pass_all(contests):
    doc = contests.eval_docs[0]
    right = "a, b = map(int, input().split())\nprint(a + b)\nif a == b:\n    print('end')\n"
    assert verdicts(contests, doc, right) == ["passed"]
    assert verdicts(contests, doc, "print(3)", right + "1/0", "print(4)\nprint('end')") == ["failed", "error", "failed"]


def test_methods_are_called_and_a_tuple_counts_as_a_list(contests):
    doc = contests.eval_docs[1]
    method = "class Solution:\n    def add(self, a: int, b: List[int]):\n        return {}([a + x for x in b])\n"
    programs = [with_imports(text) for text in (method.format("tuple"), method.format("sum"))]
    assert verdicts(contests, doc, *programs) == ["passed", "failed"]
    assert verdicts(contests, doc, "def add(a, b): return [a + x for x in b]") == ["passed"]


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("Sure.\n```python\nprint(1)\n```\nOr:\n```python\nprint(2)\n```", "print(2)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("print(1)", "print(1)"),
        ("```python\nprint(1)", "print(1)"),
    ],
)
def test_the_program_in_an_answer(answer, program):
    assert extract_contest([[answer]], [{}]) == [[with_imports(program)]]


F = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("answer", "blocks"),
    [
        (f"First:\n```bash\npip install x\n```\nThen:\n```python\n{F}```\nDone.", [F]),
        (f"```text\n1 2\n```\n``` python\n{F}```", [F]),
        (f'```python title="a.py"\n{F}```', [F]),
        (f"```python3\r\n{F}```\r\nDone.", [F]),
        (f"~~~py\n{F}~~~", [F]),
        (f"```python\nTEXT = '''\n    ```\n'''\n{F}```", [f"TEXT = '''\n    ```\n'''\n{F}"]),
        (f"````python\n```\n{F}````", [f"```\n{F}"]),
        ("```js\nlet x;\n```", ["let x;\n"]),
        ("```python\nx = 1", ["x = 1"]),
        ("Use `f(x)` or ```inline``` code.", []),
        ("no code", []),
    ],
)
def test_blocks_of_an_answer(answer, blocks):
    assert code_blocks(answer) == blocks


def test_imports_stand_behind_the_future():
    program = with_imports(
        "from __future__ import annotations\nx: Nothing = gcd(4, 6)\nprint(x, pow(2, 3), Counter('a'))"
    )
    with Sandbox() as sandbox:
        execution = sandbox.check(program, expected_stdout="2 8 Counter({'a': 1})")
    assert execution.verdict == "passed", execution


class Evil:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("value", [Evil(), ["a", "list"], 3])
def test_packed_tests_may_hold_one_text_only(value, capsys):
    with pytest.raises(pickle.UnpicklingError):
        unpack_tests(base64.b64encode(zlib.compress(pickle.dumps(value))).decode())
    assert "ran" not in capsys.readouterr().out


def test_tests_that_cannot_be_read_leave_their_doc_unscored(tmp_path):
    broken = problem(4, tests=[]) | {"private_test_cases": "!!", "question_id": "q4"}
    data_dir = write_rows(tmp_path / "data" / "livecodebench" / "test.jsonl", [STDIN, broken])
    config = RunConfig(
        model="dummy",
        tasks=("livecodebench_greedy",),
        data_dir=str(data_dir),
        output_path=str(tmp_path / "runs"),
        offline=True,
    )
    finished = run(config, quiet=True)
    assert finished.scores.n_unscored.tolist() == [1]
    samples = finished.samples("livecodebench_greedy")
    assert samples.verdict.tolist() == ["error", "not_run"]
    assert "'q4'" in samples.error[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contest_date": None}, "contest_date is None"),
        ({"private_test_cases": 5}, "private_test_cases is 5"),
        ({"question_id": "q1"}, "a second problem 'q1'"),
    ],
)
def test_broken_problems_are_named(tmp_path, change, message):
    path = tmp_path / "livecodebench" / "test.jsonl"
    with pytest.raises(Qwen2EvalError, match=f"line 2: .*{message}"):
        load("livecodebench", write_rows(path, [STDIN, problem(4, tests=[]) | change]))


def test_odd_but_right_problems_are_read(tmp_path):
    path = tmp_path / "livecodebench" / "test.jsonl"
    write_rows(path, [STDIN | {"starter_code": None}, CALLED | {"metadata": {"func_name": "add"}}])
    path.write_text("\n" + path.read_text())
    task = load("livecodebench", tmp_path)
    assert [doc["func_name"] for doc in task.eval_docs] == ["", "add"]
    assert "# YOUR CODE HERE" in task.doc_to_text(task.eval_docs[0])


def test_a_problem_with_other_tests_is_another_doc(tmp_path):
    path = tmp_path / "livecodebench" / "test.jsonl"
    hashes = []
    for output in ("3\n", "4\n"):
        tests = [{"input": "1 2\n", "output": output, "testtype": "stdin"}]
        hashes.append(doc_hash(load("livecodebench", write_rows(path, [problem(1, tests=tests)])).eval_docs[0]))
    assert len(set(hashes)) == 2


def test_the_scorer_is_not_said_to_be_broken(tmp_path):
    """The title of a problem is no answer to it."""
    data_dir = write_rows(tmp_path / "data" / "livecodebench" / "test.jsonl", [STDIN])
    config = RunConfig(model="dummy", tasks=("livecodebench_greedy",), data_dir=str(data_dir), offline=True)
    assert plan(config).tasks["livecodebench_greedy"].preflight == "ok"


def test_a_file_with_nothing_of_the_window(tmp_path):
    with pytest.raises(Qwen2EvalError, match="no problem of contests"):
        load("livecodebench", write_rows(tmp_path / "livecodebench" / "test.jsonl", [LATE]))
