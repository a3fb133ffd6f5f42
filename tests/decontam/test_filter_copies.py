"""A copy never passes for clean where nothing was searched, and files without a match are copied as they are."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from decontam import DecontamError, ReferenceIndex, Rule, scan
from decontam.files import create_binary
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import FORMS, ITEMS, as_jsonl, write
from tests.decontam.test_filter import clean, contents


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


def test_files_that_the_scan_did_not_read_are_refused(tmp_path, index):
    """A parquet file without the column was copied, and the copy called cleaned."""
    pq.write_table(pa.table({"body": [ITEMS[0].text]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(as_jsonl([ITEMS[0].text] * 2).replace(b'"text"', b'"body"'))
    (tmp_path / "c.jsonl").write_bytes(as_jsonl(["x"]))
    results = scan([tmp_path], index, output=tmp_path / "found")
    with pytest.raises(DecontamError, match=r"a\.parquet could not be read .*there are 'body'.*scan again with the"):
        clean(tmp_path, tmp_path / "a.parquet", results)
    with pytest.raises(
        DecontamError, match=r"b\.jsonl: none of its 2 records could be read \(the first: no field 'text'"
    ):
        clean(tmp_path, tmp_path / "b.jsonl", results)
    with pytest.raises(DecontamError, match=r"a\.parquet"):
        filter_corpus([tmp_path], results, output=tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_a_scan_by_the_strict_rule_does_not_know_the_other(tmp_path):
    """No match had the rule that was asked for, so a contaminated corpus was copied whole as a clean one."""
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "x"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule.strict()), output=tmp_path / "found")
    with pytest.raises(DecontamError, match="give --rule strict, or scan again"):
        clean(tmp_path, tmp_path / "a.jsonl", results)
    target, _ = clean(tmp_path, tmp_path / "a.jsonl", results, rule="strict")
    assert target.read_bytes().count(b"\n") == 1


def test_what_has_no_copy_is_told(tmp_path, index):
    corpus = tmp_path / "c"
    corpus.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (corpus / name).write_bytes(as_jsonl([ITEMS[0].text]))
    (corpus / "d.csv").write_bytes(as_jsonl([ITEMS[0].text]))
    (corpus / "link.jsonl").symlink_to("a.jsonl")
    results = scan([corpus], index, output=tmp_path / "found")
    summary = filter_corpus([corpus], results, output=tmp_path / "clean")
    assert [one.path for one in summary.unread] == [str(corpus / "d.csv")]
    assert summary.again == (str(corpus / "link.jsonl"),)
    told = json.loads((tmp_path / "clean" / "summary.json").read_text())
    assert told["not_copied"][0]["kind"] == "unknown_format"
    assert told["links_not_copied"] == [str(corpus / "link.jsonl")]
    assert str(corpus / "d.csv") in (tmp_path / "clean" / "summary.md").read_text()
    one = filter_corpus([corpus / "a.jsonl"], results, output=tmp_path / "one")
    assert (one.n_left_out, one.unread) == (1, ())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_a_match_is_copied_as_it_is(tmp_path, index, form):
    """It was compressed again, at another level, or written by another parquet writer."""
    path, field = write(tmp_path / "corpus", [text.replace("e", "é") for text in ["x y", "", "z"] * 30], form)
    if path.suffix == ".zst":
        path.write_bytes(zstandard.ZstdCompressor(level=19, write_checksum=True).compress(contents(path)))
    elif path.suffix == ".jsonl":
        path.write_bytes(path.read_bytes() + b"\n  \r\nbroken\n\n")
    results = scan([path], index, output=tmp_path / "found", text_field=field)
    target, summary = clean(tmp_path, path, results)
    assert target.read_bytes() == path.read_bytes()
    assert summary.totals["n_documents_kept"] == 90 + (path.suffix == ".jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.parquet"])
@pytest.mark.parametrize("text", [ITEMS[0].text, "x"], ids=["edited", "copied"])
def test_a_copy_is_not_open_to_more_users(tmp_path, index, name, text):
    """Copies had the umask's mode, so that everybody could read those of a closed corpus."""
    path = tmp_path / "c" / "x" / name
    path.parent.mkdir(parents=True)
    if name == "a.parquet":
        pq.write_table(pa.table({"text": [text]}), path)
    elif name == "a.txt":
        path.write_text(text)
    else:
        with create_binary(path) as out:
            out.write(as_jsonl([text]))
    path.chmod(0o640)
    path.parent.chmod(0o750)
    (tmp_path / "c").chmod(0o700)
    results = scan([tmp_path / "c"], index, output=tmp_path / "found")
    filter_corpus([tmp_path / "c"], results, output=tmp_path / "clean", options=FilterOptions(action="mask"))
    made = {place: (tmp_path / "clean" / place).stat().st_mode & 0o777 for place in ("", "x", f"x/{name}")}
    assert made == {"": 0o700, "x": 0o750, f"x/{name}": 0o640}
