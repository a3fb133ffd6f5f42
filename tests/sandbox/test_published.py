"""Real HumanEval and MBPP: canonical solutions pass; empty and mutated ones get the verdict that plain Python gives.

Needs the published files (QWEN2EVAL_DATA, or `shared/data` beside the project).
"""

import ast
import gzip
import json
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    # MBPP's solutions have "\\w" in plain strings: a DeprecationWarning, from Python 3.12 on a SyntaxWarning
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
    pytest.mark.filterwarnings('ignore:"is" with'),
]

LIMIT_SECONDS = 2  # of processor time
# Plain Python: one forked process a program, its exit status is the verdict
PLAIN = """
import json, os, resource, signal, sys
for job in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, 0), os.dup2(devnull, 1), os.dup2(devnull, 2)
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        try:
            names = {"__name__": "plain"}
            exec(job["program"], names)
            entry = names[job["entry_point"]]
            exec(job["tests"], names)
            if job["has_check"]:
                names["check"](entry)
        except AssertionError:
            os._exit(1)
        except MemoryError:
            os._exit(3)
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print({0: "passed", 1: "failed", 2: "error"}.get(os.waitstatus_to_exitcode(status), "timed_out"))
"""
_OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.FloorDiv: ast.Mult}
_OTHER |= {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
_OTHER |= {ast.And: ast.Or, ast.Or: ast.And}


@pytest.fixture(scope="module")
def humaneval(data_dir):
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [
        {
            "program": row["prompt"] + row["canonical_solution"],
            "entry_point": row["entry_point"],
            "tests": row["test"],
            "setup": row["prompt"],
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def mbpp(data_dir):
    with (data_dir / "mbpp" / "mbpp.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    return [
        {
            "program": row["code"],
            "entry_point": called_function(row),
            "tests": "\n".join([row["test_setup_code"], *row["test_list"]]),
            "setup": "",
        }
        for row in rows
    ]


def called_function(row):
    tree = ast.parse(row["code"])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = [node.func for node in ast.walk(ast.parse(row["test_list"][0])) if isinstance(node, ast.Call)]
    return next(call.id for call in calls if isinstance(call, ast.Name) and call.id in defined)


def plain_verdicts(checks):
    jobs = [
        {
            **{key: check[key] for key in ("program", "entry_point", "tests")},
            "has_check": "def check(cand" in check["tests"],
        }
        for check in checks
    ]

    def run(jobs):
        command = [sys.executable, "-c", PLAIN, str(LIMIT_SECONDS)]
        return subprocess.run(
            command, input=json.dumps(jobs), capture_output=True, text=True, check=True
        ).stdout.split()

    half = len(jobs) // 2
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run, (jobs[:half], jobs[half:]))
    return first + second


def with_empty_body(check):
    tree = ast.parse(check["program"])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == check["entry_point"]:
            node.body = [ast.Pass()]
    return {**check, "program": ast.unparse(tree)}


def with_mutation(check, seed):
    """One operator or integer constant of the program is another one."""
    tree = ast.parse(check["program"])
    places = [
        (node, name, value)
        for node in ast.walk(tree)
        for name, value in ast.iter_fields(node)
        if type(value) in _OTHER
        or (name == "ops" and type(value[0]) in _OTHER)
        or (name == "value" and type(value) is int)
    ]
    if not places:
        return None
    node, name, value = random.Random(seed).choice(places)
    if isinstance(value, int):
        node.value = value + 1
    elif isinstance(value, list):
        node.ops[0] = _OTHER[type(value[0])]()
    else:
        setattr(node, name, _OTHER[type(value)]())
    return {**check, "program": ast.unparse(tree)}


def ours(sandbox, checks):
    return sandbox.check_many([{**check, "timeout_seconds": LIMIT_SECONDS} for check in checks])


def simple(verdict):
    """Without end is without end, whether time or memory is at its end first."""
    return "timed_out" if verdict in ("timed_out", "out_of_memory", "crashed", "output_limit") else verdict


def differences(sandbox, checks):
    executions = ours(sandbox, checks)
    plain = plain_verdicts(checks)
    return {
        check["program"]: (mine.verdict, wanted, mine.detail)
        for check, mine, wanted in zip(checks, executions, plain, strict=True)
        if simple(mine.verdict) != wanted
    }, Counter(plain)


def test_canonical_solutions_of_humaneval_pass(sandbox, humaneval):
    executions = sandbox.check_many(humaneval)
    assert Counter(execution.verdict for execution in executions) == {"passed": 164}
    assert Counter(execution.separated for execution in executions) == {True: 164}


def test_canonical_solutions_of_mbpp_pass(sandbox, mbpp):
    executions = sandbox.check_many(mbpp)
    assert Counter(execution.verdict for execution in executions) == {"passed": 974}
    assert Counter(execution.separated for execution in executions) == {True: 970, False: 4}


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_empty_bodies_get_the_verdict_of_plain_python(any_sandbox, name, request):
    checks = [with_empty_body(check) for check in request.getfixturevalue(name)]
    found, plain = differences(any_sandbox, checks)
    assert found == {}
    assert plain["failed"] + plain["error"] > 0.95 * len(checks)


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_mutated_solutions_get_the_verdict_of_plain_python(any_sandbox, name, request):
    mutated = [with_mutation(check, seed) for seed, check in enumerate(request.getfixturevalue(name))]
    checks = [check for check in mutated if check is not None]
    found, plain = differences(any_sandbox, checks)
    assert found == {}
    assert plain["failed"] > 0.3 * len(checks)
    assert plain["passed"] > 0
