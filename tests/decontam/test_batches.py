"""The adapters' common part says of each row what the index says of its text."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError, Reference, ReferenceIndex, Rule
from decontam.batches import BatchOptions, find_in_column, mark_or_drop, open_index
from tests.decontam.corpora import ITEMS, make_documents
from tests.decontam.texts import hard_texts, word_runs

TEXTS = make_documents(60)
KINDS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


def find(index, values, *, column="text", **options):
    return find_in_column(index, values, column, BatchOptions(**options))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_text_column(index, kind):
    found = find(index, pa.array(TEXTS, pa.string()).cast(kind))
    assert found == [index.find_matches(text) for text in TEXTS]
    assert 5 < sum(map(bool, found)) < 50


@settings(max_examples=60)
@given(st.lists(st.one_of(st.none(), word_runs, hard_texts), max_size=12), st.integers(0, 3), st.data())
def test_hard_texts_nulls_and_slices(texts, skipped, data):
    items = [Reference("0", data.draw(word_runs), "", "a"), Reference("1", data.draw(word_runs), "", "a")]
    index = ReferenceIndex.build(items, Rule(ngram_size=3, min_lcs=3, min_lcs_ratio=0.1))
    expected = [index.find_matches(text) if text is not None else [] for text in texts]
    pieces = pa.chunked_array([pa.array(texts, pa.string()).slice(skipped), pa.array(texts, pa.string())])
    assert find(index, pieces) == expected[skipped:] + expected


def test_text_under_a_null_is_not_looked_at(index):
    text = ITEMS[0].text.encode()
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, len(text), 2 * len(text))))
    values = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(text * 2), pa.py_buffer(b"\x02"), 1)
    assert [bool(matches) for matches in find(index, values)] == [False, True]


@pytest.mark.parametrize("rule", ["strict", "qwen2", None])
def test_the_rule_may_be_weaker_than_that_of_the_index(rule):
    index = ReferenceIndex.build(ITEMS, Rule(ngram_size=4, min_lcs_ratio=0.9))
    part = " ".join(ITEMS[0].text.split()[:8])
    held = [match.rule for match in find(index, pa.array([part]), rule=rule)[0]]
    assert held == (["strict"] if rule == "strict" else [])


def test_an_index_without_subsequences_can_not_tell_qwen2():
    index = ReferenceIndex.build(ITEMS, Rule.strict())
    assert find(index, pa.array(TEXTS)) == [index.find_matches(text) for text in TEXTS]
    with pytest.raises(DecontamError, match="built with Rule"):
        find(index, pa.array(TEXTS), rule="qwen2")


def test_structs_and_chat(index):
    rows = [{"body": {"text": text}} for text in TEXTS] + [{"body": None}, None]
    expected = [*map(index.find_matches, TEXTS), [], []]
    assert find(index, pa.array(rows), column="meta", text_field="meta.body.text") == expected
    chats = [[{"role": "user", "content": text}] for text in TEXTS] + [None]
    assert find(index, pa.array(chats), column="chat", text_field="chat") == expected[:-1]


@pytest.mark.parametrize("values", [[1, 2], [{"text": "a"}]], ids=["numbers", "struct"])
def test_a_column_without_text_is_no_clean_one(index, values):
    with pytest.raises(DecontamError, match="give the text_field"):
        find(index, pa.array(values))


@pytest.mark.parametrize("kind", [pa.Table, pa.RecordBatch], ids=["table", "batch"])
def test_mark_and_drop(index, kind):
    table = kind.from_pydict({"id": list(range(len(TEXTS))), "text": TEXTS})
    expected = [index.find_matches(text) for text in TEXTS]
    marked = mark_or_drop(index, table, BatchOptions())
    assert type(marked) is kind
    assert marked.column("contaminated").to_pylist() == [bool(matches) for matches in expected]
    for row, matches in zip(marked.column("contamination").to_pylist(), expected, strict=True):
        assert [found["reference_id"] for found in row] == [match.reference_id for match in matches]
        for found, match in zip(row, matches, strict=True):
            assert [(span["begin"], span["end"]) for span in found["spans"]] == list(match.spans)
            assert all(found[name] == getattr(match, name) for name in found if name != "spans")
    dropped = mark_or_drop(index, table, BatchOptions(action="drop"))
    assert dropped.schema == table.schema
    assert dropped.column("text").to_pylist() == [t for t, m in zip(TEXTS, expected, strict=True) if not m]


def test_an_empty_batch(index):
    empty, full = (pa.table({"text": pa.array(texts, pa.string())}) for texts in ([], TEXTS))
    marked = mark_or_drop(index, empty, BatchOptions())
    assert marked.num_rows == 0
    assert marked.schema == mark_or_drop(index, full, BatchOptions()).schema


@pytest.mark.parametrize(
    ("columns", "told"),
    [({"body": ["a"]}, "no column 'text'; there are 'body'"), ({"text": ["a"], "contaminated": [1]}, "already")],
)
def test_columns_that_do_not_fit(index, columns, told):
    with pytest.raises(DecontamError, match=told):
        mark_or_drop(index, pa.table(columns), BatchOptions())


def test_an_index_from_a_file(tmp_path, index):
    index.save(tmp_path / "index.json")
    opened = open_index(tmp_path / "index.json")
    assert opened.fingerprint == index.fingerprint
    assert open_index(tmp_path / "index.json") is opened
