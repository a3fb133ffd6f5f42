"""LiveCodeBench: contest problems, complete programs with stdin and stdout or a method that is called."""

import re
from functools import lru_cache
from typing import Any

from qwen2eval.requests import Doc
from qwen2eval.sandbox import Check
from qwen2eval.tasks.code.task import CodeTask, digest
from qwen2eval.typed_json import JsonObject


class LiveCodeBenchTask(CodeTask):
    """A `CodeTask` whose docs' tests are in their data's `case_file`; each test is a separate run.

    As LiveCodeBench does it (`lcb_runner/evaluation/testing_util.py`): lines are compared without outer white space, or
    as decimal numbers; of what a method returns a tuple counts as a list. Otherwise than there, programs get a real
    standard input, run as `__main__`, and have to end with status 0.
    """

    PROGRAMS_AT_ONCE = 64
    target_is_answer = False
    """Problems come without solutions."""

    def __init__(self, config: JsonObject) -> None:
        super().__init__(config)
        # The tests of a problem are in memory once for all of its answers
        self._tests_of = lru_cache(maxsize=2)(self._read_tests)

    def checks(self, doc: Doc, program: str) -> list[Check]:
        """Return a check for each test of the problem."""
        name = doc["func_name"]
        tests = self._tests_of(doc["question_id"], bool(name))
        if name:
            entry_point = f"Solution.{name}" if _SOLUTION.search(program) else name
            tests = [{**one, "entry_point": entry_point} for one in tests]
        limits: dict[str, Any] = {**self._limits}
        return [Check(program, **one, **limits) for one in tests]

    def _read_tests(self, question_id: str, calls: bool) -> list[dict[str, Any]]:
        cases = self.dataset.case_file.cases(question_id)
        if calls:
            return [{"tests": _CALL.format(input=case.input, output=case.output)} for case in cases]
        return [{"stdin": case.input, "expected_stdout": case.output, "compare": "numbers"} for case in cases]

    def key(self, doc: Doc, program: str) -> str:
        """Return what a program and its tests are known by."""
        return digest(doc["question_id"], program)


_SOLUTION = re.compile(r"^class Solution\b", re.MULTILINE)
_CALL = """
import json, sys
sys.set_int_max_str_digits(50000)
def check(candidate):
    arguments = [json.loads(line) for line in {input!r}.split("\\n")]
    got = candidate(*arguments)
    assert (list(got) if isinstance(got, tuple) else got) == json.loads({output!r})
"""
