"""The work of the engine's comparison: real MMLU and GSM8K requests, and both sides' ways to answer them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.backends.qwen2.lm import Qwen2LM
from qwen2eval.engine import Engine
from qwen2eval.model import load_model
from qwen2eval.planning.plan import make_plan
from qwen2eval.quiet import prepared_libraries

N_DOCS = 60
SUBJECTS = ("abstract_algebra", "anatomy", "astronomy")
"""The first three of MMLU by name."""
N_PROMPTS = 64
MAX_TOKENS = 128
STOPS = ["Question:", "</s>", "<|im_end|>"]


class Timed(NamedTuple):
    """Answers and the seconds they took."""

    seconds: float
    answers: list[Any]


def mmlu_requests(model: str, data_dir: str) -> list[tuple[str, str]]:
    """Return (context, continuation) of the first docs of each subject, 5-shot, four for each doc."""
    plan = _plan(model, data_dir, "mmlu")
    chosen: list[tuple[str, str]] = []
    for subject in SUBJECTS:
        docs = [i for i, doc in zip(plan.doc_ids, plan.docs, strict=True) if doc[plan.cluster_column] == subject]
        wanted = set(docs[:N_DOCS])
        chosen += [(str(r.prompt), r.continuation) for r in plan.requests if r.doc_id in wanted]
    assert len(chosen) == 4 * N_DOCS * len(SUBJECTS), f"{len(chosen)} requests: MMLU's files are not whole"
    return chosen


def gsm8k_prompts(model: str, data_dir: str) -> dict[str, list[str]]:
    """Return the first prompts of GSM8K in three forms: no examples, the same five for all, five drawn for each."""
    drawn = [str(r.prompt) for r in _plan(model, data_dir, "gsm8k", limit=N_PROMPTS).requests]
    plain = [str(r.prompt) for r in _plan(model, data_dir, "gsm8k", limit=N_PROMPTS, num_fewshot=0).requests]
    examples = drawn[0].removesuffix(plain[0])
    return {"0-shot": plain, "the same 5 examples": [examples + prompt for prompt in plain], "5 drawn examples": drawn}


def open_ours(model: str) -> Qwen2LM:
    """Return our engine on the checkpoint, in float32 on the CPU."""
    engine = Engine(load_model(model, dtype="float32"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    ends = {"eos_token_id": [tokenizer.eos_token_id, tokenizer.pad_token_id]}
    return Qwen2LM(engine, tokenizer, max_length=32_768, max_gen_toks=MAX_TOKENS, defaults=ends)


def open_lm_eval(model: str) -> HFLM:
    """Return lm-eval's hf class on the checkpoint, in float32 on the CPU."""
    return HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=1)


def score(lm: Any, pairs: Sequence[tuple[str, str]], *, batch_size: int = 1) -> Timed:
    """Ask for log-probabilities."""
    lm.batch_size_per_gpu = batch_size
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    begin = time.perf_counter()
    answers = lm.loglikelihood(requests, disable_tqdm=True)
    return Timed(time.perf_counter() - begin, answers)


def generate(lm: Any, prompts: Sequence[str], *, batch_size: int = 1) -> Timed:
    """Ask for greedy answers."""
    lm.batch_size_per_gpu = batch_size
    kwargs = {"until": list(STOPS), "max_gen_toks": MAX_TOKENS, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(kwargs)), i) for i, prompt in enumerate(prompts)]
    begin = time.perf_counter()
    answers = lm.generate_until(requests, disable_tqdm=True)
    return Timed(time.perf_counter() - begin, answers)


def _plan(model: str, data_dir: str, task: str, **settings: Any) -> Any:
    config = RunConfig(
        model="hf", model_args={"pretrained": str(Path(model))}, tasks=(task,), data_dir=data_dir, **settings
    )
    with prepared_libraries(offline=True):
        return make_plan(config, load_spec(config)).tasks[task]
