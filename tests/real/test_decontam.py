"""Real benchmark items planted in public-domain novels, English and Chinese: what is found is what a slow search finds.

Needs the published files (QWEN2EVAL_DATA, or `shared/data` beside the project).
"""

import csv
import gzip
import json
import random
import re
from collections import defaultdict

import numpy as np
import pytest
from rapidfuzz.distance import LCSseq
from tokenizers import Tokenizer

from decontam import Reference, ReferenceIndex, Rule
from tests.decontam import slow

pytestmark = [pytest.mark.real, pytest.mark.slow]

SIZE = 13
N_PLANTED = 150
PIECE = 3_000
"""Characters of a document."""
EDITS = {
    "exact": lambda text, _: text,
    "case": lambda text, _: text.upper(),
    "signs": lambda text, _: re.sub(r"[,.;:?!，。？！]", " -- ", text),
    "wrapped": lambda text, _: re.sub(r"(\S+ \S+ )", r"\1\n", text),
    "wide": lambda text, _: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "words": lambda text, rng: " ".join(w if rng.random() > 0.05 else "other" for w in text.split(" ")),
    "first half": lambda text, _: text[: len(text) // 2],
}


@pytest.fixture(scope="module")
def items(data_dir):
    found = []
    for i, line in enumerate((data_dir / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        found.append(Reference(f"gsm8k/{i}", row["question"], row["answer"], "gsm8k"))
    with gzip.open(data_dir / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found += [Reference(row["task_id"], row["prompt"], row["canonical_solution"], "humaneval") for row in rows]
    for path in sorted((data_dir / "mmlu" / "test").glob("*.csv"))[:12]:
        with path.open(encoding="utf-8", newline="") as file:
            for i, row in enumerate(list(csv.reader(file))[1:]):
                found.append(Reference(f"{path.stem}/{i}", row[0], "\n".join(row[1:5]), "mmlu"))
    with (data_dir / "mgsm" / "mgsm_zh.tsv").open(encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [*found, *(Reference(f"mgsm_zh/{i}", row[0], row[1], "mgsm_zh") for i, row in enumerate(rows))]


@pytest.fixture(scope="module")
def documents(data_dir, items):
    """Pieces of the novels, some with an item in their middle, and which item that is."""
    rng = random.Random(0)
    paths = [*sorted((data_dir / "haystack").glob("*/*-0.txt")), data_dir / "haystack" / "en" / "1661.txt"]
    novels = [(path.parent.name, path.read_text(encoding="utf-8")) for path in paths]
    made = []
    for language, text in novels:
        wanted = [item for item in items if (item.benchmark == "mgsm_zh") == (language == "zh")]
        pieces = [text[i : i + PIECE] for i in range(0, min(len(text), N_PLANTED * 2 * PIECE), PIECE)]
        for number, piece in enumerate(pieces):
            if number % 2:
                made.append((piece, None, None))
                continue
            item, way = rng.choice(wanted), rng.choice(sorted(EDITS))
            planted = EDITS[way](f"{item.text}\n{item.answer}" if number % 4 else item.text, rng)
            made.append((f"{piece[: PIECE // 2]}\n{planted}\n{piece[PIECE // 2 :]}", item, way))
    return made


@pytest.fixture(scope="module")
def by_ngram(items):
    found = defaultdict(set)
    for item in items:
        for ngram in slow.ngrams(slow.parts(item, Rule())[1], SIZE):
            found[ngram].add(item.id)
    return found


def test_the_strict_rule_finds_all_that_a_slow_search_finds_and_no_more(items, documents, by_ngram):
    index = ReferenceIndex.build(items, Rule())
    n_pairs = 0
    for text, _, _ in documents:
        expected = set()
        for ngram in slow.ngrams(slow.words(text), SIZE):
            expected |= by_ngram.get(ngram, set())
        found = {match.reference_id for match in index.find_all_matches(text) if match.rule != "whole"}
        assert found == expected
        n_pairs += len(found)
    assert n_pairs > N_PLANTED


def test_the_lcs_is_rapidfuzzs(items, documents):
    rule = Rule(sequence="document", markup=False)  # the documents hold LaTeX, of which the slow reading knows a part
    index = ReferenceIndex.build(items, rule)
    by_id = {item.id: item for item in items}
    for text, _, _ in documents:
        words = slow.words(text)
        for match in index.find_all_matches(text):
            if match.rule not in ("whole", "template"):
                item = slow.parts(by_id[match.reference_id], rule)[match.reference_part == "question+answer"]
                length = LCSseq.similarity(words, item)
                assert match.lcs_length == length
                holds = length >= 13 and length >= 0.6 * min(len(words), len(item))
                assert (match.rule == "qwen2") == holds


@pytest.mark.parametrize("way", ["exact", "case", "signs", "wrapped", "wide"])
def test_every_item_planted_whole_is_found_by_both_rules(items, documents, way):
    index = ReferenceIndex.build(items, Rule())
    testable = {item.id for item, is_testable in zip(items, index.testable, strict=True) if is_testable}
    planted = [(text, item) for text, item, how in documents if how == way and item.id in testable]
    assert len(planted) > 10
    for text, item in planted:
        if len(slow.parts(item, Rule())[0]) >= SIZE:
            found = {match.reference_id: match.rule for match in index.find_all_matches(text)}
            assert found.get(item.id) == "qwen2"


def test_the_quick_look_passes_over_most_other_texts(items, documents):
    index = ReferenceIndex.build(items, Rule())
    others = [text.encode() for text, item, _ in documents if item is None]
    flagged = 0
    for text in others:
        buffer = np.frombuffer(text, np.uint8)
        flagged += int(index.flag_texts(buffer, np.array([0]), np.array([len(text)]))[0])
    assert flagged < 0.2 * len(others)


def test_tokens_of_the_real_tokenizer(items, documents, real_model):
    """The strict rule in Qwen2's own tokens: what is found is what reading the whole stripped text finds."""
    rule, name = Rule(tokenizer=f"hf:{real_model}"), f"hf:{real_model}"
    slow.TOKENIZERS[name] = Tokenizer.from_file(str(real_model / "tokenizer.json"))
    index, found = ReferenceIndex.build(items, rule), defaultdict(set)
    for item in items:
        for ngram in slow.ngrams(slow.parts(item, rule)[1], SIZE):
            found[ngram].add(item.id)
    n_pairs = n_flagged = 0
    for text, _, _ in documents:
        expected = {one for ngram in slow.ngrams(slow.read(text, rule), SIZE) for one in found.get(ngram, ())}
        assert {match.reference_id for match in index.find_all_matches(text) if match.rule != "whole"} == expected
        data = text.encode()
        flag = index.flag_texts(np.frombuffer(data, np.uint8), np.array([0]), np.array([len(data)]))[0]
        assert flag or not expected
        n_pairs, n_flagged = n_pairs + len(expected), n_flagged + int(flag)
    assert n_pairs > N_PLANTED
    assert n_flagged < len(documents)
