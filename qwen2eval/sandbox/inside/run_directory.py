"""The only directories that a program can write: how much is in one, and emptying it, however it was left."""

import os
import stat
from typing import NamedTuple

from qwen2eval.sandbox.inside.limits import MAX_FILES, MAX_TOTAL_BYTES


class Usage(NamedTuple):
    """What lies in a directory and below; counting stops at the first limit that is passed."""

    n_files: int
    n_bytes: int

    @property
    def is_too_much(self) -> bool:
        return self.n_files > MAX_FILES or self.n_bytes > MAX_TOTAL_BYTES


def measure_directory(path: str) -> Usage:
    """Return what is in `path`, directories counted as files; what can't be looked into counts as too much."""
    n_files = n_bytes = 0
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    n_files += 1
                    n_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if n_files > MAX_FILES or n_bytes > MAX_TOTAL_BYTES:
                        return Usage(n_files, n_bytes)
        except FileNotFoundError:
            continue
        except OSError:  # deeper than paths may be
            return Usage(MAX_FILES + 1, n_bytes)
    return Usage(n_files, n_bytes)


def empty_directory(path: str) -> None:
    """Remove all that is in `path`, at any depth: step by step into it, since a path could be longer than allowed.

    Nothing may write there meanwhile.
    """
    os.chdir(path)
    # From `path` to where we are
    names: list[str] = []
    try:
        while True:
            inner = _remove_files()
            if inner is not None:
                # Relative, in the current directory
                os.chmod(inner, 0o700)
                os.chdir(inner)
                names.append(inner)
            elif names:
                os.chdir("..")
                # As above
                os.rmdir(names.pop())
            else:
                return
    finally:
        os.chdir("/")


def _remove_files() -> str | None:
    """Remove files and empty directories of the current directory; return the name of one that is not empty."""
    # As above
    for name in os.listdir():
        if not stat.S_ISDIR(os.lstat(name).st_mode):
            os.unlink(name)
        else:
            try:
                os.rmdir(name)
            except OSError:
                return name
    return None
