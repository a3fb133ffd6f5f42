"""A run in lm-eval's own format (`results.json`, `samples_<task>.jsonl`), so that its tools read it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen2eval.planning.planned import PlannedRequest
from qwen2eval.results.sample import TaskSamples, raw_response
from qwen2eval.results.scores import Score, lm_eval_metrics
from qwen2eval.run_info import RunInfo
from qwen2eval.tasks.eval_group import EvalGroup
from qwen2eval.tasks.lm_eval_internals import eval_results
from qwen2eval.texts import whole_text


def lm_eval_results(
    samples: Mapping[str, TaskSamples],
    scores: Sequence[Score],
    groups: Mapping[str, EvalGroup],
    info: RunInfo,
) -> dict[str, Any]:
    """Return what lm-eval's `simple_evaluate` returns, with what its tracker adds when it saves."""
    from lm_eval.evaluator_utils import EvalAcc

    acc = EvalAcc(
        metrics=lm_eval_metrics([s for s in scores if s.task in samples and s.subset == "original"]),
        groups={name: group.lm_eval for name, group in groups.items()},
    )
    for name, task_samples in samples.items():
        task = task_samples.plan.task
        config = task.config_dict()
        acc.metrics.setdefault(name, {"name": name, "alias": name, "sample_len": 0})
        acc.metrics[name]["alias"] = config.get("task_alias", name)
        acc.configs[name], acc.versions[name] = config, task.lm_eval.VERSION
        acc.num_fewshot[name] = config.get("num_fewshot", 0)
        specs = task.metrics(task_samples.judge_metrics)
        # the metrics that lm-eval itself lists, and a judge's, which it does not know
        listed = (*(task.lm_eval.higher_is_better() or {}), *task_samples.judge_metrics)
        acc.higher_is_better[name] = {metric: specs[metric].higher_is_better for metric in listed}
        n_original, n_effective = task_samples.plan.n_docs_total, acc.metrics[name]["sample_len"]
        acc.n_samples[name] = {"original": n_original, "effective": n_effective}
    settings = info.config
    return {
        **eval_results(acc),
        "config": {
            "model": info.model.backend,
            "model_args": settings["model_args"],
            "model_num_parameters": info.model.n_parameters,
            "model_dtype": info.model.dtype,
            "batch_size": settings["batch_size"],
            "device": info.model.device,
            "limit": settings["limit"],
            "gen_kwargs": settings["gen_kwargs"] or None,
            **{f"{name}_seed": value for name, value in info.seeds.to_json().items()},
        },
        "date": info.created,
        "lm_eval_version": info.environment.packages.get("lm_eval"),
        "transformers_version": info.environment.packages.get("transformers"),
        "git_hash": info.environment.git_revision,
        "max_length": info.model.max_length,
        "model_source": info.model.backend,
        "model_name": info.model.path or info.model.name,
        "model_name_sanitized": str(info.model.path or info.model.name).replace("/", "__"),
        "system_instruction": settings["system_instruction"],
        "fewshot_as_multiturn": settings["fewshot_as_multiturn"],
        "chat_template_sha": info.model.chat_template_hash if settings["apply_chat_template"] else None,
        "task_hashes": {name: samples_hash(task_samples) for name, task_samples in samples.items()},
        "total_evaluation_time_seconds": str(info.timings.total_seconds),
    }


def json_text(value: object) -> str:
    """Return a value as the text of a JSON file; what JSON doesn't know is written as lm-eval does."""
    from lm_eval.utils import handle_non_serializable

    return whole_text(json.dumps(value, indent=1, default=handle_non_serializable, ensure_ascii=False)) + "\n"


def samples_hash(samples: TaskSamples) -> str:
    """Return lm-eval's hash of a task: of the docs, prompts and targets of its samples, one after the other."""
    from lm_eval.utils import hash_string

    # A doc has the same prompt and target under each filter, and a long-context prompt takes long to hash
    of_doc: dict[int, str] = {}
    parts = []
    for sample in samples:
        if sample.metrics is None:
            continue
        if sample.doc_id not in of_doc:
            texts = (str(sample.requests[0].prompt), whole_text(str(sample.target)))
            of_doc[sample.doc_id] = sample.doc_hash + "".join(map(hash_string, texts))
        parts.append(of_doc[sample.doc_id])
    return str(hash_string("".join(parts)))


def lm_eval_samples(samples: TaskSamples) -> Iterator[str]:
    """Yield the lines of `samples_<task>.jsonl`: one a doc and filter. Docs that were not scored are left out."""
    from lm_eval.utils import handle_non_serializable, hash_string, sanitize_list

    for sample in samples:
        if sample.metrics is None:
            continue
        arguments = [_arguments(request) for request in sample.requests]
        responses = [
            [raw_response(answer, request.kind) for answer in row]
            for request, row in zip(sample.requests, sample.answers, strict=True)
        ]
        line = {
            "doc_id": sample.doc_id,
            "doc": sample.doc,
            "target": str(sample.target),
            "arguments": {
                f"gen_args_{i}": {f"arg_{j}": a for j, a in enumerate(args)} for i, args in enumerate(arguments)
            },
            "resps": sanitize_list(responses),
            "filtered_resps": sanitize_list(sample.extracted),
            "filter": sample.filter,
            "metrics": list(sample.metrics),
            "doc_hash": sample.doc_hash,
            "prompt_hash": hash_string(str(sample.requests[0].prompt)),
            "target_hash": hash_string(whole_text(str(sample.target))),
            **sample.metrics,
        }
        yield whole_text(json.dumps(line, default=handle_non_serializable, ensure_ascii=False)) + "\n"


def _arguments(request: PlannedRequest) -> list[Any]:
    second = [dict(request.gen_kwargs)] if request.gen_kwargs is not None else [request.continuation]
    return [str(request.prompt)] if request.kind == "loglikelihood_rolling" else [str(request.prompt), *second]
