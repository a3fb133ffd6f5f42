"""The Ray engine leaves what threads leave, on a real cluster, and either goes on where the other was stopped."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decontam import DecontamError, ReferenceIndex, Rule, scan
from decontam.ray_engine import RETRIES, ray_runner, run_on_ray
from decontam.records import Part
from qwen2eval.cli.main import main
from tests.decontam.corpora import ITEMS, as_jsonl, make_documents, write
from tests.killing import wait_for
from tests.local_tasks import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
PARTS = [Part(f"{i}.jsonl", 0, 1, 1, (1, 1)) for i in range(6)]
PROGRAM = """
import sys
from functools import partial
from decontam import DecontamError, ReferenceIndex, Rule, ray_engine, scan
from tests.decontam.corpora import ITEMS
corpus, out, address = sys.argv[1:4]
ray_engine.CONNECT_SECONDS = float(sys.argv[4])
gate, N_FREE = sys.argv[5], int(sys.argv[6])

class Gated:
    def __init__(self, work, free):
        self.work, self.free = work, free

    def __call__(self, part):
        if part not in self.free:
            open(gate, "rb").close()  # until somebody opens it to write
        return self.work(part)

def gated(work, parts):
    return runner(Gated(work, parts[:N_FREE]) if gate else work, parts)

try:
    runner = ray_engine.ray_runner(address=address)
    scan([corpus], ReferenceIndex.build(ITEMS, Rule()), output=out, part_bytes=2_000, runner=gated)
except DecontamError as err:
    sys.exit(str(err))
"""
N_FREE = 4
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with every kind of file, and some that can't be read as they should."""
    folder = tmp_path_factory.mktemp("ray") / "corpus"
    write(folder / "a", make_documents(900, seed=1), "jsonl")
    write(folder / "b", make_documents(80, seed=2), "zst")
    write(folder / "c", make_documents(80, seed=3), "parquet")
    (folder / "broken.jsonl").write_bytes(as_jsonl(make_documents(20, seed=4)) + b"{\n" + b'{"text": "\xff"}\n')
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(as_jsonl(make_documents(80, seed=5)))[:-50])
    return folder


def contents(folder):
    """Return all that a scan leaves, but for how long it took."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    manifest = json.loads(found["manifest.json"])
    return found | {"manifest.json": {name: value for name, value in manifest.items() if name != "seconds"}}


def start(corpus, out, address="local", *, seconds=60, gate="", **options):
    """Start a scan; with a FIFO as its gate, one that does N_FREE parts and is held in the others."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PROGRAM, str(corpus), str(out), address, str(seconds), str(gate), str(N_FREE)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)


def references(tmp_path):
    rows = [{"id": item.id, "text": item.text, "answer": item.answer} for item in ITEMS]
    return str(write_rows(tmp_path / "items.jsonl", rows))


def test_the_output_is_that_of_threads(tmp_path, index, corpus):
    scan([corpus], index, output=tmp_path / "threads", part_bytes=2_000)
    results = scan([corpus], index, output=tmp_path / "ray", part_bytes=2_000, runner=ray_runner())
    assert contents(tmp_path / "ray") == contents(tmp_path / "threads")
    assert len(results.matches) > 100
    assert set(results.manifest["problems"]) == {"broken_json", "invalid_utf8", "truncated"}
    assert {path.name for path in (tmp_path / "ray" / "parts").iterdir()} == {
        path.name for path in (tmp_path / "threads" / "parts").iterdir()
    }


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (None, 2)], ids=["one", "all"])
def test_workers_are_tasks_at_a_time(tmp_path, workers, most):
    folder, met = tmp_path / "running", tmp_path / "met"
    folder.mkdir()

    def work(part):
        here = folder / part.path
        here.touch()
        deadline = time.monotonic() + 60
        while (n_running := len(list(folder.iterdir()))) < most and not met.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # for one too many to come
        n_running = max(n_running, len(list(folder.iterdir())))
        if n_running >= most:
            met.touch()
        here.unlink()
        return part, n_running

    list(run_on_ray(work, PARTS[:2]))  # both workers are there
    results = list(run_on_ray(work, PARTS, workers=workers))
    assert sorted(part for part, _ in results) == PARTS
    assert max(n_running for _, n_running in results) == most


def test_the_work_is_made_once_in_each_process(tmp_path):
    folder = tmp_path

    class Work:
        def __setstate__(self, state):
            (folder / f"{os.getpid()} {time.monotonic_ns()}").touch()

        def __getstate__(self):
            return {"n": 1}

        def __call__(self, part):
            return part, os.getpid()

    pids = {pid for _, pid in run_on_ray(Work(), PARTS * 5)}
    made = [int(path.name.split()[0]) for path in folder.iterdir()]
    assert sorted(made) == sorted(pids)
    assert len(pids) < 5


def test_a_worker_that_dies_is_replaced(tmp_path):
    marker = tmp_path / "died"

    def work(part):
        if part == PARTS[1] and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    assert sorted(run_on_ray(work, PARTS)) == PARTS


def test_a_part_that_kills_every_worker_is_told(tmp_path):
    folder = tmp_path

    def work(_part):
        (folder / f"{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DecontamError, match=r"0\.jsonl: Ray gave up on a part: .*scan again"):
        list(run_on_ray(work, PARTS[:1]))
    assert len(list(folder.iterdir())) == 1 + RETRIES


def test_a_bug_keeps_its_traceback():
    def work(_part):
        return 1 / 0

    with pytest.raises(ZeroDivisionError, match="in work"):
        list(run_on_ray(work, PARTS))


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_strict_input_is_the_same_error(tmp_path, capsys, corpus, engine):
    where = ["--references", references(tmp_path), "--output", str(tmp_path / "out"), "--engine", engine]
    assert main(["decontam", "scan", str(corpus / "broken.jsonl"), *where, "--strict_input"]) == 64
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"qwen2eval: {corpus}/broken.jsonl, record 20: broken")


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_under_ray_goes_on_with_threads(tmp_path, index, corpus, stop):
    scanned = []

    def watched(work, parts):
        scanned.append(parts)
        return map(work, parts)

    scan([corpus], index, output=tmp_path / "whole", part_bytes=2_000, runner=watched)
    os.mkfifo(tmp_path / "gate")
    process, parts = start(corpus, tmp_path / "out", gate=tmp_path / "gate"), tmp_path / "out" / "parts"
    wait_for(lambda: process.poll() is not None or len(list(parts.glob("*.parquet"))) >= N_FREE)
    process.send_signal(stop)
    process.communicate(timeout=300)
    assert process.returncode == -stop
    scan([corpus], index, output=tmp_path / "out", part_bytes=2_000, runner=watched)
    whole, rest = scanned
    assert rest == whole[N_FREE:]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_stopped_under_threads_goes_on_with_ray(tmp_path, index, corpus):
    whole = scan([corpus], index, output=tmp_path / "whole", part_bytes=2_000)
    assert whole.manifest

    def stopped(work, parts):
        yield from (work(part) for part in parts[::2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan([corpus], index, output=tmp_path / "out", part_bytes=2_000, runner=stopped)
    scan([corpus], index, output=tmp_path / "out", part_bytes=2_000, runner=ray_runner())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_cluster_by_its_address(tmp_path, index, corpus, ray_cluster):
    """A relative path is found, though the nodes' folder is another than the driver's."""
    process = start("corpus", tmp_path / "out", ray_cluster, cwd=corpus.parent)
    assert process.communicate(timeout=300)[1] == ""
    there = scan([corpus], index, output=tmp_path / "whole")
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["totals"] == there.manifest["totals"]
    assert list(run_on_ray(tuple, PARTS[:1])) == [tuple(PARTS[0])]  # it is still there


def test_nothing_at_the_address(tmp_path, corpus):
    process = start(corpus, tmp_path / "out", "127.0.0.1:1", seconds=6)
    told = process.communicate(timeout=300)[1]
    assert re.search(r"can't connect to a Ray cluster at '127\.0\.0\.1:1' within 6\.0 seconds: give HOST:PORT", told)


def test_a_cluster_that_asks_for_a_token(tmp_path, corpus, ray_cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    process = start(corpus, tmp_path / "out", ray_cluster)
    told = process.communicate(timeout=300)[1]
    assert process.returncode
    assert "it asks for a token: set RAY_AUTH_MODE=token" in told


def test_files_that_a_node_does_not_see_are_told(tmp_path, index):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([ITEMS[0].text]))

    def elsewhere(work, parts):
        moved = [part._replace(path=part.path.replace("a.jsonl", "no.jsonl")) for part in parts]
        back = dict(zip(moved, parts, strict=True))
        for result in run_on_ray(work, moved):
            result.part = back[result.part]
            yield result

    results = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", runner=elsewhere)
    assert results.manifest["problems"] == {"unreadable": 1}
    again = scan([tmp_path / "a.jsonl"], index, output=tmp_path / "out", runner=ray_runner())
    assert (again.manifest["problems"], len(again.matches)) == ({}, 1)


def test_ray_is_not_installed(tmp_path):
    code = "import sys; sys.modules['ray'] = None; from qwen2eval.cli.main import main; sys.exit(main(sys.argv[1:]))"
    args = ["decontam", "scan", "x.jsonl", "--references", "y.jsonl", "--output", str(tmp_path), "--engine", "ray"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "pip install 'qwen2eval[ray]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_address_is_for_ray(tmp_path, capsys):
    args = ["decontam", "scan", "x.jsonl", "--references", "y.jsonl", "--output", str(tmp_path)]
    assert main([*args, "--address", "head:6379"]) == 64
    assert "--engine ray" in capsys.readouterr().err
