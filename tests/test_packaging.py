"""The wheel holds two packages and the content, and works from where it is unpacked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "LICENSE", "README.md", "qwen2eval", "decontam", "tasks", "reports")
CONTENT = ("tasks", "reports/templates")
LOOK_AROUND = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
import qwen2eval.tasks.registry
from qwen2eval.content import content_dir
print(json.dumps({
    "module": qwen2eval.tasks.registry.__file__,
    "tasks": str(content_dir("tasks")),
    "reports": str(content_dir("reports")),
    "top_level": [name for name in ("tasks", "reports", "tests", "runs") if importlib.util.find_spec(name)],
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and, from it, the wheel; from a copy, since setuptools leaves `build/` and an egg-info behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for source in SOURCES:
        if (path := REPOSITORY / source).is_dir():
            shutil.copytree(path, copy / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel's files, as an install would lay them."""
    folder = tmp_path_factory.mktemp("site-packages")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.slow
def test_only_two_names_become_importable(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"qwen2eval", "decontam"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", CONTENT)
def test_content_is_in_the_wheel(unpacked: Path, folder: str) -> None:
    expected = _files(REPOSITORY / folder)
    assert expected, f"{folder}/ holds nothing to ship"
    assert _files(unpacked / "qwen2eval" / "shipped" / folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize("package", ["qwen2eval", "decontam"])
def test_every_file_of_the_packages_is_in_the_wheel(unpacked: Path, package: str) -> None:
    """The package list in pyproject.toml is written by hand: a new subpackage or data file must not be forgotten."""
    assert _files(REPOSITORY / package) - _files(unpacked / package) == set()


@pytest.mark.parametrize("folder", CONTENT)
def test_content_holds_no_python(folder: str) -> None:
    """A folder with an __init__.py would be a package of the wheel, and importable."""
    assert [path for path in (REPOSITORY / folder).rglob("*.py*") if "__pycache__" not in path.parts] == []


@pytest.mark.slow
def test_installed_wheel_finds_its_content(unpacked: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        # -I: neither this folder nor PYTHONPATH; the checkout's editable install comes after sys.path
        [sys.executable, "-I", "-c", LOOK_AROUND, str(unpacked)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "module": str(unpacked / "qwen2eval" / "tasks" / "registry.py"),
        "tasks": str(unpacked / "qwen2eval" / "shipped" / "tasks"),
        "reports": str(unpacked / "qwen2eval" / "shipped" / "reports"),
        "top_level": [],
    }


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
