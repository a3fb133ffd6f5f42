"""`qwen2eval decontam`: what it prints, its exit codes, its errors."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from qwen2eval.cli.main import main
from qwen2eval.tasks.references import load_references
from tests.decontam.corpora import ITEMS, as_jsonl
from tests.local_tasks import write_rows


@pytest.fixture
def references(tmp_path):
    rows = [{"id": item.id, "text": item.text, "solution": item.answer} for item in ITEMS]
    return str(write_rows(tmp_path / "items.jsonl", rows))


def scan_args(tmp_path, references, *more):
    places = [str(tmp_path / "a.jsonl"), "--references", references, "--output", str(tmp_path / "out")]
    return ["decontam", "scan", *places, *more]


def test_a_scan_prints_counts_and_where_the_matches_are(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "nothing"]))
    assert main(scan_args(tmp_path, references)) == 0
    out = capsys.readouterr().out
    assert "items" in out
    assert "1 (8.3%)" in out
    assert "2 documents" in out
    assert str(tmp_path / "out" / "matches.parquet") in out
    assert main(scan_args(tmp_path, references, "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counts"][0]["n_contaminated_qwen2"] == 1
    assert shown["totals"]["n_documents"] == 2


def test_problems_are_told_and_give_an_exit_code(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(b"broken\n" + as_jsonl([ITEMS[0].text]))
    assert main(scan_args(tmp_path, references)) == 3
    err = capsys.readouterr().err
    assert "1 line that is not JSON" in err
    assert "a.jsonl, record 0: broken_json" in err


def test_files_that_are_not_read_are_told_and_give_an_exit_code(tmp_path, references, capsys):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.jsonl").write_bytes(as_jsonl(["x"]))
    (tmp_path / "c" / "b.jsonl.bz2").write_bytes(bz2.compress(as_jsonl([ITEMS[0].text])))
    command = ["decontam", "scan", str(tmp_path / "c"), "--references", references, "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert "n-grams of items are in 1 document" in capsys.readouterr().out
    (tmp_path / "c" / "d.csv").write_bytes(as_jsonl([ITEMS[1].text]))
    assert main(command) == 3
    err = capsys.readouterr().err
    assert "1 file of a format that is not read" in err
    assert "d.csv, record 0: unknown_format: not of a kind that is read: convert it" in err
    assert main([*command[:-1], str(tmp_path / "strict"), "--strict_input"]) == 64
    assert "d.csv: unknown_format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".GZ", gzip.compress), (".Zst", zstandard.compress), (".bz2", bz2.compress), (".XZ", lzma.compress)],
)
def test_references_may_be_compressed(tmp_path, references, capsys, suffix, pack):
    """The end of a name counted in lower case alone."""
    packed = tmp_path / "items" / f"items.JSONL{suffix}"
    packed.parent.mkdir()
    packed.write_bytes(pack(b"\xef\xbb\xbf" + Path(references).read_bytes()))
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text]))
    for name in (str(packed), f"{packed.parent}/"):
        assert main(scan_args(tmp_path, name, "--json")) == 0
        assert json.loads(capsys.readouterr().out)["totals"]["n_matches"] == 1


@pytest.mark.parametrize("name", ["more.csv", "gone.jsonl"])
def test_references_that_would_not_be_searched_are_an_error(tmp_path, references, capsys, name):
    folder = tmp_path / "items"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(Path(references).read_bytes())
    (folder / "README.md").write_text("About these items.")
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["x"]))
    assert main(scan_args(tmp_path, f"{folder}/")) == 0
    if name == "more.csv":
        (folder / name).write_text("id,text")
    else:
        (folder / name).symlink_to("nowhere")
    assert main(scan_args(tmp_path, f"{folder}/")) == 64
    assert name in capsys.readouterr().err


def test_strict_input_stops(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(b"broken\n")
    assert main(scan_args(tmp_path, references, "--strict_input")) == 64
    assert "record 0: broken_json" in capsys.readouterr().err


def test_the_rule_may_be_another(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([" ".join(ITEMS[0].text.split()[:9])]))
    assert main(scan_args(tmp_path, references, "--ngram_size", "8", "--rule", "strict", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rule"]["ngram_size"] == 8
    assert shown["counts"][0]["n_contaminated_strict"] == 1
    assert shown["counts"][0]["n_contaminated_qwen2"] is None


def test_an_answer_field_is_searched_too(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"{ITEMS[0].text} {ITEMS[0].answer}"]))
    assert main(scan_args(tmp_path, references, "--answer_field", "solution", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["counts"][0]["n_contaminated_qwen2"] == 1


def test_a_tokenizer_that_is_not_there(tmp_path, references, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["nothing"]))
    assert main(scan_args(tmp_path, references, "--tokenizer", f"hf:{tmp_path}")) == 64
    assert "give hf:PATH of a folder with a tokenizer.json" in capsys.readouterr().err
    assert main(scan_args(tmp_path, references, "--tokenizer", "qwen3")) == 64
    assert "give words, qwen2 or hf:PATH" in capsys.readouterr().err


def test_the_filter_tells_what_was_not_scanned(tmp_path, references, capsys):
    corpus, found, clean = (str(tmp_path / name) for name in ("c", "out", "clean"))
    Path(corpus).mkdir()
    (tmp_path / "c" / "a.jsonl").write_bytes(b"broken\n" + as_jsonl(["x", ITEMS[0].text]))
    (tmp_path / "c" / "b.csv").write_bytes(b"x")
    scan = ["decontam", "scan", corpus, "--references", references, "--output", found]
    assert main(scan) == 3
    assert main(["decontam", "filter", corpus, "--matches", found, "--output", clean]) == 3
    out = capsys.readouterr().out
    assert "1 records could not be scanned and are kept" in out
    assert f"not in the copy: 1 file of a format that is not read; the first: {corpus}/b.csv" in out
    assert "cleaned where it was scanned" in out
    (tmp_path / "c" / "a.jsonl").write_bytes(as_jsonl(["x"]).replace(b'"text"', b'"body"'))
    assert main(scan) == 3
    assert main(["decontam", "filter", corpus, "--matches", found, "--output", clean]) == 64
    assert "a.jsonl: none of its 1 records could be read" in capsys.readouterr().err


def test_a_scan_of_an_older_version_is_used_with_a_word(tmp_path, references, capsys):
    """`filter` acted on verdicts of another version as if they were its own."""
    (tmp_path / "corpus.jsonl").write_text('{"text": "nothing"}\n')
    found = str(tmp_path / "found")
    assert (
        main(["decontam", "scan", str(tmp_path / "corpus.jsonl"), "--references", references, "--output", found]) == 0
    )
    capsys.readouterr()
    assert main(["decontam", "show", found]) == 0
    assert capsys.readouterr().err == ""
    manifest = json.loads((tmp_path / "found" / "manifest.json").read_text())
    del manifest["text_version"]  # as before there was one
    (tmp_path / "found" / "manifest.json").write_text(json.dumps(manifest))
    assert main(["decontam", "show", found]) == 0
    assert "is a scan by another version of this program" in capsys.readouterr().err


def test_filter_and_show(tmp_path, references, capsys):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "nothing"]))
    assert main(scan_args(tmp_path, references)) == 0
    found = str(tmp_path / "out")
    command = ["decontam", "filter", str(tmp_path / "a.jsonl"), "--matches", found, "--output", str(tmp_path / "clean")]
    assert main(command) == 0
    assert "1 documents dropped" in capsys.readouterr().out
    assert (tmp_path / "clean" / "a.jsonl").read_bytes().count(b"\n") == 1
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_benchmark"] == {"items": 1}
    assert main(["decontam", "show", found]) == 0
    assert ITEMS[0].id in capsys.readouterr().out
    assert main(["decontam", "show", found, "--html", str(tmp_path / "e.html")]) == 0
    assert "<mark>" in (tmp_path / "e.html").read_text()
    assert main(["decontam", "show", found, "--reference", "none"]) == 64
    assert main(["decontam", "show", str(tmp_path)]) == 64
    assert "holds no scan" in capsys.readouterr().err


def test_references_in_a_folder(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text, "nothing"]))
    folder = tmp_path / "refs"
    write_rows(folder / "deep" / "one.jsonl", [{"text": ITEMS[0].text}])
    write_rows(folder / "two.jsonl", [{"text": ITEMS[1].text}])
    (folder / "notes.txt").write_text("no items")
    assert main(scan_args(tmp_path, f"{folder}/", "--json")) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert [(row["benchmark"], row["n_contaminated_strict"]) for row in counts] == [("one", 1), ("two", 0)]
    # named twice is meant once
    assert (
        main(
            [
                "decontam",
                "scan",
                str(tmp_path / "a.jsonl"),
                "--references",
                f"{folder}/",
                f"{folder}/two.jsonl",
                "--output",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )


def test_a_folder_with_the_name_of_a_task_is_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo_gsm8k").mkdir()
    assert {item.benchmark for item in load_references(["demo_gsm8k"], offline=True)} == {"demo_gsm8k"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--min_lcs", "5", "--rule", "strict"], "--min_lcs has no meaning under --rule strict"),
        (["--ngram_size", "1"], "ngram_size is 1"),
        (["--answer_field", "none"], "no text in field 'none'"),
        (["--references", "no_such_task"], "no_such_task"),
        (["--references", "nowhere.jsonl"], "'nowhere.jsonl': no such file"),
        (["--references", "EMPTY/"], "is a folder without jsonl files"),
    ],
)
def test_what_cannot_be_used(tmp_path, references, capsys, more, message):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["x"]))
    (tmp_path / "empty").mkdir()
    more = [word.replace("EMPTY", str(tmp_path / "empty")) for word in more]
    assert main(scan_args(tmp_path, references, *more)) == 64
    assert message in capsys.readouterr().err


def test_help_has_an_example(capsys):
    for verb in ([], ["scan"], ["filter"], ["show"], ["apply"]):
        with pytest.raises(SystemExit):
            main(["decontam", *verb, "--help"])
        assert "qwen2eval decontam" in capsys.readouterr().out
