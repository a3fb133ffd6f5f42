"""Asks a second model, the judge, about finished answers; for the run and for `qwen2eval score`, nothing else.

The judge is a model like any other: its backend, its answers in the response store under its own fingerprint. It is
asked greedily, about what the task's filter made of an answer, and never touches the task's own metrics.
"""

import gc
import hashlib
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.answers.answering import Asking, answer_task
from qwen2eval.answers.store import AnswerKey, ResponseStore
from qwen2eval.backends import ModelSpec, load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.errors import TASK_ERRORS, BackendError, ConfigError, Qwen2EvalError, TaskFileError
from qwen2eval.planning.planned import Plan, PlannedRequest, TaskPlan
from qwen2eval.planning.request_key import context_tokens, request_digest
from qwen2eval.progress import Progress
from qwen2eval.prompts import PromptPool, TokenCounter
from qwen2eval.redact import redacted
from qwen2eval.requests import Answer
from qwen2eval.results.describe import ModelRecord, store_identity
from qwen2eval.results.sample import DocSample, Judgement, TaskSamples
from qwen2eval.results.sample_columns import JUDGE_COLUMNS, extracted_text
from qwen2eval.run_info import JudgeInfo
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.protocols import Judged
from qwen2eval.thoughts import Thinking, read_thought

if TYPE_CHECKING:
    import pandas as pd

MAX_GEN_TOKS = 256
"""Tokens of a verdict, unless `max_gen_toks` is among the judge's arguments (judges that think need more)."""
_IDENTITY_FIELDS = ("name", "path", "dtype", "fingerprint", "tokenizer_hash", "chat_template_hash", "note")
"""What run.json says of a judge as of the model under test, by the same names."""
Place = tuple[str, int]
"""Filter and doc id of a sample."""


@dataclass(frozen=True)
class Judge:
    """A judge whose weights are not loaded."""

    config: RunConfig
    """Of the judge, as if it were a model under test."""
    max_gen_toks: int
    spec: ModelSpec | None = None
    """None: not opened yet."""

    def with_spec(self) -> "Judge":
        """Open what is needed before the weights: tokenizer, template, or the server's address.

        Raises:
            ModelError: the backend or checkpoint does not exist, or it doesn't take these arguments.
            BackendError: the server can't be reached.
        """
        try:
            spec = load_spec(self.config)
        except Qwen2EvalError as err:
            raise _as_judges(err) from err
        # A judge has to follow an instruction, so its chat template is used if it has one
        config = replace(self.config, apply_chat_template=spec.chat_template_text is not None)
        return replace(self, config=config, spec=spec)


@dataclass
class _Questions:
    """What the judge is asked about one task's answers."""

    plan: TaskPlan
    digests: dict[Place, bytes] = field(default_factory=dict)
    refused: dict[Place, Judgement] = field(default_factory=dict)
    """About which it can't be asked."""


@dataclass
class _Verdicts:
    """The results of asking, complete or up to the judge's failure."""

    by_task: dict[str, dict[Place, Judgement]] = field(default_factory=dict)
    judge: ModelRecord | None = None
    n_from_store: int = 0
    n_answered: int = 0
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, asked: _Questions, answers: Mapping[bytes, Answer], *, thinking: Thinking, n_stored: int
    ) -> None:
        """Add the answers about one task; equal questions about two docs share an answer.

        Args:
            thinking: how the judge's thoughts are recognised, which are no part of its verdict.
            n_stored: how many of `answers` were in the store.
        """
        self.n_from_store += n_stored
        self.n_answered += sum(answer.error is None for answer in answers.values()) - n_stored
        said = {place: answers[digest] for place, digest in asked.digests.items() if digest in answers}
        prompts = {request.digest: request.prompt for request in asked.plan.requests}
        read = {
            place: read_thought(answer, prompt=str(prompts[asked.digests[place]]), thinking=thinking)
            for place, answer in said.items()
        }
        judged = {place: Judgement(answer.response, answer.error) for place, answer in read.items()}
        self.by_task[name] = asked.refused | judged


def find_judge(config: RunConfig, tasks: Mapping[str, EvalTask]) -> Judge | None:
    """Return the judge that a config names; None: it names none.

    Args:
        tasks: of the run, by name.

    Raises:
        ConfigError: none of the tasks can be judged, or a setting is not valid.
        TaskFileError: a task's own methods for the judge don't work.
    """
    if config.judge is None:
        return None
    able = {name: task for name, task in tasks.items() if task.judged is not None}
    if not able:
        raise ConfigError(
            f"--judge: no answers of {', '.join(tasks)} can be judged. A judge is supported by needle in a "
            "haystack (`qwen2eval tasks niah`), and by your tasks whose class has judge_template, judge_prompt and "
            "judge_metrics"
        )
    for name, task in able.items():
        _check_metrics(name, task)
    args = dict(config.judge_args)
    n_tokens = args.pop("max_gen_toks", MAX_GEN_TOKS)
    if not isinstance(n_tokens, int) or isinstance(n_tokens, bool) or n_tokens < 1:
        raise ConfigError(f"--judge_args: max_gen_toks is {n_tokens!r}; give a number of tokens, 1 or more")
    same = {name: getattr(config, name) for name in ("device", "seeds", "output_path", "offline", "fresh")}
    return Judge(RunConfig(model=config.judge, model_args=args, apply_chat_template=True, **same), n_tokens)


def planned_judge(plan: Plan) -> Judge | None:
    """Return the judge of a run, checked before the model's weights are loaded; None: no judge is asked for.

    A server that is not there yet is a warning of the plan: the judge may be started when the answers are finished.

    Raises:
        ConfigError, ModelError, TaskFileError: it can't be asked.
    """
    judge = find_judge(plan.config, {name: planned.task for name, planned in plan.tasks.items()})
    if judge is None:
        return None
    try:
        return judge.with_spec()
    except BackendError as err:
        plan.warnings.append(f"{err} It is tried again when all answers are finished")
        return judge


def n_judge_requests(plan: Plan) -> int:
    """Return how often a plan's judge is asked at most: about equal answers to one question it is asked once."""
    able = [planned for planned in plan.tasks.values() if planned.task.judged is not None]
    return 0 if plan.config.judge is None else sum(len(p.docs) * len(p.task.filter_names) for p in able)


def ask_judge(judge: Judge, samples: Mapping[str, TaskSamples], store_path: Path, *, quiet: bool = False) -> JudgeInfo:
    """Ask about every scored answer and put verdicts and metrics on the samples; what the store has is not asked again.

    No error of the judge is raised: answers without a verdict keep the task's own metrics and the reason.

    Args:
        samples: by task; those of tasks that can't be judged are not changed.
        quiet: no progress bars.

    Returns:
        The `judge` part of run.json; its `error` says why the judge failed, None if it didn't.
    """
    tasks = {name: one for name, one in samples.items() if one.plan.task.judged is not None}
    verdicts, error = _Verdicts(), None
    try:
        _ask(judge if judge.spec is not None else judge.with_spec(), tasks, store_path, verdicts, quiet=quiet)
    except Qwen2EvalError as err:
        error = str(err)
    # Weights, templates and libraries of a judge may raise anything, and the answers are finished by now
    except Exception as err:  # noqa: BLE001
        error = f"The judge: {type(err).__name__}: {err}"
    for name, task_samples in tasks.items():
        _mark(task_samples, verdicts.by_task.get(name, {}), why_not=error or "the judge was not asked")
    return _describe(judge, tasks, verdicts, error)


def restore_verdicts(samples: TaskSamples, frame: "pd.DataFrame") -> None:
    """Put the verdicts of a finished run on its samples again, read with today's `judge_metrics`.

    A verdict on an answer that today's filter reads otherwise is dropped.

    Args:
        frame: the run's samples of the task; without verdicts nothing is done.
    """
    names = [column.name for column in JUDGE_COLUMNS]
    if samples.plan.task.judged is None or not set(names) <= set(frame.columns):
        return
    rows = frame[frame["repeat"] == 0].astype(object).where(frame.notna(), None).to_dict("records")
    of_place = {(str(row["filter"]), int(row["doc_id"])): row for row in rows}
    kept = {}
    for sample in samples:
        row = of_place.get(_place(sample))
        if row is not None and row["extracted"] == extracted_text(samples.plan, sample):
            kept[_place(sample)] = Judgement(*(row[name] for name in names))
    _mark(samples, kept, why_not="the filter extracts another answer than the one that was judged")


def _check_metrics(name: str, task: EvalTask) -> None:
    assert task.judged is not None, "only tasks that can be judged are checked"
    try:
        metrics = task.judged.judge_metrics("")
    except TASK_ERRORS as err:
        raise TaskFileError(
            f"Task {name!r}: judge_metrics('') must name the metrics, and fails: {type(err).__name__}: {err}"
        ) from err
    if not metrics or (twice := set(metrics) & set(task.aggregations)):
        problem = f"has the task's own metric {min(twice)!r}" if metrics else "names no metric"
        raise TaskFileError(f"Task {name!r}: judge_metrics('') {problem}")


def _ask(judge: Judge, tasks: Mapping[str, TaskSamples], store_path: Path, verdicts: _Verdicts, *, quiet: bool) -> None:
    """Ask the judge about all tasks.

    Raises:
        Exception: it could not be opened, or failed; `verdicts` then has the answers until then, and the store's.
    """
    assert judge.spec is not None, "it is opened by now"
    questions = {name: _questions(name, one, judge, judge.spec) for name, one in tasks.items()}
    verdicts.by_task = {name: one.refused for name, one in questions.items()}
    if not any(one.digests for one in questions.values()):
        return
    plan = Plan(judge.config, judge.spec, {name: one.plan for name, one in questions.items()}, {}, {})
    _free_memory()
    try:
        backend = open_model(judge.config, judge.spec)
    except Qwen2EvalError as err:
        raise _as_judges(err) from err
    failure: Exception | None = None
    with closing(backend), ResponseStore(store_path) as store, Progress(quiet=quiet) as progress:
        verdicts.judge = ModelRecord.of(plan, backend)
        identity = store_identity(plan, backend)
        # Greedy requests have no seed
        asking = Asking(
            backend=backend, store=store, identity=identity, seed=0, progress=progress, is_fresh=judge.config.fresh
        )
        for name, asked in questions.items():
            before = _stored(asked.plan, asking)
            n_stored, answers = len(before), before
            try:
                # After a failure, the store may still have verdicts of an earlier run for the next tasks
                if failure is None:
                    got = answer_task(asked.plan, asking)
                    n_stored = got.n_from_store
                    verdicts.notes += got.notes
                    answers = {digest: answer for (digest, _), answer in got.by_request.items()}
            except Exception as err:  # noqa: BLE001 - answers from before any error are kept
                failure, answers = err, _stored(asked.plan, asking)
            verdicts.add(name, asked, answers, thinking=judge.spec.thinking, n_stored=n_stored)
    if isinstance(failure, Qwen2EvalError):
        raise _as_judges(failure) from failure
    if failure is not None:
        raise failure


def _questions(name: str, samples: TaskSamples, judge: Judge, spec: ModelSpec) -> _Questions:
    """Build the judge's requests about one task's scored answers."""
    task, pool = samples.plan.task, PromptPool()
    judged = _judged(task)
    counter = None if spec.tokenizer is None else TokenCounter(spec.tokenizer, add_bos_token=spec.add_bos_token)
    gen_kwargs = {"until": [], "max_gen_toks": judge.max_gen_toks, "do_sample": False}
    made = _Questions(TaskPlan(f"{name}, judged", task, [], [], 0, 1))
    for sample in samples:
        if sample.metrics is None:
            continue
        try:
            text = judged.judge_prompt(sample.doc, str(sample.extracted[0]))
        # A task author's method may raise anything on one odd answer: only that answer is not judged
        except TASK_ERRORS as err:
            made.refused[_place(sample)] = Judgement(None, f"judge_prompt failed: {type(err).__name__}: {err}")
            continue
        if judge.config.apply_chat_template and spec.chat_template is not None:
            text = spec.chat_template([{"role": "user", "content": text}])
        prompt = pool.add(text)
        context = context_tokens(prompt, counter)
        n_tokens = context.n_tokens
        if n_tokens is not None and spec.max_length is not None and n_tokens + judge.max_gen_toks > spec.max_length:
            why = f"its prompt of {n_tokens:,} tokens and its verdict are over the judge's {spec.max_length:,}"
            made.refused[_place(sample)] = Judgement(None, why)
            continue
        digest = request_digest("generate_until", context, gen_kwargs=gen_kwargs)
        made.digests[_place(sample)] = digest
        made.plan.requests.append(
            PlannedRequest(sample.doc_id, 0, "generate_until", prompt, "", gen_kwargs, digest, n_tokens)
        )
    return made


def _stored(planned: TaskPlan, asking: Asking) -> dict[bytes, Answer]:
    """Return what the store has of the judge that was asked last under this identity."""
    keys = dict.fromkeys(AnswerKey(request.digest, 0, 0) for request in planned.requests)
    newest = asking.store.editions(asking.identity)[0]
    return {key.digest: answer for key, answer in asking.store.find(newest, keys)}


def _mark(samples: TaskSamples, judgements: Mapping[Place, Judgement], *, why_not: str) -> None:
    """Put judgements and their metrics on all scored samples of a task.

    Args:
        why_not: of those without one.
    """
    judged = _judged(samples.plan.task)
    samples.judge_metrics = tuple(judged.judge_metrics(""))
    for sample in samples:
        if sample.metrics is None:
            continue
        judgement = judgements.get(_place(sample), Judgement(None, why_not))
        found: Mapping[str, float | None] = {}
        try:
            if judgement.verdict is not None:
                found = judged.judge_metrics(judgement.verdict)
        # As with judge_prompt
        except TASK_ERRORS as err:
            judgement = judgement._replace(error=f"judge_metrics failed: {type(err).__name__}: {err}")
        sample.judgement = judgement
        # A metric that is not there is counted as not scored
        sample.metrics = {**sample.metrics, **{name: value for name, value in found.items() if value is not None}}


def _describe(judge: Judge, tasks: Mapping[str, TaskSamples], verdicts: _Verdicts, error: str | None) -> JudgeInfo:
    """Return what run.json says of the judge; its identity is None if it could not be opened."""
    model = None if verdicts.judge is None else verdicts.judge.model
    # None has none of these attributes, so they are None for a judge that was not opened
    identity: dict[str, Any] = {name: getattr(model, name, None) for name in _IDENTITY_FIELDS}
    return JudgeInfo(
        backend=judge.config.model,
        **identity,
        args=redacted({**judge.config.model_args, "max_gen_toks": judge.max_gen_toks}),
        apply_chat_template=bool(judge.config.apply_chat_template) and model is not None,
        prompt_hashes={
            name: hashlib.sha256(str(_judged(one.plan.task).judge_template).encode()).hexdigest()
            for name, one in tasks.items()
        },
        n_from_store=verdicts.n_from_store,
        n_answered=verdicts.n_answered,
        n_not_judged=sum(
            sample.judgement is not None and sample.judgement.error is not None
            for one in tasks.values()
            for sample in one
        ),
        error=error,
        notes=tuple(verdicts.notes),
    )


def _as_judges(err: Qwen2EvalError) -> Qwen2EvalError:
    """Return an error about a model as one about the judge, whose flags have other names."""
    said = str(err).replace("--model_args", "--judge_args").replace("--model ", "--judge ")
    return type(err)(f"The judge: {said}")


def _free_memory() -> None:
    """Give back what the model under test has left behind: a local judge needs the room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _judged(task: EvalTask) -> Judged:
    assert task.judged is not None, "only tasks that can be judged are asked about"
    return task.judged


def _place(sample: DocSample) -> Place:
    return sample.filter, sample.doc_id
