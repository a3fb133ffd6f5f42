"""A scan and a filter that are killed at any moment, and started again, leave what an undisturbed one leaves."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.decontam.corpora import ITEMS, as_jsonl, make_documents

PROGRAM = """
import sys, time
from pathlib import Path
from decontam import ReferenceIndex, Rule, load_results, scan
from decontam.filter import filter_corpus
from tests.decontam.corpora import ITEMS
folder, out, verb = map(Path, sys.argv[1:4])
print("ready", flush=True)
if str(verb) == "scan":
    scan([folder], ReferenceIndex.build(ITEMS, Rule()), output=out, part_bytes=4_000, workers=2)
else:
    filter_corpus([folder], load_results(folder.parent / "found"), output=out, workers=2)
"""
N_KILLS = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "corpus"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.jsonl").write_bytes(as_jsonl(make_documents(250, seed=i)))
    return folder


def start(*args):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, args)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # imports are done
    process.stdout.close()
    return process


def files(folder):
    skipped = ("manifest.json",)  # tells its seconds
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and "parts" not in path.parts and ".done" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["scan", "filter"])
def test_killed_at_ten_moments(tmp_path, corpus, verb):
    if verb == "filter":
        assert start(corpus, corpus.parent / "found", "scan").wait(120) == 0
    begin = time.monotonic()
    assert start(corpus, tmp_path / "whole", verb).wait(120) == 0
    seconds = time.monotonic() - begin
    rng, n_killed = random.Random(0), 0
    for i in range(N_KILLS):
        process = start(corpus, tmp_path / "killed", verb)
        time.sleep(rng.uniform(0, seconds / 3 if i < 8 else seconds))
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait(60) == -signal.SIGKILL
    assert n_killed > 3
    assert start(corpus, tmp_path / "killed", verb).wait(120) == 0
    whole, killed = files(tmp_path / "whole"), files(tmp_path / "killed")
    leftovers = {name for name in killed if name.rpartition("/")[2].startswith(".")}
    assert {name: data for name, data in killed.items() if name not in leftovers and "summary" not in name} == {
        name: data for name, data in whole.items() if "summary" not in name
    }
    assert len(whole) > 5
    assert len(ITEMS) > 10
