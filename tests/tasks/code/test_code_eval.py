"""lm-eval's own tasks of programs run in our sandbox: nothing is fetched, nothing runs when they are loaded."""

import json
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.errors import Qwen2EvalError, TaskFileError
from qwen2eval.sandbox import Sandbox
from qwen2eval.sandbox.compiled import CompiledSandbox
from qwen2eval.tasks.code.lm_eval_code import CODE_EVAL, check_of, whole_program
from qwen2eval.tasks.registry import load_tasks

LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"
HUMANEVAL = {
    "task_id": "Own/0",
    "prompt": 'def double(x):\n    """Return twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    "suffix": "    return y\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function that triples a number.",
    "code": "def triple(x):\n    return 3 * x",
    "test_list": ["assert triple(1) == 3", "assert triple(0) == 0", "assert triple(-2) == -6"],
}
CRUX = {"id": "own_0", "code": "def f(x):\n    return x + 1", "input": "2", "output": "3"}


def own_task(folder, name, file, row):
    """Write a task that is lm-eval's own but for its data."""
    (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    data = f"dataset_path: json\ndataset_name: null\ndataset_kwargs: {{data_files: {{test: {folder / name}.jsonl}}}}\n"
    (folder / f"{name}.yaml").write_text(f"include: {LM_EVAL_TASKS / file}\ntask: {name}\n{data}")


def load(folder, name, **options):
    loaded = load_tasks(RunConfig(tasks=(name,), include_path=(str(folder),), offline=True, **options))
    if loaded.failures:
        raise loaded.failures[name]
    return loaded.tasks[name]


@pytest.fixture
def humaneval(tmp_path):
    own_task(tmp_path, "own_humaneval", "humaneval/humaneval.yaml", HUMANEVAL)
    return load(tmp_path, "own_humaneval")


def score(task, *programs):
    """Return metrics and verdicts of a doc's programs."""
    doc = task.docs[0]
    answered = [list(programs)]
    task.programs.run_programs([(doc, answered)])
    metrics = task.score(doc, answered)
    return metrics, [one.verdict for one in task.programs.executions(doc, answered)]


def test_humaneval(humaneval):
    prompt = HUMANEVAL["prompt"]
    assert score(humaneval, prompt + "    return x + x\n") == ({"pass@1": 1.0}, ["passed"])
    assert score(humaneval, prompt + "    return x\n") == ({"pass@1": 0.0}, ["failed"])
    # what code_eval itself takes for passed
    for cheat in ("    import os\n    os._exit(0)\n", "    raise SystemExit(0)\n"):
        assert score(humaneval, prompt + cheat)[0] == {"pass@1": 0.0}
    assert humaneval.programs.executions(humaneval.docs[0], [[prompt + "    return x + x\n"]])[0].separated
    assert humaneval.programs.sandbox_level in ("bwrap+landlock+seccomp", "landlock+seccomp")


def test_pass_at_k_is_lm_evals(tmp_path):
    own_task(tmp_path, "own_64", "humaneval/humaneval_64.yaml", HUMANEVAL)
    task = load(tmp_path, "own_64")
    right, wrong = HUMANEVAL["prompt"] + "    return 2 * x\n", HUMANEVAL["prompt"] + "    return 3 * x\n"
    metrics, verdicts = score(task, *[right] * 16, *[wrong] * 48)
    assert verdicts == ["passed"] * 16 + ["failed"] * 48
    assert set(metrics) == {f"pass@{k}" for k in (2, 8, 16, 32, 64)}
    assert metrics["pass@2"] == pytest.approx(1 - 48 * 47 / (64 * 63))
    assert metrics["pass@64"] == 1.0


def test_mbpp_and_infilling(tmp_path):
    own_task(tmp_path, "own_mbpp", "mbpp/mbpp.yaml", MBPP)
    task = load(tmp_path, "own_mbpp")
    doc = task.docs[0]
    scores = [task.score(doc, [program]) for program in (MBPP["code"], "def triple(x): return x")]
    assert scores == [{"pass_at_1": 1.0}, {"pass_at_1": 0.0}]
    assert [one.verdict for one in task.programs.executions(doc, [MBPP["code"]])] == ["passed"]
    own_task(tmp_path, "own_infilling", "humaneval_infilling/multi_line_infilling.yaml", HUMANEVAL)
    program = HUMANEVAL["prompt"] + "    y = 2 * x\n" + HUMANEVAL["suffix"]
    assert score(load(tmp_path, "own_infilling"), program)[0] == {"pass@1": 1.0}


def test_cruxeval(tmp_path):
    own_task(tmp_path, "own_crux", "cruxeval/cruxeval_input.yaml", CRUX)
    task = load(tmp_path, "own_crux")
    programs = [f"{CRUX['code']}\nassert {end}" for end in ("f(2) == 3", "f(5) == 3", "f(exit(0)) == 3")]
    metrics, verdicts = score(task, *programs)
    assert verdicts == ["passed", "error", "error"]
    assert [one.separated for one in task.programs.executions(task.docs[0], [programs])] == [False] * 3
    assert metrics == {"pass@1": pytest.approx(1 / 3)}


SUM = "int main() { int n; long s = 0, x; cin >> n; while (n--) { cin >> x; s += x; } cout << s << endl; }"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (SUM, "passed"),
        (SUM.replace("+=", "-="), "failed"),
        (SUM.replace("endl; }", "endl; while (1); }"), "error"),
        ("int main() { return 0 }", "error"),
        ("int main() { exit(0); }", "failed"),
        (SUM.replace("endl; }", "endl; exit(3); }"), "passed"),  # LongProc asks for the output only
        ('int main() { FILE *f = fopen("program.sh", "w"); fputs("exit 0\\nexit 0\\n", f); fclose(f); }', "failed"),
    ],
)
def test_longproc_compiles_in_the_sandbox(tmp_path, code, verdict):
    if why := CompiledSandbox().why_not("sh"):
        pytest.skip(why)
    cases = [[["2", "3 4"], ["7"]], [["1", "-5"], ["-5"]]]
    row = {"input_prompt": "Write it.", "reference_output": SUM, "metadata": json.dumps({"testcases": cases})}
    own_task(tmp_path, "own_longproc", "longproc/pseudo_to_code_2k.yaml", row)
    task = load(tmp_path, "own_longproc")
    doc = task.docs[0]
    answered = [f"Here:\n```c++\n{code}\n```"]
    task.programs.run_programs([(doc, answered)])
    assert task.score(doc, answered)["score"] == float(verdict == "passed")
    assert task.programs.executions(doc, answered)[0].verdict == verdict
    assert task.score(doc, ["no code"])["extraction_rate"] == 0.0


def test_a_task_with_a_way_of_its_own_is_refused(tmp_path):
    (tmp_path / "helper.py").write_text("def f(doc, results):\n    exec(results[0])\n    return {'acc': 1}\n")
    (tmp_path / "own.jsonl").write_text(json.dumps(HUMANEVAL) + "\n")
    (tmp_path / "t.yaml").write_text(
        "task: runs_code\nunsafe_code: true\noutput_type: generate_until\ndataset_path: json\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'own.jsonl'}}}}}\ndoc_to_text: '{{{{prompt}}}}'\n"
        "doc_to_target: '{{test}}'\nprocess_results: !function helper.f\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    with pytest.raises(TaskFileError, match="nothing is run unprotected"):
        load(tmp_path, "runs_code")


@pytest.mark.slow
def test_loading_touches_no_network_and_runs_nothing(tmp_path):
    """In a new process, as the modules of tasks are imported once."""
    own_task(tmp_path, "own_humaneval", "humaneval/humaneval.yaml", HUMANEVAL)
    own_task(tmp_path, "own_mbpp", "mbpp/mbpp.yaml", MBPP)
    source = f"""
import sys
from qwen2eval import RunConfig
from qwen2eval.quiet import prepared_libraries
from qwen2eval.tasks.registry import load_tasks
def forbid(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn"):
        raise SystemExit(f"{{event}} {{args}}")
config = RunConfig(tasks=("own_humaneval", "own_mbpp"), include_path=({str(tmp_path)!r},), offline=True)
import platform; platform.processor()  # starts uname, for a library
sys.addaudithook(forbid)
with prepared_libraries(offline=True):
    loaded = load_tasks(config)
assert not loaded.failures, loaded.failures
print(sorted(loaded.tasks))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['own_humaneval', 'own_mbpp']", done.stderr[-2000:]


def test_a_run_has_verdicts_and_the_level(tmp_path):
    own_task(tmp_path, "own_humaneval", "humaneval/humaneval.yaml", HUMANEVAL)
    config = RunConfig(
        model="dummy",
        tasks=("own_humaneval",),
        include_path=(str(tmp_path),),
        offline=True,
        sandbox="landlock+seccomp",
        output_path=str(tmp_path / "runs"),
    )
    finished = run(config, quiet=True)
    assert finished.samples("own_humaneval").verdict.tolist() == ["error"]
    assert finished.scores[["metric", "value"]].to_numpy().tolist() == [["pass@1", 0.0]]
    assert finished.info.tasks["own_humaneval"].sandbox == "landlock+seccomp"


def test_tests_that_are_broken_leave_the_doc_unscored(tmp_path):
    own_task(tmp_path, "own_broken", "humaneval/humaneval.yaml", HUMANEVAL | {"test": "def check(f:\n"})
    task = load(tmp_path, "own_broken")
    with pytest.raises(ValueError, match="could not be run"):
        score(task, HUMANEVAL["prompt"] + "    return 2 * x\n")


def test_outside_of_scoring_nothing_is_run(tmp_path):
    marker = tmp_path / "ran"
    found = CODE_EVAL.compute(predictions=[[f"open({str(marker)!r}, 'w')"]], references=["assert True"], k=[1])
    assert found == ({"pass@1": 0.0}, {0: [(0, {"task_id": 0, "passed": False, "completion_id": 0})]})
    assert not marker.exists()


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("x = 1\nassert x == 1", "passed"),
        ("assert 1 == 2", "error"),
        ("import sys\nsys.exit(0)", "error"),
        ("import os\nos._exit(0)", "error"),
        ("while True: pass", "timed_out"),
        ("def reached_0(): return True\nraise SystemExit", "error"),
    ],
)
def test_a_whole_program_has_to_come_to_its_end(program, verdict):
    seconds = 1 if verdict == "timed_out" else 60
    with Sandbox() as sandbox:
        assert sandbox.check_many([whole_program(program, timeout_seconds=seconds)])[0].verdict == verdict


def test_tests_without_a_function_run_behind_the_program():
    check = check_of("x = 3", "assert x == 3", timeout_seconds=60)
    assert check.program.startswith("x = 3\nassert x == 3\n")
    with Sandbox() as sandbox:
        assert sandbox.check_many([check])[0].passed


def test_unknown_level(tmp_path):
    own_task(tmp_path, "own_humaneval", "humaneval/humaneval.yaml", HUMANEVAL)
    task = load(tmp_path, "own_humaneval", sandbox="glass")
    with pytest.raises(Qwen2EvalError, match="glass"):
        score(task, HUMANEVAL["prompt"])
