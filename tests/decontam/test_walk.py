"""Which files some names mean, and that nothing of a corpus stays unread in silence."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from decontam import DecontamError
from decontam.walk import base_of, expand
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tmp_path):
    """Return a folder with files of all sorts."""
    names = ("b.jsonl", "a.txt", "x/c.parquet", "x/y/d.json.gz", "x/notes.pdf", ".hidden.jsonl", ".git/e.json")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def found(folder, *names):
    """Return the files, and those of other formats, by their names below the folder."""
    found = expand([str(folder / name) for name in names])
    others = [one.path for one in found.unread if one.kind == "unknown_format"]
    return [[str(Path(path).relative_to(folder)) for path in paths] for paths in (found.files, others)]


def unread(folder, *names):
    """Return what is not read: names below the folder with the kind."""
    found = expand([str(folder / name) for name in names])
    return {str(Path(one.path).relative_to(folder)): one.kind for one in found.unread}


@pytest.mark.parametrize(
    ("names", "files", "ignored"),
    [
        ([""], ["a.txt", "b.jsonl", "x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"]),
        (["b.jsonl", "a.txt"], ["b.jsonl", "a.txt"], []),
        (["x", "x/c.parquet", "./x/../x"], ["x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"]),
        (["*.jsonl"], ["b.jsonl"], []),
        (["*"], ["a.txt", "b.jsonl", "x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"]),
        (["**/*.gz"], ["x/y/d.json.gz"], []),
        (["[ab].*"], ["a.txt", "b.jsonl"], []),
        ([".hidden.jsonl"], [".hidden.jsonl"], []),
    ],
)
def test_names_mean_files(folder, names, files, ignored):
    assert found(folder, *names) == [files, ignored]


def test_names_are_made_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder / "x")
    assert expand(["../b.jsonl", "y"]).files == (str(folder / "b.jsonl"), str(folder / "x/y/d.json.gz"))


@pytest.mark.parametrize("name", ["none.jsonl", "none*.jsonl", "x/notes.pdf", "empty"])
def test_names_that_mean_nothing(folder, name):
    (folder / "empty").mkdir()
    with pytest.raises(DecontamError, match=r"no such file, folder or pattern|unknown kind|no corpus files"):
        expand([str(folder / name)])
    with pytest.raises(DecontamError, match="no corpus files in nothing"):
        expand([])


def test_what_a_filter_tells_is_no_corpus(folder):
    (folder / "summary.md").touch()
    (folder / "summary.json").touch()
    assert "summary.md" in found(folder, "")[0]
    (folder / ".done").mkdir()
    (folder / ".done" / "1.json").touch()
    assert found(folder, "") == [["a.txt", "b.jsonl", "x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"]]


@pytest.mark.parametrize(
    ("name", "base"),
    [("x", "x"), ("b.jsonl", ""), ("*.jsonl", ""), ("x/*/d.json.gz", "x"), ("x/**", "x"), ("none.jsonl", "")],
)
def test_files_keep_their_names_below_a_folder(folder, name, base):
    assert base_of(str(folder / name)) == folder / base


def test_links_are_followed_and_each_real_file_is_read_once(tmp_path):
    """`rglob` follows no links, so a corpus of links was read as an empty one."""
    real = tmp_path / "real"
    for name in ("c/a.jsonl", "real/b.jsonl", "real/deep/c.jsonl", "blobs/4f2a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    corpus = tmp_path / "c"
    (corpus / "0").symlink_to(real)
    (corpus / "1").symlink_to(real / "deep")  # also below 0
    (corpus / "2.jsonl").symlink_to("a.jsonl")
    (corpus / "3.jsonl").symlink_to(tmp_path / "blobs" / "4f2a")  # as the hub's cache does it
    (real / "up").symlink_to(corpus)  # a ring
    expanded = expand([str(corpus)])
    names = {os.path.relpath(path, corpus) for path in expanded.files}
    assert names == {"a.jsonl", "3.jsonl", "0/b.jsonl", "0/deep/c.jsonl"}
    assert sorted(os.path.relpath(path, corpus) for path in expanded.again) == ["0/up", "1", "2.jsonl"]
    assert expanded.unread == ()
    by_pattern = expand([str(corpus / "*")])
    assert set(by_pattern.files) == set(expanded.files)


def test_what_has_its_own_name_is_read_under_it(tmp_path):
    for name in ("c/a", "c/z"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c" / "z" / "x.jsonl").write_text("x")
    (tmp_path / "c" / "a" / "link").symlink_to("../z")
    assert expand([str(tmp_path / "c")]).files == (str(tmp_path / "c/z/x.jsonl"),)


def test_what_may_hold_documents_and_is_not_read_is_told(folder):
    """Links to nothing, pipes and hidden files were passed over in silence."""
    (folder / "gone.jsonl").symlink_to("nowhere")
    (folder / "ring").symlink_to("ring")
    os.mkfifo(folder / "pipe.jsonl")
    for name in ("_SUCCESS", ".DS_Store", ".more/x.jsonl", ".venv/pip.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("" if name == "_SUCCESS" else "x")
    assert unread(folder, "") == {
        "x/notes.pdf": "unknown_format",
        "gone.jsonl": "unreadable",
        "ring": "unreadable",
        "pipe.jsonl": "unreadable",
        ".hidden.jsonl": "hidden",
        ".more": "hidden",
    }
    assert unread(folder, "*.jsonl") == {"gone.jsonl": "unreadable", "pipe.jsonl": "unreadable"}
    assert unread(folder, "b.jsonl", "x/*") == {"x/notes.pdf": "unknown_format"}


LOCKED = """
import os, sys
from decontam import DecontamError
from decontam.walk import expand
os.setuid(65534)
try:
    found = expand(sys.argv[1:])
except DecontamError as err:
    sys.exit(str(err))
print([os.path.basename(path) for path in found.files])
print([(os.path.basename(one.path), one.kind) for one in found.unread])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody whom a folder can be closed to")
@pytest.mark.parametrize("pattern", ["", "**/*.jsonl", "*/*.jsonl", "[kl]*"])
def test_folders_that_cannot_be_listed_are_told(pattern, own_folder):
    for name in ("k/open.jsonl", "locked/a.jsonl"):
        (own_folder / name).parent.mkdir()
        (own_folder / name).write_text("x")
    (own_folder / "locked").chmod(0o700)
    command = [sys.executable, "-c", LOCKED, str(own_folder / pattern)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert told.stdout == "['open.jsonl']\n[('locked', 'unreadable')]\n"


@pytest.mark.skipif(os.getuid() != 0, reason="as above")
@pytest.mark.parametrize("name", ["locked", "locked/a.jsonl", "locked/*.jsonl"])
def test_a_name_behind_a_closed_folder_is_an_error(name, own_folder):
    (own_folder / "locked").mkdir(0o700)
    (own_folder / "locked" / "a.jsonl").write_text("x")
    command = [sys.executable, "-c", LOCKED, str(own_folder / name)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert told.returncode == 1
    assert "locked" in told.stderr
    assert "Permission denied" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.fixture
def own_folder():
    """Return a folder that everybody may list, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_pattern_looks_at_no_other_folders(tmp_path, monkeypatch):
    """What was in the pattern's first folder was listed in full, below "/*/corpus" the whole disk."""
    for name in ("a1/x/d.jsonl", "a2/y/d.jsonl", "b/x/y/z/d.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a1" / "ring").symlink_to("..")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert len(expand([str(tmp_path / "a*" / "x" / "*.jsonl")]).files) == 1
    assert not [path for path in listed if "/b" in path.removeprefix(str(tmp_path))]
    assert len(expand([str(tmp_path / "b" / "**" / "*.jsonl")]).files) == 1


def test_each_name_must_mean_a_file(folder):
    """Beside a name with files, an empty folder was no error."""
    (folder / "empty").mkdir()
    with pytest.raises(DecontamError, match=r"no corpus files in '.*empty'"):
        expand([str(folder / "x"), str(folder / "empty")])
    (folder / "empty" / "a.csv").write_text("x")
    with pytest.raises(DecontamError, match=r"not read: .*a\.csv: not of a kind that is read"):
        expand([str(folder / "empty")])


def test_what_is_written_itself_is_no_corpus(folder):
    assert expand([str(folder)], skip=folder / "x").files == (str(folder / "a.txt"), str(folder / "b.jsonl"))
