"""Lines, rows and problems are the same wherever parts and chunks end, and whatever was told before."""

import gzip
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError, ReferenceIndex, Rule, records, results, scan
from decontam.corpus import chunks, list_parts
from decontam.part_result import read_part_result
from decontam.records import Problem, ReadOptions
from decontam.scan import scan_part
from tests.decontam.corpora import ITEMS, as_jsonl

MAX_LINE_BYTES = 20
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
GOOD = as_jsonl([ITEMS[0].text])
OTHER = as_jsonl([ITEMS[1].text])


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


def read_all(path, part_bytes, index):
    """Return the lines (too long ones are empty), and the rows of those that are too long."""
    options, lines, too_long, first_row = ReadOptions(max_line_bytes=MAX_LINE_BYTES), [], [], 0
    for part in list_parts([str(path)], part_bytes=part_bytes):
        problems = []
        for chunk in chunks(part, options, problems):
            lines += [
                (first_row + chunk.first_row + i, chunk.buffer[begin:end].tobytes())
                for i, (begin, end) in enumerate(zip(chunk.begins, chunk.ends, strict=True))
            ]
        too_long += [first_row + problem.row for problem in problems]
        first_row += scan_part(part, index=index, options=options).n_rows
    return [line for line in lines if line[1]], sorted(too_long), first_row


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), max_size=25),
    has_end=st.booleans(),
    part_bytes=st.integers(1, 200),
    chunk_bytes=st.integers(1, 80),
    suffix=st.sampled_from(list(PACK)),
)
def test_rows_are_kept_across_lines_that_are_too_long(
    tmp_path_factory, index, lengths, has_end, part_bytes, chunk_bytes, suffix
):
    data = b"\n".join(b"x" * length for length in lengths) + b"\n" * has_end
    path = tmp_path_factory.mktemp("lines") / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](data))
    wanted = data.split(b"\n")
    wanted = wanted[:-1] if wanted[-1] == b"" else wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK_BYTES", chunk_bytes)
        lines, too_long, n_rows = read_all(path, part_bytes, index)
    assert lines == [(row, line) for row, line in enumerate(wanted) if 0 < len(line) <= MAX_LINE_BYTES]
    assert too_long == [row for row, line in enumerate(wanted) if len(line) > MAX_LINE_BYTES]
    assert n_rows == len(wanted)


def test_a_huge_line_is_not_read_by_every_part(tmp_path):
    """A line over many parts was read to its end by each of them."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 4_000_000 + b"\n")
    part = list_parts([str(path)], part_bytes=100_000)[1]
    with path.open("rb") as stream:
        assert list(records.line_chunks(stream, part, ReadOptions(), [])) == []
        assert stream.tell() < 400_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_comes_before_a_cut_is_scanned(tmp_path, index, suffix):
    """All that was read together with the cut used to be lost."""
    noise = as_jsonl([os.urandom(20_000).hex() for _ in range(30)])
    (tmp_path / f"a.jsonl{suffix}").write_bytes(PACK[suffix](GOOD + noise)[:-1_000])
    (tmp_path / f"b.txt{suffix}").write_bytes(PACK[suffix](ITEMS[1].text.encode() + noise)[:-1_000])
    told = scan([tmp_path], index, output=tmp_path / "out")
    assert told.matches.reference_id.tolist() == [ITEMS[0].id, ITEMS[1].id]
    assert told.manifest["problems"] == {"truncated": 2}
    assert told.problems.row[0] > 25


def test_problems_are_told_in_order_whatever_the_parts(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"broken\n" + b"x" * 1_500_000 + b"\nbroken\n")
    pq.write_table(pa.table({"body": ["a"] * 100}), tmp_path / "b.parquet", row_group_size=10)
    found = []
    for part_bytes in (200_000, 10_000_000):
        out = tmp_path / str(part_bytes)
        files = [tmp_path / "a.jsonl", tmp_path / "b.parquet"]
        told = scan(files, index, output=out, part_bytes=part_bytes, max_line_mb=1)
        assert told.problems.row.tolist() == [1, 2, 3, 0]
        found.append([(out / name).read_bytes() for name in ("problems.parquet", "shards.csv")])
    assert found[0] == found[1]


@pytest.mark.parametrize("field", ["text", "meta.body", "messages"])
def test_half_a_surrogate_pair_separates_words(tmp_path, index, field):
    words = "\\ud83d".join(ITEMS[1].text.split())
    value = {"text": '"%s"', "meta.body": '{"body": "%s"}', "messages": '[{"content": "%s"}]'}[field] % words
    (tmp_path / "a.jsonl").write_text(f'{{"{field.split(".")[0]}": {value}}}\n')
    told = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", text_field=field)
    assert told.matches.reference_id.tolist() == [ITEMS[1].id]
    assert told.manifest["problems"] == {}


def test_strict_input_looks_at_parts_that_are_done(tmp_path, index):
    """A finished scan that had counted bad records satisfied a strict one."""
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"broken\n")
    scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    with pytest.raises(DecontamError, match="record 1: broken_json"):
        scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", strict_input=True)


def test_parts_that_could_not_be_read_are_tried_again(tmp_path, index):
    """Rights that are given later change neither size nor time of a file."""
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(OTHER)
    whole = scan([tmp_path], index, output=tmp_path / "out", part_bytes=200).matches
    unreadable, cut = sorted((tmp_path / "out" / "parts").iterdir())
    cut.write_bytes(b"")  # as after a power cut
    result = read_part_result(unreadable, n_items=len(index.references), n_ngrams=index.n_ngrams)
    result.tables, result.problems = [], [Problem("unreadable", 0, "Permission denied")]
    result.write(unreadable)
    again = scan([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], index, output=tmp_path / "out", part_bytes=200)
    assert again.matches.equals(whole)
    assert again.manifest["problems"] == {}


def test_a_name_that_is_not_utf8(tmp_path, index):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(GOOD)
    with pytest.raises(DecontamError, match="UTF-8: rename"):
        scan([path], index, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


FULL_DISK = """
import resource, sys
from decontam import DecontamError, ReferenceIndex, Rule, scan
from tests.decontam.corpora import ITEMS
index = ReferenceIndex.build(ITEMS, Rule())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    scan([sys.argv[1]], index, output=sys.argv[2])
except DecontamError as err:
    print(err)
"""


@pytest.mark.parametrize("n_bytes", [0, 1_000, 9_000])
def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path, index, n_bytes):
    """Writes fail after so many bytes of a file, and the same scan goes on when there is space."""
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"{i} {item.text}" for i in range(20) for item in ITEMS]))
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.jsonl"), str(tmp_path / "out"), str(n_bytes)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "what was finished is kept; scan again" in told.stdout, told.stderr
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in left if name.startswith(".") or name == "manifest.json"]
    again = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    assert again.matches.equals(scan([tmp_path / "a.jsonl"], index, output=tmp_path / "fresh").matches)


def test_tables_do_not_show_where_parts_end_nor_in_which_order_files_were_named(tmp_path, index):
    files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for file in files:
        file.write_bytes(as_jsonl([f"{i} {ITEMS[i % 3].text} {ITEMS[5].text}" for i in range(40)]) + b"broken\n" * 10)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_GROUP_ROWS", 7)
        for order, part_bytes in ((files, 300), (files[::-1], 10_000_000)):
            out = tmp_path / str(part_bytes)
            assert len(scan(order, index, output=out, part_bytes=part_bytes).matches) == 160
            names = ("matches.parquet", "problems.parquet", "shards.csv", "counts.json")
            found.append([(out / name).read_bytes() for name in names])
    assert found[0] == found[1]
    assert pq.ParquetFile(out / "matches.parquet").num_row_groups == 23


def test_min_df_is_that_of_the_rarest_ngram(tmp_path, index):
    words = ITEMS[1].text.split()
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[1].text, *[" ".join(words[:16])] * 4]))
    assert scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out").matches.min_df.tolist() == [1, 5, 5, 5, 5]
