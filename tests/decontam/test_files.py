"""Corpus files: what a name says, compressed reading and writing, and which files some names mean."""

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError
from decontam.files import DAMAGED, base_of, create_binary, expand, kind_of, open_binary

PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
SOME = random.Random(0).randbytes(200_000) + bytes(300_000)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", ("jsonl", "")),
        ("a.b.JSON.GZ", ("jsonl", "gz")),
        ("dir.parquet/a.ndjson.zst", ("jsonl", "zst")),
        ("a.txt", ("text", "")),
        ("a.md.gz", ("text", "gz")),
        ("a.text.zst", ("text", "zst")),
        ("a.parquet", ("parquet", "")),
    ],
)
def test_a_name_says_what_a_file_is(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["a", "a.gz", "a.csv", "a.parquet.gz", "a.jsonl.bz2", ".jsonl", ".zst"])
def test_other_names_are_refused(name):
    with pytest.raises(DecontamError, match=r"unknown kind of file; known are \.jsonl"):
        kind_of(name)


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_was_written_is_read(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    with create_binary(path) as out:
        out.write(SOME[:1000])
        out.write(SOME[1000:])
    with open_binary(path) as file:
        assert file.read() == SOME
    assert [left.name for left in tmp_path.iterdir()] == [path.name]
    before = path.read_bytes()
    assert (suffix == "") == (before == SOME)
    if suffix == ".gz":
        assert before[3:8] == bytes(5)  # neither name nor time is in it, so equal contents are equal files


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_that_fails_is_not_there(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b"before")

    def fail(out):
        out.write(SOME)
        raise RuntimeError

    with pytest.raises(RuntimeError), create_binary(path) as out:
        fail(out)
    assert path.read_bytes() == b"before"
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_members_and_frames_are_read_as_one(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    pieces = [b"one\n", b"", b"two\nthr", SOME, b"ee\n"]
    path.write_bytes(b"".join(map(PACKERS[suffix], pieces)))
    with open_binary(path) as file:
        assert file.read() == b"".join(pieces)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@settings(max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), n_frames=st.integers(1, 3))
def test_a_file_that_is_cut_never_reads_as_whole(tmp_path_factory, suffix, at, n_frames):
    frame = PACKERS[suffix](SOME)
    packed = frame * n_frames
    cut = int(len(packed) * at)
    path = tmp_path_factory.mktemp("cut") / f"a.jsonl{suffix}"
    path.write_bytes(packed[:cut])
    with open_binary(path) as file:
        if cut % len(frame) == 0:
            assert file.read() == SOME * (cut // len(frame))
        else:
            with pytest.raises(DAMAGED):
                file.read()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_is_no_compressed_file(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b'{"text": "plain"}\n')
    with open_binary(path) as file, pytest.raises(DAMAGED):
        file.read()


def test_a_small_file_that_becomes_huge_is_read_in_little_memory(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(bytes(400_000_000)))
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    try:
        with open_binary(path) as file:
            assert sum(len(piece) for piece in iter(lambda: file.read(1 << 20), b"")) == 400_000_000
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture
def folder(tmp_path):
    """Return a folder with files of all sorts."""
    names = ("b.jsonl", "a.txt", "x/c.parquet", "x/y/d.json.gz", "x/notes.pdf", ".hidden.jsonl", ".git/e.json")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(folder, *names):
    files, ignored = expand([str(folder / name) for name in names])
    return [[str(Path(path).relative_to(folder)) for path in paths] for paths in (files, ignored)]


@pytest.mark.parametrize(
    ("names", "files", "ignored"),
    [
        ([""], ["a.txt", "b.jsonl", "x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"]),
        (["b.jsonl", "a.txt"], ["b.jsonl", "a.txt"], []),
        (["x", "x/c.parquet", "./x/../x"], ["x/c.parquet", "x/y/d.json.gz"], ["x/notes.pdf"] * 2),
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
