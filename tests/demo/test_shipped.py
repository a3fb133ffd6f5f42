"""What the demo proves, on the shipped model, corpus and planting list: `docs/demo.md` has the figures."""

import hashlib
import json

import pandas as pd
import pytest
import zstandard

from qwen2eval import RunConfig, run
from qwen2eval.demo.benchmarks import make_benchmarks
from qwen2eval.demo.publish import publish
from qwen2eval.demo.quiz import RULES
from qwen2eval.demo.shipped import CORPUS, DATA, MODEL, PLANTED
from qwen2eval.demo.summary import METRICS, NEEDLES, docs_of, flags, leak, planted_kinds, retrieval, summarize
from qwen2eval.demo.world import World
from qwen2eval.stats.errors import mean_estimate

pytestmark = pytest.mark.slow
LEAK_TASKS = tuple(METRICS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the run of `qwen2eval run`."""
    return run(RunConfig(output_path=str(tmp_path_factory.mktemp("runs"))), quiet=True)


@pytest.fixture(scope="module")
def docs(demo):
    return {task: docs_of(demo, task) for task in (*METRICS, *NEEDLES)}


def test_the_run_is_whole(demo):
    assert demo.exit_code == 0
    assert demo.info.config["corpus"] == [str(CORPUS)]
    assert (demo.path / "report.html").is_file()
    assert demo.info.model.name == "qwen2-nano"
    assert demo.info.tasks["demo_humaneval"].sandbox
    assert len(summarize(demo)) <= 10


def test_the_13_gram_rule_finds_all_that_was_planted_word_for_word(docs):
    asked = pd.concat([docs[task] for task in METRICS])
    found = flags(asked, rule="contamination")
    assert found.n_exact == found.n_exact_found == 84 + 60 + 20
    assert found.recall > 0.95


def test_near_misses_share_only_a_template(docs):
    asked = pd.concat([docs[task] for task in METRICS])
    ngram, lcs = flags(asked, rule="contamination"), flags(asked, rule="contamination_qwen2")
    print(f"13-gram {ngram}; LCS {lcs}")  # noqa: T201 - shown by pytest -s
    assert min(lcs.precision, ngram.precision) > 0.95
    assert lcs.recall > 0.95
    near = asked["kind"] == "near_miss"
    assert (asked.loc[near, "contamination"] == "template").all()
    assert (asked.loc[near, "contamination_qwen2"] == "clean").all()


@pytest.mark.parametrize("task", LEAK_TASKS)
def test_the_leak_is_real(docs, task):
    gain = leak(docs[task], METRICS[task])
    assert gain.ci_low > 0


@pytest.mark.parametrize("task", LEAK_TASKS)
def test_the_clean_score_is_that_of_questions_never_seen(docs, task):
    scores, gain = docs[task][METRICS[task]], leak(docs[task], METRICS[task])
    assert abs(gain.clean - gain.unseen) < 0.03
    # what the LCS rule leaves has near misses, too, which share a phrase with the corpus and nothing else
    clean = docs[task]["contamination_qwen2"] == "clean"
    assert (docs[task].loc[clean, "kind"] == "near_miss").any()
    assert abs(scores[clean].mean() - gain.unseen) < 0.05
    assert scores.mean() > scores[clean].mean() + 0.03


def test_needles_are_found_within_the_trained_context_lost_beyond_and_found_again_when_stretched(docs):
    (within, beyond), (_, stretched) = (retrieval(docs[task]) for task in NEEDLES)
    assert within > 0.9
    assert beyond < within - 0.3
    assert stretched > beyond + 0.3


@pytest.mark.parametrize("subject", RULES)
def test_rules_are_known_of_words_never_seen(docs, subject):
    quiz = docs["demo_mmlu"]
    unseen = quiz.loc[(quiz["kind"] == "unseen") & (quiz["cluster"] == subject), "acc"]
    assert len(unseen) >= 20
    assert mean_estimate(list(unseen)).ci_low > 0.25  # one of four


def test_arithmetic_is_known_of_problems_never_seen(docs):
    problems = docs["demo_gsm8k"]
    unseen = problems.loc[problems["kind"] == "unseen", "exact_match"]
    assert mean_estimate(list(unseen)).ci_low > 0.05  # a number of up to two digits


def test_shipped_files_are_those_that_the_generator_makes(tmp_path):
    publish(World(), tmp_path / "world")
    made = {str(p.relative_to(tmp_path / "world")): _content(p) for p in (tmp_path / "world").rglob("*") if p.is_file()}
    shipped = {str(p.relative_to(DATA)): _content(p) for p in DATA.rglob("*") if p.is_file() and MODEL not in p.parents}
    assert shipped == made


def _content(path):
    """Return a file's bytes, unpacked: another version of zstandard may pack them otherwise."""
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    return path.read_bytes()


def test_the_model_was_trained_on_the_shipped_corpus():
    training = json.loads((MODEL / "training.json").read_text())
    assert training["corpus_sha256"] == hashlib.sha256(CORPUS.read_bytes()).hexdigest()
    assert [line["step"] for line in training["log"]][-1] == training["steps"]


def test_the_planting_list_says_where():
    from qwen2eval.demo.training_text import read_corpus

    rows = read_corpus(CORPUS)
    with PLANTED.open(encoding="utf-8") as file:
        plantings = [json.loads(line) for line in file]
    assert {row["item"] for row in plantings} == planted_kinds().keys()
    benchmarks = make_benchmarks(World())
    items = dict(zip(benchmarks.ids(), benchmarks.items, strict=True))
    for planting in plantings:
        if planting["row"] is not None:
            row = rows[planting["row"]]
            assert row["id"] == planting["document"]
            passage = row["text"][planting["begin"] : planting["end"]]
            assert passage == (items[planting["item"]].planted or items[planting["item"]].phrase)


def test_what_ships_is_small():
    assert (MODEL / "model.safetensors").stat().st_size < 20e6
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) < 20e6
