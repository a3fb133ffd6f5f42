"""What a plan costs: tokens with and without sharing, memory for keys and values, time.

The time is that of an earlier run of the same model here, or else of the machine's matrix product.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import Qwen2EvalError
from qwen2eval.model.config import N_BYTES, Qwen2Config
from qwen2eval.planning.planned import Plan, TaskPlan
from qwen2eval.run_folder.folder import Run
from qwen2eval.run_info import RunInfo, TaskInfo

MATMUL_SIZE, MATMUL_TRIES = 1_024, 5
EFFICIENCY = 0.5
"""Share (0-1) of the machine's matrix-multiplication speed that a model reaches at least.

docs/decisions/2026-11-24-engine.md measured 0.6 and more."""


class Estimate(NamedTuple):
    """Seconds of answering, as if the store held nothing."""

    seconds: float
    run_id: str | None
    """The run whose speed it is; None: estimated from this machine's matrix-multiplication speed."""


class Cost(NamedTuple):
    """What the prompts of a task take; None: not known."""

    n_tokens: int | None
    """As if nothing were shared."""
    n_computed: int | None
    """If each shared prefix is computed once, as `--model qwen2` and vLLM do."""
    kv_bytes: int | None
    """Keys and values of the longest prompt with its answer."""
    flops: float | None
    """Floating-point operations of the prompts, shared prefixes once."""


def task_costs(plan: Plan) -> dict[str, Cost]:
    """Return the cost of each task."""
    config = model_config(plan)
    return {name: _task_cost(task, plan, config) for name, task in plan.tasks.items()}


def _task_cost(task: TaskPlan, plan: Plan, config: Qwen2Config | None) -> Cost:
    n_tokens, ratio = task.n_prompt_tokens, task.shared_prefix_ratio
    if n_tokens is None or ratio is None:
        return Cost(n_tokens, None, None, None)
    # The repeats of a request have the same prompt, which is computed once
    new_share = (1 - ratio) / task.repeats
    if config is None:
        return Cost(n_tokens, round(n_tokens * new_share), None, None)
    lengths = [(r.n_context_tokens or 0) + r.n_continuation_tokens for r in task.requests]
    answers = [plan.spec.answer_tokens(r.gen_kwargs) if r.gen_kwargs else 0 for r in task.requests]
    longest = max(n + answer for n, answer in zip(lengths, answers, strict=True))
    kv_bytes = config.kv_bytes_per_token(dtype=_dtype(plan)) * longest
    flops = (1 - ratio) * prompt_flops(config, lengths)
    return Cost(n_tokens, round(n_tokens * new_share), kv_bytes, flops)


def prompt_flops(config: Qwen2Config, lengths: Iterable[int]) -> float:
    """Return the floating-point operations for prompts of these lengths in tokens: weights and causal attention."""
    weights = 2.0 * (config.n_active_parameters - config.n_embedding_parameters)
    attention = 2.0 * config.num_hidden_layers * config.num_attention_heads * config.head_size
    return sum(weights * n + attention * n * n for n in lengths)


def model_config(plan: Plan) -> Qwen2Config | None:
    """Return the shapes of the model under test; None if it is another model, or its config isn't on this machine."""
    if plan.spec.path is None or not Path(plan.spec.path).exists():
        return None
    try:
        return Qwen2Config.from_hf(plan.spec.path)
    except Qwen2EvalError:
        return None


def estimate_time(plan: Plan, runs: Iterable[Run] = ()) -> Estimate | None:
    """Return the time by the newest finished run of this model with the same kinds of task; None if nothing is known.

    Scoring prompts and generating text go at different speeds, so only a run with the same output types is compared:
    its seconds a floating-point operation of the prompts (a prompt token, for a model whose shapes are not known) are
    taken as the plan's. Without one, and on a CPU, the time of the prompts is estimated from its matrix product.

    Args:
        runs: that have been made before, newest first.
    """
    config = model_config(plan)
    costs = task_costs(plan).values()
    work = _sum([cost.flops for cost in costs]) if config else _sum([cost.n_tokens for cost in costs])
    if not work:
        return None
    for info in (run.info for run in runs if _is_comparable(run.info, plan)):
        seconds, done = info.timings.answer_seconds, _sum([_work_of_run(t, config) for t in info.scored_tasks.values()])
        if seconds is not None and done:
            return Estimate(seconds / done * work, info.run_id)
    if config is None or plan.config.device not in (None, "cpu") or _has_cuda():
        return None
    return Estimate(work / (EFFICIENCY * _matmul_flops_a_second()), None)


def _work_of_run(task: TaskInfo, config: Qwen2Config | None) -> float | None:
    """Return the work of a finished task; its prompts are taken for equally long."""
    n_tokens, n_requests, ratio = task.n_prompt_tokens, task.n_requests, task.shared_prefix_ratio
    if config is None or not n_tokens or not n_requests:
        return None if n_tokens is None else float(n_tokens)
    return float((1 - (ratio or 0)) * n_requests * prompt_flops(config, [n_tokens // n_requests]))


def _sum(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(sum(known)) if len(known) == len(numbers) else None


def _dtype(plan: Plan) -> str:
    given = plan.config.model_args.get("dtype")
    return given if given in N_BYTES else "bfloat16" if _has_cuda() else "float32"


def _has_cuda() -> bool:
    """Whether there is an Nvidia device, without importing torch."""
    return Path("/dev/nvidiactl").exists()


def _matmul_flops_a_second() -> float:
    """Return the best of several products of float32 matrices."""
    import time

    import numpy as np

    matrix = np.ones((MATMUL_SIZE, MATMUL_SIZE), dtype=np.float32)
    best = float("inf")
    for _ in range(MATMUL_TRIES):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return float(2 * MATMUL_SIZE**3 / best)


def _is_comparable(info: RunInfo, plan: Plan) -> bool:
    """Whether a run asked the same model about the same kinds of task."""
    same_model = (info.model.backend, info.model.path) == (plan.spec.backend, plan.spec.path)
    same_device = info.config.get("device") == plan.config.device
    wanted = {task.task.output_type for task in plan.tasks.values()}
    same_kinds = {task.output_type for task in info.scored_tasks.values()} == wanted
    # Answers from the store took no time: with some of them, the seconds are not those of the whole work
    asked_all = info.requests.n_from_store == 0 and info.requests.n_answered > 0
    return same_model and same_device and same_kinds and asked_all
