"""Our engine against lm-eval's hf class and vLLM: the same real checkpoint, float32, CPU, in one run.

Needs QWEN2EVAL_REAL_MODEL (a Qwen2 checkpoint folder) and QWEN2EVAL_DATA (MMLU and GSM8K as published). vLLM is
compared where `make test-vllm` has made its environment. Every part prints its line as it is done.

    benchmarks/engine.py [--rounds 3] [--only machine,memory,mmlu,generation]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from lib import engine_work as work
from lib.measure import measure, show, title
from torch import nn

BATCH_SIZES = (1, 4, 8)
ONE_PROBED_OF = 20
"""Of so many docs, one is asked to find the best batch size."""
LONG_TOKENS = 16_384
MEMORY = """
import sys, numpy as np
from qwen2eval.engine import Engine
from qwen2eval.engine.score import ScoreRequest
from qwen2eval.model import load_model
model = load_model(sys.argv[1], dtype="float32")
tokens = np.random.default_rng(0).integers(0, 150_000, int(sys.argv[2]) + 1)
list(Engine(model).score([ScoreRequest(tokens[:-1], tokens[-1:])]))
weights = 4 * model.config.n_parameters
kv = int(sys.argv[2]) * model.config.kv_bytes_per_token(dtype="float32")
print(weights, kv)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many [default: 3]")
    parser.add_argument("--only", default="machine,memory,mmlu,generation", help="parts to run")
    args = parser.parse_args()
    model, data_dir = (needed(name) for name in ("QWEN2EVAL_REAL_MODEL", "QWEN2EVAL_DATA"))
    parts = args.only.split(",")
    title(f"{model}, float32, torch {torch.__version__}, {torch.get_num_threads()} threads")
    if "memory" in parts:
        compare_memory(model)
    ours = work.open_ours(model)
    if "machine" in parts:
        compare_with_the_machine(ours, model, args.rounds)
    theirs = work.open_lm_eval(model)
    if "mmlu" in parts:
        compare_mmlu(ours, theirs, work.mmlu_requests(model, data_dir), args.rounds)
    if "generation" in parts:
        forms = work.gsm8k_prompts(model, data_dir)
        some = next(iter(forms.values()))[:16]
        best = min(BATCH_SIZES, key=lambda size: work.generate(theirs, some, batch_size=size).seconds)
        for index, (name, prompts) in enumerate(forms.items()):
            # the first form is the target's; the others are long, and shown once
            compare_generation(
                name, ours, theirs, prompts, model, batch_size=best, rounds=args.rounds if not index else 1
            )


def needed(name: str) -> str:
    if name not in os.environ:
        sys.exit(f"{name} is not set: see the head of {__file__}")
    return os.environ[name]


def compare_memory(model: str) -> None:
    """Print what one long prompt takes beyond weights and cache."""
    cost = measure([sys.executable, "-c", MEMORY, model, str(LONG_TOKENS)])
    weights, kv = map(int, cost.output.split()[-2:])
    beyond = cost.peak_mb - (weights + kv) / 1e6
    sizes = f"weights {weights / 1e6:.0f}, cache {kv / 1e6:.0f}, peak {cost.peak_mb:.0f} MB"
    show(f"{LONG_TOKENS:,}-token prompt, {sizes}", [f"{beyond:.0f} MB more"], aim="target < 600 MB")


def compare_with_the_machine(ours: work.Qwen2LM, model: str, rounds: int) -> None:
    """Print the rate of a prefill against that of a bare matrix product, and of DCA against plain attention."""
    import numpy as np

    from qwen2eval.engine import Engine
    from qwen2eval.engine.score import ScoreRequest
    from qwen2eval.model import DualChunk, load_model
    from qwen2eval.model.packing import PackedLinear

    config = ours.engine.model.config
    rng = np.random.default_rng(0)
    prompt = ScoreRequest(rng.integers(0, 150_000, 4096), rng.integers(0, 150_000, 1))
    wide = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
    x, square = torch.randn(512, config.hidden_size), torch.randn(2048, 2048)
    flops = {"plain": 2 * len(x) * wide.weight.numel(), "square": 2 * 2048**3}
    with torch.inference_mode():
        packed = PackedLinear(wide)
        products = {"plain": lambda: wide(x), "packed": lambda: packed(x), "square": lambda: square @ square}
        times: dict[str, list[float]] = {name: [] for name in products}
        prefills = []
        for _ in range(3 * rounds):
            for name, product in products.items():
                times[name].append(timed(lambda do=product: [do() for _ in range(40)]) / 40)
            prefills.append(timed(lambda: list(ours.engine.score([prompt]))))
    # the best that this machine does, whatever the layout
    gemm = max(flops.get(name, flops["plain"]) / median(found) for name, found in times.items()) / 1e9
    n_weights = config.n_non_embedding_parameters - config.hidden_size
    n_tokens, width = len(prompt.context), config.num_attention_heads * config.head_size
    # each token sees half of the others on average: two products over the heads' width
    attention = 2 * n_tokens**2 * width * config.num_hidden_layers
    weights, seconds = 2 * n_weights * n_tokens, median(prefills)
    prefill = (weights + attention) / seconds / 1e9
    show("float32 matrix product, the best of three", [f"{gemm:.0f} GFLOP/s"])
    cells = [f"{prefill:.0f} GFLOP/s", f"{prefill / gemm:.0%}"]
    show("prefill of 4,096 tokens, with attention", cells, aim="target >= 70 %")
    show("  its products with weights alone", [f"{weights / seconds / 1e9:.0f} GFLOP/s"])
    long = ScoreRequest(rng.integers(0, 150_000, LONG_TOKENS), prompt.continuation)
    chunked = Engine(load_model(model, dual_chunk=DualChunk(chunk_size=4096, local_size=512)))
    plain, dca = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: list(ours.engine.score([long]))))
        dca.append(timed(lambda: list(chunked.score([long]))))
    show(
        f"DCA prefill of {LONG_TOKENS:,} tokens, chunks of 3,584",
        [f"{median(dca):.1f} s", f"plain {median(plain):.1f} s", f"{median(dca) / median(plain):.2f}x"],
        aim="target <= 1.3x",
    )


def compare_mmlu(ours: work.Qwen2LM, theirs: object, pairs: list[tuple[str, str]], rounds: int) -> None:
    """Print seconds, ratio, and whether both choose the same."""
    some = [pair for i in range(0, len(pairs), 4 * ONE_PROBED_OF) for pair in pairs[i : i + 4]]
    work.score(theirs, some[:4])  # the first call pays for what it sets up
    best = min(BATCH_SIZES, key=lambda size: work.score(theirs, some, batch_size=size).seconds)
    runs = alternate(lambda: work.score(ours, pairs), lambda: work.score(theirs, pairs, batch_size=best), rounds)
    mine, other = (median(run[side].seconds for run in runs) for side in (0, 1))
    got, wanted = ([logprob for logprob, _ in timed.answers] for timed in runs[0])
    apart = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
    same = sum(choice(got, i) == choice(wanted, i) for i in range(0, len(pairs), 4))
    show(
        f"MMLU 5-shot, {len(pairs) // 4} docs (lm-eval: batch {best})",
        [f"{mine:.1f} s", f"{other:.1f} s", f"{other / mine:.1f}x"],
        aim="target >= 6x",
    )
    show("  the same choice; largest difference", [f"{same} of {len(pairs) // 4}", f"{apart:.1e}"], aim="target < 1e-3")


def choice(logprobs: Sequence[float], at: int) -> int:
    return max(range(4), key=lambda i: logprobs[at + i])


def compare_generation(
    name: str, ours: work.Qwen2LM, theirs: object, prompts: list[str], model: str, *, batch_size: int, rounds: int
) -> None:
    """Print seconds, ratios, and how many texts are equal; where they aren't, how near the first two tokens were."""
    runs = alternate(
        lambda: work.generate(ours, prompts), lambda: work.generate(theirs, prompts, batch_size=batch_size), rounds
    )
    mine, other = (median(run[side].seconds for run in runs) for side in (0, 1))
    got, wanted = (timed.answers for timed in runs[0])
    show(
        f"GSM8K, {len(prompts)} prompts, {name} (lm-eval: batch {batch_size})",
        [f"{mine:.1f} s", f"{other:.1f} s", f"{other / mine:.1f}x"],
        aim="target >= 2.5x" if rounds > 1 else "",
    )
    n_same = sum(a == b for a, b in zip(got, wanted, strict=True))
    show("  the same text", [f"{n_same} of {len(prompts)}"], aim="target >= 95 %")
    for index, (text, other_text) in enumerate(zip(got, wanted, strict=True)):
        if text != other_text:
            print(f"    prompt {index}: {gap(ours, prompts[index], text, other_text)}", flush=True)
    if seconds := vllm_seconds(model, prompts, rounds):
        show("  vLLM", [f"{mine:.1f} s", f"{seconds:.1f} s", f"{seconds / mine:.2f}x"], aim="target >= 1x")


def gap(lm: work.Qwen2LM, prompt: str, text: str, other: str) -> str:
    """Say how far apart the two likeliest tokens are where two greedy texts part."""
    mine, theirs = (lm.tokenizer.encode(part, add_special_tokens=False) for part in (text, other))
    n_shared = next(
        (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(map(len, (mine, theirs)))
    )
    ids = torch.tensor([lm.tokenizer(prompt)["input_ids"] + mine[:n_shared]])
    first, second = lm.engine.model(ids)[0, -1].topk(2).values.tolist()
    return f"parts after {n_shared} tokens, where the two largest logits are {first - second:.1e} apart"


def vllm_seconds(model: str, prompts: list[str], rounds: int) -> float | None:
    """Return vLLM's median; None where it isn't installed."""
    python = Path(__file__).resolve().parent.parent / ".venv-vllm" / "bin" / "python"
    if not python.exists():
        print("  vLLM: not installed (make test-vllm)", flush=True)
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "prompts.json"
        file.write_text(json.dumps(prompts), encoding="utf-8")
        command = [str(python), str(Path(__file__).with_name("lib") / "vllm_generate.py"), model, str(file)]
        found = []
        for _ in range(rounds):
            options = [str(work.MAX_TOKENS), "--stop", json.dumps(work.STOPS)]
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1])["seconds"])
    return median(found)


def alternate(
    ours: Callable[[], work.Timed], theirs: Callable[[], work.Timed], rounds: int
) -> list[tuple[work.Timed, work.Timed]]:
    """Run both sides in turns, so that a busy moment hits both, and say on stderr how each turn went."""
    runs = []
    for _ in range(rounds):
        runs.append((ours(), theirs()))
        print("  a round: " + " / ".join(f"{run.seconds:.1f} s" for run in runs[-1]), file=sys.stderr, flush=True)
    return runs


def timed(do: Callable[[], object]) -> float:
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
