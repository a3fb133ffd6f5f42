"""Which compilers and interpreters this machine has, and which of its folders they need to be seen."""

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen2eval.sandbox.compiled.languages import LANGUAGES, Language

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
_ASK_SECONDS = 20.0


class NoToolchainError(Exception):
    """A language can't be run here: why."""


@dataclass(frozen=True)
class Toolchain:
    """What a language's commands are made of.

    Attributes:
        commands: by the first name of each tool, its absolute path.
        folders: outside /usr, that must be seen where they are.
        files: of `Language.files`, those that were found.
    """

    commands: Mapping[str, str]
    folders: tuple[Path, ...]
    files: Mapping[str, str]


@functools.cache
def find_toolchain(name: str) -> Toolchain:
    """Return the toolchain of a language of `LANGUAGES`.

    Raises:
        NoToolchainError: a tool or a file is missing, or lies where its folder can't be shown.
    """
    language = LANGUAGES[name]
    paths = {names[0]: _find_tool(names, language) for names in language.tools}
    folders = [folder for path in paths.values() if (folder := _folder_to_show(path)) is not None]
    files = {label: _find_file(places, language) for label, places in language.files.items()}
    etc = [path for pattern in language.etc for path in sorted(Path("/etc").glob(pattern))]
    commands = {tool: str(path) for tool, path in paths.items()}
    return Toolchain(commands, tuple(dict.fromkeys([*folders, *etc])), files)


def _find_tool(names: tuple[str, ...], language: Language) -> Path:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        wanted = " or ".join(f"`{name}`" for name in names)
        raise NoToolchainError(f"{wanted} is not installed (Debian, Ubuntu: {language.install})")
    real = Path(found).resolve()
    # One program under many names, which asks its settings for the real one
    if real.name == "rustup":
        real = Path(_ask([found, "--print", "sysroot"])) / "bin" / names[0]
    return Path(found) if _is_of_system(Path(found)) and _is_of_system(real) else real


def _find_file(places: tuple[str, ...], language: Language) -> str:
    found = next((place for place in places if Path(place).is_file()), None)
    if found is None:
        raise NoToolchainError(f"{' or '.join(places)} is missing (Debian, Ubuntu: {language.install})")
    return found


def _folder_to_show(path: Path) -> Path | None:
    """Return the folder of an installation outside /usr, None within it.

    Raises:
        NoToolchainError: other things may be in that folder, so programs must not see it.
    """
    if _is_of_system(path):
        return None
    folder = path.parent.parent if path.parent.name == "bin" else path.parent
    home = Path.home().resolve()
    if home.is_relative_to(folder) or folder.parent == home or len(folder.parts) < 3:
        raise NoToolchainError(f"{path}: {folder} may hold private files; install it under /usr/local or /opt")
    return folder


def _is_of_system(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _SYSTEM)


def _ask(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_ASK_SECONDS, cwd=os.sep)
    except (OSError, subprocess.SubprocessError) as err:
        raise NoToolchainError(f"`{' '.join(command)}` does not work: {err}") from err
    return ran.stdout.strip()
