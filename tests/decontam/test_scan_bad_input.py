"""What can't be read is told by file and row, and all else is scanned."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from decontam import DecontamError, ReferenceIndex, Rule, scan
from decontam.filter import filter_corpus
from tests.decontam.corpora import ITEMS, as_jsonl

GOOD = as_jsonl([ITEMS[0].text])
OTHER = as_jsonl([ITEMS[1].text])


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


def lone_surrogate():
    return ('{"text": "\\ud83d ' + ITEMS[1].text + '"}\n').encode()


BAD_LINES = {
    "broken": (b'{"text": "a\n', "broken_json"),
    "no object": (b"[1, 2]\n", "missing_field"),
    "no field": (b'{"txt": "a"}\n', "missing_field"),
    "null": (b'{"text": null}\n', "missing_field"),
    "number": (b'{"text": 5}\n', "missing_field"),
    "list of numbers": (b'{"text": [5]}\n', "missing_field"),
    "not UTF-8": (b'{"text": "\xff"}\n', "invalid_utf8"),
    "deep": (b'{"text": ' + b"[" * 100_000 + b"\n", "broken_json"),
    "NUL": (b'{"text": "\x00"}\n', "broken_json"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_told_and_the_rest_scanned(tmp_path, index, name):
    line, kind = BAD_LINES[name]
    (tmp_path / "a.jsonl").write_bytes(GOOD + line + OTHER)
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    assert results.problems[["row", "kind"]].to_numpy().tolist() == [[1, kind]]
    assert results.problems.path.tolist() == [str(tmp_path / "a.jsonl")]
    assert results.matches.document_row.tolist() == [0, 2]
    assert results.manifest["problems"] == {kind: 1}


@pytest.mark.parametrize("name", BAD_LINES)
def test_strict_input_stops_at_it(tmp_path, index, name):
    (tmp_path / "a.jsonl").write_bytes(GOOD + BAD_LINES[name][0] + OTHER)
    with pytest.raises(DecontamError, match=f"a.jsonl, record 1: {BAD_LINES[name][1]}"):
        scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", strict_input=True)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_lines_that_are_unusual_but_right(tmp_path, index):
    mark = b"\xef\xbb\xbf"
    twice = json.dumps({"text": "x"})[:-1].encode() + b', "text": ' + json.dumps(ITEMS[2].text).encode() + b"}\n"
    escaped_key = b'{"te\\u0078t": ' + json.dumps(ITEMS[3].text).encode() + b"}\n"
    (tmp_path / "a.jsonl").write_bytes(mark + GOOD + lone_surrogate() + b"\n  \n" + twice + escaped_key)
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    assert results.manifest["problems"] == {}
    assert results.matches.reference_id.tolist() == [item.id for item in ITEMS[:4]]


def test_invalid_utf8_is_scanned_all_the_same(tmp_path, index):
    line = b'{"text": "\xff ' + ITEMS[4].text.encode() + b'"}\n'
    (tmp_path / "a.jsonl").write_bytes(line)
    (tmp_path / "b.txt").write_bytes(b"\xff " + ITEMS[5].text.encode())
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.manifest["problems"] == {"invalid_utf8": 2}
    assert results.matches.reference_id.tolist() == [ITEMS[4].id, ITEMS[5].id]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_cut_compressed_file(tmp_path, index, suffix):
    pack = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor().compress
    noise = as_jsonl([os.urandom(20_000).hex() for _ in range(30)])
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(pack(GOOD + noise)[:-1_000])
    (tmp_path / "b.jsonl").write_bytes(OTHER)
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.manifest["problems"] == {"truncated": 1}
    assert ITEMS[1].id in results.matches.reference_id.tolist()


def test_compressed_files_that_are_not_what_their_name_says(tmp_path, index):
    for suffix in ("gz", "zst"):
        (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"plain text")
    (tmp_path / "a.parquet").write_bytes(b"plain text")
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.problems.kind.tolist() == ["truncated", "truncated", "unreadable"]


def test_empty_files(tmp_path, index):
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(b""))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.manifest["problems"] == {}
    assert results.manifest["totals"]["n_documents"] == 0
    assert len((tmp_path / "out" / "shards.csv").read_text().splitlines()) == 6


def test_parquet_without_the_column_and_with_nulls(tmp_path, index):
    pq.write_table(pa.table({"body": [ITEMS[0].text]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [None, ITEMS[1].text]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": [5, 6]}), tmp_path / "c.parquet")
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.problems[["row", "kind"]].to_numpy().tolist() == [
        [0, "missing_column"],
        [0, "missing_field"],
        [0, "missing_field"],
        [1, "missing_field"],
    ]
    assert results.matches.document_row.tolist() == [1]
    assert results.manifest["totals"]["n_documents"] == 1


def test_a_line_that_is_too_long(tmp_path, index):
    long = as_jsonl(["word " * 3_000_000])
    (tmp_path / "a.jsonl").write_bytes(GOOD + long + OTHER + long[:-1])
    (tmp_path / "b.txt").write_bytes(long)
    for part_bytes in (1 << 20, 64 << 20):
        out = tmp_path / f"out{part_bytes}"
        results = scan(
            [tmp_path / "a.jsonl", tmp_path / "b.txt"], index, output=out, max_line_mb=1, part_bytes=part_bytes
        )
        assert results.problems.row.tolist() == [1, 3, 0]
        assert set(results.problems.kind) == {"line_too_long"}
        assert results.matches.document_row.tolist() == [0, 2]


def test_files_of_other_kinds_in_a_folder_are_listed(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "model.bin").write_bytes(b"x")
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.manifest["ignored"] == [str(tmp_path / "model.bin")]


def test_an_output_that_cannot_be_written(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(DecontamError, match="out"):
        scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")


def test_a_damaged_row_group_does_not_take_the_others_with_it(tmp_path, index):
    texts = ["x" * 50, ITEMS[0].text, "y" * 50, ITEMS[1].text, "z" * 50, ITEMS[2].text]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=2, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    begin = column.data_page_offset
    data[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(bytes(data))
    for part_bytes in (1, 1 << 20):
        out = tmp_path / str(part_bytes)
        results = scan([path], index, output=out, part_bytes=part_bytes)
        assert results.manifest["problems"] == {"unreadable": 1}
        assert results.matches.document_row.tolist() == [1, 5]


LINE = json.dumps({"text": ITEMS[0].text}).encode()
OTHER_THAN_NAMED = {
    "array.json": (b" [" + LINE + b",\n" + LINE + b"]", "not_json_lines", "a JSON array, not one object a line"),
    "marked.jsonl": (b"\xef\xbb\xbf[\n" + LINE + b"\n]\n", "not_json_lines", "a JSON array"),
    "array.jsonl.gz": (gzip.compress(b"[" + LINE + b"]"), "not_json_lines", "a JSON array"),
    "indented.json": (json.dumps({"text": ITEMS[0].text}, indent=1).encode(), "not_json_lines", "JSON in many lines"),
    "wide.jsonl": ((LINE + b"\n").decode().encode("utf-16"), "unreadable", "UTF-16 or UTF-32"),
    "wide.txt": (ITEMS[0].text.encode("utf-16-le"), "unreadable", "UTF-16 or UTF-32"),
    "wide.txt.zst": (zstandard.compress(ITEMS[0].text.encode("utf-32-be")), "unreadable", "UTF-16 or UTF-32"),
    **{
        f"pointer.{suffix}": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4f\nsize 99\n",
            "unreadable",
            "git lfs pull",
        )
        for suffix in ("txt", "parquet", "jsonl.gz")
    },
    **{f"empty.txt.{suffix}": (b"", "truncated", "an empty file") for suffix in ("gz", "zst", "bz2", "xz")},
}


@pytest.mark.parametrize("name", OTHER_THAN_NAMED)
def test_a_file_that_is_not_what_its_name_says_is_one_problem(tmp_path, index, name):
    """It was one for each line, or none at all."""
    data, kind, detail = OTHER_THAN_NAMED[name]
    corpus = tmp_path / "c"
    corpus.mkdir()
    (corpus / name).write_bytes(data)
    (corpus / "z.jsonl").write_bytes(OTHER)
    for part_bytes in (100, 1 << 20):
        results = scan([corpus], index, output=tmp_path / str(part_bytes), part_bytes=part_bytes)
        assert results.problems[["row", "kind"]].to_numpy().tolist() == [[0, kind]]
        assert detail in results.problems.detail[0]
        assert results.matches.reference_id.tolist() == [ITEMS[1].id]
        with pytest.raises(DecontamError, match=f"{name} could not be read"):
            filter_corpus([corpus / name], results, output=tmp_path / "clean")


@pytest.mark.parametrize("line_end", ["\r", "\u2028", " ", ""])
def test_records_that_are_not_apart_are_told(tmp_path, index, line_end):
    """What the fast search meets behind a record in its line is never passed over."""
    (tmp_path / "a.jsonl").write_text('{"text": "nothing"}' + line_end + LINE.decode() + line_end, encoding="utf-8")
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    assert results.manifest["problems"] == {"broken_json": 1}
    assert results.manifest["totals"]["n_documents"] == 0
