"""Greedy answers of vLLM to many prompts at once, timed without loading.

Run it with the environment that `make test-vllm` makes:

    .venv-vllm/bin/python benchmarks/lib/vllm_generate.py MODEL_DIR PROMPTS.json MAX_TOKENS

float32 on all cores of the CPU, compiled, prefix cache on, Intel's OpenMP preloaded as vLLM's documentation advises.
The last line is JSON: seconds, n_tokens (generated), texts.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

WARM_UP = ["The weather tomorrow", "One two three four five"]
KV_CACHE_GIB = "4"


def main() -> None:
    args = read_arguments()
    prompts = json.loads(args.prompts.read_text(encoding="utf-8"))
    prepare_environment()

    from vllm import LLM, SamplingParams

    llm = LLM(model=str(args.model_dir), dtype="float32", enable_prefix_caching=True, max_model_len=args.max_length)
    greedy = SamplingParams(temperature=0, max_tokens=args.max_tokens, stop=json.loads(args.stop))
    llm.generate(WARM_UP, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
    begin = time.perf_counter()
    outputs = llm.generate(prompts, greedy, use_tqdm=False)
    seconds = time.perf_counter() - begin
    answers = [output.outputs[0] for output in outputs]
    llm.llm_engine.engine_core.shutdown()
    n_tokens = sum(len(answer.token_ids) for answer in answers)
    print(json.dumps({"seconds": seconds, "n_tokens": n_tokens, "texts": [answer.text for answer in answers]}))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    parser.add_argument("prompts", type=Path, metavar="PROMPTS.json", help="a list of texts")
    parser.add_argument("max_tokens", type=int, metavar="MAX_TOKENS", help="of each answer")
    parser.add_argument("--stop", default="[]", metavar="JSON", help="a list of texts that end an answer")
    parser.add_argument("--max_length", type=int, default=4096, help="of prompt and answer, tokens [default: 4096]")
    return parser.parse_args()


def prepare_environment() -> None:
    """Give vLLM all cores and Intel's OpenMP; this must be there before Python starts, so the script starts again."""
    # left alone, vLLM keeps one core for the process that hands out the work
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0)))))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB)
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.exists() and "LD_PRELOAD" not in os.environ:
        os.environ["LD_PRELOAD"] = str(openmp)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
