"""What users of `Sandbox` rely on: verdicts, details, order, limits, and that each check is a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox import Check, Sandbox, SandboxError
from tests.killing import wait_for
from tests.sandbox.run_attacks import below

ADD = "def add(a, b):\n    return a + b\n"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
SPIN = "while True: pass"


def test_a_right_function_passes(sandbox):
    execution = sandbox.check(ADD, entry_point="add", tests=CHECK)
    assert (execution.verdict, execution.detail, execution.separated) == ("passed", "", True)
    assert execution.passed
    assert execution.level == sandbox.level
    assert 0 <= execution.seconds < 60  # the kernel may count all of it as waiting
    assert 5 < execution.max_rss_mb < 100


def test_a_wrong_function_fails_with_the_line(sandbox):
    execution = sandbox.check("def add(a, b): return a", entry_point="add", tests=CHECK)
    assert execution.verdict == "failed"
    assert "line 2: assert candidate(1, 2) == 3" in execution.detail


def test_a_whole_program_is_compared(sandbox):
    program = "print(int(input()) * 2)"
    assert sandbox.check(program, stdin="4\n", expected_stdout="8").passed
    assert sandbox.check(program, stdin="4\n", expected_stdout="9").verdict == "failed"
    execution = sandbox.check(program, stdin="x\n", expected_stdout="8")
    assert (execution.verdict, execution.separated) == ("error", None)
    assert execution.detail.startswith("ValueError")


def test_output_is_kept(sandbox):
    execution = sandbox.check("import sys\nprint('out')\nsys.stderr.write('err')")
    assert (execution.stdout, execution.stderr) == ("out\n", "err")
    execution = sandbox.check("def f(x):\n  print('called')\n  return x", entry_point="f", tests="assert f(1) == 1")
    assert execution.stdout == "called\n"


def test_long_output_is_compared_whole(sandbox):
    lines = "\n".join(map(str, range(300_000)))
    execution = sandbox.check("for n in range(300000): print(n)", expected_stdout=lines)
    assert execution.verdict == "passed", execution.detail
    assert len(execution.stdout) == 256 << 10


def test_results_come_in_the_order_given(sandbox):
    checks = [Check(f"import time\ntime.sleep({(9 - n) / 100})\nprint({n})") for n in range(10)]
    seen = []
    executions = sandbox.check_many(checks, on_done=lambda index, execution: seen.append((index, execution)))
    assert [execution.stdout for execution in executions] == [f"{n}\n" for n in range(10)]
    assert sorted(index for index, _ in seen) == list(range(10))
    assert sandbox.check_many([]) == []


def test_checks_may_be_mappings(any_sandbox):
    asked = [{"program": ADD, "entry_point": "add", "tests": CHECK}, {"program": "print(1)", "expected_stdout": "1"}]
    assert [execution.verdict for execution in any_sandbox.check_many(asked)] == ["passed", "passed"]
    with pytest.raises(ConfigError, match="programme"):
        any_sandbox.check_many([{"programme": ADD}])


def test_an_error_of_the_caller_does_not_wait_for_the_rest(any_sandbox):
    def fail(*_):
        raise KeyError("the caller's own")

    others = [Check("import time; time.sleep(2)")] * (60 * any_sandbox.n_workers)
    start = time.monotonic()
    with pytest.raises(KeyError, match="own"):
        any_sandbox.check_many([Check("print(1)"), *others], on_done=fail)
    assert time.monotonic() - start < 60  # of 120
    assert any_sandbox.check("print(1)").passed


def test_threads_may_share_a_sandbox(any_sandbox):
    with ThreadPoolExecutor(8) as threads:
        executions = list(threads.map(lambda n: any_sandbox.check(f"print({n})"), range(40)))
    assert [execution.stdout for execution in executions] == [f"{n}\n" for n in range(40)]


def test_inseparable_tests_run_together_and_say_so(sandbox):
    tests = "class Own:\n    x = 3\nassert add(Own.x, 1) == 4\nassert add(Own(), Own()) is not None"
    execution = sandbox.check(
        "def add(a, b): return getattr(a, 'x', a) + getattr(b, 'x', b)", entry_point="add", tests=tests
    )
    assert (execution.verdict, execution.separated) == ("passed", False)
    assert "in one process: an argument is a value of type 'Own'" in execution.detail


def test_tests_may_use_helpers_of_the_prompt(sandbox):
    prompt = "def double(x):\n    return x * 2\n\ndef f(x):\n"
    execution = sandbox.check(
        prompt + "    return double(x)", entry_point="f", tests="assert f(2) == double(2)", setup=prompt + "    pass"
    )
    assert (execution.verdict, execution.separated) == ("passed", True)


def test_a_redefined_helper_does_not_reach_the_tests(sandbox):
    prompt = "def norm(x):\n    return abs(x)\n\ndef f(x):\n"
    program = prompt + "    return 99\n\ndef norm(x):\n    return 0\n"
    check = {"entry_point": "f", "tests": "assert norm(f(1) - 5) == 0"}
    assert sandbox.check(program, **check, setup=prompt + "    pass").verdict == "failed"
    assert sandbox.check(program, **check).separated is False


def test_each_check_is_a_process_of_its_own(sandbox):
    leave = "import builtins, os\nbuiltins.left = 1\nopen('left', 'w').close()\nos.environ['LEFT'] = '1'"
    find = "import builtins, os\nprint(hasattr(builtins, 'left'), os.listdir(), 'LEFT' in os.environ)"
    for _ in range(4):  # every worker
        assert sandbox.check(leave).passed
        assert sandbox.check(find).stdout == "False [] False\n"


def test_strings_hash_alike_in_all_workers(sandbox):
    printed = {execution.stdout for execution in sandbox.check_many([Check("print(hash('a'))")] * 6)}
    assert len(printed) == 1


def test_random_numbers_differ_between_checks(sandbox):
    checks = [Check("import random\nprint(random.random())")] * 5
    assert len({execution.stdout for execution in sandbox.check_many(checks)}) == 5


def test_memory_is_measured_and_limited(sandbox):
    program = "x = b'x' * (100 << 20)"
    roomy = sandbox.check(program, memory_mb=200)
    assert (roomy.verdict, roomy.max_rss_mb > 100) == ("passed", True)
    assert sandbox.check(program, memory_mb=50).verdict == "out_of_memory"
    assert sandbox.check("print(1)", memory_mb=16).passed


def test_a_lost_worker_is_replaced():
    with Sandbox(workers=1) as sandbox:
        sandbox.check("print(1)")
        worker = sandbox._idle.get()
        os.kill(worker.pid, 9)
        sandbox._idle.put(worker)
        execution = sandbox.check("print(1)")
        assert (execution.verdict, execution.retried) == ("passed", True)


def test_workers_are_replaced_after_some_time(monkeypatch):
    monkeypatch.setattr("qwen2eval.sandbox.sandbox.MAX_CHECKS_A_WORKER", 2)
    with Sandbox(workers=1) as sandbox:
        pids = []
        for _ in range(5):
            assert sandbox.check("print(1)").passed
            worker = sandbox._idle.get()
            pids.append(worker and worker.pid)
            sandbox._idle.put(worker)
    assert pids[1] is None
    assert pids[0] != pids[2]


def test_what_tests_write_to_stderr_does_not_add_up_over_checks(sandbox):
    """The tester wrote to a file of the worker: when that was full, the tests of other checks came out as broken."""
    tests = "import sys\nsys.stderr.write('x' * (1 << 20))\nsys.stderr.flush()\nassert f(1) == 1"
    checks = [Check("def f(x): return x", entry_point="f", tests=tests)] * (20 * sandbox.n_workers)
    assert {execution.detail for execution in sandbox.check_many(checks)} == {""}


def test_files_of_tests_are_limited_too(sandbox):
    """They were not counted: without namespaces, tests could fill the disk."""
    tests = (
        "for i in range(60):\n  open(str(i), 'wb').write(b'x' * (15 << 20))\nimport time\ntime.sleep(60)\nassert f(1)"
    )
    execution = sandbox.check("def f(x): return x", entry_point="f", tests=tests, timeout_seconds=60)
    assert execution.verdict in ("output_limit", "not_run")


def test_tests_may_call_from_threads(sandbox):
    """Calls and answers of several threads were mixed up, and the program timed out."""
    tests = (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as threads:\n"
        "  assert list(threads.map(f, range(200))) == list(range(200))"
    )
    assert sandbox.check("def f(x): return x", entry_point="f", tests=tests, timeout_seconds=60).passed


@pytest.mark.parametrize(
    "tests",
    [
        "",
        "x = 1",
        "async def check(candidate):\n  assert candidate(2) == 5",
        "if True:\n  def check(candidate):\n    assert candidate(2) == 5",
        "check = lambda candidate: candidate(2) == 5",
    ],
    ids=["empty", "no-call", "async", "nested", "lambda"],
)
def test_tests_that_never_call_the_program_are_not_run(any_sandbox, tests):
    execution = any_sandbox.check("def f(x): return x", entry_point="f", tests=tests)
    assert (execution.verdict, "never called" in execution.detail) == ("not_run", True)
    assert any_sandbox.check("def f(", entry_point="f", tests=tests).verdict == "error"


def test_a_name_too_long_for_a_message_is_refused_at_once():
    """It ended the worker, twice, and the program had crashed."""
    with pytest.raises(ConfigError, match="entry_point"):
        Check(ADD, entry_point="f" * 100_000, tests="assert 1")


def test_closing_ends_what_runs(any_sandbox):
    """A check that was to be repeated alone waited for ever for workers of a closed sandbox."""
    with Sandbox(any_sandbox.level, workers=2) as sandbox:
        seen = []

        def ask(name):
            try:
                seen.append(sandbox.check(f"import time; time.sleep(600); print({name})", timeout_seconds=600))
            except SandboxError as err:
                seen.append(str(err))

        threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        # two workers, each with its program
        wait_for(lambda: sum(len(below(worker.pid)) for worker in list(sandbox._busy)) == 2 * 2)
        sandbox.close()
        for thread in threads:
            thread.join(timeout=60)
        assert ["closed" in str(one) for one in seen] == [True] * 4
        again = threading.Thread(target=lambda: seen.append(sandbox._run_alone(Check(""))), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("threading.excepthook", lambda raised: seen.append(str(raised.exc_value)))
            again.start()
            again.join(timeout=60)
        assert "closed" in str(seen[-1])
        assert len(seen) == 5


def test_a_closed_sandbox_says_so():
    with Sandbox() as sandbox:
        pass
    with pytest.raises(SandboxError, match="closed"):
        sandbox.check("print(1)")


def test_a_sandbox_that_nobody_closed_ends_with_its_user():
    script = "from qwen2eval.sandbox import Sandbox\ns = Sandbox()\ns.check('print(1)')\nprint(s._idle.queue[-1].pid)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not Path(f"/proc/{int(done.stdout)}").exists()
    assert done.stderr == ""


def test_no_descriptor_is_lost(any_sandbox):
    checks = [Check(ADD, entry_point="add", tests=CHECK), Check("print(1)"), Check("def f(", entry_point="f", tests="")]
    any_sandbox.check_many(checks * 10)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    any_sandbox.check_many(checks * 30)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_level_names():
    with pytest.raises(ConfigError, match="'bwarp'"):
        Sandbox("bwarp")
    with pytest.raises(ConfigError, match="workers"):
        Sandbox(workers=0)


def test_without_protection_only_when_typed():
    with Sandbox("none") as sandbox:
        assert sandbox.check("import socket; socket.socket()").passed
        execution = sandbox.check("import os, time\nif os.fork() == 0: time.sleep(60)\nprint(os.getpid())")
        assert execution.level == "none"
        assert execution.passed
        assert sandbox.check("print(1)").passed


def test_importing_is_cheap():
    script = (
        "import sys, qwen2eval.sandbox\n"
        "heavy = {'torch', 'lm_eval', 'transformers', 'numpy', 'rich'} & set(sys.modules)\n"
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


class Hogs:
    """Processes that keep all cores busy."""

    def __enter__(self):
        n_hogs = 4 * len(os.sched_getaffinity(0))
        command = [sys.executable, "-c", f"print('busy', flush=True)\n{SPIN}"]
        # in sessions of their own: the scheduler shares out by session first
        self.processes = [
            subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) for _ in range(n_hogs)
        ]
        for process in self.processes:
            assert process.stdout.readline() == b"busy\n"

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()


BUSY_LOOP = "import time\nwhile time.process_time() < {}: pass\nprint(1)"


def test_a_right_program_passes_on_a_busy_machine(sandbox):
    with Hogs():
        start = time.monotonic()
        executions = sandbox.check_many([Check(BUSY_LOOP.format(0.7), expected_stdout="1", timeout_seconds=1)] * 2)
        wall = time.monotonic() - start
    assert [execution.verdict for execution in executions] == ["passed"] * 2
    assert wall > 1.45, "the machine was not busy, so nothing was shown"


def test_a_sleeping_program_stops_at_its_limit_on_a_busy_machine(sandbox):
    with Hogs():
        start = time.monotonic()
        execution = sandbox.check("import time; time.sleep(600)", timeout_seconds=0.5)
        assert execution.verdict == "timed_out"
        assert time.monotonic() - start < 60


@pytest.fixture
def stops_late(monkeypatch):
    """Make the time between the limit and the stop long, so that a slow machine does not get over it."""
    monkeypatch.setattr("qwen2eval.sandbox.clock.GRACE_SECONDS", 60)


@pytest.mark.usefixtures("stops_late")
def test_a_run_that_ends_late_is_repeated_alone(sandbox):
    # both sleep for a time between one limit and the stop: for that limit a borderline run
    program = "import time; time.sleep(1.1); print(1)"
    executions = sandbox.check_many([Check(program, timeout_seconds=1), Check(program, timeout_seconds=60)])
    assert [(execution.verdict, execution.retried) for execution in executions] == [
        ("timed_out", True),
        ("passed", False),
    ]
    assert "1 s" in executions[0].detail


@pytest.mark.usefixtures("stops_late")
def test_an_error_that_comes_late_is_repeated_too(sandbox):
    execution = sandbox.check("import time; time.sleep(0.55); raise ValueError", timeout_seconds=0.5)
    assert (execution.verdict, execution.retried) == ("error", True)


def test_the_time_of_all_threads_is_limited(sandbox):
    program = (
        "import hashlib, threading\ndata = b'x' * (1 << 22)\ndef work():\n"
        "    while True: hashlib.sha256(data).digest()\n"  # without the interpreter's lock
        "[threading.Thread(target=work).start() for _ in range(4)]"
    )
    start = time.monotonic()
    assert sandbox.check(program, timeout_seconds=1).verdict == "timed_out"
    assert time.monotonic() - start < 60


def test_threads_of_one_program_do_not_take_those_of_others(sandbox):
    bomb = (
        "import threading, time\nthreading.stack_size(1 << 15)\n"
        "while True: threading.Thread(target=time.sleep, args=(99,)).start()"
    )
    threads = "import threading, time\nfor _ in range(20): threading.Thread(target=time.sleep, args=(0.01,)).start()"
    checks = [Check(bomb, memory_mb=4096, timeout_seconds=60), *[Check(threads, timeout_seconds=60)] * 40]
    first, *rest = sandbox.check_many(checks)
    assert (first.verdict, "512 threads" in first.detail) == ("error", True)
    assert {execution.verdict for execution in rest} == {"passed"}


def test_packages_that_were_asked_for_can_be_imported(sandbox):
    program = "import numpy as np\ndef f(x):\n  return np.arange(x).sum()"
    check = {"entry_point": "f", "tests": "import numpy as np\nassert f(4) == 6 and np.allclose(f(5), 10)"}
    assert "No module named 'numpy'" in sandbox.check(program, **check).detail
    with Sandbox(sandbox.level, packages=["numpy"], workers=1) as with_numpy:
        execution = with_numpy.check(program, **check)
        assert (execution.verdict, execution.separated) == ("passed", True), execution.detail
        numbers = [with_numpy.check("import numpy\nprint(numpy.random.rand())").stdout for _ in range(2)]
        assert numbers[0] != numbers[1]
        assert "Permission" in with_numpy.check("import numpy\nopen(numpy.__file__, 'a')").detail


def test_packages_that_are_not_installed_are_told(any_sandbox):
    with Sandbox(any_sandbox.level, packages=["nowhere"]) as sandbox, pytest.raises(ConfigError, match="'nowhere'"):
        sandbox.check("print(1)")


def test_other_checks_go_on_beside_a_slow_one(any_sandbox):
    done = []
    slow = threading.Thread(target=lambda: done.append(any_sandbox.check(SPIN, timeout_seconds=600)))
    slow.start()

    def programs():
        return [pid for worker in list(any_sandbox._busy) for pid in below(worker.pid) if pid != worker.pid]

    wait_for(programs)
    if any_sandbox.n_workers > 1:
        assert any_sandbox.check("print(1)").passed
        assert not done
    os.kill(programs()[0], signal.SIGKILL)
    slow.join()
    assert done[0].verdict == "crashed"
