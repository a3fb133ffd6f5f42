"""`EvalTask`: one lm-eval task as a run uses it. No other module reads lm-eval's objects.

lm-eval's tasks have no types, and much of what a run needs of them is spread over `task.config`, `task.dataset`,
attributes that only some have, and methods that mean something else in each kind of task. All of it is asked here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qwen2eval.errors import TaskFileError
from qwen2eval.generation import with_flags
from qwen2eval.prompts import before_plain_text
from qwen2eval.requests import Doc, GenKwargs, RequestKind
from qwen2eval.tasks import lm_eval_internals as internals
from qwen2eval.tasks.metric_spec import Aggregate, MetricItem, MetricSpec, spec_from_metadata, standard_metric
from qwen2eval.tasks.other_items import OtherItems
from qwen2eval.tasks.protocols import (
    DescribesMetrics,
    HasTurns,
    Judged,
    PublishedDocs,
    Responses,
    RunsPrograms,
    SizedPrompts,
)
from qwen2eval.tasks.targets import ChoiceTargets
from qwen2eval.tasks.task_values import Aggregation, DataInfo
from qwen2eval.texts import whole_texts

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task

    from qwen2eval.config import RunConfig

RUN_METADATA = ("data_dir", "offline", "config_source")
"""Keys of a task's metadata that say where this run is, not what the task is."""
ChatTemplate = Callable[..., str]


@dataclass(frozen=True)
class PromptForm:
    """What a run decides of every prompt."""

    system_instruction: str | None = None
    """Comes before the task's description; None: there is none."""
    apply_chat_template: bool = False
    """Whether prompts are conversations in the model's template."""
    fewshot_as_multiturn: bool = True
    """With a chat template: examples as separate turns."""
    chat_template: ChatTemplate | None = None
    """The model's; None: prompts are plain text."""


Prompt = str | list[str]
"""A doc's prompt with its examples; a list where each choice has its own prompt."""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One request of a doc, as lm-eval's task builds it."""

    index: int
    """Place among the doc's requests: the choice's number in multiple choice."""
    kind: RequestKind
    """What is asked."""
    context: str
    """The prompt; of a rolling log-likelihood the whole text."""
    continuation: str = ""
    """The text whose log-probability is asked; empty for others."""
    gen_kwargs: GenKwargs | None = None
    """Only for "generate_until"."""


class EvalTask:
    """One task, ready to be planned.

    Args:
        lm_eval: the task as lm-eval built it.
        programs: runs its programs in the place of the task's own code; None: the task offers that itself, or has none.
        score: scores a doc in the place of the task's own `process_results`; None: the task does.
    """

    def __init__(
        self,
        lm_eval: "Task",
        *,
        programs: RunsPrograms | None = None,
        score: Callable[[Doc, Responses], dict[str, MetricItem]] | None = None,
    ) -> None:
        self.lm_eval = lm_eval
        # An ability of the class is asked once: some members are properties that cost something
        self.sized: SizedPrompts | None = lm_eval if isinstance(lm_eval, SizedPrompts) else None
        self.published: PublishedDocs | None = lm_eval if isinstance(lm_eval, PublishedDocs) else None
        self.judged: Judged | None = lm_eval if isinstance(lm_eval, Judged) else None
        self.turns: HasTurns | None = lm_eval if isinstance(lm_eval, HasTurns) else None
        own_programs: RunsPrograms | None = lm_eval if isinstance(lm_eval, RunsPrograms) else None
        self.programs = programs or own_programs
        # If programs are run for a task, its target is the tests, which are not an answer
        has_target = bool(getattr(lm_eval, "target_is_answer", True)) and not internals.has_constant_target(lm_eval)
        self.target_is_answer = programs is None and has_target
        self._score = score or lm_eval.process_results
        self._examples = OtherItems(lm_eval)
        self._targets = ChoiceTargets(lm_eval)

    # Who it is

    @property
    def name(self) -> str:
        """The name that `--tasks` takes."""
        return str(self.lm_eval.task_name)

    @property
    def version(self) -> str:
        """The task's own version."""
        return str(self.lm_eval.VERSION)

    @property
    def output_type(self) -> str:
        """lm-eval's: multiple_choice, loglikelihood, loglikelihood_rolling or generate_until."""
        return str(self.lm_eval.OUTPUT_TYPE)

    @property
    def is_multiple_choice(self) -> bool:
        """Whether each doc has choices whose log-probabilities are compared."""
        return self.output_type == "multiple_choice"

    @property
    def is_multimodal(self) -> bool:
        """Whether it asks about images or audio."""
        return bool(getattr(self.lm_eval, "MULTIMODAL", False))

    @property
    def metadata(self) -> dict[str, Any]:
        """The `metadata` of its YAML; {} for tasks that have none."""
        return metadata_of(self.lm_eval)

    @property
    def summary(self) -> str:
        """One line for people; its name if there is none."""
        return str(self.metadata.get("summary") or self.lm_eval.get_config("task_alias") or self.name)

    @property
    def cluster_column(self) -> str | None:
        """The doc column that errors are clustered by; None: docs are independent."""
        column: str | None = self.metadata.get("cluster")
        return column

    @property
    def rope(self) -> str | None:
        """How the context is extended for this task only; None: as the run's settings say."""
        rope = self.metadata.get("rope")
        return None if rope in (None, "auto") else str(rope)

    @property
    def repeats(self) -> int:
        """Answers to each request."""
        return max(1, int(self.lm_eval.get_config("repeats") or 1))

    @property
    def repeats_used(self) -> int:
        """How many of these the filters use, the one that uses most."""
        return max(internals.repeats_used(chain, self.repeats) for chain in internals.filter_chains(self.lm_eval))

    @property
    def num_fewshot(self) -> int | None:
        """Examples in each prompt; None: the task does not say."""
        n: int | None = self.lm_eval.get_config("num_fewshot")
        return n

    @property
    def generation_kwargs(self) -> GenKwargs | None:
        """Generation arguments of a generating task; None for others."""
        if self.lm_eval.get_config("output_type") != "generate_until":
            return None
        kwargs: GenKwargs | None = self.lm_eval.get_config("generation_kwargs")
        return kwargs

    @property
    def reproduces_reference(self) -> bool:
        """Whether it follows its reference implementation exactly, known bugs included."""
        return bool(getattr(self.lm_eval, "faithful", False))

    @property
    def is_unsafe(self) -> bool:
        """Whether lm-eval says that its scorer runs what the model wrote."""
        return bool(getattr(self.lm_eval.config, "unsafe_code", False))

    @property
    def templates(self) -> str:
        """The text of all of its templates, a line each."""
        names = ("description", "doc_to_text", "doc_to_target", "doc_to_choice")
        return "\n".join(str(self.lm_eval.get_config(name)) for name in names)

    def config_dict(self) -> dict[str, Any]:
        """Return its YAML as lm-eval understood it."""
        return dict(self.lm_eval.dump_config())

    def hash(self) -> str:
        """Return a sha256 of everything in its YAML that decides prompts and scores."""
        config = self.config_dict()
        config["metadata"] = {k: v for k, v in self.metadata.items() if k not in (*RUN_METADATA, "reference_forms")}
        return hashlib.sha256(json.dumps(config, sort_keys=True, default=_stable_text).encode()).hexdigest()

    def override(self, config: "RunConfig") -> None:
        """Apply a run's settings the way lm-eval's `simple_evaluate` does.

        Raises:
            TaskFileError: --num_fewshot asks for examples where lm-eval would pass over the flag.
        """
        task = self.lm_eval
        if config.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config(
                "generation_kwargs", with_flags(task.get_config("generation_kwargs") or {}, config.gen_kwargs)
            )
        own = task.get_config("num_fewshot")
        if config.num_fewshot and (own == 0 or self.output_type == "loglikelihood_rolling"):
            why = "is defined with 0 examples (num_fewshot: 0)" if own == 0 else "scores texts, which have no examples"
            raise TaskFileError(
                f"--num_fewshot {config.num_fewshot}: task {self.name!r} {why}. Run it without the flag"
                + (", or with a copy of its YAML without that line (--include_path)" if own == 0 else "")
            )
        if config.num_fewshot is not None and own != 0:
            task.set_config(key="num_fewshot", value=config.num_fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=config.seeds.fewshot)

    # Its docs

    @property
    def docs(self) -> list[Doc]:
        """All docs, in lm-eval's order."""
        return [whole_texts(doc) for doc in self.lm_eval.eval_docs]

    @property
    def data(self) -> DataInfo:
        """Where the docs come from."""
        dataset = getattr(self.lm_eval, "dataset", None)
        return DataInfo(
            source=getattr(dataset, "source", None) or str(self.lm_eval.get_config("dataset_path")),
            sha256=getattr(dataset, "sha256", None),
            warning=getattr(dataset, "warning", None),
        )

    @property
    def longest_context(self) -> int:
        """Tokens of its longest text, which the run's context should hold; 0: the task sets no length."""
        return 0 if self.rope or self.sized is None else self.sized.longest_context or 0

    @property
    def missing_lengths(self) -> tuple[int, ...]:
        """Lengths that the task asks for and the model does not take."""
        return tuple(getattr(self.lm_eval, "missing_lengths", ()))

    def target(self, doc: Doc) -> Any:
        """Return the right answer: a text, a choice's number, or a list of them."""
        return self.lm_eval.doc_to_target(doc)

    def target_text(self, doc: Doc, target: object) -> str | None:
        """Return a target as text; a choice's number becomes its text."""
        if isinstance(target, int) and self.has_choices:
            choices = self.choices(doc)
            return str(choices[target]) if 0 <= target < len(choices) else str(target)
        return None if target is None else str(target)

    @property
    def target_warning(self) -> str | None:
        """What a reader of the score must know of the targets; None: nothing."""
        return self._targets.warning

    @property
    def has_choices(self) -> bool:
        """Whether its YAML names choices."""
        return getattr(self.lm_eval.config, "doc_to_choice", None) is not None

    def choices(self, doc: Doc) -> list[str]:
        """Return the texts of a doc's choices."""
        return list(self.lm_eval.doc_to_choice(doc))

    def gold_choices(self, doc: Doc) -> set[int]:
        """Return the numbers of a doc's right choices; none for tasks that are not multiple choice."""
        if not self.is_multiple_choice or not hasattr(self.lm_eval, "doc_to_choice"):
            return set()
        # In tasks with several prompts for one ending, lm-eval's "text" is the number of the right prompt
        gold = self.lm_eval.doc_to_text(doc) if self._has_many_prompts else self.target(doc)
        choices = self.choices(doc)
        listed = gold if isinstance(gold, list) else [gold]
        found = [choices.index(one) if isinstance(one, str) and one in choices else one for one in listed]
        return {one for one in found if isinstance(one, int)}

    def question(self, doc: Doc) -> Any:
        """Return what a doc asks, without examples: what lm-eval would look for in training text, else its prompt."""
        if getattr(self.lm_eval.config, "should_decontaminate", False):
            query = self.lm_eval.doc_to_decontamination_query(doc)
            if query is not None:
                return query
        return self.lm_eval.doc_to_text(doc)

    def own_prompt(self, doc: Doc) -> str | None:
        """Return a doc's prompt without examples; None where it is no text, drawn at random, or sized for a model."""
        if self.sized is not None or self._has_many_prompts or self.is_multimodal or self.draws_at_random:
            return None
        prompt = self.lm_eval.doc_to_text(doc)
        return prompt if isinstance(prompt, str) else None

    # What is asked

    @property
    def draws_at_random(self) -> bool:
        """Whether building a prompt may draw from the task's random stream, so that later prompts depend on it."""
        return internals.draws_at_random(self.lm_eval)

    def prompt(self, doc: Doc, form: PromptForm) -> Prompt:
        """Return lm-eval's prompt of a doc with its examples, never the doc itself: a text, or one for each choice.

        Raises:
            TaskFileError: there are fewer examples than the task asks for.
            Exception: any error of the task author's templates.
        """
        self._examples.leave_out(doc)
        system = form.system_instruction if form.apply_chat_template else before_plain_text(form.system_instruction)
        prompt: Prompt = self.lm_eval.fewshot_context(
            doc,
            num_fewshot=self.lm_eval.config.num_fewshot or 0,
            system_instruction=system,
            apply_chat_template=form.apply_chat_template,
            fewshot_as_multiturn=form.fewshot_as_multiturn,
            chat_template=form.chat_template,
            gen_prefix=self.lm_eval.doc_to_prefix(doc),
        )
        return prompt

    @property
    def ignores_examples(self) -> bool:
        """Whether the prompts that were built so far have no examples, although the task was told to have some."""
        return bool(self.num_fewshot) and bool(self._examples.samplers) and not self._examples.n_draws

    def requests(self, doc: Doc, doc_id: int, prompt: Prompt, form: PromptForm) -> list[TaskRequest]:
        """Return the requests of a doc around its prompt."""
        built = self.lm_eval.construct_requests(
            doc=doc,
            ctx=prompt,
            metadata=(self.lm_eval.config["task"], doc_id, self.lm_eval.config.repeats),
            apply_chat_template=form.apply_chat_template,
            chat_template=form.chat_template,
        )
        requests = []
        for instance in built if isinstance(built, list) else [built]:
            context, *rest = instance.args
            second = rest[0] if rest else ""
            requests.append(
                TaskRequest(
                    index=int(instance.idx),
                    kind=instance.request_type,
                    context=str(context),
                    continuation=second if isinstance(second, str) else "",
                    gen_kwargs=second if isinstance(second, dict) else None,
                )
            )
        return requests

    def next_prompt(self, doc: Doc, first_prompt: str, responses: Sequence[str], form: PromptForm) -> str | None:
        """Return the prompt of a conversation's next turn, all turns so far in it; None: the conversation is over.

        With a chat template the turns are its messages; without one they follow one another, a blank line between.
        """
        from lm_eval.api.utils import maybe_delimit

        assert self.turns is not None, "only tasks with turns are asked"
        said = [self.turns.next_turn(doc, responses[:n]) for n in range(1, len(responses) + 1)]
        if any(text is None for text in said):
            return None
        users = [text for text in said if text is not None]
        if form.chat_template is None:
            turns = zip(responses, users, strict=True)
            return first_prompt + "".join(f"{response}\n\n{user}" for response, user in turns)
        system = maybe_delimit(form.system_instruction, self.lm_eval.config.description or "", "\n\n")
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": str(self.lm_eval.doc_to_text(doc))})
        for response, user in zip(responses, users, strict=True):
            messages += [{"role": "assistant", "content": response}, {"role": "user", "content": user}]
        return form.chat_template(messages, add_generation_prompt=True)

    def answered_requests(self, doc: Doc, doc_id: int, prompt: str, form: PromptForm) -> list[TaskRequest]:
        """Return the requests of a doc whose prompt is known already, as a finished run's samples hold it."""
        around: Prompt = [prompt] * len(self.choices(doc)) if self._has_many_prompts else prompt
        return self.requests(doc, doc_id, around, form)

    @property
    def _has_own_scorer(self) -> bool:
        return getattr(self.lm_eval.config, "process_results", None) is not None

    @property
    def _has_many_prompts(self) -> bool:
        return bool(getattr(self.lm_eval, "multiple_input", 0))

    # How it is scored

    @cached_property
    def filter_names(self) -> list[str]:
        """Names of its filter chains; "none" if the task defines no chain."""
        return [str(chain.name) for chain in internals.filter_chains(self.lm_eval)]

    def filtered(self, docs: Sequence[Doc], responses: Responses) -> dict[str, list[Any]]:
        """Apply each filter chain to all responses at once, as lm-eval does.

        Args:
            docs: the doc of each request.
            responses: for each request the list of its repeats' responses.
        """
        chains = internals.filter_chains(self.lm_eval)
        return {str(chain.name): internals.apply_chain(chain, docs, responses) for chain in chains}

    def extracts(self, filter_name: str) -> bool:
        """Return whether a filter chain looks for an answer in the response."""
        for chain in self.lm_eval.get_config("filter_list") or []:
            if chain["name"] == filter_name:
                return any("regex" in str(step.get("function", "")) for step in chain["filter"])
        return False

    def score(self, doc: Doc, filtered: Responses) -> dict[str, MetricItem]:
        """Return a doc's metrics; a metric without a value for this doc is left out.

        Raises:
            ValueError: the target is none of the doc's choices, so that no answer could be right.
            Exception: any error of the task author's code.
        """
        if self.is_multiple_choice and self.has_choices and not self._has_own_scorer:
            n_choices, gold = len(self.choices(doc)), self.gold_choices(doc)
            if not any(0 <= one < n_choices for one in gold):
                raise ValueError(f"the target {self.target(doc)!r} is none of the {n_choices} choices")
        return self._score(doc, filtered)

    @property
    def aggregations(self) -> dict[str, Aggregate]:
        """How each of the task's metrics is aggregated, by name."""
        return dict(self.lm_eval.aggregation() or {})

    def aggregation(self, metric: str) -> Aggregation:
        """Return how a metric is aggregated: as the task says, else as a mean."""
        from lm_eval.api.metrics import mean

        function = self.aggregations.get(metric, mean)
        return Aggregation(function, is_mean=function is mean)

    @property
    def requests_per_choice(self) -> int:
        """2 where lm-eval asks for each choice once more, without the question, after all others; else 1."""
        return 2 if "acc_mutual_info" in self.aggregations else 1

    def metrics(self, found: Sequence[str] = ()) -> dict[str, MetricSpec]:
        """Return what is known of each metric: by the YAML, else the class, else the standard name and lm-eval.

        Args:
            found: metrics that samples have besides those that the task declares: a judge's, or the scorer's own.

        Raises:
            TaskFileError: the YAML's `metadata.metrics` is of another form, for any metric.
        """
        directions: Mapping[str, bool] = self.lm_eval.higher_is_better() or {}
        described = self.lm_eval.metric_specs() if isinstance(self.lm_eval, DescribesMetrics) else {}
        said = self.metadata.get("metrics") or {}
        if not isinstance(said, Mapping):
            raise TaskFileError(
                f"Task {self.name!r}: metadata.metrics is {said!r}; it must hold `name: {{unit: …}}` lines"
            )
        # all of them, so that a wrong one is refused before anything is answered, a judge's metric among them
        in_yaml = {
            str(name): spec_from_metadata(str(name), one, task=self.name, higher_is_better=directions.get(name))
            for name, one in said.items()
        }
        specs = {}
        for name in dict.fromkeys((*directions, *self.aggregations, *found)):
            if name in in_yaml:
                specs[name] = in_yaml[name]
            elif name in described:
                specs[name] = described[name]
            else:
                specs[name] = standard_metric(name).towards(directions.get(name))
        return specs


def metadata_of(task: "Task | Group") -> dict[str, Any]:
    """Return the `metadata` of a task's YAML; {} for tasks that have none."""
    metadata = getattr(task.config, "metadata", None)
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def _stable_text(value: object) -> str:
    """Return what JSON doesn't know as text, without addresses in memory: those differ in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
