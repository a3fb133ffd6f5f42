"""config -> Plan: every request of a run, built and checked before any weights are loaded."""

import math
from collections.abc import Iterable
from dataclasses import replace

from qwen2eval.backends import load_spec
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.backends.rope import stretched_for
from qwen2eval.config import RunConfig, Seeds
from qwen2eval.data.locate import merge_missing_data
from qwen2eval.errors import TASK_ERRORS, ConfigError, Qwen2EvalError, TaskFileError, in_one_line, summarize_names
from qwen2eval.generation import SAMPLING_ARGS, check_values, checkpoint_notes, described, read_flags
from qwen2eval.planning.group_checks import group_warnings
from qwen2eval.planning.planned import Plan, TaskPlan
from qwen2eval.planning.preflight import check_scorer
from qwen2eval.planning.requests import add_requests, pick_docs, prompt_form
from qwen2eval.requests import is_sampled
from qwen2eval.tasks.build_errors import missing_package
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.registry import load_tasks


def make_plan(config: RunConfig, spec: ModelSpec) -> Plan:
    """Load the tasks, build their requests and check what can be checked without weights.

    Raises:
        TaskNotFoundError: an unknown task or suite.
        Qwen2EvalError: no task is left to run; the first task's own error.
    """
    set_seeds(config.seeds)
    loaded = load_tasks(config)
    # A task with its own `rope` starts from what the user asked for, not from what `auto` makes of it
    asked = config
    config, spec, stretched = _with_room(asked, spec, loaded.tasks.values())
    made = Plan(config, spec, {}, loaded.groups, dict(loaded.failures), [*loaded.warnings, *stretched])
    if config.apply_chat_template and spec.chat_template is None:
        raise ConfigError(f"--apply_chat_template: model {spec.name!r} has no chat template; run without the flag")
    # The demo, which its note names, knows its template and is asked without it
    if spec.is_instruct and not config.apply_chat_template and spec.note is None:
        made.warnings.append(f"{spec.name} looks like an instruct model, but --apply_chat_template was not given")
    if config.apply_chat_template and not spec.has_system_role:
        made.warnings += _system_role_warning(config, loaded.tasks.values(), spec)
    opened: dict[str, ModelSpec] = {}
    with compiled_templates():
        for name, task in loaded.tasks.items():
            # Seeded again for each task, so that its prompts don't depend on the tasks before it
            set_seeds(config.seeds)
            try:
                model = _own_model(task, asked, opened)
                task_config, task_spec = model or (config, spec)
                made.tasks[name] = plan_task(name, task, config=task_config, spec=task_spec)
                made.tasks[name].model = model
            except Qwen2EvalError as err:
                made.failures[name] = err
            made.warnings += _task_warnings(task, made.tasks.get(name), spec)
    made.warnings += group_warnings(made.groups, made.tasks)
    made.warnings += _generation_warnings(made)
    made.failures = merge_missing_data(made.failures)
    if not made.tasks:
        raise next(iter(made.failures.values()))
    return made


def _own_model(task: EvalTask, config: RunConfig, opened: dict[str, ModelSpec]) -> tuple[RunConfig, ModelSpec] | None:
    """Return config and model of a task with its own `rope`.

    Args:
        config: what the user asked for.
        opened: models by rope; is added to.
    """
    own = own_config(task, config)
    if own is None:
        return None
    if own.rope not in opened:
        opened[own.rope] = load_spec(own)
    return own, opened[own.rope]


def own_config(task: EvalTask, config: RunConfig) -> RunConfig | None:
    """Return the config with a task's own `rope`; None: it has none, `auto` being what every task has."""
    return None if task.rope is None else replace(config, rope=task.rope)


def _with_room(config: RunConfig, spec: ModelSpec, tasks: Iterable[EvalTask]) -> tuple[RunConfig, ModelSpec, list[str]]:
    """Return config and model as `--rope auto` makes them for what long-context tasks ask for, and a warning."""
    for task in sorted(tasks, key=lambda task: task.longest_context, reverse=True):
        wider = stretched_for(config, spec, task.longest_context)
        if wider is None:
            break
        if _has_data(task):
            stretched = load_spec(wider)
            said = f"{task.name} has texts of {task.longest_context:,} tokens: the model's context is extended"
            return wider, stretched, [f"{said} by {stretched.rope} (--rope auto; --rope none turns this off)"]
    return config, spec, []


def _has_data(task: EvalTask) -> bool:
    """Return whether a task's published files can be read; if not, planning the task reports the reason."""
    try:
        if task.published is not None:
            task.published.read_docs()
    except Qwen2EvalError:
        return False
    return True


def _system_role_warning(config: RunConfig, tasks: Iterable[EvalTask], spec: ModelSpec) -> list[str]:
    """Say whose system message a template without a system role gets in another place."""
    described_tasks = [task.name for task in tasks if task.config_dict().get("description")]
    moved = ["--system_instruction"] if config.system_instruction else []
    if described_tasks:
        others = f" and {len(described_tasks) - 1:,} others" if len(described_tasks) > 1 else ""
        moved.append(f"the description of {described_tasks[0]}{others}")
    if not moved:
        return []
    what = " and ".join(moved)
    return [f"The chat template of {spec.name} has no system role: {what} is at the head of the first user turn"]


def _generation_warnings(made: Plan) -> list[str]:
    """Say what changes the generation that the tasks' own protocols ask for."""
    warnings, by_note = [], dict[str, list[str]]()
    for name, planned in made.tasks.items():
        if notes := checkpoint_notes(planned.generation):
            by_note.setdefault(", ".join(notes), []).append(name)
    for note, names in by_note.items():
        warnings.append(
            f"{summarize_names(names)}: generation_config.json of {made.spec.name} adds {note}, which the task doesn't "
            "ask for; --gen_kwargs goes before it (repetition_penalty=1 turns a penalty off)"
        )
    given = made.config.gen_kwargs
    if read_flags(given).get("do_sample") and not given.get("do_sample"):
        warnings.append(f"--gen_kwargs temperature={given['temperature']}: answers are sampled (do_sample=true)")
    return warnings


def _task_warnings(task: EvalTask, planned: TaskPlan | None, spec: ModelSpec) -> list[str]:
    """Return the warnings about a task's data and prompts.

    Args:
        planned: None: the task failed.
        spec: the run's model, for tasks without their own.
    """
    advice, of_targets, of_repeats = None, None, None
    if planned is not None:
        of_targets, of_repeats = task.target_warning, _repeats_warning(planned)
        advice = _stretch_advice(planned, spec if planned.model is None else planned.model[1])
    return [warning for warning in (task.data.warning, of_targets, of_repeats, advice) if warning is not None]


def _repeats_warning(planned: TaskPlan) -> str | None:
    """Say how many answers are paid for and not scored."""
    n_unused = planned.repeats - planned.task.repeats_used
    if n_unused <= 0:
        return None
    kept = "only the first" if planned.task.repeats_used == 1 else f"the first {planned.task.repeats_used}"
    return (
        f"{planned.name}: {n_unused} of the {planned.repeats} answers to each request are not scored: the filters keep "
        f"{kept}. Ask for fewer (`repeats` in its YAML), or give it a filter that uses all, such as majority_vote"
    )


def _stretch_advice(planned: TaskPlan, spec: ModelSpec) -> str | None:
    """Say which yarn_factor would hold prompts that are cut, if the backend can extend the context."""
    if spec.original_max_length is None or not planned.n_truncated:
        return None
    longest = max(r.n_context_tokens or 0 for r in planned.requests)
    longest += max(r.n_continuation_tokens or spec.answer_tokens(r.gen_kwargs) for r in planned.requests)
    # YaRN's factor is a multiple of the trained length, which a smaller max_length limits further
    factor = math.ceil(longest / min(spec.original_max_length, spec.max_length or longest))
    return (
        f"{planned.name}: {planned.n_truncated} docs have prompts over the model's {spec.max_length:,} tokens and are "
        f"cut. yarn_factor={factor} in --model_args fits {longest:,} (alone, or with dual_chunk=true)"
    )


def plan_task(name: str, task: EvalTask, *, config: RunConfig, spec: ModelSpec) -> TaskPlan:
    """Build one task's requests.

    Raises:
        TaskFileError: the task asks for images or audio, its templates or its scorer fail on its own docs.
        ConfigError: its answers would leave no room for a prompt.
    """
    if task.is_multimodal:
        raise TaskFileError(f"Task {name!r} asks about images or audio; this version evaluates text only")
    _check_generation(name, task)
    _check_answer_room(name, task, spec)
    _check_turns(name, task)
    _check_thinking(name, task, config)
    try:
        # Prompts of a given length can only be built when the model's tokenizer is known
        if task.sized is not None:
            task.sized.build_docs(spec, config)
        all_docs = task.docs
        clusters = [doc[column] for doc in all_docs] if (column := task.cluster_column) else None
        doc_ids = pick_docs(len(all_docs), limit=config.limit, clusters=clusters)
        planned = TaskPlan(name, task, doc_ids, [all_docs[i] for i in doc_ids], len(all_docs), task.repeats)
        planned.thinking, planned.count_tokens = spec.thinking, spec.count_tokens
        if task.generation_kwargs is not None:
            planned.generation = described(
                task.generation_kwargs,
                spec.generation_defaults,
                flags=config.gen_kwargs,
                max_gen_toks=spec.max_gen_toks,
            )
        add_requests(planned, all_docs, form=prompt_form(config, spec), spec=spec)
        if config.num_fewshot and task.ignores_examples:
            raise TaskFileError(
                f"--num_fewshot {config.num_fewshot}: task {name!r} builds its prompts without examples. Run it "
                "without the flag"
            )
        planned.preflight = check_scorer(planned)
    except Qwen2EvalError:
        raise
    # Templates and scorers are the task author's: what they raise is this task's failure
    except ImportError as err:
        raise missing_package(name, err) from err
    except TASK_ERRORS as err:
        raise TaskFileError(f"Task {name!r} fails on its own docs: {in_one_line(err)}") from err
    return planned


def set_seeds(seeds: Seeds) -> None:
    """Seed the global generators that task code may draw from, as lm-eval does; torch is seeded where it is loaded."""
    import random

    import numpy as np

    random.seed(seeds.python)
    np.random.seed(seeds.numpy)  # noqa: NPY002 - lm-eval's tasks draw from the legacy global generator


def _check_turns(name: str, task: EvalTask) -> None:
    """Refuse a conversation that can't be continued: examples are lost in it, and each repeat would go another way."""
    if task.turns is None:
        return
    if task.output_type != "generate_until" or task.num_fewshot or task.repeats > 1:
        raise TaskFileError(
            f"Task {name!r} has turns, so its output_type must be generate_until, with num_fewshot 0 and repeats 1"
        )


def _check_thinking(name: str, task: EvalTask, config: RunConfig) -> None:
    """Refuse log-probabilities of a model that thinks before it answers: its choices would stand in the thought."""
    if config.model_args.get("enable_thinking") and task.output_type != "generate_until":
        raise ConfigError(
            f"Task {name!r} needs log-probabilities, and a model does not think before these: run the task without "
            "enable_thinking=true in --model_args"
        )


def _check_generation(name: str, task: EvalTask) -> None:
    """Refuse generation arguments that act and can't; those of sampling may be anything where nothing is sampled."""
    given, where = task.generation_kwargs or {}, f"Task {name!r}: generation_kwargs"
    check_values({key: value for key, value in given.items() if key not in SAMPLING_ARGS}, where=where)
    if is_sampled(given):
        check_values(given, where=where)


def _check_answer_room(name: str, task: EvalTask, spec: ModelSpec) -> None:
    """Refuse answers as long as the context: lm-eval would then cut the whole prompt."""
    if task.generation_kwargs is None or spec.max_length is None:
        return
    if (room := spec.answer_tokens(task.generation_kwargs)) >= spec.max_length:
        raise ConfigError(
            f"Task {name!r} allows answers of {room} tokens, but the model's context is {spec.max_length}: lower "
            f"it with --gen_kwargs max_gen_toks={max(1, spec.max_length // 4)}"
        )
