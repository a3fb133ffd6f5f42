"""NeedleBench's ancestral trace challenge: no haystack, every sentence matters. All variants of versions 1 and 2.

Where the original (open-compass/opencompass at commit a5acc4bb) seeds its draws, the same names give the same chains;
version 1's free form is unseeded there, and seeded here. The worked examples of its choice form have our own names.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from string import Template
from typing import Any, ClassVar, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.data.splits import hash_files
from qwen2eval.errors import ConfigError
from qwen2eval.long_context.needlebench import scoring, texts
from qwen2eval.long_context.needlebench.data import LANGUAGES, Language, NeedleBenchData
from qwen2eval.long_context.needlebench.docs import kinship_of
from qwen2eval.long_context.needlebench.kinship import Kinship
from qwen2eval.long_context.published import PublishedTask
from qwen2eval.long_context.task import Docs, LongContextTask
from qwen2eval.prompts import before_plain_text
from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec, metric
from qwen2eval.typed_json import JsonObject

LETTERS = "ABCD"
ROTATIONS = ("ABCD", "BCDA", "CDAB", "DABC")
"""In which order the four options are shown: circular evaluation asks all."""
EXAMPLES = ((1, "A"), (2, "C"), (3, "D"), (6, "B"))
"""Sentences and right answers of the four worked examples."""


class Size(NamedTuple):
    """How much is asked."""

    lengths: tuple[int, ...]
    n_repeats: int

    def changed_by(self, metadata: Mapping[str, object]) -> "Size":
        """Return it with what a task's metadata has.

        Raises:
            ConfigError: a value that can't be.
        """
        lengths, n_repeats = metadata.get("lengths", list(self.lengths)), metadata.get("n_repeats", self.n_repeats)
        if not isinstance(lengths, list) or not lengths or not all(isinstance(n, int) and n > 1 for n in lengths):
            raise ConfigError(f"NeedleBench: 'lengths' in the metadata must list numbers from 2 on, not {lengths!r}")
        if not isinstance(n_repeats, int) or n_repeats < 1:
            raise ConfigError(f"NeedleBench: 'n_repeats' in the metadata must be 1 or more, not {n_repeats!r}")
        return Size(tuple(sorted(lengths)), n_repeats)


SIZES = {1: Size(tuple(range(2, 99, 3)), 30), 2: Size(tuple(2**k for k in range(1, 10)), 10)}
"""By version: people (1) or sentences (2), and how often each."""
CHOICE_SIZE = Size(tuple(range(2, 20)), 10)
_LAST_LETTER = {
    "function": "regex",
    "regex_pattern": (
        r"(?:[Aa]nswer(?: is)?|答案是|答案为|答案|回答)\s*[:：]?\s*[*(（]*([A-D])(?![A-Za-z])"  # noqa: RUF001
        r"|^\s*[*(（]*([A-D])(?![A-Za-z])"  # noqa: RUF001
    ),
    "group_select": -1,
}
"""The last letter that is called the answer, or the one that the response begins with."""


class _NamesTask(PublishedTask):
    """A task whose docs are made of the published names; no model has a say in them, so none needs a tokenizer."""

    language: Language

    def draw_docs(self, names: Sequence[str]) -> Docs:
        """Return the docs."""
        raise NotImplementedError

    def read_docs(self) -> Docs:
        """Read the names and draw the docs."""
        data = NeedleBenchData(self.package_data, data_dir=self.data_dir, offline=self.offline)
        docs = self.draw_docs(data.names(self.language))
        self.dataset.source, self.dataset.sha256 = data.source, hash_files(data.files)
        return docs

    def build_docs(self, spec: ModelSpec, config: RunConfig) -> None:  # noqa: ARG002 - see above
        """Draw the docs."""
        self._docs = self.read_docs()


class TraceTask(_NamesTask):
    """Who is the eldest, asked in free text (version 1) or with the answer in a box (version 2).

    `metadata`: `benchmark` (1 or 2), `language`, `lengths` (version 1: people, version 2: sentences), `n_repeats`,
    `faithful`; version 1: `ordered`, `seed`.
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **LongContextTask.DEFAULTS,
        "doc_to_target": "answer",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 2048},
    }

    def __init__(self, config: JsonObject) -> None:
        metadata = config["metadata"]
        if metadata.get("benchmark") not in SIZES:
            raise ConfigError(f"NeedleBench has no version {metadata.get('benchmark')!r}: `benchmark` is 1 or 2")
        self.version, self.language = metadata["benchmark"], checked_language(metadata)
        self.faithful = bool(metadata.get("faithful"))
        super().__init__(config)

    def draw_docs(self, names: Sequence[str]) -> Docs:
        """Draw the chains and ask about them."""
        lengths, n_repeats = SIZES[self.version].changed_by(self.config.metadata)
        draw = self._boxed_docs if self.version == 2 else self._free_docs
        return [doc for length in lengths for doc in draw(names, length, range(n_repeats))]

    def doc_to_target(self, doc: Doc, doc_to_target: object = None) -> str:  # noqa: ARG002 - lm-eval's hook
        """Return a right answer."""
        if not doc:
            return ""
        return f"\\boxed{{{doc['answer']}}}" if self.version == 2 else str(doc["answer"])

    def process_results(self, doc: Doc, results: Sequence[str]) -> dict[str, Any]:
        """Return the points of a response as a share of 100, and pairs of length and points for what is made of all."""
        answer, response = doc["answer"], results[0]
        if self.version == 2:
            points = scoring.boxed_match(response, answer=answer, faithful=self.faithful)
        else:
            points = scoring.single_retrieval_v1(response, needle=answer, keyword=answer)
        pair = (doc["length"], points)
        return {"acc": points / 100, **dict.fromkeys(self._summaries(), pair)}

    def aggregation(self) -> dict[str, Any]:
        """Return the mean over docs, and how far the chain may be: see `qwen2eval.long_context.needlebench.scoring`."""
        return {"acc": mean, **self._summaries()}

    def metric_specs(self) -> dict[str, MetricSpec]:
        """Return that accuracies are shares, and lengths are numbers of names in a chain."""
        share, length = metric("share"), metric("number")
        return {"acc": share, "length_weighted_acc": share, "enl_50": length, "traced_length": length}

    def _summaries(self) -> dict[str, Callable[[Sequence[tuple[int, float]]], float]]:
        if self.version == 2:
            return {"enl_50": _effective_length, "length_weighted_acc": _length_weighted}
        return {"traced_length": partial(_traced_length, faithful=self.faithful)}

    def _free_docs(self, names: Sequence[str], n_people: int, repeats: range) -> Docs:
        docs = []
        is_ordered, seed = bool(self.config.metadata.get("ordered")), self.config.metadata.get("seed", 0)
        for repeat in repeats:
            rng = random.Random(f"{seed} {self.language} {n_people} {repeat}")
            kinship = kinship_of(
                rng, names, n_facts=n_people - 1, version=1, language=self.language, shuffled=not is_ordered
            )
            asked = texts.eldest_in_story(kinship.youngest, language=self.language)
            prompt = f"{''.join(kinship.sentences)} \n{asked}\n{texts.plain_examples(self.language)}"
            docs.append({"length": n_people, "repeat": repeat, "prompt": prompt, "answer": kinship.eldest})
        return docs

    def _boxed_docs(self, names: Sequence[str], n_sentences: int, repeats: range) -> Docs:
        docs = []
        for kind, question in enumerate(texts.QUESTIONS):
            for repeat in repeats:
                rng = random.Random(repeat + 1 + 10_000 * kind)
                kinship = kinship_of(rng, names, n_facts=n_sentences, version=2, language=self.language)
                prompt = texts.trace_prompt(question, kinship, language=self.language)
                answers = {"descendant": kinship.youngest, "distance": str(kinship.n_generations)}
                answer = answers.get(question, kinship.eldest)
                doc = {"length": n_sentences, "question": question, "repeat": repeat}
                docs.append({**doc, "prompt": prompt, "answer": answer})
        return docs


class TraceChoiceTask(_NamesTask):
    """Version 1's choice of four people, each question asked in four orders of the options.

    `metadata`: `language`, `lengths` (people), `n_repeats`, `reasoned` (worked examples with reasoning).
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **LongContextTask.DEFAULTS,
        "doc_to_target": "letters",
        "generation_kwargs": {"until": ["Question:", "问题:"], "do_sample": False, "max_gen_toks": 2048},
        "filter_list": [{"name": "letter", "filter": [_LAST_LETTER, {"function": "take_first"}]}],
    }

    def __init__(self, config: JsonObject) -> None:
        self.language = checked_language(config["metadata"])
        super().__init__(config)

    def draw_docs(self, names: Sequence[str]) -> Docs:
        """Draw the chains and ask about them."""
        lengths, n_repeats = CHOICE_SIZE.changed_by(self.config.metadata)
        docs = []
        for n_people in lengths:
            for repeat in range(n_repeats):
                rng = random.Random(repeat)
                kinship = kinship_of(rng, names, n_facts=n_people - 1, version=1, language=self.language)
                options = four_options(kinship, names, rng)
                docs.append(
                    {
                        "length": n_people,
                        "repeat": repeat,
                        "questions": [self._question(kinship, rotated(options, order)) for order in ROTATIONS],
                        "letters": [LETTERS[order.index("A")] for order in ROTATIONS],
                    }
                )
        return docs

    def fewshot_context(self, doc: Doc, *_: Any, **options: Any) -> list[str]:
        """Return the four prompts of a doc, each behind the worked examples."""
        chat_template = options.get("chat_template") if options.get("apply_chat_template") else None
        system = options.get("system_instruction")
        shots = [turn for example in EXAMPLES for turn in self._example(*example)]
        return [
            _conversation([*shots, question], system=system, chat_template=chat_template)
            for question in doc["questions"]
        ]

    def construct_requests(self, doc: Doc, ctx: str | list[str], **options: object) -> list[Instance]:
        """Return one request for each order of the options."""
        options = {k: v for k, v in options.items() if k not in ("apply_chat_template", "chat_template")}
        contexts = [ctx] * len(ROTATIONS) if isinstance(ctx, str) else ctx
        kwargs = dict(self.config.generation_kwargs)
        return [
            Instance(request_type="generate_until", doc=doc, arguments=(context, kwargs), idx=i, **options)
            for i, context in enumerate(contexts)
        ]

    def prompt_of(self, doc: Doc) -> str:
        """Return the question with the options in their first order."""
        return str(doc["questions"][0])

    def doc_to_target(self, doc: Doc, doc_to_target: object = None) -> str:  # noqa: ARG002 - lm-eval's hook
        """Return the letter that is right in the first order."""
        return str(doc["letters"][0]) if doc else ""

    def process_results(self, doc: Doc, results: Sequence[str]) -> dict[str, float]:
        """Return the share of orders answered right, and whether all were."""
        right = [given == letter for given, letter in zip(results, doc["letters"], strict=True)]
        return {"acc": sum(right) / len(right), "acc_circular": float(all(right))}

    def aggregation(self) -> dict[str, Any]:
        """Return means over questions."""
        return dict.fromkeys(("acc_circular", "acc"), mean)

    def metric_specs(self) -> dict[str, MetricSpec]:
        """Return that both metrics are shares."""
        return dict.fromkeys(("acc_circular", "acc"), metric("share"))

    def _question(self, kinship: Kinship, options: Sequence[str]) -> str:
        asked = texts.eldest_in_story(kinship.youngest, language=self.language)
        listed = "".join(f"{letter}. {name}\n" for letter, name in zip(LETTERS, options, strict=True))
        question = f"{''.join(kinship.sentences)} \n{asked}\n{listed}"
        return Template(texts.prompts()["choice"]["question"][self.language]).substitute(question=question.rstrip("\n"))

    def _example(self, n_sentences: int, letter: str) -> tuple[str, str]:
        """Return a worked example's question and answer."""
        own, rng = texts.prompts()["choice"], random.Random(n_sentences)
        names = own["names"][self.language]
        ordered = kinship_of(rng, names, n_facts=n_sentences, version=1, language=self.language, shuffled=False)
        shuffled = replace(ordered, sentences=tuple(rng.sample(ordered.sentences, n_sentences)))
        eldest, *others = four_options(ordered, names, rng)
        rng.shuffle(others)
        options = [*others[: LETTERS.index(letter)], eldest, *others[LETTERS.index(letter) :]]
        steps = "\n".join(f"- {sentence}" for sentence in reversed(ordered.sentences))
        form = own["reasoned" if self.config.metadata.get("reasoned") else "answer"][self.language]
        words = {"letter": letter, "steps": steps, "youngest": ordered.youngest, "eldest": ordered.eldest}
        return self._question(shuffled, options), Template(form).substitute(words)


def four_options(kinship: Kinship, names: Sequence[str], rng: random.Random) -> list[str]:
    """Return the four eldest, the right answer first; shorter chains get other people as well."""
    options = list(kinship.names[:4])
    if len(options) < 4:
        options += rng.sample([name for name in names if name not in kinship.names], 4 - len(options))
    return options


def rotated(options: Sequence[str], order: str) -> list[str]:
    """Return options in another order.

    >>> rotated(["Ann", "Bo", "Cy", "Di"], "BCDA")
    ['Bo', 'Cy', 'Di', 'Ann']
    """
    return [options[LETTERS.index(letter)] for letter in order]


def checked_language(metadata: JsonObject) -> Language:
    """Return the language of a task's metadata.

    Raises:
        ConfigError: the benchmark does not have it.
    """
    for language in LANGUAGES:
        if metadata.get("language") == language:
            return language
    raise ConfigError(f"NeedleBench has no language {metadata.get('language')!r}; there are {', '.join(LANGUAGES)}")


def _conversation(turns: Sequence[str], *, system: str | None, chat_template: Callable[..., str] | None) -> str:
    """Return turns of user and model as one prompt, the user's last."""
    if chat_template is None:
        return (before_plain_text(system) or "") + "\n".join(turns)
    roles = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    messages = [{"role": "system", "content": system}, *roles] if system else roles
    return chat_template(messages, add_generation_prompt=True)


def _traced_length(pairs: Sequence[tuple[int, float]], *, faithful: bool) -> float:
    return scoring.traced_length(scoring.points_by_length(pairs), faithful=faithful)


def _effective_length(pairs: Sequence[tuple[int, float]]) -> float:
    return scoring.effective_length(scoring.points_by_length(pairs))


def _length_weighted(pairs: Sequence[tuple[int, float]]) -> float:
    return scoring.length_weighted(scoring.points_by_length(pairs)) / 100
