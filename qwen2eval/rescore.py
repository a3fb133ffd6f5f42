"""Scoring a finished run again from its own samples: tasks and data are loaded anew, no model is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen2eval.answers.answering import TaskAnswers
from qwen2eval.answers.store import STORE_FILE
from qwen2eval.backends import load_spec
from qwen2eval.columns import Row
from qwen2eval.config import ModelArgs, RunConfig
from qwen2eval.errors import BackendError, ConfigError, RunFolderError
from qwen2eval.judges.asking import Judge, ask_judge, find_judge, restore_verdicts
from qwen2eval.planning.plan import own_config, set_seeds
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.prompts import PromptPool
from qwen2eval.quiet import prepared_libraries
from qwen2eval.reporting.report import with_report
from qwen2eval.requests import Doc, FinishReason
from qwen2eval.results.contamination import find_contamination, join, own_contamination
from qwen2eval.results.describe import describe_scoring
from qwen2eval.results.group_scores import score_tasks
from qwen2eval.results.health import check_health
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.sample_columns import parse_response, parse_thoughts
from qwen2eval.results.score_docs import score_task
from qwen2eval.results.write import write_run
from qwen2eval.run_folder.folder import Run, load_run
from qwen2eval.run_info import HealthInfo, RunInfo
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.tasks.lm_eval_task import EvalTask, PromptForm
from qwen2eval.tasks.registry import LoadedTasks, load_tasks
from qwen2eval.tasks.task_values import doc_hash
from qwen2eval.thoughts import Thinking

_FINISH_REASONS: dict[object, FinishReason] = {"stop": "stop", "length": "length"}


def rescore(
    path: str | Path,
    *,
    data_dir: str | None = None,
    matches: str | None = None,
    judge: str | None = None,
    judge_args: ModelArgs | None = None,
    quiet: bool = False,
) -> Run:
    """Score a run again with today's filters and metrics and replace its scores, samples and report.

    The answers are those of the run's samples. A judge is asked, if one is named, through the store next to the run;
    without one, verdicts that the run has are read again.

    Args:
        path: the run folder.
        data_dir: where the benchmarks' data is now; None: where the run had it.
        matches: folder of a finished scan, to mark docs that are in its corpus; None: the run keeps the marks it has.
        judge: backend of a judge, instead of the run's own.
        judge_args: its arguments.
        quiet: no progress bars.

    Raises:
        ConfigError: none of the run's tasks can be judged, or the judge's settings are not valid.
        BackendError: the judge failed; the run is unchanged, and the same call asks only what is left.
        RunFolderError: the folder holds no run, or today's data has other docs.
        MissingDataError: the data is missing.
    """
    run = load_run(path)
    config = config_of(run)
    # Without its corpus: the run keeps its marks, and a new search is `decontam apply` with the matches of a scan
    config = replace(config, data_dir=data_dir or config.data_dir, matches=matches, corpus=())
    if judge is not None or judge_args:
        config = replace(config, judge=judge, judge_args=judge_args or {})
    with prepared_libraries(offline=config.offline), compiled_templates():
        set_seeds(config.seeds)
        loaded = load_tasks(config)
        plans = {name: _restore_task(run, name, loaded, config) for name in run.info.scored_tasks}
        asked = None if judge is None else find_judge(config, {name: plan.task for name, (plan, _) in plans.items()})
        found = find_contamination(config, {name: plan for name, (plan, _) in plans.items()})
        samples = {name: score_task(plan, answers.by_request) for name, (plan, answers) in plans.items()}
        info = run.info
        if asked is not None:
            info = _judge_again(asked, samples, run, config, quiet=quiet)
        else:
            _restore_judge(run, samples)
        scores = score_tasks(samples, loaded.groups, seed=config.seeds.numpy)
        joined = join(samples, scores, found or own_contamination(run), seed=config.seeds.numpy)
        info = replace(_described_again(info, samples), contamination=joined.info)
        made = write_run(run.path, info, samples, scores + joined.scores, loaded.groups, matches=joined.matches)
        return with_report(made)


def _restore_judge(run: Run, samples: Mapping[str, TaskSamples]) -> None:
    """Read the verdicts that a run has again, if it had a judge."""
    if run.info.judge is not None:
        for name, task_samples in samples.items():
            restore_verdicts(task_samples, run.samples(name))


def _described_again(info: RunInfo, samples: Mapping[str, TaskSamples]) -> RunInfo:
    """Return run.json with the health and the scoring of today; failed tasks stay as they are."""
    health = {name: _new_health(info, name, check_health(one)) for name, one in samples.items()}
    scored = {name: replace(info.tasks[name], **describe_scoring(one)._asdict()) for name, one in samples.items()}
    return replace(info, health=health, tasks={**info.tasks, **scored})


def config_of(run: Run) -> RunConfig:
    """Return the settings of a finished run.

    Raises:
        RunFolderError: this version doesn't know them.
    """
    try:
        return RunConfig.from_dict(run.info.config)
    except ConfigError as err:
        raise RunFolderError(
            f"{str(run.path / 'run.json')!r}: `config`: {err}. The file is damaged or was written by another version "
            f"({run.info.qwen2eval_version}): run the same command again"
        ) from err


def _judge_again(
    judge: Judge, samples: Mapping[str, TaskSamples], run: Run, config: RunConfig, *, quiet: bool
) -> RunInfo:
    """Ask a judge about a run's answers and return run.json with the judge's part.

    Raises:
        Qwen2EvalError: the judge can't be asked, or failed.
    """
    judge = judge.with_spec()
    judged = ask_judge(judge, samples, run.path.parent / STORE_FILE, quiet=quiet)
    if judged.error is not None:
        raise BackendError(f"{judged.error} The run is unchanged; the same command asks only what is left")
    settings = {name: value for name, value in config.as_dict().items() if name in ("judge", "judge_args")}
    return replace(run.info, judge=judged, config={**run.info.config, **settings})


def _docs_of(task: EvalTask, config: RunConfig, *, is_part: bool) -> list[Doc]:
    """Return a task's docs; those that depend on the model (`LongContextTask`) are built with its tokenizer.

    Args:
        is_part: the model took some of the task's lengths only.
    """
    try:
        docs = [] if is_part else task.docs
    except ConfigError:
        docs = []
    if not docs and task.sized is not None:
        config = own_config(task, config) or config
        task.sized.build_docs(load_spec(config), config)
    return docs or task.docs


def _restore_task(run: Run, name: str, loaded: LoadedTasks, config: RunConfig) -> tuple[TaskPlan, TaskAnswers]:
    """Return a task's plan and answers as recorded in its samples."""
    if name not in loaded.tasks:
        raise loaded.failures.get(name) or RunFolderError(f"{run.path}: task {name!r} does not exist any more")
    task = loaded.tasks[name]
    asks_another = RunFolderError(
        f"{run.path}: task {name!r} now makes other requests than those that were answered (other choices, another "
        "output_type): run it again"
    )
    if run.info.tasks[name].output_type != task.output_type:
        raise asks_another
    rows, heat_map = _answered_rows(run, name), run.info.tasks[name].heat_map
    docs = _docs_of(task, config, is_part=heat_map is not None and bool(heat_map.missing_lengths))
    doc_ids = sorted({row["doc_id"] for row in rows})
    n_repeats = max(row["repeat"] for row in rows) + 1
    plan = TaskPlan(name, task, doc_ids, [docs[i] for i in doc_ids if i < len(docs)], len(docs), n_repeats)
    # Responses with their thoughts beside them have been read; versions before that cut up to think_end_token at once
    is_read = "thought" in rows[0] or config.model_args.get("think_end_token") is not None
    plan.thinking = Thinking(is_off=is_read)
    answers, pool = TaskAnswers(), PromptPool()
    for row in rows:
        _check_doc(run, name, docs, row)
        doc_id = row["doc_id"]
        requests = _requests(task, docs[doc_id], doc_id, row, pool, is_chat=bool(config.apply_chat_template))
        requests += _later_turns(task, docs[doc_id], requests, row["response"], pool)
        if row["repeat"] == 0:
            plan.requests += requests
        try:
            given = parse_response(row["response"], requests, error=row["error"])
            given = parse_thoughts(row.get("thought"), given, is_open=row.get("thought_unfinished"))
        except ValueError as err:  # not as many answers as requests
            raise asks_another from err
        for request, answer in zip(requests, given, strict=True):
            restored = replace(
                answer,
                finish_reason=_FINISH_REASONS.get(row["finish_reason"]),
                n_response_tokens=row["n_response_tokens"],
                n_thought_tokens=row.get("n_thought_tokens"),
            )
            answers.by_request[(request.digest, row["repeat"])] = restored
    return plan, answers


def _check_doc(run: Run, name: str, docs: Sequence[Doc], row: Row) -> None:
    """Refuse to score an answer with the target of another doc."""
    doc_id = row["doc_id"]
    if doc_id >= len(docs) or doc_hash(docs[doc_id]) != row["doc_hash"]:
        raise RunFolderError(
            f"{run.path}: doc {doc_id} of task {name!r} is not the one that was asked: the data has changed since "
            "the run. Point --data_dir to the data of the run, or run the task again"
        )


def _answered_rows(run: Run, name: str) -> list[dict[str, Any]]:
    """Return a task's samples under its first filter, in the order of docs and repeats: all filters have one answer.

    Raises:
        RunFolderError: there is no row.
    """
    rows: list[dict[str, Any]] = []
    for row in run.sample_rows(name):
        if not rows or row["filter"] == rows[0]["filter"]:
            rows.append(row)
    if not rows:
        raise RunFolderError(f"{run.path}: the samples of task {name!r} are empty: run the same command again")
    return sorted(rows, key=lambda row: (row["doc_id"], row["repeat"]))


def _requests(
    task: EvalTask, doc: Doc, doc_id: int, row: Row, pool: PromptPool, *, is_chat: bool
) -> list[PlannedRequest]:
    """Build a doc's requests around the prompt that was asked; the texts are only for the record."""
    prompt = str(row["prompt"])
    return [
        PlannedRequest(
            doc_id=doc_id,
            index=request.index,
            kind=request.kind,
            prompt=pool.add(prompt if request.context else ""),
            continuation=request.continuation,
            gen_kwargs=request.gen_kwargs,
            digest=f"{doc_id}:{k}".encode(),
            n_context_tokens=row["n_prompt_tokens"],
            is_truncated=bool(row["truncated"]),
        )
        for k, request in enumerate(
            task.answered_requests(doc, doc_id, prompt, PromptForm(apply_chat_template=is_chat))
        )
    ]


def _later_turns(
    task: EvalTask, doc: Doc, first: Sequence[PlannedRequest], response: str | None, pool: PromptPool
) -> list[PlannedRequest]:
    """Return the requests of a conversation after its first, as the responses in a sample say; none without turns."""
    if task.turns is None or response is None:
        return []
    try:
        said = json.loads(response)
    except ValueError:
        return []
    if not isinstance(said, list) or len(said) < 2 or not all(isinstance(text, str | None) for text in said):
        return []
    requests, form = list(first), PromptForm()
    for turn in range(1, len(said)):
        before = [text for text in said[:turn] if text is not None]
        prompt = task.next_prompt(doc, str(first[0].prompt), before, form) if len(before) == turn else None
        if prompt is None:  # one response that looks like a list of several
            return []
        requests.append(
            replace(first[0], index=turn, prompt=pool.add(prompt), digest=first[0].digest + f":{turn}".encode())
        )
    return requests[len(first) :]


def _new_health(info: RunInfo, name: str, health: HealthInfo) -> HealthInfo:
    """Keep the flags of the plan, which a new scoring can't see."""
    old = info.health[name].flags if name in info.health else ()
    return replace(health, flags=(*health.flags, *(flag for flag in old if flag.check == "preflight")))
