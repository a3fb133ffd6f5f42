"""Scoring a finished run again from its own samples: tasks and data are loaded anew, no model is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen2eval.answering import TaskAnswers
from qwen2eval.backends import open_front
from qwen2eval.config import RunConfig
from qwen2eval.contamination import find_contamination, join, own_contamination
from qwen2eval.errors import BackendError, ConfigError, RunFolderError
from qwen2eval.finished_run import Run, load_run
from qwen2eval.health import check_health
from qwen2eval.judging import Judge, ask_judge, find_judge, restore_verdicts
from qwen2eval.libraries import prepared_libraries
from qwen2eval.plan import PlannedRequest, TaskPlan, own_config, set_seeds
from qwen2eval.prompts import PromptPool, compiled_templates
from qwen2eval.record import describe_scoring
from qwen2eval.report import with_report
from qwen2eval.requests import FinishReason
from qwen2eval.run_folder import write_run
from qwen2eval.samples import TaskSamples, doc_hash, parse_response, score_task
from qwen2eval.scores import score_tasks
from qwen2eval.store import STORE_FILE
from qwen2eval.tasks import LoadedTasks, load_tasks

_FINISH_REASONS: dict[Any, FinishReason] = {"stop": "stop", "length": "length"}


def rescore(
    path: str | Path,
    *,
    data_dir: str | None = None,
    matches: str | None = None,
    judge: str | None = None,
    judge_args: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Score a run again with today's filters and metrics and replace its scores, samples and report.

    The answers are those of the run's samples. A judge is asked, if one is named, through the store beside the run;
    without one, verdicts that the run has are read again.

    Args:
        path: the run folder.
        data_dir: where the benchmarks' data is now; None: where the run had it.
        matches: folder of a finished scan, to mark docs that are in its corpus; None: the run keeps the marks it has.
        judge: backend of a judge, instead of the run's own.
        judge_args: its arguments.
        quiet: no progress bars.

    Raises:
        ConfigError: none of the run's tasks can be judged, or the judge's settings are no judge.
        BackendError: the judge gave up; the run stays as it is, and the same call asks only what is left.
        RunFolderError: no run is there, or its docs are not those of today's data.
        MissingDataError: the data is gone.
    """
    run = load_run(path)
    config = RunConfig.from_dict(run.info["config"])
    config = replace(config, data_dir=data_dir or config.data_dir, matches=matches, corpus=())
    if judge is not None or judge_args:
        config = replace(config, judge=judge, judge_args=judge_args or {})
    with prepared_libraries(offline=config.offline), compiled_templates():
        set_seeds(config.seeds)
        loaded = load_tasks(config)
        scored = [name for name, task in run.info["tasks"].items() if task["status"] != "failed"]
        plans = {name: _restore_task(run, name, loaded, config) for name in scored}
        asked = None if judge is None else find_judge(config, {name: plan.task for name, (plan, _) in plans.items()})
        found = find_contamination(config, {name: plan for name, (plan, _) in plans.items()})
        samples = {name: score_task(plan, answers.by_request) for name, (plan, answers) in plans.items()}
        info = dict(run.info)
        if asked is not None:
            info |= _judge_again(asked, samples, run, config, quiet=quiet)
        elif run.info.get("judge"):
            for name, task_samples in samples.items():
                restore_verdicts(task_samples, run.samples(name))
        scores = score_tasks(samples, loaded.groups, seed=config.seeds.numpy)
        info["health"] = {name: _new_health(info, name, check_health(s).as_dict()) for name, s in samples.items()}
        info["tasks"] = {
            name: {**task, **describe_scoring(samples[name])} if name in plans else task
            for name, task in info["tasks"].items()
        }
        joined = join(samples, scores, found or own_contamination(run), seed=config.seeds.numpy)
        info |= joined.info
        made = write_run(run.path, info, samples, scores + joined.scores, loaded.groups, matches=joined.matches)
        return with_report(made)


def _judge_again(
    judge: Judge, samples: Mapping[str, TaskSamples], run: Run, config: RunConfig, *, quiet: bool
) -> dict[str, Any]:
    """Ask a judge about a run's answers and return what changes in run.json.

    Raises:
        Qwen2EvalError: the judge can't be asked, or gave up.
    """
    judge = judge.with_front()
    told = ask_judge(judge, samples, run.path.parent / STORE_FILE, quiet=quiet)
    if told["error"] is not None:
        raise BackendError(f"{told['error']} The run is left as it was; the same command goes on from there")
    settings = {name: value for name, value in config.as_dict().items() if name in ("judge", "judge_args")}
    return {"judge": told, "config": {**run.info["config"], **settings}}


def _docs_of(task: Any, config: RunConfig, *, is_part: bool) -> list[dict[str, Any]]:
    """Return a task's docs; those that depend on the model (`LongContextTask`) are built with its tokenizer.

    Args:
        is_part: the model took some of the task's lengths only.
    """
    try:
        docs = [] if is_part else list(task.eval_docs)
    except ConfigError:
        docs = []
    if not docs and hasattr(task, "build_docs"):
        config = own_config(task, config) or config
        task.build_docs(open_front(config), config)
    return docs or list(task.eval_docs)


def _restore_task(run: Run, name: str, loaded: LoadedTasks, config: RunConfig) -> tuple[TaskPlan, TaskAnswers]:
    """Return a task's plan and answers as its samples tell them."""
    if name not in loaded.tasks:
        raise loaded.failures.get(name) or RunFolderError(f"{run.path}: task {name!r} is not registered any more")
    task = loaded.tasks[name]
    asks_another = RunFolderError(
        f"{run.path}: task {name!r} makes other requests today than those that were answered (other choices, another "
        "output_type): run it again"
    )
    if run.info["tasks"][name]["output_type"] != task.OUTPUT_TYPE:
        raise asks_another
    frame = run.samples(name)
    first_filter = frame[frame["filter"] == frame["filter"].iloc[0]]
    docs = _docs_of(task, config, is_part=bool((run.info["tasks"][name].get("heat_map") or {}).get("missing_lengths")))
    doc_ids = sorted(int(i) for i in first_filter["doc_id"].unique())
    n_repeats = int(first_filter["repeat"].max()) + 1
    plan = TaskPlan(name, task, doc_ids, [docs[i] for i in doc_ids if i < len(docs)], len(docs), n_repeats)
    answers, pool = TaskAnswers(), PromptPool()
    for row in first_filter.sort_values(["doc_id", "repeat"]).to_dict("records"):
        doc_id = int(row["doc_id"])
        if doc_id >= len(docs) or doc_hash(docs[doc_id]) != row["doc_hash"]:
            raise RunFolderError(
                f"{run.path}: doc {doc_id} of task {name!r} is not the one that was asked: the data has changed since "
                "the run. Point --data_dir to the data of the run, or run the task again"
            )
        requests = _requests(task, docs[doc_id], doc_id, row, pool, is_chat=bool(config.apply_chat_template))
        if int(row["repeat"]) == 0:
            plan.requests += requests
        error = None if row["error"] is None or row["error"] != row["error"] else str(row["error"])
        text = None if row["response"] is None or row["response"] != row["response"] else str(row["response"])
        try:
            given = parse_response(text, requests, error=error)
        except ValueError as err:  # not as many answers as requests
            raise asks_another from err
        for request, answer in zip(requests, given, strict=True):
            length = row["n_response_tokens"]
            restored = replace(
                answer,
                finish_reason=_FINISH_REASONS.get(row["finish_reason"]),
                n_response_tokens=None if length != length or length is None else int(length),
            )
            answers.by_request[(request.digest, int(row["repeat"]))] = restored
    return plan, answers


def _requests(
    task: Any, doc: dict[str, Any], doc_id: int, row: Mapping[str, Any], pool: PromptPool, *, is_chat: bool
) -> list[PlannedRequest]:
    """Build a doc's requests around the prompt that was asked; the texts are only for the record."""
    prompt = str(row["prompt"])
    context: Any = [prompt] * len(task.doc_to_choice(doc)) if getattr(task, "multiple_input", 0) else prompt
    built = task.construct_requests(
        doc=doc, ctx=context, metadata=(row["task"], doc_id, 1), apply_chat_template=is_chat
    )
    length = row["n_prompt_tokens"]
    return [
        PlannedRequest(
            doc_id=doc_id,
            index=int(instance.idx),
            kind=instance.request_type,
            prompt=pool.add(prompt if instance.args[0] else ""),
            continuation=instance.args[1] if len(instance.args) > 1 and isinstance(instance.args[1], str) else "",
            gen_kwargs=instance.args[1] if len(instance.args) > 1 and isinstance(instance.args[1], dict) else None,
            digest=f"{doc_id}:{k}".encode(),
            n_context_tokens=None if length is None or length != length else int(length),
            is_truncated=bool(row["truncated"]),
        )
        for k, instance in enumerate(built if isinstance(built, list) else [built])
    ]


def _new_health(info: Mapping[str, Any], name: str, health: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags of the plan, which a new scoring can't see."""
    old = info["health"].get(name, {}).get("flags", [])
    health["flags"] += [flag for flag in old if flag["check"] == "preflight"]
    return health
