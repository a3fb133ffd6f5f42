"""The process that runs the tests. The program is in another one: a call here is a message there.

The tests come from a data set, so this runs under the same limits; what it says is the verdict.
"""

import builtins
import linecache
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from qwen2eval.sandbox.inside import candidate as far
from qwen2eval.sandbox.inside.codec import STACK_FRAMES, BrokenValueError, UncarriedError, decode, encode
from qwen2eval.sandbox.inside.wire import Channel, ChannelError, Message

MAX_TEXT = 2_000
TESTS_FILE = "<tests>"


class LostError(BaseException):
    """The program's process ended, or broke the channel. No test can catch it by `except Exception`."""


class CandidateLoadError(BaseException):
    """The program could not be loaded."""


class InseparableError(BaseException):
    """An argument that only the tests' own process can have."""


class FarFunction:
    """A function of the program, called over the channel."""

    def __init__(self, channel: Channel, name: str) -> None:
        self.channel = channel
        self.name = name
        self.n_calls = 0
        self.uncarried: set[str] = set()
        # By id, of exceptions that are kept: what the program's own class is called
        self.own_names: dict[int, str] = {}
        self.raised: list[BaseException] = []
        self.lost: BaseException | None = None
        # Tests may have threads; the channel carries one call
        self.one_at_a_time = threading.Lock()

    def load(self) -> None:
        """Wait until the program is loaded."""
        kind, body = self._receive()
        if kind == far.LOAD_ERROR:
            name, text = self._decode(body, 2)
            raise CandidateLoadError(f"{name}: {text}" if text else str(name))
        if kind != far.LOADED:
            raise self._lose("the program wrote to the channel of its results")

    def call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Return what the function returns; lists, dicts and sets that it changed are changed here, too."""
        with self.one_at_a_time:
            return self._call(args, kwargs)

    def _call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        if self.lost:
            raise self.lost
        self.n_calls += 1
        try:
            body = encode((self.n_calls, args, kwargs), exact=True)
        except UncarriedError as err:
            if err.own_type:
                raise InseparableError(f"an argument is {err}") from None
            raise TypeError(f"an argument can't be carried: {err}") from None
        try:
            self.channel.send(b"C", body)
        except ChannelError:
            raise self._lose("") from None
        kind, body = self._receive()
        if kind == far.RESULT:
            return self._decode(body, 2, self.n_calls)[1]
        if kind == far.CHANGED:
            _, new_args, new_kwargs, value = self._decode(body, 4, self.n_calls)
            take_over(args, new_args)
            take_over(kwargs, new_kwargs)
            return value
        if kind == far.RAISED:
            _, name, arguments, text, own_name = self._decode(body, 5, self.n_calls)
            raised = _exception(name, arguments, str(text))
            if own_name != name and type(own_name) is str:
                self.own_names[id(raised)] = own_name
                self.raised.append(raised)
            raise raised
        if kind == far.UNCARRIED:
            raise TypeError(f"the program returned {self._decode(body, 2, self.n_calls)[1]}, which is not carried")
        raise self._lose("the program wrote to the channel of its results")

    def _receive(self) -> tuple[bytes, bytes]:
        try:
            return self.channel.receive()
        except ChannelError as err:
            raise self._lose("" if str(err) == "closed" else str(err)) from None

    def _decode(self, body: bytes, n_parts: int, number: int | None = None) -> tuple[Any, ...]:
        try:
            parts = decode(body, seen_opaque=self.uncarried.add)
        except BrokenValueError as err:
            raise self._lose(f"the program wrote to the channel of its results: {err}") from None
        if type(parts) is not tuple or len(parts) != n_parts or number not in (None, parts[0]):
            raise self._lose("the program wrote to the channel of its results")
        return parts

    def _lose(self, why: str) -> LostError:
        self.lost = LostError(why)
        return self.lost


def judge(channel: Channel, job: Message) -> Message:
    """Run the tests and return verdict and detail, as they go to the host.

    Args:
        job: `tests`, `setup` (source that the tests build upon), `entry_point`, `defines_check` (or else the tests are
            asserts that call the function by its name).
    """
    function = FarFunction(channel, job["entry_point"])

    def candidate(*args: object, **kwargs: object) -> Any:
        return function.call(args, kwargs)

    candidate.__name__ = candidate.__qualname__ = job["entry_point"].rpartition(".")[2]
    try:
        code = compile_tests(job)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        return {"verdict": "not_run", "detail": f"the tests are broken: {type(err).__name__}: {err}"[:MAX_TEXT]}
    return run_tests(function, candidate, code, job)


def compile_tests(job: Message) -> tuple[Any, Any]:
    """Return the compiled setup and tests; lines of the tests are kept for messages."""
    linecache.cache[TESTS_FILE] = (len(job["tests"]), None, job["tests"].splitlines(keepends=True), TESTS_FILE)
    setup = compile(job["setup"], "<setup>", "exec", dont_inherit=True) if job["setup"] else None
    return setup, compile(job["tests"], TESTS_FILE, "exec", dont_inherit=True)


def run_tests(
    function: FarFunction, candidate: Callable[..., object], code: tuple[object, object], job: Message
) -> Message:
    """Return the verdict of compiled tests on a function that is far away."""
    try:
        function.load()
        # Tests may call from any depth of recursion
        sys.setrecursionlimit(sys.getrecursionlimit() + STACK_FRAMES)
        execute_tests(code, candidate, job)
    except CandidateLoadError as err:
        memory = str(err).startswith("MemoryError")
        return {"verdict": "out_of_memory" if memory else "error", "detail": str(err)}
    except LostError as err:
        return {"verdict": "lost", "detail": str(err)}
    except InseparableError as err:
        return {"verdict": "inseparable", "detail": str(err)}
    except BaseException as err:  # noqa: BLE001  # tests may raise anything
        # A bare `except` in the tests went on
        if function.lost:
            return {"verdict": "lost", "detail": str(function.lost)}
        own_name = function.own_names.get(id(err))
        return failure(err, called=function.n_calls > 0, uncarried=function.uncarried, own_name=own_name)
    if function.lost:
        return {"verdict": "lost", "detail": str(function.lost)}
    # `check` may be async, or of a kind that is not found
    if not function.n_calls:
        return {"verdict": "not_run", "detail": "the tests never called the program"}
    return {"verdict": "passed", "detail": ""}


def execute_tests(code: tuple[Any, Any], candidate: Callable[..., Any], job: Message) -> None:
    """Run setup and tests with the candidate under its name; with `check(candidate)` if the tests define it."""
    names: dict[str, Any] = {"__name__": "tests"}
    if code[0] is not None:
        exec(code[0], names)  # noqa: S102  # the tests of the data set
    names[job["entry_point"].rpartition(".")[2]] = candidate
    exec(code[1], names)  # noqa: S102  # as above
    if job["defines_check"]:
        names["check"](candidate)


def failure(err: BaseException, *, called: bool, uncarried: set[str], own_name: str | None = None) -> Message:
    """Return the verdict for tests that raised `err`, an exception of the program's own class `own_name` or another."""
    name = own_name or type(err).__name__
    text = f"{name}: {err}" if str(err) else name
    line = next((f.lineno for f in reversed(traceback.extract_tb(err.__traceback__)) if f.filename == TESTS_FILE), None)
    if line:
        text = f"tests, line {line}: {linecache.getline(TESTS_FILE, line).strip()}: {text}"
    if not called:
        return {"verdict": "not_run", "detail": f"the tests failed before they called the program: {text}"[:MAX_TEXT]}
    if uncarried:
        text += f" (the program returned objects that are not carried: {', '.join(sorted(uncarried))})"
    memory = isinstance(err, MemoryError)
    verdict = "failed" if isinstance(err, AssertionError) else "out_of_memory" if memory else "error"
    return {"verdict": verdict, "detail": text[:MAX_TEXT]}


def take_over(mine: Any, new: Any, done: set[int] | None = None) -> None:
    """Make `mine` what the program made of it, in place, as deep as the two have the same shape.

    >>> row = [1]; grid = [row, 2]
    >>> take_over(grid, [[1, 9], 2, 3]); grid, row
    ([[1, 9], 2, 3], [1, 9])
    """
    done = set() if done is None else done
    if type(mine) is not type(new) or id(mine) in done:
        return
    done.add(id(mine))
    if isinstance(mine, list | tuple):
        merged = [_merged(a, b, done) for a, b in zip(mine, new, strict=False)] + list(new[len(mine) :])
        if isinstance(mine, list):
            mine[:] = merged
    elif isinstance(mine, dict):
        # In the order of the program's dict, as if it had changed the tests' own
        merged_pairs = {key: _merged(mine[key], value, done) if key in mine else value for key, value in new.items()}
        mine.clear()
        mine.update(merged_pairs)
    elif isinstance(mine, set):
        mine.clear()
        mine.update(new)
    elif isinstance(mine, deque):
        mine.clear()
        mine.extend(new)
    elif isinstance(mine, bytearray):
        mine[:] = new


def _merged(mine: object, new: object, done: set[int]) -> Any:
    if type(mine) is type(new) and isinstance(mine, list | tuple | dict | set | deque | bytearray):
        take_over(mine, new, done)
        return mine if not isinstance(mine, tuple) or mine == new else new
    return new


def _exception(name: object, args: object, text: str) -> BaseException:
    """Return an exception of the built-in class that the program named, with its arguments if they give its text."""
    # The name comes from the program: only a class of `builtins` that is an exception is made
    kind = getattr(builtins, name, None) if type(name) is str else None
    if not (isinstance(kind, type) and issubclass(kind, BaseException)) or issubclass(kind, BaseExceptionGroup):
        kind = RuntimeError
    for arguments in (args if type(args) is tuple else (), (text,) if text else ()):
        try:
            err = kind(*arguments)
        except (TypeError, ValueError, OverflowError):  # UnicodeDecodeError wants five arguments
            continue
        if str(err) == text:
            return err
    return ValueError(text) if issubclass(kind, ValueError) else RuntimeError(text)
