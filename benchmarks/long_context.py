"""What planning NeedleBench and LV-Eval costs: processor time by token and peak memory, on generated data of real size.

Needs `QWEN2EVAL_REAL_MODEL` for its tokenizer. `--only needlebench_8k,lveval` picks rows. Of LV-Eval two data sets,
English and Chinese, have a few rows here: `--rows 31`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.long_context_data import write_lveval, write_needlebench
from lib.measure import measure, python, scratch_env, show, title

# A process of its own, whose peak is this work's alone. ru_maxrss would be that of the process that started it
PLAN = """
import json, re, sys, time
from qwen2eval import RunConfig
from qwen2eval.evaluate import plan

folder, data, task, max_length, model = sys.argv[1:]
args = {"pretrained": model, "max_length": int(max_length)}
config = RunConfig(model="hf", model_args=args, tasks=(task,), data_dir=data, include_path=(folder,), offline=True)
begin = time.process_time()
made = plan(config)
seconds = time.process_time() - begin
n_tokens = sum(task.n_prompt_tokens for task in made.tasks.values())
peak_kb = int(re.search("VmHWM:[^0-9]+([0-9]+)", open("/proc/self/status").read())[1])
print(json.dumps({"seconds": seconds, "n": made.n_requests, "n_tokens": n_tokens, "peak_mb": peak_kb / 1024}))
"""
LVEVAL = "task: lveval_{level}_part\nclass: !function qwen2eval.long_context.lveval.task.LVEvalGroup\n"
LVEVAL += "metadata: {{version: 1.0, level: {level}, datasets: [hotpotwikiqa_mixup, cmrc_mixup]}}\n"
ROWS = {
    "needlebench_8k": ("needlebench_8k", 32_768),
    "needlebench_128k": ("needlebench_128k", 140_000),
    "lveval_256k, window 32k": ("lveval_256k_part", 32_768),
    "lveval_256k, window 128k": ("lveval_256k_part", 131_072),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of rows, or parts of them, with commas between")
    parser.add_argument("--rows", type=int, default=31, help="of each data set of LV-Eval")
    options = parser.parse_args()
    model = os.environ.get("QWEN2EVAL_REAL_MODEL") or sys.exit("QWEN2EVAL_REAL_MODEL is not set")
    wanted = [name for name in ROWS if not options.only or any(part in name for part in options.only.split(","))]
    with tempfile.TemporaryDirectory() as scratch:
        data = write_needlebench(Path(scratch) / "data")
        for dataset, language in (("hotpotwikiqa_mixup", "en"), ("cmrc_mixup", "zh")):
            write_lveval(data, dataset, "256k", language=language, n_rows=options.rows)
        (Path(scratch) / "part.yaml").write_text(LVEVAL.format(level="256k"))
        title("Planning: processor seconds, microseconds a token, peak memory in MB")
        show("", ["prompts", "tokens", "seconds", "us/token", "MB"])
        for name in wanted:
            task, max_length = ROWS[name]
            command = [*python(PLAN), scratch, str(data), task, str(max_length), model]
            env = scratch_env(Path(scratch)) | {"QWEN2EVAL_CACHE": f"{scratch}/cache", "OMP_NUM_THREADS": "1"}
            show_cost(name, json.loads(measure(command, env=env).output.splitlines()[-1]))


def show_cost(name: str, told: dict[str, Any]) -> None:
    seconds, n_tokens = told["seconds"], told["n_tokens"]
    cells = [f"{told['n']:,}", f"{n_tokens / 1e6:.1f} M", f"{seconds:.1f}", f"{1e6 * seconds / n_tokens:.2f}"]
    show(name, [*cells, f"{told['peak_mb']:.0f}"])


if __name__ == "__main__":
    main()
