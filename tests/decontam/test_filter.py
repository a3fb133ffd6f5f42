"""A cleaned corpus: what was found is gone, and every other byte is as it was."""

import gzip
import json
import os
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest

from decontam import DecontamError, ReferenceIndex, Rule, scan
from decontam.files import open_binary
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import FORMS, ITEMS, as_jsonl, make_documents, write

MARGIN = 7


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture(scope="module")
def texts():
    return make_documents(90)


def contents(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with open_binary(path) as file:
        return file.read()


def expected_text(index, text, options):
    matches = index.find_matches(text)
    keep = [True] * len(text)
    starts = set()
    for match in matches:
        for begin, end in match.spans:
            for i in range(max(0, begin - options.margin), min(len(text), end + options.margin)):
                keep[i] = False
    starts = {i for i in range(len(text)) if not keep[i] and (i == 0 or keep[i - 1])}
    mask = options.mask if options.action == "mask" else ""
    return "".join((mask if i in starts else "") + (char if keep[i] else "") for i, char in enumerate(text))


def clean(tmp_path, path, results, **options):
    out = tmp_path / "clean"
    summary = filter_corpus([path], results, output=out, options=FilterOptions(**options))
    return out / path.name, summary


@pytest.mark.parametrize("form", FORMS)
def test_dropping_leaves_all_other_records(tmp_path, index, texts, form):
    path, field = write(tmp_path / "corpus", texts, form)
    results = scan([path], index, output=tmp_path / "found", text_field=field)
    target, summary = clean(tmp_path, path, results)
    dropped = [row for row, text in enumerate(texts) if index.find_matches(text)]
    assert summary.totals["n_documents_dropped"] == len(dropped) > 10
    before, after = contents(path), contents(target)
    if path.suffix == ".parquet":
        assert after.schema.equals(before.schema, check_metadata=True)
        kept = [row not in set(dropped) for row in range(len(texts))]
        assert after.equals(before.filter(kept))
        old, new = pq.ParquetFile(path).metadata, pq.ParquetFile(target).metadata
        assert new.num_row_groups == old.num_row_groups
        assert new.row_group(0).column(0).compression == old.row_group(0).column(0).compression
    else:
        lines = before.splitlines(keepends=True)
        assert after == b"".join(line for row, line in enumerate(lines) if row not in set(dropped))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", ["cut", "mask"])
def test_cutting_changes_the_spans_alone(tmp_path, index, texts, form, action):
    path, field = write(tmp_path / "corpus", texts, form)
    results = scan([path], index, output=tmp_path / "found", text_field=field)
    options = FilterOptions(action=action, margin=MARGIN)
    target, summary = clean(tmp_path, path, results, action=action, margin=MARGIN)
    wanted = [expected_text(index, text, options) for text in texts]
    n_edited = sum(bool(index.find_matches(text)) for text in texts)
    assert summary.totals["n_documents_edited"] == n_edited
    if path.suffix == ".parquet":
        shutil.rmtree(tmp_path / "corpus")
        again, _ = write(tmp_path / "corpus", wanted, form)
        assert contents(target).to_pylist() == contents(again).to_pylist()
        return
    lines, found = contents(path).splitlines(keepends=True), contents(target).splitlines(keepends=True)
    again, _ = write(tmp_path / "again", wanted, form)
    assert [json.loads(line) for line in found] == [json.loads(line) for line in contents(again).splitlines()]
    for line, new, text in zip(lines, found, texts, strict=True):
        assert (new == line) == (not index.find_matches(text))
    if action == "cut":
        assert summary.totals["n_characters_cut"] == sum(map(len, texts)) - sum(map(len, wanted))


@pytest.mark.parametrize("action", ["drop", "cut", "mask"])
def test_a_cleaned_corpus_is_clean(tmp_path, index, texts, action):
    path, _ = write(tmp_path / "corpus", texts, "jsonl")
    results = scan([path], index, output=tmp_path / "found")
    target, _ = clean(tmp_path, path, results, action=action, rule="strict")
    again = scan([target], index, output=tmp_path / "again")
    assert len(results.matches) > 0
    assert set(again.matches.rule) <= {"whole"}


def test_blank_and_broken_lines_and_a_missing_end_stay(tmp_path, index):
    data = b"\n\xef\xbb\n" + as_jsonl([ITEMS[0].text]) + b"  \r\nbroken\n" + as_jsonl(["x"])[:-1]
    (tmp_path / "a.jsonl").write_bytes(data)
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, _ = clean(tmp_path, tmp_path / "a.jsonl", results)
    assert target.read_bytes() == data.replace(as_jsonl([ITEMS[0].text]), b"")


def test_text_files(tmp_path, index):
    (tmp_path / "a.txt").write_text(f"é before {ITEMS[0].text} after", encoding="utf-8")
    (tmp_path / "b.txt").write_text("nothing", encoding="utf-8")
    results = scan([tmp_path], index, output=tmp_path / "found" / "x")
    filter_corpus([tmp_path / "a.txt", tmp_path / "b.txt"], results, output=tmp_path / "dropped")
    assert sorted(path.name for path in (tmp_path / "dropped").glob("*.txt")) == ["b.txt"]
    options = FilterOptions(action="mask", mask="#")
    filter_corpus([tmp_path / "a.txt"], results, output=tmp_path / "masked", options=options)
    assert (tmp_path / "masked" / "a.txt").read_text(encoding="utf-8") == "é before #? after"


def test_folders_keep_their_names(tmp_path, index):
    for name in ("x/a.jsonl", "y/a.jsonl"):
        (tmp_path / "c" / name).parent.mkdir(parents=True)
        (tmp_path / "c" / name).write_bytes(as_jsonl([ITEMS[0].text, name]))
    results = scan([tmp_path / "c"], index, output=tmp_path / "found")
    filter_corpus([tmp_path / "c"], results, output=tmp_path / "out")
    assert (tmp_path / "out" / "y" / "a.jsonl").read_bytes().count(b"\n") == 1
    with pytest.raises(DecontamError, match="would both become"):
        filter_corpus([tmp_path / "c/x/a.jsonl", tmp_path / "c/y/a.jsonl"], results, output=tmp_path / "two")
    with pytest.raises(DecontamError, match="would be overwritten"):
        filter_corpus([tmp_path / "c"], results, output=tmp_path / "c")


def test_options_choose_what_is_acted_on(tmp_path, index):
    common = [f"{ITEMS[0].text} {i}" for i in range(4)]
    quote = " ".join(["x"] * 60 + ITEMS[1].text.split()[:14] + ["y"] * 60)
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([*common, ITEMS[2].text, quote, ITEMS[-1].text]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    wanted = {"strict": 6, "qwen2": 5, "common": 1, "whole": 6}
    options = {
        "strict": FilterOptions(rule="strict"),
        "qwen2": FilterOptions(),
        "common": FilterOptions(min_df=1),
        "whole": FilterOptions(include_whole=True),
    }
    for name, option in options.items():
        summary = filter_corpus([tmp_path / "a.jsonl"], results, output=tmp_path / name, options=option)
        assert summary.totals["n_documents_dropped"] == wanted[name], name
    told = json.loads((tmp_path / "strict" / "summary.json").read_text())
    assert told["by_benchmark"] == {"quiz": 1, "riddles": 5}


def test_a_corpus_that_has_changed_is_refused(tmp_path, index):
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_jsonl([ITEMS[0].text]))
    (tmp_path / "b.jsonl").write_bytes(as_jsonl(["x"]))
    results = scan([path], index, output=tmp_path / "found")
    with pytest.raises(DecontamError, match=r"b\.jsonl is not among the files"):
        filter_corpus([tmp_path / "b.jsonl"], results, output=tmp_path / "out")
    stamp = path.stat().st_mtime_ns
    path.write_bytes(as_jsonl([ITEMS[0].text])[:-3] + b'!"}')
    with pytest.raises(DecontamError, match="has changed since"):
        filter_corpus([path], results, output=tmp_path / "out")
    path.write_bytes(as_jsonl([ITEMS[0].text]).replace(b"how many", b"how much"))
    os.utime(path, ns=(stamp, stamp))  # as a careless tool would leave it
    with pytest.raises(DecontamError, match="the document has changed"):
        filter_corpus([path], results, output=tmp_path / "out", options=FilterOptions(action="cut"))
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_a_line_that_is_no_utf8_is_dropped_whole(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff ' + ITEMS[0].text.encode() + b'"}\n')
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, summary = clean(tmp_path, tmp_path / "a.jsonl", results, action="cut")
    assert target.read_bytes() == b""
    assert summary.totals["n_not_editable"] == 1


def test_a_second_run_does_only_what_is_left(tmp_path, index, texts):
    for name in ("a.jsonl", "b.jsonl.gz"):
        data = as_jsonl(texts)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]
    results = scan(paths, index, output=tmp_path / "found")
    first = filter_corpus(paths, results, output=tmp_path / "out")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.jsonl*")}
    again = filter_corpus(paths, results, output=tmp_path / "out")
    assert again == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.jsonl*")} == stamps
    assert pd.Series(stamps).size == 2


@pytest.mark.parametrize("options", [{"action": "burn"}, {"rule": "whole"}, {"margin": -1}, {"min_df": 0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(DecontamError):
        FilterOptions(**options)
