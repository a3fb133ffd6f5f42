"""The exceptions that qwen2eval raises for its users; each carries the exit code of the command line."""

from collections.abc import Sequence

from qwen2eval.exit_codes import ExitCode

TASK_ERRORS = (Exception, SystemExit)
"""What a task's own code may raise: `sys.exit` in it ends the task, not the run. Ctrl-C ends the run."""


class Qwen2EvalError(Exception):
    """Anything that a user can act on: the message says what, which, and what to do."""

    exit_code: ExitCode = ExitCode.INCOMPLETE


class ConfigError(Qwen2EvalError):
    """A flag, a setting, a config file or a folder that can't be used."""

    exit_code = ExitCode.USAGE


class TaskNotFoundError(Qwen2EvalError):
    """A task or suite name that is not registered."""

    exit_code = ExitCode.USAGE


class TaskFileError(Qwen2EvalError):
    """A task's YAML can't be read, or describes a task that can't be built."""

    exit_code = ExitCode.USAGE


class ModelError(Qwen2EvalError):
    """A model that can't be opened: unknown kind, missing package, missing or broken checkpoint."""

    exit_code = ExitCode.USAGE


class MissingDataError(Qwen2EvalError):
    """A benchmark's data is in none of the places that are searched for it.

    Args:
        message: what is missing and how to get it; it contains `files` once.
        benchmark: the benchmark that needs the data; empty: not the data of one benchmark.
        files: the missing files, in the words of the message.
    """

    exit_code = ExitCode.MISSING_DATA

    def __init__(self, message: str, *, benchmark: str = "", files: str = "") -> None:
        super().__init__(message)
        self.benchmark, self.files = benchmark, files


class DataFileError(Qwen2EvalError):
    """A data file that exists but can't be read; the message names the file and the line or column."""

    exit_code = ExitCode.MISSING_DATA


class RunFolderError(Qwen2EvalError):
    """A run folder that is missing, incomplete, written by another version, or not writable."""

    exit_code = ExitCode.MISSING_DATA


class StoreError(Qwen2EvalError):
    """A response store that can't be opened, or was written by another version."""

    exit_code = ExitCode.MISSING_DATA


class BackendError(Qwen2EvalError):
    """A backend that can't answer any further request; its earlier answers are kept."""

    exit_code = ExitCode.INCOMPLETE


def summarize_names(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names and the number of the remaining ones, for a message of one line.

    >>> summarize_names(["a", "b", "c", "d", "e"]), summarize_names(["a"])
    ('a, b, c and 2 more', 'a')
    """
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def in_one_line(err: BaseException, *, most: int = 300) -> str:
    r"""Return what a library or a task's own code raised, for a message of one line.

    >>> in_one_line(RuntimeError("CUDA error:\n  out of luck")), in_one_line(AssertionError())
    ('RuntimeError: CUDA error: out of luck', 'AssertionError')
    """
    return " ".join(f"{type(err).__name__}: {err}".split()).removesuffix(":")[:most]
