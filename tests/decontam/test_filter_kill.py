"""A filter that is killed at any moment, and started again, leaves the files that an undisturbed one leaves."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from decontam import ReferenceIndex, Rule, load_results, scan
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from tests.decontam.corpora import ITEMS, as_jsonl, make_documents

PROGRAM = """
import sys
from decontam import load_results
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
corpus, found, out = sys.argv[1:]
results = load_results(found)
results.matches, results.problems
print("ready", flush=True)
filter_corpus([corpus], results, output=out, options=FilterOptions(action="mask"), workers=2)
"""
N_KILLS = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return files of all sorts, and the folder of their scan."""
    folder = tmp_path_factory.mktemp("kill") / "corpus"
    for i in range(4):
        texts = make_documents(3_000, seed=i)
        (folder / str(i)).mkdir(parents=True)
        (folder / str(i) / "a.jsonl").write_bytes(as_jsonl(texts, ascii_=True))
        (folder / str(i) / "b.jsonl.gz").write_bytes(gzip.compress(as_jsonl(texts)))
        (folder / str(i) / "c.jsonl.zst").write_bytes(zstandard.compress(as_jsonl(texts)))
        pq.write_table(pa.table({"text": texts}), folder / str(i) / "d.parquet", row_group_size=500)
        (folder / str(i) / "e.txt").write_text("\n".join(texts), encoding="utf-8")
    scan([folder], ReferenceIndex.build(ITEMS, Rule()), output=folder.parent / "found")
    return folder, folder.parent / "found"


def start(corpus, out):
    """Start a filter, and return when it begins."""
    command = [sys.executable, "-c", PROGRAM, *map(str, corpus), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def files(folder):
    """Return all that is in a folder, the markers without their times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(folder)), path.read_bytes().replace(str(folder).encode(), b"OUT")
            found[name] = json.loads(data)["summary"] if name.startswith(".done/") else data
    return found


@pytest.mark.slow
def test_killed_at_ten_moments(tmp_path, corpus):
    whole = start(corpus, tmp_path / "whole")
    begin = time.monotonic()
    assert whole.wait(120) == 0
    seconds = time.monotonic() - begin
    wanted = files(tmp_path / "whole")
    assert len(wanted) == 20 + 20 + 2
    rng, n_begun = random.Random(0), []
    for i in range(N_KILLS):
        out = tmp_path / str(i)
        process = start(corpus, out)
        # a moment in each tenth of the time, so that some are early and some late
        time.sleep(seconds * rng.uniform(i, i + 1) / N_KILLS)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        n_begun.append(len(files(out)) if out.exists() else 0)
        filter_corpus([corpus[0]], load_results(corpus[1]), output=out, options=FilterOptions(action="mask"))
        assert files(out) == wanted
    # else the moments were no good: too early or too late
    assert sum(0 < n < len(wanted) for n in n_begun) >= 3, n_begun


def test_a_copy_without_its_marker_is_made_again(tmp_path, corpus):
    """A filter that was killed between a copy and its marker."""
    options = FilterOptions(action="mask")
    filter_corpus([corpus[0]], load_results(corpus[1]), output=tmp_path / "out", options=options)
    wanted = files(tmp_path / "out")
    for i, marker in enumerate(sorted((tmp_path / "out" / ".done").iterdir())):
        if i % 2:
            marker.unlink()
    (tmp_path / "out" / "0" / ".a.jsonl.part").write_bytes(b"half a cop")
    (tmp_path / "out" / "1" / ".d.parquet.part").write_bytes(b"PAR1")
    (tmp_path / "out" / "summary.json").unlink()
    (tmp_path / "out" / "0" / "a.jsonl").unlink()
    (tmp_path / "out" / "1" / "d.parquet").unlink()
    filter_corpus([corpus[0]], load_results(corpus[1]), output=tmp_path / "out", options=options)
    assert files(tmp_path / "out") == wanted
