"""A cleaned corpus: what was found is gone, and every other byte is as it was."""

import gzip
import json
import os
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam import DecontamError, Reference, ReferenceIndex, Rule, scan
from decontam.files import create_binary, open_binary
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from decontam.json_edit import widened
from tests.decontam.corpora import FORMS, ITEMS, as_jsonl, make_documents, make_question, write

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
        assert after.to_pylist() == [row for i, row in enumerate(before.to_pylist()) if i not in set(dropped)]
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


@pytest.mark.parametrize("action", ["cut", "mask"])
def test_a_document_with_more_items_than_have_rows_is_cleaned_of_all(tmp_path, action):
    """Only the 16 strongest matches were kept, so all other items stayed in the text."""
    items = [Reference(f"q/{i}", make_question(i), "", "q") for i in range(60)]
    index = ReferenceIndex.build(items, Rule())
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["\n".join(item.text for item in items)]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, _ = clean(tmp_path, tmp_path / "a.jsonl", results, action=action)
    assert len(scan([target], index, output=tmp_path / "again").matches) == 0


@given(
    chosen=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 30), st.integers(13, 40)), max_size=12),
    seed=st.integers(0, 9),
    min_df=st.integers(1, 9),
    rule=st.sampled_from(["qwen2", "strict"]),
)
def test_rows_that_are_not_kept_change_nothing_that_is_cut(chosen, seed, min_df, rule):
    words = [f"w{i}" for i in range(60)]
    rng = random.Random(seed)
    # items of a few templates, which share most of their words
    items = [
        Reference(f"x/{i}", " ".join([*words[10 * (i % 3) : 10 * (i % 3) + 30], *rng.choices(words, k=i % 20)]))
        for i in range(40)
    ]
    index = ReferenceIndex.build(items, Rule())
    text = " so ".join(" ".join(items[i].text.split()[begin : begin + n]) for i, begin, n in chosen)
    n_documents_of = [rng.randrange(1, 10) for _ in range(index.n_ngrams)]

    def cut(matches):
        rules = {"qwen2"} if rule == "qwen2" else {"qwen2", "strict"}
        acted = [
            one for one in matches if one.rule in rules and min(n_documents_of[n] for n in one.ngram_ids) <= min_df
        ]
        return widened([span for one in acted for span in one.spans], 0, len(text))

    assert cut(index.find_all_matches(text, limit=4)) == cut(index.find_all_matches(text))


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
        assert summary.n_weaker == 7 - wanted[name]
    told = json.loads((tmp_path / "strict" / "summary.json").read_text())
    assert told["by_benchmark"] == {"quiz": 1, "riddles": 5}


def test_a_document_counts_for_the_strongest_rule_that_holds(tmp_path, index):
    quote = " ".join(["x"] * 60 + ITEMS[1].text.split()[:14] + ["y"] * 60)
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"{quote} {ITEMS[2].text}", quote, ITEMS[-1].text]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    _, summary = clean(tmp_path, tmp_path / "a.jsonl", results, rule="strict", include_whole=True)
    assert summary.by_rule == {"qwen2": 1, "strict": 1, "whole": 1}
    assert summary.by_benchmark == {"quiz": 3, "riddles": 1}


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


@pytest.mark.parametrize("action", ["drop", "cut", "mask"])
@pytest.mark.parametrize("form", ["jsonl", "text", "parquet"])
def test_another_document_is_never_acted_on(tmp_path, index, form, action):
    """Also dropping looks whether the row still holds what was found."""
    texts = [ITEMS[0].text, ITEMS[0].text.replace("how many", "how much")]
    makers = {
        "jsonl": lambda path, text: path.write_bytes(as_jsonl([text])),
        "text": lambda path, text: path.write_text(text),
        "parquet": lambda path, text: pq.write_table(pa.table({"text": [text]}), path, compression="none"),
    }
    path = tmp_path / {"text": "a.txt"}.get(form, f"a.{form}")
    makers[form](path, texts[0])
    results = scan([path], index, output=tmp_path / "found")
    stamp, size = path.stat().st_mtime_ns, path.stat().st_size
    makers[form](path, texts[1])
    os.utime(path, ns=(stamp, stamp))
    assert path.stat().st_size == size
    with pytest.raises(DecontamError, match=rf"{path.name}: the document has changed since the scan: scan again"):
        clean(tmp_path, path, results, action=action)
    assert not (tmp_path / "clean" / path.name).exists()


LATIN = b"caf\xe9 \xf0\x9f\x98 " + ITEMS[0].text.encode() + b" \xff\xed\xa0\x80 \xef\xbf\xbd"
MASKED = LATIN.replace(ITEMS[0].text.encode()[:-1], b"#")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.jsonl", b'{"x": "\xfe", "text": "%s"}\r\n' % LATIN, b'{"x": "\xfe", "text": "%s"}\r\n' % MASKED),
        ("a.txt", LATIN, MASKED),
    ],
)
def test_bytes_that_are_no_utf8_stay(tmp_path, index, name, suffix, before, after):
    path = tmp_path / (name + suffix)
    with create_binary(path) as out:
        out.write(before)
    results = scan([path], index, output=tmp_path / "found")
    target, summary = clean(tmp_path, path, results, action="mask", mask="#")
    assert contents(target) == after
    assert summary.totals["n_documents_edited"] == 1


def test_json_nested_too_deeply_to_edit_is_dropped(tmp_path, index):
    deep = b"[" * 1000 + b"]" * 1000
    line = b'{"deep": %s, "text": "%s"}\n' % (deep, ITEMS[0].text.encode())
    (tmp_path / "a.jsonl").write_bytes(line + as_jsonl(["x"]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, summary = clean(tmp_path, tmp_path / "a.jsonl", results, action="cut")
    assert target.read_bytes() == as_jsonl(["x"])
    assert (summary.totals["n_not_editable"], summary.totals["n_documents_dropped"]) == (1, 1)


def test_long_lines_are_copied_and_acted_on(tmp_path, index, monkeypatch):
    monkeypatch.setattr("decontam.filter._PIECE_BYTES", 100)
    data = [b"broken " * 50 + b"\n", as_jsonl(["y" * 400]), as_jsonl(["z " * 99 + ITEMS[0].text])]
    (tmp_path / "a.jsonl").write_bytes(b"".join(data * 2)[:-1])
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, summary = clean(tmp_path, tmp_path / "a.jsonl", results)
    assert target.read_bytes() == b"".join(data[:2] * 2)
    assert summary.totals["n_documents_kept"] == 4


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
    assert len(stamps) == 2


def test_other_options_in_the_same_folder_make_what_was_done_void(tmp_path, index, texts):
    path, _ = write(tmp_path / "corpus", texts, "jsonl")
    (tmp_path / "corpus" / "b.txt").write_text(ITEMS[0].text)
    results = scan([path.parent], index, output=tmp_path / "found")
    out, seen = tmp_path / "out", []
    for action in ("mask", "drop", "mask", "drop"):
        filter_corpus([path.parent], results, output=out, options=FilterOptions(action=action))
        seen.append([file.read_bytes() if file.exists() else None for file in (out / "a.jsonl", out / "b.txt")])
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]
    assert seen[1][1] is None


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}\n")])
def test_a_copy_that_is_gone_or_changed_is_made_again(tmp_path, index, spoil):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "x"]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, _ = clean(tmp_path, tmp_path / "a.jsonl", results)
    spoil(target)
    clean(tmp_path, tmp_path / "a.jsonl", results)
    assert target.read_bytes() == as_jsonl(["x", "x"]).splitlines(keepends=True)[1]


def test_a_marker_that_is_cut_counts_as_none(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "x"]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    target, first = clean(tmp_path, tmp_path / "a.jsonl", results)
    (marker,) = (tmp_path / "clean" / ".done").iterdir()
    marker.write_bytes(marker.read_bytes()[:20])
    target.unlink()
    assert clean(tmp_path, tmp_path / "a.jsonl", results) == (target, first)
    assert target.exists()


@pytest.mark.parametrize("action", ["drop", "mask"])
def test_a_cleaned_folder_can_be_scanned(tmp_path, index, texts, action):
    for name in ("x/a.jsonl", "y/z/a.jsonl", "b.txt"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(texts[0].encode() if name == "b.txt" else as_jsonl(texts))
    results = scan([tmp_path / "c"], index, output=tmp_path / "found")
    options = FilterOptions(action=action, rule="strict", include_whole=True)
    filter_corpus([tmp_path / "c"], results, output=tmp_path / "clean", options=options)
    again = scan([tmp_path / "clean"], index, output=tmp_path / "again")
    assert again.manifest["problems"] == {}
    assert len(again.manifest["inputs"]) == 3
    assert len(results.matches) > len(again.matches) == 0


def test_files_keep_their_place_below_a_pattern(tmp_path, index):
    for name in ("x/a.jsonl", "y/a.jsonl"):
        (tmp_path / "c" / name).parent.mkdir(parents=True)
        (tmp_path / "c" / name).write_bytes(as_jsonl(["x"]))
    results = scan([tmp_path / "c"], index, output=tmp_path / "found")
    filter_corpus([tmp_path / "c" / "*" / "a.jsonl"], results, output=tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("a.jsonl")) == [
        "out/x/a.jsonl",
        "out/y/a.jsonl",
    ]


def test_a_corpus_file_never_gives_way_to_the_summary(tmp_path, index):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "summary.md").write_text("mine")
    results = scan([tmp_path / "c"], index, output=tmp_path / "found")
    with pytest.raises(DecontamError, match=r"summary\.md is where the filter's own summary goes"):
        filter_corpus([tmp_path / "c"], results, output=tmp_path / "out")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_broken_file_is_refused_by_name(tmp_path, index, texts, name):
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path)
        data = bytearray(path.read_bytes())
        data[40:300] = bytes(260)
        path.write_bytes(data)
    else:
        with create_binary(path) as out:
            out.write(as_jsonl(texts))
        path.write_bytes(path.read_bytes()[:-50])
    results = scan([path], index, output=tmp_path / "found")
    with pytest.raises(DecontamError, match=rf"{name} could not be read to its end .*repair it, or leave it out"):
        clean(tmp_path, path, results)


def test_a_file_that_breaks_after_the_scan_is_told_by_name(tmp_path, index, texts):
    for name in ("a.jsonl.gz", "b.parquet"):
        path = tmp_path / name
        write_good = {"a": lambda p: p.write_bytes(gzip.compress(as_jsonl(texts))), "b": lambda p: _parquet(p, texts)}
        write_good[name[0]](path)
        results = scan([path], index, output=tmp_path / f"found-{name}")
        stamp, data = path.stat().st_mtime_ns, bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
        path.write_bytes(data)
        os.utime(path, ns=(stamp, stamp))
        with pytest.raises(DecontamError, match=rf"{name}: (broken or cut|row group 0)"):
            clean(tmp_path, path, results)
        assert not (tmp_path / "clean" / name).exists()


def _parquet(path, texts):
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", use_dictionary=False)


def test_data_sets_of_the_hub_are_no_files(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["x"]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    with pytest.raises(DecontamError, match=r"hf://x/y: only files can be filtered"):
        filter_corpus(["hf://x/y"], results, output=tmp_path / "out")


def test_what_was_not_scanned_is_counted(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(b"broken\n\n" + as_jsonl(["x", ITEMS[0].text, ITEMS[1].text]))
    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "found")
    _, summary = clean(tmp_path, tmp_path / "a.jsonl", results)
    assert summary.totals == {
        "n_documents_kept": 2,
        "n_documents_dropped": 2,
        "n_documents_edited": 0,
        "n_characters_cut": 0,
        "n_not_editable": 0,
        "n_not_scanned": 1,
    }
    told = json.loads((tmp_path / "clean" / "summary.json").read_text())
    assert told["totals"] == summary.totals
    assert told["by_rule"] == {"qwen2": 2}
    page = (tmp_path / "clean" / "summary.md").read_text()
    assert "| quiz | 1 |" in page
    assert "| qwen2 | 2 |" in page
    assert "| action | drop |" in page
    assert str(tmp_path / "a.jsonl") in page


@pytest.mark.parametrize(
    "options", [{"action": "burn"}, {"rule": "whole"}, {"margin": -1}, {"min_df": 0}, {"mask": "\udc80"}]
)
def test_options_that_make_no_sense(options):
    with pytest.raises(DecontamError):
        FilterOptions(**options)
