"""What is told of a run of the demo, and of what is not all of it."""

import pandas as pd
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.demo.shipped import CORPUS, is_demo, with_demo_corpus
from qwen2eval.demo.summary import flags, leak, retrieval, summarize
from qwen2eval.errors import ConfigError
from qwen2eval.evaluate import plan


def docs(**columns):
    return pd.DataFrame(columns)


def test_a_leak_needs_both_groups():
    scored = {"acc": [1.0, 0.0, None], "contamination": ["contaminated", "clean", "clean"]}
    assert leak(docs(kind=["exact", "unseen", "unseen"], **scored), "acc").difference == 1.0
    assert leak(docs(kind=["exact", "near_miss", "unseen"], **scored), "acc") is None
    assert leak(docs(kind=["edited", "unseen", "unseen"], **scored), "acc") is None


def test_planted_needles_are_left_out():
    needles = docs(
        kind=["exact", "edited", "unseen", "near_miss"], length=[100, 600, 100, 600], acc=[0.0, 0.0, 1.0, 1.0]
    )
    assert retrieval(needles) == (1.0, 1.0)


def test_flags_are_counted_against_the_list():
    found = docs(
        kind=["exact", "exact", "edited", "near_miss", "unseen"],
        contamination=["contaminated", "clean", "contaminated", "contaminated", "clean"],
    )
    told = flags(found, rule="contamination")
    assert (told.n_exact, told.n_exact_found) == (2, 1)
    assert told.precision == told.recall == pytest.approx(2 / 3)


@pytest.mark.slow
def test_a_part_of_the_demo_tells_how_to_see_all_of_it(tmp_path):
    made = run(RunConfig(limit=5, output_path=str(tmp_path)), quiet=True)
    assert made.exit_code == 0
    (line,) = summarize(made)
    assert "--limit" in line


@pytest.mark.parametrize(
    "asked", [{}, {"model": "demo"}, {"suite": "demo"}, {"model": "demo", "suite": "demo", "text_field": "content"}]
)
def test_the_demo_has_its_corpus(asked):
    config = with_demo_corpus(RunConfig(**asked))
    assert (config.corpus, config.text_field) == ((str(CORPUS),), "text")


@pytest.mark.parametrize("asked", [{"model": "dummy"}, {"tasks": ("demo_mmlu",)}, {"corpus": ("mine.jsonl",)}])
def test_other_runs_are_not_the_demo(asked):
    config = RunConfig(**asked)
    assert not is_demo(config)
    assert with_demo_corpus(config) == config


def test_a_checkpoint_without_its_backend_is_not_taken_for_the_demo():
    with pytest.raises(ConfigError, match="name the backend too"):
        plan(RunConfig(model_args={"pretrained": "/no/such/model"}, tasks=("demo_mmlu",)))
