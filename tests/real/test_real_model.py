"""The main job on real input: a real Qwen2-architecture checkpoint on real MMLU and GSM8K rows.

Needs QWEN2EVAL_REAL_MODEL (a checkpoint folder) and QWEN2EVAL_DATA (the published files); `.ci/run` sets both.
"""

import json
import os
import subprocess
import sys

import pytest

from qwen2eval import load_run

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def evaluate(real_model, data_dir, tmp_path_factory):
    """Return a function that evaluates 4 docs of each task with one backend: the run, and what was printed."""
    output = tmp_path_factory.mktemp("runs")

    def run(backend):
        command = [sys.executable, "-m", "qwen2eval", "run", "--model", backend]
        command += ["--model_args", f"pretrained={real_model},dtype=float32", "--tasks", "mmlu,gsm8k", "--limit", "4"]
        command += ["--offline", "--output_path", str(output / backend)]
        environment = {**os.environ, "QWEN2EVAL_DATA": str(data_dir)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return load_run(output / backend / "latest"), done.stdout

    return run


@pytest.fixture(scope="module")
def with_hf(evaluate):
    return evaluate("hf")[0]


def test_a_real_checkpoint_is_scored_on_real_rows(with_hf, evaluate):
    scores = with_hf.scores.set_index(["task", "filter"])
    assert scores["n_docs"].tolist() == [4, 4, 4]
    assert scores["n_unscored"].tolist() == [0, 0, 0]
    # Four docs say little of how good it is; but an untrained or wrongly loaded model never follows the form
    assert with_hf.info.health["gsm8k"].n_extraction_failures["strict-match"] <= 2
    samples = with_hf.samples("gsm8k")
    assert samples["response"].str.len().gt(20).all()
    assert (samples["n_prompt_tokens"] > 300).all()
    assert with_hf.samples("mmlu")["cluster"].nunique() == 4
    assert with_hf.info.model.n_parameters > 400_000_000

    repeated, printed = evaluate("hf")
    assert "report.html" in printed
    assert repeated.info.requests.n_answered == 0
    assert repeated.scores.equals(with_hf.scores)


def test_our_engine_gives_the_same_samples(with_hf, evaluate):
    ours, _ = evaluate("qwen2")
    assert ours.scores.equals(with_hf.scores)
    assert ours.samples("gsm8k").equals(with_hf.samples("gsm8k"))
    mine, theirs = ours.samples("mmlu"), with_hf.samples("mmlu")
    assert mine.drop(columns="response").equals(theirs.drop(columns="response"))
    for own, other in zip(mine["response"], theirs["response"], strict=True):
        for (logprob, is_greedy), (their_logprob, their_is_greedy) in zip(*map(json.loads, (own, other)), strict=True):
            assert logprob == pytest.approx(their_logprob, abs=1e-3)
            assert is_greedy == their_is_greedy
    assert ours.info.requests.n_tokens_computed < ours.info.requests.n_tokens_asked
