"""`qwen2eval run --model vllm` as a user runs it: on tasks of every kind, and on a real checkpoint."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from qwen2eval.backends import load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.requests import Request
from qwen2eval.run_folder.folder import load_run
from tests.local_tasks import ALL, words, write_tasks
from tests.vllm.conftest import CPU_ARGS

if find_spec("vllm") is None:
    pytest.skip("needs vLLM: `make test-vllm` makes an environment with it", allow_module_level=True)

pytestmark = pytest.mark.slow

QUIZ = (
    "The following are multiple choice questions (with answers) about food.\n\n"
    "What is baked from flour?\nA. Bread\nB. Milk\nC. Cheese\nD. Honey\nAnswer: A\n\n"
    "What do bees make?\nA. Bread\nB. Milk\nC. Cheese\nD. Honey\nAnswer:"
)
SENTENCE = "Bees live in a hive. In summer they fly from flower to flower, and what they bring home becomes"
ENDINGS = [" honey, which the beekeeper sells.", " a loaf of bread.", " old cheese", " honey, which nobody eats."]


def run(command):
    return subprocess.run(
        [sys.executable, "-m", "qwen2eval", *command], capture_output=True, text=True, check=False, env={**os.environ}
    )


def test_a_run_is_scored_and_found_again(vllm_model, tmp_path):
    args = {"pretrained": vllm_model, "dtype": "float32", **CPU_ARGS}
    tasks = write_tasks(tmp_path / "tasks")
    command = words(tasks, tmp_path / "runs", "--limit", "4", model="vllm", tasks=ALL, **args)
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert "vllm" not in done.stdout.lower().replace(str(tmp_path), "")  # no log lines among the results
    first = load_run(tmp_path / "runs" / "latest")
    assert first.scores["n_unscored"].sum() == 0
    assert first.info.requests.n_answered > 0
    assert 0 < first.info.requests.n_tokens_computed < first.info.requests.n_tokens_asked
    assert run(command).returncode == 0
    again = load_run(tmp_path / "runs" / "latest")
    assert again.info.requests.n_answered == 0
    assert again.scores.equals(first.scores)


def ask(backend, requests):
    answers = dict(pair for batch in backend.answer(requests) for pair in batch)
    return [answers[i] for i in range(len(requests))]


@pytest.mark.real
def test_a_real_checkpoint_answers_as_under_hf(real_model, open_vllm):
    vllm = open_vllm(real_model, max_length=2048)
    config = RunConfig(model="hf", model_args={"pretrained": str(real_model), "dtype": "float32"}, device="cpu")
    hf = open_model(config, load_spec(config))
    choices = [Request("loglikelihood", QUIZ, f" {letter}") for letter in "ABCD"]
    choices += [Request("loglikelihood", SENTENCE, ending) for ending in ENDINGS]
    texts = [Request("generate_until", t, gen_kwargs={"until": ["\n\n"], "max_gen_toks": 24}) for t in (QUIZ, SENTENCE)]
    theirs, their_texts = ask(hf, choices), ask(hf, texts)
    ours, our_texts = ask(vllm, choices), ask(vllm, texts)
    vllm.close()  # each engine takes some GB, and the next test starts another
    assert [a.logprob for a in ours] == pytest.approx([a.logprob for a in theirs], abs=1e-3)
    assert [a.is_greedy for a in ours] == [a.is_greedy for a in theirs]
    assert [a.response for a in our_texts] == [a.response for a in their_texts]


@pytest.mark.real
def test_a_real_checkpoint_is_scored_on_real_rows(real_model, data_dir, tmp_path):
    args = {"pretrained": real_model, "dtype": "float32", "max_length": 2048, **CPU_ARGS}
    told = ",".join(f"{key}={value}" for key, value in args.items())
    command = ["run", "--model", "vllm", "--model_args", told, "--tasks", "mmlu,gsm8k", "--limit", "3", "--offline"]
    done = run([*command, "--output_path", str(tmp_path), "--data_dir", str(data_dir)])
    assert done.returncode == 0, done.stderr
    finished = load_run(tmp_path / "latest")
    assert finished.scores["n_unscored"].tolist() == [0, 0, 0]
    assert finished.samples("gsm8k")["response"].str.len().gt(20).all()
