"""The same seed gives the same bytes, in formats that this project's readers take."""

import csv
import hashlib
import json
import operator
import subprocess
import sys
from collections import Counter

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.data import gsm8k, humaneval, mmlu
from qwen2eval.demo.dice import Dice
from qwen2eval.demo.publish import CORPUS, PLANTED, main, publish
from qwen2eval.demo.training_text import read_corpus
from qwen2eval.demo.world import RELATIONS, World
from qwen2eval.errors import DataFileError
from qwen2eval.long_context.niah.needles import load_needles
from qwen2eval.long_context.niah.task import FRAMES as NIAH_FRAMES

# Of all files of seed 2024 and scale 0.02, the corpus unpacked. A change of any text changes it, and makes the shipped
# corpus and model old: train anew.
FINGERPRINT = "af20ee446fba8f85"
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def fingerprint(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        data = path.read_bytes()
        if path.suffix == ".zst":  # another zstandard may pack otherwise
            data = zstandard.ZstdDecompressor().decompress(data)
        digest.update(f"{path.relative_to(folder)}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


@pytest.mark.slow
def test_same_bytes_on_every_machine(folder):
    assert fingerprint(folder) == FINGERPRINT


def test_another_seed_is_another_world(folder, tmp_path):
    publish(World(7), tmp_path / "seven", scale=0.0)
    assert World(7).people != World(8).people
    assert (tmp_path / "seven" / PLANTED).read_bytes() != (folder / PLANTED).read_bytes()


def test_names_and_facts_are_unambiguous():
    world = World()
    for kind, relations in RELATIONS.items():
        beings = getattr(world, kind)
        assert len({being.short for being in beings}) == len(beings)
        for fact in world.facts(kind):
            assert fact.value in fact.relation.values
            assert all(fact.being.name in s.format(who=fact.being.name, value="") for s in fact.relation.statements)
        assert len(world.facts(kind)) == len(beings) * len(relations)


def test_published_files_are_read(folder):
    quiz, problems, programs = (reader.load(data_dir=str(folder)) for reader in (mmlu, gsm8k, humaneval))
    assert {name: len(rows) for name, rows in quiz.items()} == {"dev": 35, "test": 336}
    assert {name: len(rows) for name, rows in problems.items()} == {"train": 40, "test": 240}
    assert len(programs["test"]) == 80
    needles = [
        needle for language in ("en", "zh") for needle in load_needles(str(folder / f"niah/needles/{language}.jsonl"))
    ]
    assert len(needles) == 240
    assert len(set(programs["test"]["task_id"])) == 80


def test_every_letter_is_right_about_equally_often(folder):
    letters = Counter(mmlu.load(data_dir=str(folder))["test"]["answer"])
    # 84 are expected of each; 4 standard deviations are 32
    assert all(52 <= letters[letter] <= 116 for letter in range(4))


def test_answers_are_right(made):
    """Word problems are worked out anew from their steps, choices of rules from the question."""
    for item in made.benchmarks.of("demo_gsm8k"):
        *steps, last = item.row["answer"].split("\n")
        for step in steps:
            left, right = step.split(" = ")
            first, sign, second = left.split()[-3:]
            result = int(right.split()[0].rstrip("."))
            assert OPERATORS[sign](int(first), int(second)) == result
        assert last == f"#### {result}"
        assert result > 0
    for item in made.benchmarks.of("demo_mmlu"):
        choices, right = item.row["choices"], item.row["choices"]["ABCD".index(item.row["answer"])]
        assert len(set(choices)) == 4
        if item.group in ("numbers", "alphabet"):
            key = int if item.group == "numbers" else str
            pick = min if "smallest" in item.question or "first" in item.question else max
            assert key(right) == pick(map(key, choices))


def test_frames_are_those_of_the_niah_tasks():
    from qwen2eval.demo.needles import FRAMES

    for language, (before, after) in FRAMES.items():
        theirs = NIAH_FRAMES[language]
        assert before == theirs.before
        assert after.format(question="{question}", answer="").rstrip() == theirs.after.rstrip()


def test_haystack_holds_no_code(folder):
    for path in folder.glob("niah/haystack/*/*.txt"):
        text = path.read_text(encoding="utf-8")
        assert not any(sign.isdigit() for sign in text)
        assert len(text.splitlines()) == 400


def test_planting_list_points_into_the_corpus(folder, made):
    rows = read_corpus(folder / CORPUS)
    planted = [json.loads(line) for line in (folder / PLANTED).read_text(encoding="utf-8").splitlines()]
    items = dict(zip(made.benchmarks.ids(), made.benchmarks.items, strict=True))
    assert {row["item"] for row in planted} == set(items)
    for row in planted:
        item = items[row["item"]]
        assert (row["benchmark"], row["kind"]) == (item.benchmark, item.kind)
        if item.kind == "unseen":
            assert row["document"] is None
        else:
            document = rows[row["row"]]
            assert document["id"] == row["document"]
            assert document["text"][row["begin"] : row["end"]] == (item.planted or item.phrase)


def test_item_names_count_as_the_readers_do(folder, made):
    """`demo_mmlu/17` in the planting list is what a run calls its doc 17."""
    quiz = mmlu.load(data_dir=str(folder))["test"]
    for doc_id, (doc, item) in enumerate(zip(quiz, made.benchmarks.of("demo_mmlu"), strict=True)):
        assert (doc["question"], doc["subject"]) == (item.question, item.group), doc_id


def test_needles_are_counted_through_their_files(folder, made):
    lines = [n for language in ("en", "zh") for n in load_needles(str(folder / f"niah/needles/{language}.jsonl"))]
    assert [needle.needle for needle in lines] == [item.question for item in made.benchmarks.of("demo_niah")]


def test_csv_is_in_mmlus_original_form(folder):
    with (folder / "mmlu/test/sums_test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {6}
    assert {row[5] for row in rows} <= set("ABCD")


def test_command(tmp_path):
    command = [
        sys.executable,
        "-m",
        "qwen2eval.demo.publish",
        "--out",
        str(tmp_path / "new" / "folder"),
        "--scale",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo_humaneval        80" in done.stdout
    assert (tmp_path / "new" / "folder" / CORPUS).is_file()


@pytest.mark.parametrize("scale", ["-1", "0"])
def test_folder_that_is_a_file_or_scale_below_0(tmp_path, capsys, scale):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file"), "--scale", scale]) == 64
    message = capsys.readouterr().err
    assert ("scale" if scale == "-1" else "can't be written") in message


def test_broken_corpus_is_named(tmp_path):
    path = tmp_path / CORPUS
    path.write_bytes(b"no zstandard")
    with pytest.raises(DataFileError, match=r"corpus\.jsonl\.zst"):
        read_corpus(path)


@given(st.integers(), st.lists(st.integers(), unique=True, max_size=20), st.integers(0, 25))
def test_dice_draw_each_value_once(seed, values, n):
    drawn = Dice(seed).some(values, n)
    assert len(drawn) == min(n, len(values))
    assert set(drawn) <= set(values)
    assert len(set(drawn)) == len(drawn)
    assert drawn == Dice(seed).some(values, n)
    assert sorted(Dice(seed).shuffled(values)) == sorted(values)


def test_dice_are_fair():
    dice = Dice(3)
    counts = Counter(dice.between(1, 6) for _ in range(6_000))
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    # 1,000 expected, standard deviation 29; fails by chance for fewer than 1 of 10,000 seeds, and never for this one
    assert all(870 < count < 1_130 for count in counts.values())
