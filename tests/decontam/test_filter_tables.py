"""Cleaned parquet files: rows and texts that aren't acted on, and how the file is made, stay as they were."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam import ReferenceIndex, Rule, scan
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import ITEMS

LEAK = ITEMS[0].text


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


def clean(tmp_path, index, table, *, field="text", action="drop", **written):
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, **written)
    results = scan([path], index, output=tmp_path / "found", text_field=field)
    options = FilterOptions(action=action, mask="#")
    return filter_corpus([path], results, output=tmp_path / "clean", options=options), pq.ParquetFile(
        tmp_path / "clean" / "a.parquet"
    )


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_codecs_stay(tmp_path, index, codec):
    _, file = clean(tmp_path, index, pa.table({"text": [LEAK, "x"]}), compression=codec)
    assert file.metadata.row_group(0).column(0).compression == {"none": "UNCOMPRESSED"}.get(codec, codec.upper())


def test_codecs_of_each_column_stay(tmp_path, index):
    table = pa.table({"text": [LEAK, "x"], "s": [{"a": 1, "b": "x"}] * 2})
    codecs = {"text": "zstd", "s.a": "gzip", "s.b": "none"}
    _, file = clean(tmp_path, index, table, compression=codecs)
    group = file.metadata.row_group(0)
    assert [group.column(i).compression for i in range(3)] == ["ZSTD", "GZIP", "UNCOMPRESSED"]


def test_row_groups_stay_whole_and_empty_ones_go(tmp_path, index):
    """A group of more than 2**20 rows was split, and Spark refuses groups without rows."""
    n_rows = (1 << 20) + 5
    table = pa.table({"text": ["x"] * n_rows + [LEAK] * 3})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table.slice(0, n_rows), row_group_size=n_rows)
        writer.write_table(table.slice(n_rows))
        writer.write_table(table.slice(0, 2))
    results = scan([path], index, output=tmp_path / "found")
    summary = filter_corpus([path], results, output=tmp_path / "clean")
    metadata = pq.ParquetFile(tmp_path / "clean" / "a.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [n_rows, 2]
    assert summary.totals["n_documents_kept"] == n_rows + 2
    assert summary.totals["n_documents_dropped"] == 3


def test_a_file_of_which_nothing_is_left_has_its_schema(tmp_path, index):
    table = pa.table({"text": [LEAK], "n": pa.array([1], pa.int8())}).replace_schema_metadata({"who": "me"})
    _, file = clean(tmp_path, index, table)
    assert file.metadata.num_rows == 0
    assert file.schema_arrow.equals(table.schema, check_metadata=True)


def test_old_time_stamps_stay(tmp_path, index):
    table = pa.table({"text": [LEAK, "x"], "at": [datetime(2024, 1, 1, 1, 2, 3, 456789)] * 2})  # noqa: DTZ001
    _, file = clean(tmp_path, index, table, use_deprecated_int96_timestamps=True)
    assert file.metadata.row_group(0).column(1).physical_type == "INT96"
    assert file.read().column("at").to_pylist() == table.column("at").to_pylist()[1:]


@pytest.mark.parametrize("action", ["cut", "mask"])
def test_values_beside_the_text_stay(tmp_path, index, action):
    """Also those that Python can't hold exactly, as in the same object as the text."""
    kind = pa.struct([("body", pa.string()), ("at", pa.timestamp("ns", "UTC")), ("half", pa.float16())])
    at = pa.scalar(1_700_000_000_123_456_789, pa.timestamp("ns", "UTC"))
    parts = [
        pa.array([LEAK, "x", LEAK, None]),
        pa.array([at.value] * 4, kind[1].type),
        pa.array([1.5] * 4, pa.float16()),
    ]
    column = pa.StructArray.from_arrays(parts, fields=list(kind))
    table = pa.table({"meta": column, "when": [datetime(2024, 1, 1, tzinfo=UTC)] * 4})
    _, file = clean(tmp_path, index, table, field="meta.body", action=action)
    mask = "#" if action == "mask" else ""
    bodies = pa.array([mask + "?", "x", mask + "?", None])
    assert (
        file.read()
        .column("meta")
        .combine_chunks()
        .equals(pa.StructArray.from_arrays([bodies, *parts[1:]], fields=list(kind)))
    )
    assert file.read().column("when").equals(table.column("when"))


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())),
        *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_text_columns_of_every_kind(tmp_path, index, kind):
    """Of binary columns no row was read."""
    table = pa.table({"text": pa.array(["é " + LEAK, None, "x", LEAK, "x"]).cast(kind)})
    _, file = clean(tmp_path, index, table, action="mask", row_group_size=4)
    assert file.schema_arrow.equals(pq.read_schema(tmp_path / "a.parquet"))
    found = [one.decode() if isinstance(one, bytes) else one for one in file.read().column("text").to_pylist()]
    assert found == ["é #?", None, "x", "#?", "x"]
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [4, 1]


def test_chats_with_parts(tmp_path, index):
    def message(*texts):
        return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}

    chats = [
        [message("a", None), message(), message(None), message("so", f"{LEAK} b", "c"), message("d")],
        [message("x")],
    ]
    table = pa.table({"messages": chats})
    _, file = clean(tmp_path, index, table, field="messages", action="mask")
    assert file.read().column("messages").to_pylist()[0] == [
        message("a", None),
        message(),
        message(None),
        message("so", "#? b", "c"),
        message("d"),
    ]
    assert file.read().slice(1).equals(table.slice(1))


def test_a_span_over_two_messages(tmp_path, index):
    words = LEAK.split()
    messages = [{"content": " ".join(["1", *words[:8]])}, {"content": " ".join([*words[8:], "2"])}]
    _, file = clean(tmp_path, index, pa.table({"messages": [messages]}), field="messages", action="mask")
    assert [one["content"] for one in file.read().column("messages").to_pylist()[0]] == ["1 #", "? 2"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(len(LEAK) + 5)], ids=str)
@pytest.mark.parametrize("field", ["text", "meta.body"])
def test_invalid_bytes_of_a_binary_column_are_told_and_stay(tmp_path, index, kind, field):
    values = [b"\xff" + LEAK.encode() + b" \xc3\xc3b", b"x" * (len(LEAK) + 5), None]
    column = pa.array(values, kind)
    name = field.split(".")[0]
    table = pa.table({name: column if name == field else pa.StructArray.from_arrays([column], ["body"])})
    pq.write_table(table, tmp_path / "a.parquet")
    results = scan([tmp_path / "a.parquet"], index, output=tmp_path / "found", text_field=field)
    assert results.manifest["problems"] == {"invalid_utf8": 1, "missing_field": 1}
    assert results.matches.document_row.tolist() == [0]
    if pa.types.is_fixed_size_binary(kind):
        return
    _, file = clean(tmp_path, index, table, field=field, action="mask")
    value = file.read().column(name).to_pylist()[0]
    assert (value if name == field else value["body"]) == b"\xff#? \xc3\xc3b"


def test_maps_and_lists_inside_of_messages(tmp_path, index):
    call = pa.struct([("name", pa.string()), ("arguments", pa.map_(pa.string(), pa.string()))])
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call))]))
    messages = [{"role": "x", "content": None, "tool_calls": [{"name": "f", "arguments": [("q", LEAK), ("n", "77")]}]}]
    table = pa.table({"messages": pa.array([messages, None, []], kind)})
    _, file = clean(tmp_path, index, table, field="messages", action="mask")
    (found,) = file.read().column("messages").to_pylist()[0]
    assert found["tool_calls"][0]["arguments"] == [("q", "#?"), ("n", "77")]


def test_texts_in_lists_of_objects(tmp_path, index):
    table = pa.table({"turns": [[{"n": 1, "body": "x"}, {"n": 2, "body": LEAK}], [{"n": 3, "body": "y"}]]})
    _, file = clean(tmp_path, index, table, field="turns.body", action="mask")
    assert [[turn["body"] for turn in row] for row in file.read().column("turns").to_pylist()] == [["x", "#?"], ["y"]]
