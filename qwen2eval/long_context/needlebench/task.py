"""NeedleBench, versions 1 and 2, as lm-eval tasks: three tasks a setting, and the group that weighs them.

Paper: Li et al. 2024, arXiv 2407.11963; settings as in open-compass/opencompass at commit a5acc4bb. Docs say what is
asked; their contexts are built when the model is known, and never kept. Where we differ from the original unless
`faithful` is set: `needlebench_context`, `qwen2eval.long_context.needlebench.scoring`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.config.group import AggMetricConfig

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.data.splits import hash_files
from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench import scoring
from qwen2eval.long_context.needlebench.context import (
    Built,
    FittedContexts,
    Hidden,
    OriginalContexts,
    load_cl100k,
)
from qwen2eval.long_context.needlebench.data import LANGUAGES, Language, NeedleBenchData
from qwen2eval.long_context.needlebench.docs import Grid, make_docs
from qwen2eval.long_context.needlebench.grid import N_FACTS, Setting, setting
from qwen2eval.long_context.needlebench.scoring import PARTS, Part
from qwen2eval.long_context.needlebench.texts import Position, frame, left_open
from qwen2eval.long_context.published import PublishedTask
from qwen2eval.long_context.task import Docs
from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec, metric
from qwen2eval.typed_json import JsonObject

MAX_GEN_TOKS: Mapping[tuple[int, Part], int] = {
    (1, "single"): 64,
    (1, "reasoning"): 64,
    (1, "retrieval"): 512,
    (2, "single"): 64,
    (2, "reasoning"): 768,
    (2, "retrieval"): 512,
}
"""By version and part; the original names none. 768 is what 32,000 tokens leave of a window of 32,768."""
GREEDY = {"until": [], "do_sample": False}
COMMON_METADATA = {"cluster": "cluster", "reference_fields": ["question", "needles"]}
METRIC = "acc"
"""The benchmark's points as a share of 100, as every accuracy here."""


class NeedleBenchTask(PublishedTask):
    """One part of one setting.

    `metadata`: `benchmark` (1 or 2), `setting` ("32k"), `part`; to change the setting `lengths`, `depths`, `languages`,
    `n_facts`, `n_repeats`, `guide`, `position`, `base`, `seed`; `faithful`.
    """

    def __init__(self, config: JsonObject) -> None:
        metadata = config["metadata"]
        self.grid, self.part, self.faithful = read_grid(metadata), metadata["part"], bool(metadata.get("faithful"))
        self._contexts: Mapping[Language, FittedContexts | OriginalContexts] = {}
        self._haystacks: Mapping[Language, list[str]] = {}
        self._n_over = self._most_over = self._n_repeated = 0
        super().__init__(config)

    @property
    def longest_context(self) -> int:
        """Tokens of the longest context."""
        return self.grid.setting.lengths[-1]

    def build_docs(self, spec: ModelSpec, config: RunConfig) -> None:
        """Read the published files and keep the docs whose contexts the model takes.

        Raises:
            ConfigError: a model without a tokenizer here, or one that takes none of the lengths; `faithful` without
                tiktoken's vocabulary.
        """
        self._n_over = self._most_over = self._n_repeated = 0
        if not self.faithful:
            super().build_docs(spec, config)
            return
        # The model's own tokenizer has no say
        codec = load_cl100k(offline=self.offline)
        self._docs = self.read_docs()
        self._contexts = {name: OriginalContexts(texts, *codec) for name, texts in self._haystacks.items()}

    def make_docs(self, counter: PromptCounter, config: RunConfig) -> Docs:
        """Return the docs whose contexts the model takes."""
        rows = self.read_docs()
        self._contexts = {name: FittedContexts(texts, counter) for name, texts in self._haystacks.items()}
        if self.grid.base and config.apply_chat_template:
            self.warnings.append(
                f"{self.task_name}: `base: true` leaves the last sentence of prompts open, the chat template closes it"
            )
        return self._fitting(rows, counter)

    def read_docs(self) -> Docs:
        """Return all docs."""
        data = NeedleBenchData(self.package_data, data_dir=self.data_dir, offline=self.offline)
        rows = make_docs(self.grid, self.part, data)
        self._haystacks = {language: _haystack(data, language) for language in self.grid.languages}
        self.dataset.source, self.dataset.sha256 = data.source, hash_files(data.files)
        return rows

    def prompt_of(self, doc: Doc) -> str:
        """Return the doc's prompt, with a context made for the model."""
        is_multiple, notes = self.part == "retrieval", doc["notes"]
        version, language = self.grid.version, doc["language"]
        around = frame(
            doc["question"],
            version=version,
            language=language,
            is_multiple=is_multiple,
            notes=notes,
            position=self.grid.position,
        )
        around = left_open(around) if self.grid.base else around
        buffer = self.grid.setting.buffer(self.part, language) if self.faithful else 0
        hidden = Hidden(self.part, tuple(doc["needles"]), tuple(doc["depths"]))
        contexts = self._contexts[language]
        built = contexts.build(around, hidden, n_tokens=doc["length"] - buffer, repeat=doc["repeat"])
        if built.n_over or built.is_repeated:
            self._tell(built, doc["length"])
        return built.prompt

    def doc_to_target(self, doc: Doc, doc_to_target: object = None) -> str:  # noqa: ARG002 - lm-eval's hook
        """Return a right answer."""
        answer = ", ".join(doc["keywords"]) if doc else ""
        return f"\\boxed{{{answer}}}" if self.part == "reasoning" and self.grid.version == 2 else answer

    def process_results(self, doc: Doc, results: Sequence[str]) -> dict[str, float]:
        """Return the points of a response as a share of 100; nothing where the answer has no words.

        Of a multi-needle retrieval also those of each needle by its depth, as the original has them (`Depth21`).
        """
        points = self._points(doc, results[0])
        if self.part != "retrieval":
            return {} if not points else {METRIC: points[0] / 100}
        by_depth = zip(doc["depths"], points, strict=True)
        return {METRIC: mean(points) / 100} | {depth_metric(depth): found / 100 for depth, found in by_depth}

    def aggregation(self) -> dict[str, Any]:
        """Return how scores are aggregated: as means over docs."""
        return dict.fromkeys(self._metrics, mean)

    def metric_specs(self) -> dict[str, MetricSpec]:
        """Return that all metrics are shares of the points that there are."""
        return dict.fromkeys(self._metrics, metric("share"))

    @property
    def _metrics(self) -> list[str]:
        depths = self.grid.setting.depths if self.part == "retrieval" else ()
        return [METRIC, *map(depth_metric, depths)]

    def _points(self, doc: Doc, response: str) -> list[float]:
        """Return 0-100: of a multi-needle retrieval for each needle, else one; none where the answer has no words."""
        keywords = doc["keywords"]
        match self.part, self.grid.version:
            case "retrieval", _:
                return scoring.multi_retrieval(response, keywords)
            case "single", 1:
                return [scoring.single_retrieval_v1(response, needle=doc["needles"][0], keyword=keywords[0])]
            case "single", _:
                return [scoring.keyword_found(response, keywords[0])]
            case _, 1:
                points = scoring.reasoning_v1(response, answer=keywords[0])
                return [] if points is None else [points]
        return [scoring.boxed_match(response, answer=keywords[0], faithful=self.faithful)]

    def _fitting(self, rows: Docs, counter: PromptCounter) -> Docs:
        """Return the docs, shortest first, that leave room for an answer; say which lengths don't."""
        longest = counter.max_prompt_tokens(self.config.generation_kwargs)
        if longest is None or not (left_out := sorted({n for row in rows if (n := row["length"]) > longest})):
            return rows
        said = f"{self.task_name}: {counter.spec.name} takes prompts of at most {longest:,} tokens"
        if len(left_out) == len({row["length"] for row in rows}):
            raise ConfigError(f"{said}; the shortest context has {left_out[0]:,}. Choose a smaller setting")
        self.missing_lengths = tuple(left_out)
        self.warnings.append(f"{said}; left out: contexts of {', '.join(f'{n:,}' for n in left_out)} tokens")
        return [row for row in rows if row["length"] <= longest]

    def _tell(self, built: Built, length: int) -> None:
        """Say what a reader of the score must know of the contexts."""
        said = list(self.warnings)
        self._n_repeated += built.is_repeated
        if built.n_over:
            self._n_over, self._most_over = self._n_over + 1, max(self._most_over, length + built.n_over)
        if self._n_over:
            said.append(
                f"{self.task_name}: in {self._n_over} prompts needles and question alone are longer than asked (up to "
                f"{self._most_over:,} tokens); these have no haystack"
            )
        if self._n_repeated:
            said.append(
                f"{self.task_name}: the haystack is too short for {self._n_repeated} prompts, which continue with its "
                "texts in another order"
            )
        self.dataset.warning = "; ".join(said)


class NeedleBenchGroup(Group):  # type: ignore[misc]  # lm-eval has no types
    """One setting: its three parts, and the overall that weighs them; YAML selects it with `class:`.

    `metadata`: what `NeedleBenchTask` takes but for `part`; `parts`, all by default: with fewer there is no overall.
    """

    def __init__(self, config: JsonObject) -> None:
        metadata = dict(config["metadata"])
        parts = metadata.pop("parts", None) or list(PARTS)
        if not isinstance(parts, list) or not set(parts) <= set(PARTS):
            raise ConfigError(f"NeedleBench: 'parts' in the metadata is {parts!r}; it may list {', '.join(PARTS)}")
        is_whole = set(parts) == set(PARTS)
        overall = [AggMetricConfig(METRIC, weight_by_size=False)] if is_whole else None
        super().__init__(config["task"], aggregate_metric_list=overall, metadata=dict(config["metadata"]))
        version = read_grid(metadata).version
        weights = scoring.overall_weights(version=version, faithful=bool(metadata.get("faithful")))
        self.weights = {f"{self.name}_{part}": weight for part, weight in weights.items()}
        for part in parts:
            generation = {**GREEDY, "max_gen_toks": MAX_GEN_TOKS[version, part], **config.get("generation_kwargs", {})}
            summary = f"NeedleBench v{version} up to {metadata['setting']} tokens: {part}"
            own = {**COMMON_METADATA, **metadata, "part": part, "summary": summary}
            task = {**config, "task": f"{self.name}_{part}", "generation_kwargs": generation, "metadata": own}
            self.add(NeedleBenchTask(task))

    def aggregate(self, task_metrics: JsonObject) -> dict[str, Any]:
        """Return lm-eval's row of a group, with the benchmark's weights in the place of a plain mean."""
        row: dict[str, Any] = super().aggregate(task_metrics)
        for key in [key for key in row if key.partition(",")[0] == METRIC]:
            stderr_key = key.replace(METRIC, f"{METRIC}_stderr", 1)
            scored = {name: task_metrics.get(name, {}) for name in self.weights}
            # some lengths are not the setting
            is_part = any(getattr(task, "missing_lengths", ()) for task in self.get_all_tasks())
            if is_part or any(key not in metrics for metrics in scored.values()):
                del row[key]
                row.pop(stderr_key, None)
                continue
            row[key] = sum(weight * scored[name][key] for name, weight in self.weights.items())
            errors = [weight * _number(scored[name].get(stderr_key)) for name, weight in self.weights.items()]
            row[stderr_key] = "N/A" if any(map(math.isnan, errors)) else math.hypot(*errors)
        return row


def depth_metric(depth: int) -> str:
    """Return the metric of a multi-needle retrieval's needles at a depth.

    >>> depth_metric(21)
    'acc_depth_21'
    """
    return f"{METRIC}_depth_{depth}"


def read_grid(metadata: JsonObject) -> Grid:
    """Return the grid that a task's metadata describes.

    Raises:
        ConfigError: a version or setting that doesn't exist, or a value of another kind than it should be.
    """
    base = setting(metadata.get("benchmark", 0), str(metadata.get("setting")))
    lengths, depths = (sorted(_whole_numbers(metadata, key, getattr(base, key))) for key in ("lengths", "depths"))
    languages = _of_kind(metadata, "languages", list, list(LANGUAGES))
    if not languages or not set(languages) <= set(LANGUAGES):
        raise ConfigError(
            f"NeedleBench: 'languages' in the metadata is {languages!r}; it may list {', '.join(LANGUAGES)}"
        )
    if depths[-1] > 100:
        raise ConfigError(f"NeedleBench: 'depths' in the metadata are percent, 0 to 100, not {depths[-1]}")
    n_repeats = _of_kind(metadata, "n_repeats", int, None)
    if n_repeats == 0:
        raise ConfigError("NeedleBench: 'n_repeats' in the metadata is 0: nothing would be asked")
    position, is_base = _prompt_form(metadata)
    return Grid(
        version=int(metadata["benchmark"]),
        setting=Setting(tuple(lengths), tuple(depths), base.buffers),
        languages=tuple(languages),
        n_facts=_whole_numbers(metadata, "n_facts", N_FACTS),
        n_repeats=n_repeats,
        guide=_of_kind(metadata, "guide", bool, True),
        position=position,
        base=is_base,
        seed=_of_kind(metadata, "seed", int, 0),
    )


def _prompt_form(metadata: JsonObject) -> tuple[Position, bool]:
    """Return where the question is, and whether its format of answer is left open."""
    position, is_base = metadata.get("position", "end"), _of_kind(metadata, "base", bool, False)
    if position not in get_args(Position):
        raise ConfigError(f"NeedleBench: 'position' in the metadata is {position!r}; it may be end or start")
    if metadata["benchmark"] != 1 and (position != "end" or is_base):
        raise ConfigError("NeedleBench: 'position' and 'base' in the metadata are forms of version 1's prompts only")
    if is_base and position == "start":
        raise ConfigError("NeedleBench: 'base' leaves the end of the question open: it needs 'position: end'")
    return position, is_base


def _whole_numbers(metadata: Mapping[str, object], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    numbers: Any = _of_kind(metadata, key, list, list(default))
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ConfigError(f"NeedleBench: {key!r} in the metadata must list whole numbers, not {numbers!r}")
    return tuple(numbers)


def _of_kind(metadata: Mapping[str, object], key: str, kind: type, default: object) -> Any:
    value = metadata.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):  # type: ignore[operator]
        raise ConfigError(f"NeedleBench: {key!r} in the metadata must be of the kind {kind.__name__}, not {value!r}")
    return value


def _haystack(data: NeedleBenchData, language: Language) -> list[str]:
    """Return the texts of a language; blank ones alone would never make a context long enough."""
    texts = data.haystack(language)
    if not any(map(str.strip, texts)):
        raise DataFileError(f"{data.files[-1]} holds no text: all of its rows are blank")
    return texts


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
