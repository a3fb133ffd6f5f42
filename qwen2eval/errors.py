"""The exceptions that qwen2eval raises for its users; each carries the exit code of the command line."""

from collections.abc import Sequence


class Qwen2EvalError(Exception):
    """Anything that a user can act on: the message says what, which, and what to do."""

    exit_code = 70


class ConfigError(Qwen2EvalError):
    """A flag, a config file or a folder that can't be used as asked."""

    exit_code = 64


class TaskNotFoundError(Qwen2EvalError):
    """A task or suite name that nobody registered."""

    exit_code = 64


class TaskFileError(Qwen2EvalError):
    """A task's YAML can't be read, or describes a task that can't be built."""

    exit_code = 64


class ModelError(Qwen2EvalError):
    """A model that can't be opened: unknown kind, missing package, missing or broken checkpoint."""

    exit_code = 64


class MissingDataError(Qwen2EvalError):
    """A benchmark's data is in none of the places where it is looked for.

    Args:
        message: as of all errors; names `files` once.
        benchmark: whose data it is; empty: not the data of one benchmark.
        files: what is missing, as the message calls it.
    """

    exit_code = 3

    def __init__(self, message: str, *, benchmark: str = "", files: str = "") -> None:
        super().__init__(message)
        self.benchmark, self.files = benchmark, files


class DataFileError(Qwen2EvalError):
    """A data file that is there but can't be read: which file, which line or column."""

    exit_code = 3


class RunFolderError(Qwen2EvalError):
    """A run folder that is missing, incomplete, of another version, or can't be written."""

    exit_code = 3


class StoreError(Qwen2EvalError):
    """A response store of another version, or one that can't be opened."""

    exit_code = 3


class BackendError(Qwen2EvalError):
    """A backend that can't go on answering at all; what it answered before is kept."""

    exit_code = 70


def few_of(names: Sequence[str], *, most: int = 3) -> str:
    """Return names for a line: the first ones, and how many more there are.

    >>> few_of(["a", "b", "c", "d", "e"]), few_of(["a"])
    ('a, b, c and 2 more', 'a')
    """
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
