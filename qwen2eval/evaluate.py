"""The main path: config -> plan -> model -> store -> samples (-> judge) -> scores -> run folder and report."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from qwen2eval.answers.answering import Asking, TaskAnswers, answer_task
from qwen2eval.answers.store import STORE_FILE, ResponseStore
from qwen2eval.backends import Backend, load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.demo.shipped import with_demo_corpus
from qwen2eval.errors import (
    TASK_ERRORS,
    BackendError,
    ModelError,
    Qwen2EvalError,
    StoreError,
    TaskFileError,
    in_one_line,
)
from qwen2eval.judges.asking import ask_judge, planned_judge
from qwen2eval.planning.plan import make_plan
from qwen2eval.planning.planned import Plan
from qwen2eval.planning.preflight import check_writable
from qwen2eval.planning.requests import next_turn, prompt_form
from qwen2eval.progress import Progress, scan_progress
from qwen2eval.quiet import prepared_libraries
from qwen2eval.reporting.report import with_report
from qwen2eval.results.contamination import find_contamination, join
from qwen2eval.results.describe import Clock, ModelRecord, describe_run, store_identity
from qwen2eval.results.group_scores import group_scores
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.score_docs import score_task
from qwen2eval.results.scores import Score, task_scores
from qwen2eval.results.write import claimed_run_id, write_run
from qwen2eval.run_folder.folder import Run
from qwen2eval.run_info import JudgeInfo


def run(config: RunConfig, *, command: list[str] | None = None, quiet: bool = False) -> Run:
    """Evaluate a model: plan, answer what the store lacks, score, write the run folder, and then its report.

    A report that can't be written costs nothing else: `Run.report_fault` says why.

    Args:
        command: what the user typed, for run.json.
        quiet: no progress bars.

    Raises:
        Qwen2EvalError: nothing could be scored; answers are kept, and the same call resumes.
    """
    config, clock, folder = with_demo_corpus(config), Clock(), Path(config.output_path)
    with prepared_libraries(offline=config.offline):
        with clock.time("plan_seconds"):
            plan = make_plan(config, load_spec(config))
            # A judge or a folder that can't be used must be found now, not after hours of answers
            judge = planned_judge(plan)
            check_writable(folder)
        # Before the model is opened: a scan takes all cores and its own memory
        with clock.time("corpus_seconds"), scan_progress(quiet=quiet) as show:
            contamination = find_contamination(config, plan.tasks, on_progress=show)
        answers, asked = ask_model(plan, clock, quiet=quiet)
        with clock.time("score_seconds"):
            samples = score_answers(plan, answers)
        judged: JudgeInfo | None = None
        if judge is not None:
            with clock.time("judge_seconds"):
                judged = ask_judge(judge, samples, folder / STORE_FILE, quiet=quiet)
        # Only now, because the verdicts of a judge are metrics, too
        with clock.time("score_seconds"):
            scores = aggregate_samples(plan, samples)
            joined = join(samples, scores, contamination, seed=config.seeds.numpy)
        info = describe_run(plan, asked, answers, samples, clock=clock, command=command)
        with claimed_run_id(folder, info.run_id) as run_id:
            info = replace(info, run_id=run_id, judge=judged, contamination=joined.info)
            made = write_run(
                folder / run_id, info, samples, scores + joined.scores, plan.groups, matches=joined.matches
            )
        return with_report(made)


def plan(config: RunConfig) -> Plan:
    """Build a run's requests without loading weights."""
    with prepared_libraries(offline=config.offline):
        made = make_plan(config, load_spec(config))
        planned_judge(made)
        return made


class Asked(NamedTuple):
    """What the model said, and what is known of it."""

    answers: dict[str, TaskAnswers]
    """By task."""
    record: ModelRecord


def ask_model(plan: Plan, clock: Clock, *, quiet: bool = False) -> Asked:
    """Open the model, answer what the store lacks, and close it, so that a judge has the memory.

    Tasks with their own `rope` are asked last, each of the model with that `rope`.

    Raises:
        BackendError: no task could be answered.
        ModelError: it can't be opened at all.
    """
    answers: dict[str, TaskAnswers] = {}
    records: list[ModelRecord] = []
    for part in plan.by_model():
        try:
            with clock.time("model_seconds"):
                backend = open_model(part.config, part.spec)
        # Libraries may raise anything for what they can't load
        except TASK_ERRORS as err:
            known = err if isinstance(err, Qwen2EvalError) else _cannot_be_opened(part.spec.name, err)
            if not answers:
                raise known from err
            # The answers of earlier models are kept: only the tasks of this model fail
            plan.failures |= dict.fromkeys(part.tasks, known)
            continue
        with (
            closing(backend),
            clock.time("answer_seconds"),
            ResponseStore(Path(plan.config.output_path) / STORE_FILE) as store,
        ):
            answers |= answer_tasks(part, backend, store, quiet=quiet)
            records.append(ModelRecord.of(part, backend))
    if not answers:
        raise next(iter(plan.failures.values()))
    plan.warnings += [note for got in answers.values() for note in got.notes]
    return Asked({name: answers[name] for name in plan.tasks if name in answers}, ModelRecord.first(records))


def answer_tasks(plan: Plan, backend: Backend, store: ResponseStore, *, quiet: bool = False) -> dict[str, TaskAnswers]:
    """Answer task by task; a task whose backend fails is moved to `plan.failures`, and the next ones continue."""
    answers: dict[str, TaskAnswers] = {}
    identity = store_identity(plan, backend)
    with Progress(quiet=quiet) as progress:
        asking = Asking(
            backend=backend,
            store=store,
            identity=identity,
            seed=plan.config.seeds.torch,
            progress=progress,
            is_fresh=plan.config.fresh,
        )
        for name, planned in plan.tasks.items():
            try:
                turns = partial(next_turn, planned, form=prompt_form(plan.config, plan.spec), spec=plan.spec)
                got = answer_task(planned, asking, next_requests=None if planned.task.turns is None else turns)
                require_answers(name, got)
                answers[name] = got
            except StoreError:
                # Answers that can't be kept are the run's failure: each further one would be lost
                raise
            except Qwen2EvalError as err:
                plan.failures[name] = err
            # A backend, its libraries and a task's own turns may raise anything: the other tasks are asked
            except TASK_ERRORS as err:
                plan.failures[name] = _stopped(name, err)
    return answers


def _stopped(name: str, err: BaseException) -> BackendError:
    """Return what stopped a task in the middle of its answers, in one line."""
    return BackendError(
        f"Task {name!r} stopped while it was answered: {in_one_line(err)}. Its finished answers are kept: the same "
        "command asks only the rest"
    )


def _cannot_be_opened(name: str, err: BaseException) -> ModelError:
    return ModelError(f"Model {name!r} can't be opened: {in_one_line(err)}")


def score_answers(plan: Plan, answers: dict[str, TaskAnswers]) -> dict[str, TaskSamples]:
    """Filter and score; a task whose own code fails is moved to `plan.failures`, and the next ones continue.

    Raises:
        TaskFileError: no task could be scored.
    """
    samples: dict[str, TaskSamples] = {}
    for name, got in answers.items():
        with _task_code(plan, name):
            samples[name] = score_task(plan.tasks[name], got.by_request)
    if not samples:
        raise next(iter(plan.failures.values()))
    return samples


def aggregate_samples(plan: Plan, samples: dict[str, TaskSamples]) -> list[Score]:
    """Return the scores of tasks and groups; a task whose own aggregation fails is removed from `samples`.

    Raises:
        TaskFileError: no task could be scored.
    """
    scores: list[Score] = []
    for name, task_samples in list(samples.items()):
        with _task_code(plan, name):
            scores += task_scores(name, task_samples, seed=plan.config.seeds.numpy)
        if name in plan.failures:
            del samples[name]
    if not samples:
        raise next(iter(plan.failures.values()))
    return scores + group_scores(scores, plan.groups)


@contextmanager
def _task_code(plan: Plan, name: str) -> Iterator[None]:
    """Record any error of a task author's filters and aggregations as that task's failure."""
    try:
        yield
    except TASK_ERRORS as err:
        plan.failures[name] = TaskFileError(f"Task {name!r} can't be scored: {in_one_line(err)}")


def require_answers(name: str, got: TaskAnswers) -> None:
    """Raise a BackendError if not a single request of a task was answered: it has no score at all."""
    if got.n_failed and got.n_failed == len(got.by_request):
        first = next(answer.error for answer in got.by_request.values())
        raise BackendError(f"None of the {got.n_failed} requests of task {name!r} was answered; the first: {first}")
