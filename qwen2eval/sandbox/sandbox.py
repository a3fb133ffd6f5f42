"""The sandbox that users open: workers of one level, a core each, and checks run on them."""

import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox.execution import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_SECONDS, Check, Comparison, Execution
from qwen2eval.sandbox.levels import SandboxError
from qwen2eval.sandbox.probe import choose_level
from qwen2eval.sandbox.separation import examine_tests
from qwen2eval.sandbox.supervise import Outcome, run_check
from qwen2eval.sandbox.verdict import InseparableError, as_bytes
from qwen2eval.sandbox.worker import Worker, WorkerLostError

MAX_CHECKS_A_WORKER = 1_000
MAX_TESTS_BYTES = 15 << 20  # what fits in one value of the codec
MAX_LOST_WORKERS = 2  # of one check: after that it has crashed
MAX_WORKER_GROWTH_BYTES = 64 << 20


class Sandbox:
    """Runs programs that nobody trusts. Use it in a `with`, or `close` it; it may be shared between threads.

    >>> with Sandbox() as sandbox:
    ...     execution = sandbox.check(
    ...         "def add(a, b): return a + b", entry_point="add", tests="assert add(1, 2) == 3"
    ...     )
    >>> execution.verdict
    'passed'

    Args:
        level: `auto` takes the strongest level that a real program proves to work here; see `levels.py`.
        workers: checks at a time; one a core by default, and no more are of use.
        packages: what programs and tests may import besides the standard library, such as `numpy`. They can read all of
            it, also data that is installed with it.

    Raises:
        SandboxError: no level works, or not this one: what was tried, the kernel's words, what helps.
        ConfigError: there is no such level.
    """

    def __init__(self, level: str = "auto", *, workers: int | None = None, packages: Sequence[str] = ()) -> None:
        self.level = choose_level(level)
        self.packages = tuple(packages)
        cores = len(os.sched_getaffinity(0))
        self.n_workers = cores if workers is None else workers
        if self.n_workers < 1:
            raise ConfigError(f"workers {workers!r}: give 1 or more")
        # The last one used is warm
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self.n_workers):
            # A worker is started when it is first needed
            self._idle.put(None)
        self._busy: set[Worker] = set()
        self._alone = threading.Lock()
        self._closed = False
        self._finalizer = weakref.finalize(self, _close_workers, self._idle, os.getpid())

    def check(
        self,
        program: str | bytes,
        *,
        entry_point: str | None = None,
        tests: str | None = None,
        setup: str = "",
        stdin: str | bytes | None = None,
        expected_stdout: str | bytes | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        memory_mb: int = DEFAULT_MEMORY_MB,
        compare: Comparison = "text",
    ) -> Execution:
        """Run one program and return the result; the arguments are those of `Check`.

        Raises:
            ConfigError: arguments that make no check.
        """
        one = Check(
            program,
            entry_point,
            tests,
            setup,
            stdin,
            expected_stdout,
            timeout_seconds=timeout_seconds,
            memory_mb=memory_mb,
            compare=compare,
        )
        return self.check_many([one])[0]

    def check_many(
        self,
        checks: Iterable[Check | Mapping[str, object]],
        *,
        on_done: Callable[[int, Execution], None] | None = None,
    ) -> list[Execution]:
        """Run checks on all cores and return the result of each, in the order given.

        Args:
            checks: `Check`s, or mappings with the arguments of `check`.
            on_done: called with index and execution of each as it is finished, from any thread.

        Raises:
            ConfigError: a mapping that makes no check.
        """
        if self._closed:
            raise SandboxError("this sandbox is closed")
        asked = [one if isinstance(one, Check) else _check_of(one) for one in checks]
        done: list[Execution | None] = [None] * len(asked)
        again: list[int] = []

        def run(index: int) -> None:
            outcome = self._run(asked[index])
            done[index] = outcome.execution
            if outcome.is_borderline:
                again.append(index)
            elif on_done:
                on_done(index, outcome.execution)

        if len(asked) == 1:
            run(0)
        else:
            threads = ThreadPoolExecutor(min(self.n_workers, len(asked) or 1))
            try:
                list(threads.map(run, range(len(asked))))
            finally:
                # After an error or Ctrl-C the rest is not waited for
                threads.shutdown(cancel_futures=True)
        for index in sorted(again):
            execution = done[index] = self._run_alone(asked[index])
            if on_done:
                on_done(index, execution)
        return [one for one in done if one is not None]

    def _run_alone(self, check: Check) -> Execution:
        """Repeat a check whose time was close to its limit, with no other check of ours beside it."""
        with self._alone:
            # Holding all other workers keeps every core but one free of our own checks
            others = [self._idle.get() for _ in range(self.n_workers - 1)]
            try:
                execution = self._run(check).execution
            finally:
                for worker in others:
                    self._idle.put(worker)
        if execution.verdict == "passed" and execution.seconds > check.timeout_seconds:
            late = f"it ran {execution.seconds:.2f} s of {check.timeout_seconds:g} s"
            execution = replace(execution, verdict="timed_out", detail=late)
        return replace(execution, retried=True)

    def _run(self, check: Check) -> Outcome:
        """Run a check, a second time on a new worker if the first one was lost."""
        if (n_bytes := len(as_bytes((check.tests or "") + check.setup))) > MAX_TESTS_BYTES:
            said = f"tests of {n_bytes >> 20} MB: at most {MAX_TESTS_BYTES >> 20} MB are run"
            return Outcome(Execution("not_run", said, "", "", 0.0, 0.0, self.level))
        why = examine_tests(check).why_together if check.tests is not None else None
        lost: list[str] = []
        while len(lost) < MAX_LOST_WORKERS:
            try:
                with self._worker() as worker:
                    outcome = run_check(worker, check, together=why)
                return replace(outcome, execution=replace(outcome.execution, retried=bool(lost)))
            except InseparableError as err:
                why = str(err)
            except WorkerLostError as err:
                lost.append(str(err))
        return Outcome(_lost_execution(self.level, lost[-1], check))

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Worker]:
        """Lend a worker; one that was lost, or has done enough, is ended."""
        worker = self._idle.get()
        try:
            if self._closed:
                raise SandboxError("this sandbox is closed")
            if worker is None:
                worker = Worker(self.level, self.packages)
            self._busy.add(worker)
            # `close` may have looked before
            if self._closed:
                raise SandboxError("this sandbox is closed")
            yield worker
        except InseparableError:
            raise
        except BaseException:
            if worker is not None:
                self._busy.discard(worker)
                worker.close()
            worker = None
            raise
        finally:
            if worker is not None:
                self._busy.discard(worker)
            if worker is not None and (self._closed or _has_done_enough(worker)):
                worker.close()
                worker = None
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers. Checks that run or wait in other threads end with `SandboxError`."""
        self._closed = True
        for worker in list(self._busy):
            worker.interrupt()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_of(arguments: Mapping[str, Any]) -> Check:
    try:
        return Check(**arguments)
    except TypeError as err:
        raise ConfigError(f"a check is made of other arguments: {err}") from err


def _has_done_enough(worker: Worker) -> bool:
    if worker.n_checks >= MAX_CHECKS_A_WORKER:
        return True
    return (
        worker.n_checks % 100 == 99 and worker.memory_pages(1) > worker.start_resident_bytes + MAX_WORKER_GROWTH_BYTES
    )


def _lost_execution(level: str, why: str, check: Check) -> Execution:
    """A program that ends its worker each time has crashed: it may not become one that was not run."""
    detail = f"the sandbox's worker was lost each time: {why}"
    separated = None if check.tests is None else False
    return Execution("crashed", detail, "", "", 0.0, 0.0, level, separated, retried=True)


def _close_workers(idle: "queue.LifoQueue[Worker | None]", owner: int) -> None:
    # A fork of ours: the workers are not its own
    if os.getpid() != owner:
        return
    n_taken = 0
    with contextlib.suppress(queue.Empty):
        while True:
            worker = idle.get_nowait()
            n_taken += 1
            if worker is not None:
                worker.close()
    for _ in range(n_taken):
        # Wakes whoever waits for a worker: there are none left
        idle.put(None)
