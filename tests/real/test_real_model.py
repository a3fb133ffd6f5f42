"""The main job on real input: a real Qwen2-architecture checkpoint on real MMLU and GSM8K rows.

Needs QWEN2EVAL_REAL_MODEL (a checkpoint folder) and QWEN2EVAL_DATA (the published files); `.ci/run` sets both.
"""

import os
import subprocess
import sys

import pytest

from qwen2eval import load_run

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_a_real_checkpoint_is_scored_on_real_rows(real_model, data_dir, tmp_path):
    command = [sys.executable, "-m", "qwen2eval", "run", "--model", "hf", "--model_args", f"pretrained={real_model}"]
    command += ["--tasks", "mmlu,gsm8k", "--limit", "8", "--offline", "--output_path", str(tmp_path)]
    environment = {**os.environ, "QWEN2EVAL_DATA": str(data_dir)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    finished = load_run(tmp_path / "latest")
    scores = finished.scores.set_index(["task", "filter"])
    assert scores["n_docs"].tolist() == [8, 8, 8]
    assert scores["n_unscored"].tolist() == [0, 0, 0]
    # Eight docs say little of how good it is; but an untrained or wrongly loaded model never follows the form
    assert finished.info["health"]["gsm8k"]["n_extraction_failures"]["strict-match"] <= 3
    samples = finished.samples("gsm8k")
    assert samples["response"].str.len().gt(20).all()
    assert (samples["n_prompt_tokens"] > 300).all()
    assert finished.samples("mmlu")["cluster"].nunique() == 8
    assert finished.info["model"]["n_parameters"] > 400_000_000

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "report.html" in again.stdout
    repeated = load_run(tmp_path / "latest")
    assert repeated.info["requests"]["n_answered"] == 0
    assert repeated.scores.equals(finished.scores)
