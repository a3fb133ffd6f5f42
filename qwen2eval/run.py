"""The main path: config -> plan -> model -> store -> samples -> scores -> run folder and report."""

from contextlib import ExitStack, closing
from pathlib import Path

from qwen2eval.answering import TaskAnswers, answer_task
from qwen2eval.backends import Backend, open_front, open_model
from qwen2eval.config import RunConfig
from qwen2eval.contamination import find_contamination, join
from qwen2eval.errors import BackendError, TaskFileError
from qwen2eval.libraries import prepared_libraries
from qwen2eval.plan import Plan, make_plan
from qwen2eval.preflight import check_writable
from qwen2eval.progress import Progress, scan_progress
from qwen2eval.record import Clock, describe_run, store_identity
from qwen2eval.run_folder import Run, claimed_run_id, write_run
from qwen2eval.samples import TaskSamples, score_task
from qwen2eval.scores import Score, group_scores, task_scores
from qwen2eval.store import ResponseStore


def run(config: RunConfig, *, command: list[str] | None = None, quiet: bool = False) -> Run:
    """Evaluate a model: plan, answer what the store lacks, score, and write the run folder.

    Args:
        command: what the user typed, for run.json.
        quiet: no progress bars.

    Raises:
        Qwen2EvalError: nothing could be scored; what was answered is kept, and the same call goes on from there.
    """
    clock, folder = Clock(), Path(config.output_path)
    with prepared_libraries(offline=config.offline), ExitStack() as open_things:
        with clock.time("plan_seconds"):
            plan = make_plan(config, open_front(config))
            check_writable(folder)
        with clock.time("corpus_seconds"), scan_progress(quiet=quiet) as show:
            contamination = find_contamination(config, plan.tasks, on_progress=show)
        with clock.time("model_seconds"):
            backend = open_things.enter_context(closing(open_model(plan.config, plan.front)))
        with clock.time("answer_seconds"), ResponseStore(folder / "store.sqlite") as store:
            answers = answer_tasks(plan, backend, store, quiet=quiet)
        with clock.time("score_seconds"):
            samples, scores = score_answers(plan, answers)
            joined = join(samples, scores, contamination, seed=config.seeds.numpy)
        info = describe_run(plan, backend, answers, samples, clock=clock, command=command) | joined.info
        with claimed_run_id(folder, info["run_id"]) as info["run_id"]:
            target = folder / info["run_id"]
            return write_run(target, info, samples, scores + joined.scores, plan.groups, matches=joined.matches)


def plan(config: RunConfig) -> Plan:
    """Build a run's requests without loading weights."""
    with prepared_libraries(offline=config.offline):
        return make_plan(config, open_front(config))


def answer_tasks(plan: Plan, backend: Backend, store: ResponseStore, *, quiet: bool = False) -> dict[str, TaskAnswers]:
    """Answer task by task; one whose backend gives up is moved to `plan.failures`, the others go on.

    Raises:
        BackendError: no task could be answered.
    """
    model_id = store.model_id(store_identity(plan, backend))
    answers: dict[str, TaskAnswers] = {}
    with Progress(quiet=quiet) as progress:
        for name, planned in plan.tasks.items():
            try:
                got = answer_task(
                    planned, backend, store, model_id=model_id, seed=plan.config.seeds.torch, progress=progress
                )
                require_answers(name, got)
                answers[name] = got
            except BackendError as err:
                plan.failures[name] = err
    if not answers:
        raise next(iter(plan.failures.values()))
    return answers


def score_answers(plan: Plan, answers: dict[str, TaskAnswers]) -> tuple[dict[str, TaskSamples], list[Score]]:
    """Filter, score and aggregate; a task whose own code fails is moved to `plan.failures`, the others go on.

    Raises:
        TaskFileError: no task could be scored.
    """
    samples: dict[str, TaskSamples] = {}
    scores: list[Score] = []
    for name, got in answers.items():
        try:
            task_samples = score_task(plan.tasks[name], got.by_request)
            scores += task_scores(name, task_samples, seed=plan.config.seeds.numpy)
            samples[name] = task_samples
        # filters and aggregations are the task author's: whatever they raise is that task's failure
        except Exception as err:  # noqa: BLE001
            plan.failures[name] = TaskFileError(f"Task {name!r} can't be scored: {type(err).__name__}: {err}")
    if not samples:
        raise next(iter(plan.failures.values()))
    return samples, scores + group_scores(scores, plan.groups)


def require_answers(name: str, got: TaskAnswers) -> None:
    """Raise a BackendError if not a single request of a task was answered: it has no score at all."""
    if got.n_failed and got.n_failed == len(got.by_request):
        first = next(answer.error for answer in got.by_request.values())
        raise BackendError(f"None of the {got.n_failed} requests of task {name!r} was answered; the first: {first}")
