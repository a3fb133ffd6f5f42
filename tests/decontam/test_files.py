"""Corpus files: what a name says, and compressed reading and writing."""

import bz2
import gzip
import lzma
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError
from decontam.files import DAMAGED, create_binary, kind_of, open_binary

PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
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
        ("a.jsonl.BZ2", ("jsonl", "bz2")),
        ("a.json.xz", ("jsonl", "xz")),
        ("a.parquet", ("parquet", "")),
    ],
)
def test_a_name_says_what_a_file_is(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["a", "a.gz", "a.csv", "a.parquet.gz", "a.jsonl.lz4", ".jsonl", ".zst"])
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


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_members_and_frames_are_read_as_one(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    pieces = [b"one\n", b"", b"two\nthr", SOME, b"ee\n"]
    path.write_bytes(b"".join(map(PACKERS[suffix], pieces)))
    with open_binary(path) as file:
        assert file.read() == b"".join(pieces)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
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


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
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


@pytest.mark.parametrize("window_log", [27, 30, 31])
def test_long_windows_of_zstd_are_read(tmp_path, window_log):
    """Files of `zstd --long=31` were told as broken: the library's own limit is 128 MB."""
    path = tmp_path / "a.jsonl.zst"
    options = zstandard.ZstdCompressionParameters(window_log=window_log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(
        compression_params=options
    ).compressobj()  # so the window isn't the content's size
    path.write_bytes(packer.compress(SOME) + packer.flush())
    with open_binary(path) as file:
        assert file.read() == SOME


def test_zeros_between_streams_of_xz_are_no_content(tmp_path):
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(b"one\n") + bytes(4) + lzma.compress(b"two\n") + bytes(8))
    with open_binary(path) as file:
        assert file.read() == b"one\ntwo\n"
