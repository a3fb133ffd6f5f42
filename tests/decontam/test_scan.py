"""A scan finds what the index finds in each document, whatever the format, the workers and the parts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError, Reference, ReferenceIndex, Rule, load_results, scan
from decontam.corpus import chunks, list_parts
from decontam.records import ReadOptions
from tests.decontam.corpora import FORMS, ITEMS, as_jsonl, make_documents, make_question, write

FILES = ("matches.parquet", "references.parquet", "problems.parquet", "counts.json", "counts.csv", "counts.md")
KEYS = ["document_row", "reference_id", "reference_part", "rule", "n_shared_ngrams", "longest_match", "lcs_length"]


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture(scope="module")
def texts():
    return make_documents(150)


def expected_rows(index, texts):
    return [
        [row, *(getattr(match, name) for name in KEYS[1:])]
        for row, text in enumerate(texts)
        for match in sorted(index.find_all_matches(text), key=lambda match: match.reference_id)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_matches(tmp_path, index, texts, form):
    path, field = write(tmp_path / "corpus", texts, form)
    results = scan([path], index, output=tmp_path / "out", text_field=field)
    rows = results.matches[KEYS].astype(object).where(results.matches[KEYS].notna(), None).to_numpy().tolist()
    assert rows == expected_rows(index, texts)
    assert len(rows) > 20
    assert results.manifest["totals"]["n_documents"] == len(texts)
    assert results.manifest["problems"] == {}
    for row in results.matches.itertuples():
        text = texts[row.document_row] + ("\nYes." if form == "chat" else "")
        assert text[row.excerpt_begin : row.excerpt_begin + 2_000] == row.excerpt
        if form in ("jsonl", "escaped", "crlf"):
            line = path.read_bytes()[row.document_begin : row.document_end]
            assert json.loads(line)["text"] == text


def test_workers_and_parts_change_nothing(tmp_path, index, texts):
    (tmp_path / "corpus").mkdir()
    for i in range(3):
        (tmp_path / "corpus" / f"{i}.jsonl").write_bytes(as_jsonl(texts[i * 50 : i * 50 + 50]))
    outs = [tmp_path / "one", tmp_path / "many", tmp_path / "backwards"]
    scan([tmp_path / "corpus"], index, output=outs[0], workers=1)
    scan([tmp_path / "corpus"], index, output=outs[1], workers=4, part_bytes=700)
    scan(
        [tmp_path / "corpus"],
        index,
        output=outs[2],
        part_bytes=1_500,
        runner=lambda work, parts: (work(part) for part in reversed(parts)),
    )
    for name in (*FILES, "shards.csv"):
        contents = [(out / name).read_bytes() for out in outs]
        assert contents[0] == contents[1] == contents[2], name


def test_min_df_counts_documents(tmp_path, index):
    item = ITEMS[1]
    copies = [f"{item.text} copy {i}" for i in range(5)]
    once = ITEMS[2].text
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([*copies, once, f"{once} {once}"]))
    matches = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", part_bytes=300).matches
    assert matches[matches.reference_id == item.id].min_df.tolist() == [5] * 5
    assert matches[matches.reference_id == ITEMS[2].id].min_df.tolist() == [2, 2]


def test_counts_and_shards(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[1].text, ITEMS[1].text, ITEMS[-1].text, "nothing"]))
    (tmp_path / "b.jsonl").write_bytes(as_jsonl([ITEMS[0].text]) + b"broken\n")
    results = scan([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], index, output=tmp_path / "out")
    by_name = {row["benchmark"]: row for row in results.counts}
    assert by_name["quiz"] == {
        "benchmark": "quiz",
        "n_references": 7,
        "n_testable": 6,
        "n_contaminated_strict": 1,
        "n_contaminated_qwen2": 1,
        "n_whole": 1,
        "n_template": 0,
        "n_any_ngram": 1,
        "n_documents": 3,
        "n_testable_question": 7,
        "n_testable_question_answer": 7,
        "n_testable_lettered": 0,
        "n_testable_any_order": 0,
        "n_testable_other": 0,
        "n_testable_whole_question": 1,
    }
    shards = (tmp_path / "out" / "shards.csv").read_text().splitlines()
    assert shards[1].endswith(f"a.jsonl,4,3,{len(as_jsonl([ITEMS[1].text] * 2 + [ITEMS[-1].text, 'nothing'])) - 4},3,0")
    assert shards[2].endswith(",1")
    assert results.references.testable.tolist() == [True] * 12 + [False]


def test_a_second_scan_reads_only_what_is_new(tmp_path, index, texts):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.jsonl").write_bytes(as_jsonl(texts[:60]))
    scan([tmp_path / "c"], index, output=tmp_path / "out", part_bytes=2_000)
    before = {path.name for path in (tmp_path / "out" / "parts").iterdir()}
    (tmp_path / "c" / "b.jsonl").write_bytes(as_jsonl(texts[60:]))
    scanned = []

    def watched(work, parts):
        scanned.extend(part.path for part in parts)
        return (work(part) for part in parts)

    again = scan([tmp_path / "c"], index, output=tmp_path / "out", part_bytes=2_000, runner=watched)
    assert {path.name for path in (tmp_path / "out" / "parts").iterdir()} > before
    assert set(scanned) == {str(tmp_path / "c" / "b.jsonl")}
    fresh = scan([tmp_path / "c"], index, output=tmp_path / "fresh")
    assert again.matches.equals(fresh.matches)


def test_small_files_are_read_together(tmp_path, index, texts):
    """Each had a part of its own, and so two files of results: most of the time of a scan of small files."""
    corpus = tmp_path / "c"
    corpus.mkdir()
    for i in range(60):
        text = texts[i % len(texts)]
        (corpus / f"{i}.txt").write_text(text, encoding="utf-8")
        (corpus / f"{i}.jsonl").write_bytes(as_jsonl([text]) + b"broken\n" * (i % 7 == 0))
    (corpus / "large.jsonl").write_bytes(as_jsonl(texts))
    outs = [tmp_path / "together", tmp_path / "apart"]
    scan([corpus], index, output=outs[0], part_bytes=1 << 18)
    scan([corpus], index, output=outs[1], part_bytes=5_000)
    for name in (*FILES, "shards.csv", "problems.parquet"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    before = {path.name for path in (outs[0] / "parts").glob("*[!s].parquet")}
    assert len(before) < 20 < 120 < len(list((outs[1] / "parts").glob("*[!s].parquet")))
    (corpus / "30a.txt").write_text(ITEMS[0].text, encoding="utf-8")
    n_scanned = []

    def watched(work, parts):
        n_scanned.append(len(parts))
        return map(work, parts)

    again = scan([corpus], index, output=outs[0], part_bytes=1 << 18, runner=watched)
    assert n_scanned[0] <= 2
    assert (again.matches.document_path == str(corpus / "30a.txt")).sum() == 1


def test_a_folder_of_another_scan_is_refused(tmp_path, index, texts):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(texts[:5]))
    scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    with pytest.raises(DecontamError, match="other references, rule or options"):
        scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule.strict()), output=tmp_path / "out")
    assert load_results(tmp_path / "out").manifest["totals"]["n_documents"] == 5


def test_a_folder_of_a_version_that_read_texts_differently_is_refused(tmp_path, index, texts):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(texts[:5]))
    scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    del manifest["text_version"]  # as before there was one
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DecontamError, match="another version of this program"):
        scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")


@pytest.mark.parametrize("name", ["nowhere.jsonl", "notes.docx", "empty"])
def test_names_that_mean_no_corpus(tmp_path, index, name):
    (tmp_path / "notes.docx").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecontamError):
        scan([tmp_path / name], index, output=tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_folder_without_a_scan(tmp_path):
    with pytest.raises(DecontamError, match="no scan"):
        load_results(tmp_path)
    (tmp_path / "parts").mkdir()
    with pytest.raises(DecontamError, match="did not finish"):
        load_results(tmp_path)


lines = st.lists(st.sampled_from([b"", b"{}", b'{"text": "a"}', b"x" * 50, b" ", b"\r"]), max_size=30)


@settings(max_examples=300)
@given(lines=lines, has_end=st.booleans(), part_bytes=st.integers(1, 200))
def test_each_line_is_in_one_part(tmp_path_factory, lines, has_end, part_bytes):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    data = b"\n".join(lines) + b"\n" * has_end
    path.write_bytes(data)
    seen = []
    for part in list_parts([str(path)], part_bytes=part_bytes):
        for chunk in chunks(part, ReadOptions(), []):
            for begin, end in zip(chunk.begins, chunk.ends, strict=True):
                line = chunk.buffer[begin:end].tobytes()
                assert data[chunk.first_byte + begin : chunk.first_byte + end] == line
                seen.append(line)
    wanted = data.split(b"\n")
    assert seen == (wanted[:-1] if wanted[-1] == b"" else wanted)


def test_rows_of_a_document_are_its_lines(tmp_path, index):
    data = b"\n\n" + as_jsonl([ITEMS[0].text]) + b"broken\n" + as_jsonl(["x", ITEMS[1].text])
    (tmp_path / "a.jsonl").write_bytes(data)
    for part_bytes in (10, 10_000):
        out = tmp_path / str(part_bytes)
        results = scan([tmp_path / "a.jsonl"], index, output=out, part_bytes=part_bytes)
        assert results.matches.document_row.tolist() == [2, 5]
        assert results.problems.row.tolist() == [3]


def test_text_files_are_documents(tmp_path, index):
    (tmp_path / "a.txt").write_text(f"Once\n{ITEMS[0].text}\nupon", encoding="utf-8")
    (tmp_path / "b.txt").write_text("", encoding="utf-8")
    results = scan([tmp_path], index, output=tmp_path / "out")
    assert results.matches.reference_id.tolist() == [ITEMS[0].id]
    assert np.isnan(results.matches.document_begin[0]) or results.matches.document_begin[0] == 0
    assert results.manifest["totals"]["n_documents"] == 1


def test_items_of_one_template_are_all_counted_and_the_strongest_shown(tmp_path):
    template = (
        "Which of these two scenes shows an act that is clearly wrong by the standards of the town of Rivermouth?"
    )
    items = [Reference(f"moral/{i}", f"{template} {make_question(i)}", "", "moral") for i in range(40)]
    other = Reference("other/0", f"{template} And so on.", "", "other")
    index = ReferenceIndex.build([*items, other], Rule())
    document = f"{template} {make_question(7)}"
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([document, template]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out")
    pairs = [match.rule for match in index.find_all_matches(document)]
    assert len(pairs) == 41
    assert results.references.n_documents_ngram.tolist() == [2] * 41
    # what is a template in one benchmark says nothing of the item of another, either
    assert results.references.n_documents_strict.tolist() == [0] * 7 + [1] + [0] * 33
    assert results.references.n_documents_template.tolist() == [2] * 7 + [1] + [2] * 33
    by_name = {row["benchmark"]: row for row in results.counts}
    moral = by_name["moral"]
    assert (moral["n_contaminated_strict"], moral["n_contaminated_qwen2"]) == (1, 1)
    assert (moral["n_template"], moral["n_any_ngram"]) == (39, 40)
    assert (by_name["other"]["n_template"], by_name["other"]["n_documents"]) == (1, 2)
    first = results.matches[results.matches.document_row == 0]
    assert 16 <= len(first) <= 17
    assert "moral/7" in set(first.reference_id)
    assert "other/0" in set(first.reference_id)
    assert first.set_index("reference_id").loc["moral/7"].longest_match == first.longest_match.max()
    assert results.matches.min_df.tolist()[-1] == 2


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


@pytest.mark.parametrize("form", ["saved", "saved splits", "files"])
def test_data_sets_are_read_through_datasets(tmp_path, index, texts, own_cache, monkeypatch, form):
    monkeypatch.setattr("decontam.hub._PART_ROWS", 40)
    folder = tmp_path / "data"
    if form == "files":
        write(folder, texts, "jsonl")
    else:
        data = own_cache.Dataset.from_dict({"text": texts, "n": list(range(len(texts)))})
        splits = own_cache.DatasetDict({"train": own_cache.Dataset.from_dict({"text": ["x"]}), "test": data})
        (splits if form == "saved splits" else data).save_to_disk(str(folder))
    name = f"hf://{folder}" + (":test" if form == "saved splits" else "")
    results = scan([name], index, output=tmp_path / "out")
    rows = results.matches[KEYS].astype(object).where(results.matches[KEYS].notna(), None).to_numpy().tolist()
    assert rows == expected_rows(index, texts)
    assert set(results.matches.document_path) == {name}
    assert results.manifest["totals"]["n_documents"] == len(texts)


@pytest.mark.parametrize("name", ["hf://{}/nowhere", "hf://{}:none"])
def test_data_sets_that_cannot_be_loaded(tmp_path, index, own_cache, monkeypatch, name):
    monkeypatch.setattr(own_cache.config, "HF_HUB_OFFLINE", True)
    write(tmp_path / "data", ["x"], "jsonl")
    with pytest.raises(DecontamError, match="can't be loaded"):
        scan([name.format(tmp_path / "data")], index, output=tmp_path / "out")
