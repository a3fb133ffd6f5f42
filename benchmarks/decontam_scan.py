"""Our scan against a naive set of 13-tuples and allenai/decon: the same corpus, items and cores, in one run.

Needs QWEN2EVAL_DATA (GSM8K, HumanEval and MMLU as published). With QWEN2EVAL_REAL_MODEL, a checkpoint of Qwen2, the
search in its tokens is measured, too. allenai/decon is compared where DECON_PYTHON names a
Python that has it (`pip install decontaminate` in a venv of Python 3.12). MB are 10^6 bytes of jsonl, and a rate is a
CPU second's: user and system time of the whole process, start and reports included.

    benchmarks/decontam_scan.py [--mb 500] [--rounds 3] [--corpus DIR] [--peers_mb N]
"""

import argparse
import csv
import gzip
import json
import os
import sys
import tempfile
from multiprocessing import Process
from pathlib import Path
from statistics import median
from typing import Any

from lib.decontam_corpus import write_corpus
from lib.measure import Cost, measure, python, show, title

ITEM_FILES = "items.jsonl"
MODEL = os.environ.get("QWEN2EVAL_REAL_MODEL", "")
OURS = (("ours", 1, None), ("ours, 2 threads", 2, None), ("ours, BPE", 1, MODEL))
"""Name, threads, and the folder of a tokenizer; "" where there is none."""
BPE_AIM = {"ours, BPE": "target >= 40 MB/CPU s"}
BUILD = """
import sys, time
from pathlib import Path
from decontam import ReferenceIndex, read_references
items = read_references(Path(sys.argv[1]), answer_field="answer")
ReferenceIndex.build(items[:50])
begin = time.process_time()
index = ReferenceIndex.build(items)
print(len(items), index.n_ngrams, time.process_time() - begin)
"""
NAIVE = """
import json, re, sys
from pathlib import Path
word = re.compile(r"\\w+").findall
def ngrams(text):
    words = word(text.lower())
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
known = set()
for line in open(sys.argv[2], encoding="utf-8"):
    item = json.loads(line)
    answer = item["answer"] if isinstance(item["answer"], str) else " ".join(item["answer"])
    known |= ngrams(item["text"] + " " + answer)
found = 0
for path in sorted(Path(sys.argv[1]).glob("*.jsonl")):
    for line in open(path, encoding="utf-8"):
        found += not known.isdisjoint(ngrams(json.loads(line)["text"]))
print(found)
"""
DECON = """
import sys, decon
decon.detect(decon.Config(training_dir=sys.argv[1], evals_dir=sys.argv[2], report_output_dir=sys.argv[3],
                          worker_threads=int(sys.argv[4])))
"""
LIMITS = """
import sys, time, numpy as np, orjson, zstandard
data = open(sys.argv[1], "rb").read()
lines, packed = data.splitlines(), zstandard.ZstdCompressor(3).compress(data)
def rate(do):
    do(); begin = time.process_time(); do()
    return len(data) / 1e6 / (time.process_time() - begin)
print(rate(lambda: [orjson.loads(line) for line in lines]),
      rate(lambda: zstandard.ZstdDecompressor().decompress(packed)), rate(lambda: np.frombuffer(data, np.uint8).copy()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=500, help="of the corpus [default: 500]")
    parser.add_argument("--peers_mb", type=int, help="of the corpus that the others scan [default: all]")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many [default: 3]")
    parser.add_argument("--corpus", type=Path, help="keep the corpus here, and use it if it is there")
    args = parser.parse_args()
    data_dir = Path(os.environ.get("QWEN2EVAL_DATA") or sys.exit(f"QWEN2EVAL_DATA is not set: see {__file__}"))
    title("searching a corpus for GSM8K, HumanEval and MMLU")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.corpus or Path(scratch) / "corpus"
        items = Path(scratch) / ITEM_FILES
        n_items = write_items(items, data_dir)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            # in a process of its own: the memory of this one counts as the first memory of those that it starts
            writing = Process(target=write_corpus, args=(folder, args.mb * 1_000_000, planted_items(items)))
            writing.start()
            writing.join()
        compare(folder, items, Path(scratch), args, n_items)


def compare(folder: Path, items: Path, scratch: Path, args: argparse.Namespace, n_items: int) -> None:
    """Print the table."""
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    measure([*python(BUILD), str(items)])  # compiles, and keeps what it compiled
    _, n_ngrams, seconds = measure([*python(BUILD), str(items)]).output.split()
    show(f"index of {n_items:,} items, {int(n_ngrams):,} n-grams", [f"{float(seconds):.2f} CPU s"], aim="target <= 2")
    costs: dict[str, list[Cost]] = {name: [] for name in ("ours", "ours, 2 threads", "ours, BPE", "naive", "decon")}
    part = a_part(folder, scratch / "part", args.peers_mb) if args.peers_mb else folder
    for round_ in range(args.rounds):
        for name, workers, tokens in OURS:
            if tokens is None or tokens:
                out = str(scratch / f"out-{workers}-{round_}-{bool(tokens)}")
                costs[name].append(measure(our_command(folder, items, out, workers, tokens)))
        costs["naive"].append(measure([*python(NAIVE), str(part), str(items)]))
        if decon := os.environ.get("DECON_PYTHON"):
            costs["decon"].append(decon_cost(decon, part, items, scratch / f"decon-{round_}"))
    part_mb = sum(path.stat().st_size for path in part.iterdir()) / 1e6
    rates = {
        name: (megabytes if name.startswith("ours") else part_mb) / median(cost.cpu_seconds for cost in found)
        for name, found in costs.items()
        if found
    }
    for name, rate in rates.items():
        peak = median(cost.peak_mb for cost in costs[name])
        against = "" if name.startswith("ours") else f"ours {rates['ours'] / rate:.1f}x"
        aim = {
            "naive": "target >= 20x",
            "decon": "target >= 40x",
            "ours": "target <= 400 MB",
            "ours, BPE": "target >= 40 MB/CPU s",
        }.get(name, "")
        show(
            f"{name}, {megabytes if name.startswith('ours') else part_mb:,.0f} MB", cells(rate, peak, against), aim=aim
        )
    one, two = (median(cost.wall_seconds for cost in costs[name]) for name in ("ours", "ours, 2 threads"))
    show("2 threads against 1, wall", [f"{one:.1f} s", f"{two:.1f} s", f"{one / two:.2f}x"], aim="target >= 1.8x")
    limits = measure([*python(LIMITS), str(min(folder.iterdir()))]).output.split()
    for name, rate in zip(("orjson", "zstd", "memory copy"), map(float, limits), strict=True):
        show(f"limit of the machine: {name}", [f"{rate:,.0f} MB/s"])


def planted_items(items: Path) -> list[tuple[str, str]]:
    return [(row["id"], f"{row['text']}\n{_as_text(row['answer'])}") for row in read(items)]


def _as_text(answer: str | list[str]) -> str:
    """Return an answer, or choices, a line each."""
    return answer if isinstance(answer, str) else "\n".join(answer)


def our_command(corpus: Path, items: Path, out: str, workers: int, tokens: str | None) -> list[str]:
    pinned = ["taskset", "-c", "0"] if workers == 1 else []
    options = ["--references", str(items), "--answer_field", "answer", "--output", out, "--workers", str(workers)]
    chosen = ["--tokenizer", f"hf:{tokens}"] if tokens else []
    return [*pinned, sys.executable, "-m", "qwen2eval", "decontam", "scan", str(corpus), *options, *chosen]


def cells(rate: float, peak_mb: float, against: str) -> list[str]:
    return [f"{rate:,.1f} MB/CPU s", f"{peak_mb:,.0f} MB", against]


def decon_cost(interpreter: str, corpus: Path, items: Path, scratch: Path) -> Cost:
    """Run allenai/decon on one core, with the items in its own form."""
    evals = scratch / "evals"
    evals.mkdir(parents=True)
    with (evals / "items.jsonl").open("w", encoding="utf-8") as file:
        for i, row in enumerate(read(items)):
            told = {
                "eval_key": row["id"].split("/")[0],
                "eval_instance_index": i,
                "split": "test",
                "fingerprint": row["id"],
            }
            file.write(
                json.dumps({**told, "question": row["text"], "answer": _as_text(row["answer"]), "doc_id": i}) + "\n"
            )
    command = ["taskset", "-c", "0", interpreter, "-c", DECON, str(corpus), str(evals), str(scratch / "out"), "1"]
    return measure(command)


def a_part(folder: Path, part: Path, megabytes: int) -> Path:
    """Copy the first files of a corpus, about so many megabytes."""
    part.mkdir()
    left = megabytes * 1_000_000
    for path in sorted(folder.iterdir()):
        if left > 0:
            lines = path.read_bytes()[:left]
            (part / path.name).write_bytes(lines[: lines.rfind(b"\n") + 1])
            left -= len(lines)
    return part


def write_items(path: Path, data_dir: Path) -> int:
    """Write the items of the three benchmarks, as `read_references` takes them."""
    rows: list[tuple[str, str, str | list[str]]] = []
    for i, line in enumerate((data_dir / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        rows.append((f"gsm8k/{i}", row["question"], row["answer"]))
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    rows += [(f"humaneval/{i}", row["prompt"], row["canonical_solution"]) for i, row in enumerate(found)]
    for table in sorted((data_dir / "mmlu" / "test").glob("*.csv")):
        with table.open(encoding="utf-8", newline="") as file:
            rows += [(f"mmlu/{table.stem}/{i}", row[0], row[1:5]) for i, row in enumerate(csv.reader(file)) if i]
    with path.open("w", encoding="utf-8") as file:
        for name, text, answer in rows:
            benchmark = name.split("/")[0]
            file.write(json.dumps({"id": name, "text": text, "answer": answer, "benchmark": benchmark}) + "\n")
    return len(rows)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
