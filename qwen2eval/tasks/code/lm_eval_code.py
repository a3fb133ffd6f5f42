"""lm-eval's own tasks of programs: what they would run unprotected is run in our sandbox.

Three ways of running programs are taken over: HF's `code_eval`, which lm-eval fetches from the hub when it imports such
a task (HumanEval, MBPP, infilling), CRUXEval's `check_correctness`, and LongProc's, which compiles C++. A task of
`unsafe_code` that has another way is refused.
"""

import ast
import base64
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qwen2eval.data.mbpp import called_function
from qwen2eval.errors import TaskFileError
from qwen2eval.requests import Doc
from qwen2eval.sandbox import Check, Execution, Sandbox
from qwen2eval.sandbox.compiled import CompiledCheck, CompiledSandbox
from qwen2eval.tasks.code.program_runs import ProgramRuns
from qwen2eval.tasks.code.task import PACKAGES, digest, pass_at_k
from qwen2eval.tasks.lm_eval_internals import scorer_namespaces
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.metric_spec import MetricItem
from qwen2eval.tasks.protocols import Responses

if TYPE_CHECKING:
    from lm_eval.api.task import Task

TIMEOUT_SECONDS = 3.0
"""What HF's code_eval allows."""
CPP_NAME, MAX_CASES = "_evaluate_spoc_code", 10
"""LongProc's function, and how many cases it looks at."""
COMPILE_SECONDS = 60.0
_END = "reached_the_end_"
_SECRET = secrets.token_hex(16)


class CodeEval:
    """Replaces `evaluate.load("code_eval")`; outside of a task's scoring it runs nothing and passes nothing."""

    def __init__(self) -> None:
        self.asking: _Asking | None = None

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,  # noqa: ARG002  # HF's arguments
        timeout: float = TIMEOUT_SECONDS,
    ) -> tuple[dict[str, float], dict[int, list[Any]]]:
        """Return pass@k and the results by task, as code_eval does.

        Args:
            predictions: for each task its programs.
            references: for each task the tests that are put behind them.
            timeout: seconds of run time.
        """
        passed = [
            [self.run(check_of(program, tests, timeout_seconds=timeout)) for program in programs]
            for programs, tests in zip(predictions, references, strict=True)
        ]
        results = {
            number: [(i, {"task_id": number, "passed": one, "completion_id": i}) for i, one in enumerate(of_task)]
            for number, of_task in enumerate(passed)
        }
        at_k = {
            f"pass@{one_k}": sum(pass_at_k(len(of_task), sum(of_task), one_k) for of_task in passed) / len(passed)
            for one_k in k
            if passed and all(one_k <= len(of_task) for of_task in passed)
        }
        return at_k, results

    def run_whole(self, program: str, timeout: float = TIMEOUT_SECONDS) -> bool:
        """Return whether a program comes to its end; CRUXEval's `check_correctness`."""
        return self.run(whole_program(program, timeout_seconds=timeout))

    def run_cpp(self, program: str, cases: Sequence[tuple[Sequence[str], Sequence[str]]]) -> tuple[bool, str]:
        """Return whether a C++ program prints what is expected, and why not; LongProc's `_evaluate_spoc_code`.

        Args:
            cases: lines of input and of output.
        """
        passed = self.run(cpp_check(program, [("\n".join(lines), "\n".join(out)) for lines, out in cases[:MAX_CASES]]))
        return passed, "" if passed else "not passed in the sandbox"

    def run(self, check: Check | CompiledCheck) -> bool:
        """Return whether a check is passed."""
        return self.asking is not None and self.asking.run(check)


CODE_EVAL = CodeEval()


@dataclass
class _Asking:
    """A scorer is at work: its checks are only noted, or, when they have been run, answered."""

    runs: ProgramRuns
    noted: dict[str, Check | CompiledCheck] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    answers: bool = False

    def run(self, check: Check | CompiledCheck) -> bool:
        key = digest(str(check.program), check.tests or "", getattr(check, "entry_point", ""))
        self.keys.append(key)
        if not self.answers:
            self.noted[key] = check
            return False
        self.runs.run({key: [check]})
        execution = self.runs[key]
        if execution.verdict == "not_run":
            raise ValueError(f"the tests could not be run: {execution.detail}")
        return execution.passed


class SandboxedScorer:
    """What `CodeTask` has, for a task of lm-eval's: its scorer's programs are found by asking it twice.

    Args:
        task: the task as lm-eval built it.
        level: of the sandbox.
    """

    def __init__(self, task: "Task", level: str) -> None:
        self._score: Callable[[Doc, Responses], dict[str, MetricItem]] = task.process_results
        compiles = any(CPP_NAME in names for names in scorer_namespaces(task))
        self._runs = ProgramRuns(lambda: CompiledSandbox(level) if compiles else Sandbox(level, packages=PACKAGES))

    @property
    def sandbox_level(self) -> str | None:
        """The level that programs ran at; None: none has run."""
        return self._runs.level

    def process_results(self, doc: Doc, results: Responses) -> dict[str, Any]:
        """Score a doc as the task does."""
        with self._asking(answers=True):
            return self._score(doc, results)

    def run_programs(self, answered: Iterable[tuple[Doc, Responses]]) -> None:
        """Run the programs of docs, all at once."""
        noted: dict[str, Check | CompiledCheck] = {}
        for doc, results in answered:
            noted |= self._note(doc, results).noted
        self._runs.run({key: [check] for key, check in noted.items()})

    def executions(self, doc: Doc, results: Responses) -> list[Execution] | None:
        """Return the result of each of a doc's programs; None if the task has not one for each response."""
        n_programs = len(results[0]) if isinstance(results[0], list) else 1
        noted = self._note(doc, results)
        if len(noted.keys) != n_programs:
            return None
        # What runs behind the program, runs in its process
        whole = {key for key, check in noted.noted.items() if str(getattr(check, "entry_point", "")).startswith(_END)}
        done = [self._runs[key] for key in noted.keys]
        return [
            replace(one, separated=False) if key in whole else one for key, one in zip(noted.keys, done, strict=True)
        ]

    def _note(self, doc: Doc, results: Responses) -> _Asking:
        with (
            self._asking(answers=False) as asking,
            contextlib.suppress(Exception),
        ):  # raised again when the doc is scored
            self._score(dict(doc), list(results))
        return asking

    @contextlib.contextmanager
    def _asking(self, *, answers: bool) -> Iterator[_Asking]:
        before, CODE_EVAL.asking = CODE_EVAL.asking, _Asking(self._runs, answers=answers)
        try:
            yield CODE_EVAL.asking
        finally:
            CODE_EVAL.asking = before


@contextlib.contextmanager
def instead_of_code_eval() -> Iterator[None]:
    """While tasks are loaded, `evaluate.load("code_eval")` gives ours: no network, and nothing is run."""
    import evaluate

    original = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return CODE_EVAL if path == "code_eval" else original(path, *args, **kwargs)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = original


def sandboxed(task: "Task", level: str) -> EvalTask:
    """Return a task of `unsafe_code` whose programs are run in our sandbox.

    Raises:
        TaskFileError: it runs programs in another way than those that can be replaced.
    """
    is_routed = False
    for names in scorer_namespaces(task):
        if "check_correctness" in names:
            names["check_correctness"] = CODE_EVAL.run_whole
        if CPP_NAME in names:
            header = names.get("_SPOC_IMPORT_HEADER", "")
            names[CPP_NAME] = lambda program, cases, header=header: CODE_EVAL.run_cpp(header + program, cases)
        is_routed |= any(name in names for name in ("check_correctness", CPP_NAME))
        is_routed |= any(value is CODE_EVAL for value in names.values())
    if not is_routed:
        raise TaskFileError(
            f"Task {task.task_name!r} runs code that the model wrote, but not with HF's `code_eval` or a "
            "`check_correctness` like CRUXEval's. Only these can be run in the sandbox; nothing is run unprotected"
        )
    scorer = SandboxedScorer(task, level)
    return EvalTask(task, programs=scorer, score=scorer.process_results)


def check_of(program: str, tests: str, *, timeout_seconds: float) -> Check:
    """Return the check for a program and the source that code_eval would put behind it.

    A last `check(function)` is left to the sandbox, so that the function can be in another process.
    """
    entry_point, source = "", tests
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError):  # the sandbox reports the error
        return Check(program, entry_point="candidate", tests=tests, timeout_seconds=timeout_seconds)
    match tree.body[-1] if tree.body else None:
        case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[ast.Name(id=name)], keywords=[])):
            if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
                entry_point = name
                source = ast.unparse(ast.Module(tree.body[:-1], type_ignores=[]))
    entry_point = entry_point or called_function(tests)
    if not entry_point:
        return whole_program(f"{program}\n{tests}", timeout_seconds=timeout_seconds)
    return Check(program, entry_point=entry_point, tests=source, timeout_seconds=timeout_seconds)


def whole_program(program: str, *, timeout_seconds: float) -> Check:
    """Return a check that is passed when a program comes to its end: then a function of an unknown name is there."""
    name = f"{_END}{digest(_SECRET, program)[:16]}"
    source = f"{program}\n\ndef {name}():\n    return True\n"
    return Check(source, entry_point=name, tests=f"assert {name}() is True", timeout_seconds=timeout_seconds)


def cpp_check(program: str, cases: Sequence[tuple[str, str]]) -> CompiledCheck:
    """Return a check that compiles a C++ program and compares what it prints, by a shell script in the sandbox.

    As LongProc does it: `g++ -std=c++11 -O`, three seconds (of processor time) a case, output equal to the last byte,
    any exit status.
    """
    # All in braces, so that the shell has read it before anything of the program runs; the file goes first, it has the
    # expected output in it
    script = [
        "{",
        'rm -f -- "$0"',
        f"echo {_base64(program)} | base64 -d > program.cpp",
        "g++ -std=c++11 -O -o program program.cpp || exit 1",
    ]
    for given, expected in cases:
        # Processor time, so that a busy machine fails no right program; 137 and 152 are its end
        script += [
            f"echo {_base64(given + chr(10))} | base64 -d > in",
            f"(ulimit -t {TIMEOUT_SECONDS:.0f}; exec ./program < in > out)",
            f'status=$?; [ "$(base64 -w0 < out)" = {_base64(expected + chr(10))} ] || exit 1',
            "[ $status -ne 137 ] && [ $status -ne 152 ] || exit 1",
        ]
    seconds = COMPILE_SECONDS + TIMEOUT_SECONDS * len(cases)
    return CompiledCheck("\n".join([*script, "exit 0", "}", ""]), "sh", timeout_seconds=seconds)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "replace")).decode()
