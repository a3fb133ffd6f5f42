"""A made-up finished run: every state that a report must show, in small. All texts are our own."""

import copy
from typing import Any

from qwen2eval.run_folder.folder import ScoreRecord, score_records
from qwen2eval.run_info import RunInfo


def _task(**changes: Any) -> dict[str, Any]:
    task = {
        "status": "scored",
        "error": None,
        "description": None,
        "version": "1.0",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "n_docs": 100,
        "n_docs_total": 100,
        "n_requests": 400,
        "n_prompt_tokens": 21_250,
        "shared_prefix_ratio": 0.25,
        "filters": ["none"],
        "generation_kwargs": None,
        "metrics": {"acc": {"higher_is_better": True}},
        "cluster": None,
        "apply_chat_template": False,
        "task_hash": "7b0c4f52d6a1",
        "template_hash": "e41d90aa3c77",
        "data": {"source": "data/made_up.jsonl", "sha256": "5d1c" * 16},
        "preflight": "ok",
        "first_prompt": "Question: Which of these floats?\nAnswer:",
        "chance": None,
        "sandbox": None,
    }
    return task | changes


def _health(**changes: Any) -> dict[str, Any]:
    health = {
        "n_docs": 100,
        "n_unscored": 0,
        "n_truncated_prompts": 0,
        "n_unfinished": 0,
        "n_empty": 0,
        "n_nan": 0,
        "n_failed_requests": 0,
        "n_scoring_errors": 0,
        "n_extraction_failures": {},
        "verdicts": {},
        "n_same_process": 0,
        "flags": [],
    }
    return health | changes


_SUMS = _task(
    description="Word problems about sums, answered in free text.",
    output_type="generate_until",
    num_fewshot=4,
    n_docs=40,
    n_docs_total=1319,
    n_requests=40,
    n_prompt_tokens=18_904,
    shared_prefix_ratio=0.8125,
    filters=["strict-match", "flexible-extract"],
    generation_kwargs={"until": ["Question:"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 256},
    metrics={"exact_match": {"higher_is_better": True}},
    first_prompt="Question: Ann has 2 pears and buys 3. How many has she?\nAnswer: 2 + 3 = 5.\n#### 5\n\n"
    "Question: A bus holds 12. How many do 3 buses hold?\nAnswer:",
    data={"source": "data/sums/test.jsonl", "sha256": "91ab" * 16},
)

INFO: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "20261124T020102Z_tiny-qwen2_demo",
    "created": "2026-11-24T02:01:02+00:00",
    "finished": "2026-11-24T02:04:47+00:00",
    "status": "failed_tasks",
    "qwen2eval_version": "0.1.0",
    "command": ["qwen2eval", "run", "--model", "hf", "--model_args", "pretrained=models/tiny qwen2,token=hf_secret"],
    "config": {
        "model": "hf",
        "model_args": {"pretrained": "models/tiny qwen2", "token": "hf_secret"},
        "tasks": ["colours", "facts", "sums", "running_text", "letters"],
        "num_fewshot": None,
        "limit": 40,
        "seed": 0,
        "output_path": "runs",
    },
    "model": {
        "backend": "hf",
        "name": "tiny-qwen2",
        "path": "models/tiny qwen2",
        "dtype": "float32",
        "device": "cpu",
        "max_length": 2048,
        "rope": None,
        "n_parameters": 1_204_480,
        "fingerprint": "ab12cd34ef56",
        "tokenizer_hash": "0f1e2d3c4b5a",
        "chat_template_hash": None,
        "note": "an untrained stand-in: its weights are random, so its scores say nothing about any model.",
    },
    "tasks": {
        "colours": _task(description="Four choices about colours.", cluster="subject", num_fewshot=5, chance=0.25),
        "facts": _task(
            description="Two choices, true or false.",
            metrics={"acc": {"higher_is_better": True}, "acc_norm": {"higher_is_better": True}},
            chance=0.5,
        ),
        "sums": _SUMS,
        "running_text": _task(
            description="The likelihood of plain text.",
            output_type="loglikelihood_rolling",
            metrics={"word_perplexity": {"higher_is_better": False}},
            data={"source": "data/running_text.txt", "sha256": None},
            shared_prefix_ratio=None,
            preflight="2 of 100 docs are longer than the context of 2,048 tokens and are scored in windows",
        ),
        "letters": _task(
            status="failed",
            error="The server at http://127.0.0.1:8000/v1 refused 3 times. Start it, or name another with base_url=.",
            n_docs=0,
            n_docs_total=0,
            n_requests=0,
            filters=[],
            metrics={},
            data={"source": None, "sha256": None},
            **dict.fromkeys(["version", "output_type", "num_fewshot", "n_prompt_tokens", "shared_prefix_ratio"]),
            **dict.fromkeys(["task_hash", "template_hash", "preflight", "first_prompt"]),
        ),
    },
    "groups": {"choices": {"tasks": ["colours", "facts"]}},
    "health": {
        "colours": _health(
            flags=[
                {
                    "check": "chance_level",
                    "level": "warning",
                    "message": "acc 0.27 is within noise of chance (0.25), n = 100",
                }
            ]
        ),
        "facts": _health(),
        "sums": _health(
            n_docs=40,
            n_unscored=2,
            n_failed_requests=2,
            n_unfinished=9,
            n_extraction_failures={"strict-match": 14, "flexible-extract": 0},
            flags=[
                {
                    "check": "unfinished",
                    "level": "warning",
                    "message": "9 of 40 answers were cut off at max_gen_toks 256; raise it with --gen_kwargs",
                },
                {
                    "check": "extraction",
                    "level": "warning",
                    "message": "strict-match found no answer in 14 of 40 responses",
                },
                {"check": "failed_requests", "level": "error", "message": "2 requests were not answered"},
            ],
        ),
        "running_text": _health(n_truncated_prompts=2),
    },
    "warnings": ["tiny-qwen2 looks like an instruct model, but --apply_chat_template was not given"],
    "requests": {
        "n_total": 940,
        "n_from_store": 120,
        "n_answered": 818,
        "n_failed": 2,
        "n_tokens_asked": 480_000,
        "n_tokens_computed": 62_400,
    },
    "environment": {
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "processor": "A Processor @ 2.5 GHz",
        "n_cpus": 2,
        "memory_gb": 24.0,
        "gpus": [],
        "packages": {"lm_eval": "0.4.13", "torch": "2.13.0"},
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
    },
    "seeds": {"python": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234},
    "timings": {
        "plan_seconds": 1.24,
        "model_seconds": 3.0,
        "answer_seconds": 219.4,
        "score_seconds": 0.41,
        "total_seconds": 225.2,
    },
}

COLUMNS = ["task", "metric", "filter", "subset", "n_docs", "value", "stderr", "ci_low", "ci_high", "n_unscored"]
SCORES = [
    ["colours", "acc", "none", "original", 100, 0.27, 0.0446, 0.1826, 0.3574, 0],
    ["colours", "acc", "none", "clean", 60, 0.25, 0.05, 0.15, 0.35, 0],
    ["facts", "acc", "none", "original", 100, 0.97, 0.0171, 0.9146, 0.9998, 0],
    ["facts", "acc_norm", "none", "original", 100, 1.0, 0.0, 0.963, 1.0, 0],
    ["sums", "exact_match", "strict-match", "original", 40, 0.0526, 0.0367, 0.0146, 0.1729, 2],
    ["sums", "exact_match", "flexible-extract", "original", 40, None, None, None, None, 40],
    ["running_text", "word_perplexity", "none", "original", 100, 412.27, None, None, None, 0],
    ["choices", "acc", "none", "original", 200, 0.62, 0.0238, 0.5733, 0.6667, 0],
]


def _sample(task: str, doc_id: int, **changes: Any) -> dict[str, Any]:
    sample = {
        "task": task,
        "doc_id": doc_id,
        "repeat": 0,
        "filter": "none",
        "prompt": f"Question: number {doc_id}?\nAnswer:",
        "response": "",
        "extracted": None,
        "target": "",
        "finish_reason": "stop",
        "truncated": False,
    }
    return sample | changes


ROWS = [
    _sample("colours", 0, response="[[-1.5, false], [-0.25, true], [null, false]]", extracted="B", target="B", acc=1.0),
    _sample(
        "colours",
        1,
        response="[[-0.25, true], [-1.5, false], [-3.0, false]]",
        extracted="A",
        target="C",
        acc=0.0,
        truncated=True,
    ),
    _sample("colours", 2, response="[[-1.5, false], [-0.25, true], [null, false]]", extracted="B", target="B", acc=1.0),
    _sample("colours", 3, response="[[-1.5, false], [-0.25, true], [null, false]]", extracted="B", target="B", acc=1.0),
    _sample(
        "sums", 0, filter="strict-match", response="It is 36.", extracted="[invalid]", target="36", exact_match=0.0
    ),
    _sample("sums", 0, filter="flexible-extract", response="It is 36.", extracted="36", target="36", exact_match=1.0),
    _sample("sums", 1, filter="strict-match", response=None, target="7", error="the server said 500"),
    _sample(
        "sums", 2, filter="strict-match", target="9", extracted="[invalid]", exact_match=0.0, finish_reason="length"
    ),
    _sample(
        "running_text",
        0,
        prompt="",
        response="[[-812.5, null]]",
        error=None,
        target="Once there was a lake.",
        word_perplexity=[-8, 5],
    ),
]


def read(info: dict[str, Any]) -> RunInfo:
    """Return a run.json as types."""
    return RunInfo.from_json(info)


def records(scores: Any) -> tuple[ScoreRecord, ...]:
    """Return a table of scores as records."""
    return score_records(scores.to_dict("records"))


def an_info(*, model: str = "tiny-qwen2", rope: str | None = None, run_id: str = "r", **changes: Any) -> RunInfo:
    """Return the made-up run of another model, without tasks unless they are among the changes."""
    info = copy.deepcopy(INFO)
    info |= {"run_id": run_id, "tasks": {}, "health": {}, "groups": {}, **changes}
    info["model"] |= {"name": model, "rope": rope}
    return read(info)


def a_task(**changes: Any) -> dict[str, Any]:
    """Return a task of run.json."""
    return _task(**changes)
