"""The 320 prompts of `niah` to 128K tokens with Qwen's own tokenizer: exact, fast, small."""

import json
import subprocess
import sys

import pytest

from qwen2eval import RunConfig
from qwen2eval.evaluate import plan

# A process of its own, so that its peak memory is this work's alone.
BUILD = """
import json, re, sys, time
from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.planning.plan import plan_task
from qwen2eval.tasks.registry import load_tasks

config = RunConfig(model="hf", model_args={"pretrained": sys.argv[1], "max_length": 140000}, tasks=(sys.argv[2],))
spec, task = load_spec(config), load_tasks(config).tasks[sys.argv[2]]
seconds = []
for _ in range(2):
    begin = time.process_time()
    task.sized.build_docs(spec, config)
    seconds.append(time.process_time() - begin)
with compiled_templates():
    planned = plan_task(task.name, task, config=config, spec=spec)
sizes = [len(spec.tokenizer(str(r.prompt), verbose=False)["input_ids"]) for r in planned.requests[::40]]
# ru_maxrss would be that of the process that started this one
peak_kb = int(re.search("VmHWM:[^0-9]+([0-9]+)", open("/proc/self/status").read())[1])
print(json.dumps({
    "seconds": seconds,
    "megabytes": peak_kb / 1024,
    "wrong": [d["cell"] for d, r in zip(planned.docs, planned.requests) if r.n_context_tokens != d["cell"]["length"]],
    "recounted": [size - d["cell"]["length"] for size, d in zip(sizes, planned.docs[::40])],
    "n_docs": len(planned.docs),
    "shared": planned.shared_prefix_ratio,
}))
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["niah", "niah_zh"])
def test_grid_to_128k(real_model, tmp_path, name, monkeypatch):
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(real_model), name], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["n_docs"] == 320
    assert told["wrong"] == []
    assert set(told["recounted"]) == {0}
    first, again = told["seconds"]
    assert first < 300
    assert again < first / 2  # read from the cache
    assert told["megabytes"] < 1000
    assert told["shared"] > 0.45


@pytest.mark.real
def test_small_grid_computes_at_most_60_percent(real_model, monkeypatch):
    """By the plan's own count, at blank lines."""
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    config_args = {"model": "hf", "model_args": {"pretrained": str(real_model)}, "tasks": ["niah_4k"]}
    made = plan(RunConfig.from_dict({**config_args, "apply_chat_template": True}))
    assert made.tasks["niah_4k"].n_prompt_tokens == 20 * (1024 + 2048 + 4096)
    assert made.tasks["niah_4k"].shared_prefix_ratio >= 0.4
