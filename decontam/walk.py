"""Which files some names mean: files, folders with all that is below, patterns; and what of it is not read, and why.

Links are followed, and each real file and folder is read once: under its own name if that is there, too.
"""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple

from decontam.errors import DecontamError
from decontam.files import DATASET_PREFIX, DONE_FOLDER, SUFFIXES, SUMMARIES, kind_of

_OF_TOOLS = frozenset(
    {DONE_FOLDER, ".git", ".hg", ".svn", ".dvc", ".cache", ".venv", ".idea", ".vscode", ".ipynb_checkpoints"}
)
"""Hidden folders that programs make for themselves."""


class Unread(NamedTuple):
    """A file or folder that a name means and that is not read."""

    path: str
    kind: Literal["unreadable", "unknown_format", "hidden"]
    detail: str


class Expanded(NamedTuple):
    """What some names mean."""

    files: tuple[str, ...]
    """Files to read: absolute, each once, in order."""
    unread: tuple[Unread, ...]
    """What is left out, though it may hold documents."""
    again: tuple[str, ...]
    """Links to files that are read under another name."""


def expand(names: Sequence[str], *, skip: str | Path | None = None) -> Expanded:
    """Return the files of some names: files, folders with all that is below, or patterns as of a shell.

    The summaries of a filter and the hidden folders of tools are passed over.

    Args:
        skip: a folder that is no part of the corpus, unless it is named itself: where results are written.

    Raises:
        DecontamError: a name that means nothing, or no file that can be read; one behind a closed folder; a file of
            an unknown kind that was named itself.
    """
    to_skip = set() if skip is None else {os.path.realpath(skip)} - {os.path.realpath(name) for name in names}
    walk = _Walk(dict.fromkeys(to_skip, ""))
    for name in names:
        n_before, n_told = walk.n_met, len(walk.unread)
        try:
            _add_name(walk, name)
            walk.follow_links()
        except OSError as err:
            raise DecontamError(f"{name}: {err.strerror}: {err.filename}") from err
        if walk.n_met == n_before:
            why = "".join(f"; not read: {one.path}: {one.detail}" for one in walk.unread[n_told:][:1])
            raise DecontamError(f"no corpus files in {name!r}: known are {SUFFIXES}{why}")
    if not names:
        raise DecontamError("no corpus files in nothing: give files, folders or patterns")
    # a cache of the hub keeps its files without a suffix, and links to them
    unread = {one.path: one for one in walk.unread if os.path.realpath(one.path) not in walk.files}
    return Expanded(tuple(walk.files.values()), tuple(unread.values()), tuple(dict.fromkeys(walk.again)))


def base_of(name: str) -> Path:
    """Return the folder below which files keep their names when they are copied.

    >>> str(base_of("/corpus/*/part-?.jsonl"))
    '/corpus'
    """
    path = _absolute(name)
    if path.is_dir():
        return path
    if path.exists():
        return path.parent
    parts = list(takewhile(lambda part: not glob.has_magic(part), path.parts))
    return Path(*(parts if len(parts) < len(path.parts) else parts[:-1]))


@dataclass
class _Walk:
    """What was found so far."""

    folders: dict[str, str]
    """By real path: the name of a folder that was listed; "": one to pass over."""
    files: dict[str, str] = field(default_factory=dict)
    """By real path: the name of a file."""
    unread: list[Unread] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """To be followed when all that is really there was found."""
    n_met: int = 0
    """Files that were found, also those that were known."""

    def follow_links(self) -> None:
        """Add what links lead to, also links behind links."""
        while self.links:
            links, self.links = self.links, []
            for path in links:
                self.add(path, os.path.realpath(path))

    def add(self, path: str, real: str) -> None:
        """Add a file, or a folder with all that is below."""
        known = self.files.get(real, self.folders.get(real))
        if known is not None:
            self.n_met += known != ""
            if known not in ("", path):
                self.again.append(path)
        elif os.path.isdir(real):  # noqa: PTH112 - Path takes four times as long
            self._add_folder(path, real)
        elif fault := _fault(path, real):
            self.unread.append(fault)
        elif _is_known(path):
            self.n_met += 1
            self.files[real] = path

    def _add_folder(self, folder: str, real: str) -> None:
        self.folders[real] = folder
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as err:
            self.unread.append(Unread(folder, "unreadable", f"a folder that can't be listed: {err.strerror}"))
            return
        is_filtered = any(entry.name == DONE_FOLDER for entry in entries)
        for entry in entries:
            if entry.name.startswith("."):
                if _may_hold_documents(entry):
                    detail = "hidden: name it itself to have it read, or give a pattern that leaves it out"
                    self.unread.append(Unread(entry.path, "hidden", detail))
            elif not (is_filtered and entry.name in SUMMARIES):
                if entry.is_symlink():
                    self.links.append(entry.path)
                else:
                    self.add(entry.path, f"{real}/{entry.name}")


def _may_hold_documents(hidden: "os.DirEntry[str]") -> bool:
    """Whether what a shell would not list may be meant: neither a tool's folder, nor a file of another kind."""
    try:
        if hidden.is_dir():
            return hidden.name not in _OF_TOOLS and any(Path(hidden.path).iterdir())
        return _is_known(hidden.name) and hidden.stat().st_size > 0
    except OSError:
        return True


def _fault(path: str, real: str) -> Unread | None:
    """Say why a file can't be read; None: it can, or nothing is in it."""
    try:
        info = os.stat(real)  # noqa: PTH116
    except OSError as err:
        what = "a link to what is not there" if isinstance(err, FileNotFoundError) else err.strerror or str(err)
        return Unread(path, "unreadable", what)
    if not stat.S_ISREG(info.st_mode):
        return Unread(path, "unreadable", "neither a file nor a folder: write it to a file first")
    if info.st_size and not _is_known(path):
        detail = "not of a kind that is read: convert it, or give a pattern that leaves it out"
        return Unread(path, "unknown_format", detail)
    return None


def _is_known(path: str) -> bool:
    try:
        kind_of(path)
    except DecontamError:
        return False
    return True


def _add_name(walk: _Walk, name: str) -> None:
    """Add what a name means."""
    if name.startswith(DATASET_PREFIX):
        walk.n_met += 1
        walk.files[name] = name
        return
    path = _absolute(name)
    if os.path.lexists(path):
        if not path.is_dir():
            kind_of(path)  # the user named it, so it is no file to pass over
        walk.add(str(path), os.path.realpath(path))
        return
    hits = sorted(map(str, map(_absolute, glob.glob(name, recursive=True))))  # noqa: PTH207
    base = base_of(name)
    locked = list(_locked_folders(base, path.relative_to(base).parts, set())) if base.is_dir() else []
    if not hits and not locked:
        raise DecontamError(f"{name}: no such file, folder or pattern")
    walk.unread += locked
    for hit in hits:
        if os.path.islink(hit):  # noqa: PTH114
            walk.links.append(hit)
        else:
            walk.add(hit, os.path.realpath(hit))


def _locked_folders(folder: Path, parts: Sequence[str], seen: set[tuple[str, int]]) -> Iterator[Unread]:
    """Yield folders that can't be listed and that may hold what a pattern means: a glob passes over them in silence.

    Args:
        parts: of the pattern, below the folder.
        seen: where it was, with how many parts: links may lead in rings.
    """
    where = os.path.realpath(folder), len(parts)
    if not parts or where in seen:
        return
    seen.add(where)
    try:
        with os.scandir(folder) as found:
            paths = [Path(entry.path) for entry in found if not entry.name.startswith(".")]
        below = [path for path in paths if path.is_dir()]
    except OSError as err:
        yield Unread(str(folder), "unreadable", f"a folder that can't be listed: {err.strerror}")
        return
    if parts[0] == "**":
        yield from _locked_folders(folder, parts[1:], seen)
    for path in below:
        if parts[0] == "**":
            yield from _locked_folders(path, parts, seen)
        elif parts[1:] and fnmatchcase(path.name, parts[0]):
            yield from _locked_folders(path, parts[1:], seen)


def _absolute(name: str) -> Path:
    # links stay as they are: the user knows the corpus by these names
    return Path(os.path.abspath(name))  # noqa: PTH100
