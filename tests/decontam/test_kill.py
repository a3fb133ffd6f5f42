"""A scan and a filter that are killed at many places, and started again, leave what undisturbed ones leave."""

import gzip
import json
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from decontam import ReferenceIndex, Rule, load_results, scan
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import ITEMS, as_jsonl, make_documents
from tests.killing import Place

PROGRAM = """
import json, sys
from pathlib import Path
from decontam import ReferenceIndex, Rule, load_results, scan
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import ITEMS
from tests.killing import Place, run_until_each
verb, corpus, found, out, places = sys.argv[1:]

def work():
    if verb == "scan":
        scan([corpus], ReferenceIndex.build(ITEMS, Rule()), output=out, part_bytes=4_000, workers=2)
    else:
        filter_corpus([corpus], load_results(found), output=out, options=FilterOptions(action="mask"), workers=2)

print(json.dumps(run_until_each([Place(*place) for place in json.loads(places)], work)))
"""
HALF = Place("write", number=1_000)
# the renames that one start goes on with are fewer than there are, so that none can end before it is killed
PLACES = {
    "scan": [
        Place("os.mkdir", "parts"),
        HALF,
        *(Place("os.rename", "/parts/", number) for number in (1, 2, 5, 10, 20)),
        Place("os.rename", "matches.parquet"),
        Place("open", "manifest.json"),
        Place("os.rename", "manifest.json"),
    ],
    "filter": [
        Place("os.mkdir", ".done"),
        HALF,
        Place("os.rename", ".a.jsonl.part"),
        Place("open", "/.done/", 2),  # no marker for the copy: it reads one, and writes it beside
        Place("os.rename", "/.done/"),
        *(Place("os.rename", ".part", number) for number in (3, 7)),
        Place("os.rename", ".d.parquet.part"),
        Place("open", "summary.json"),
        Place("os.rename", "summary.md"),
    ],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder of files of all sorts."""
    folder = tmp_path_factory.mktemp("kill") / "corpus"
    for i in range(4):
        texts = make_documents(300, seed=i)
        (folder / str(i)).mkdir(parents=True)
        (folder / str(i) / "a.jsonl").write_bytes(as_jsonl(texts, ascii_=True))
        (folder / str(i) / "b.jsonl.gz").write_bytes(gzip.compress(as_jsonl(texts)))
        (folder / str(i) / "c.jsonl.zst").write_bytes(zstandard.compress(as_jsonl(texts)))
        pq.write_table(pa.table({"text": texts}), folder / str(i) / "d.parquet", row_group_size=50)
        (folder / str(i) / "e.txt").write_text("\n".join(texts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def found(corpus):
    """Return the folder of its scan."""
    folder = corpus.parent / "found"
    scan([corpus], ReferenceIndex.build(ITEMS, Rule()), output=folder, part_bytes=4_000)
    return folder


def files(folder):
    """Return all that is in a folder, without times."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(folder)), path.read_bytes().replace(str(folder).encode(), b"OUT")
            if name.startswith(".done/"):
                data = json.loads(data)["summary"]
            elif name == "manifest.json":
                data = {key: value for key, value in json.loads(data).items() if key != "seconds"}
            contents[name] = data
    return contents


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["scan", "filter"])
def test_killed_at_ten_places(tmp_path, corpus, found, verb):
    options = FilterOptions(action="mask")
    places, out = PLACES[verb], tmp_path / "killed"
    words = [verb, *map(str, (corpus, found, out)), json.dumps(places)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, check=True)
    ends = [-signal.SIGXFSZ if place is HALF else -signal.SIGKILL for place in places]
    assert json.loads(done.stdout) == ends
    if verb == "scan":
        scan([corpus], ReferenceIndex.build(ITEMS, Rule()), output=out, part_bytes=4_000)
        assert files(out) == files(found)
    else:
        filter_corpus([corpus], load_results(found), output=tmp_path / "whole", options=options)
        filter_corpus([corpus], load_results(found), output=out, options=options)
        wanted = files(tmp_path / "whole")
        assert len(wanted) == 20 + 20 + 2
        assert files(out) == wanted


def test_a_copy_without_its_marker_is_made_again(tmp_path, corpus, found):
    """A filter that was killed between a copy and its marker."""
    options = FilterOptions(action="mask")
    filter_corpus([corpus], load_results(found), output=tmp_path / "out", options=options)
    wanted = files(tmp_path / "out")
    for i, marker in enumerate(sorted((tmp_path / "out" / ".done").iterdir())):
        if i % 2:
            marker.unlink()
    (tmp_path / "out" / "0" / ".a.jsonl.part").write_bytes(b"half a cop")
    (tmp_path / "out" / "1" / ".d.parquet.part").write_bytes(b"PAR1")
    (tmp_path / "out" / "summary.json").unlink()
    (tmp_path / "out" / "0" / "a.jsonl").unlink()
    (tmp_path / "out" / "1" / "d.parquet").unlink()
    filter_corpus([corpus], load_results(found), output=tmp_path / "out", options=options)
    assert files(tmp_path / "out") == wanted
