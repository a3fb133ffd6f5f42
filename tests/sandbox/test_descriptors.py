"""Whatever descriptors the host has open, and whatever numbers are left for a sandbox, it starts and works."""

import json
import os
import subprocess
import sys

import pytest

from qwen2eval.sandbox import Check
from qwen2eval.sandbox.inside.limits import MAX_DESCRIPTORS
from qwen2eval.sandbox.levels import BWRAP, LANDLOCK, NONE
from qwen2eval.sandbox.supervise import run_check
from qwen2eval.sandbox.worker import Worker
from tests.sandbox.conftest import skip_without

# json is found in the interpreter's own folder, which a worker may have to keep open
CHECK = Check("import json\nprint(json.dumps([1]))", expected_stdout="[1]", timeout_seconds=60)
CLOSED = """
import json, os, sys
from qwen2eval.sandbox import Sandbox
from qwen2eval.sandbox.compiled import CompiledSandbox
to_caller, level = os.dup(1), sys.argv[1]
for fd in 0, 1, 2:
    os.close(fd)
with Sandbox(level, workers=1) as sandbox:
    found = [sandbox.check("print(1)", expected_stdout="1"), CompiledSandbox("none").check("echo 1", language="sh")]
    found.append(sandbox.check("def f(x): return x", entry_point="f", tests="assert f(1) == 1"))
os.write(to_caller, json.dumps([one.verdict for one in found]).encode())
"""


@pytest.mark.parametrize("first", range(MAX_DESCRIPTORS - 6, MAX_DESCRIPTORS + 3))
@pytest.mark.parametrize("level", [LANDLOCK, NONE])
def test_a_worker_starts_whatever_numbers_its_descriptors_get(level, first):
    """One of them was overwritten when it got the number under which the worker keeps the interpreter's folder."""
    if level == LANDLOCK:
        skip_without(level)
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] < first - 1:
        held.append(os.dup(held[0]))
    try:
        worker = Worker(level)
        try:
            assert run_check(worker, CHECK, together=None).execution.verdict == "passed"
        finally:
            worker.close()
    finally:
        for fd in held:
            os.close(fd)


@pytest.mark.parametrize("level", [BWRAP, LANDLOCK])
def test_a_host_without_standard_input_and_output(level):
    """As of a service: its sockets get the numbers 0 to 2, and were replaced in the worker by its own."""
    skip_without(level)
    done = subprocess.run([sys.executable, "-c", CLOSED, level], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == ["passed"] * 3
