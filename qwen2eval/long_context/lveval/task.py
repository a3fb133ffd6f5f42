"""LV-Eval as lm-eval tasks: one task a data set and level, and the groups of the source.

Paper: Yuan et al. 2024, arXiv 2402.05136. As infinigence/LVEval at commit 63e7ae93, a prompt that is too long loses its
*middle*, before the chat template. Where we differ: it is cut between characters, never within one.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from string import Template
from typing import Any, NamedTuple

from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.config.group import AggMetricConfig

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.content import content_dir
from qwen2eval.errors import ConfigError
from qwen2eval.long_context.lveval.data import LEVELS, load
from qwen2eval.long_context.lveval.middle import MiddleCutter
from qwen2eval.long_context.lveval.scoring import METRICS, Kind, Language, score
from qwen2eval.long_context.published import PublishedTask
from qwen2eval.long_context.task import Docs
from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec, metric
from qwen2eval.typed_json import JsonObject

WINDOW_RESERVE = 500
"""Tokens that the source keeps free for template and answer: 31,500 of a window of 32,000."""
MIN_PROMPT_TOKENS = 16
REFERENCES = {"reference_fields": ["input", "answers"]}
"""What is looked for in training text: not the contexts, which are public books and pages."""


class DataSet(NamedTuple):
    """What the source's configuration says of a data set."""

    language: Language
    kind: Kind
    """Its own metric."""
    group: str
    max_gen_toks: int = 64


DATA_SETS: Mapping[str, DataSet] = {
    "loogle_SD_mixup": DataSet("en", "two_stage", "single_hop"),
    "cmrc_mixup": DataSet("zh", "two_stage", "single_hop_confusing"),
    "multifieldqa_en_mixup": DataSet("en", "two_stage", "single_hop_confusing"),
    "multifieldqa_zh_mixup": DataSet("zh", "two_stage", "single_hop_confusing"),
    "dureader_mixup": DataSet("zh", "rouge", "multi_hop"),
    "loogle_CR_mixup": DataSet("en", "two_stage", "multi_hop"),
    "loogle_MIR_mixup": DataSet("en", "two_stage", "multi_hop"),
    "hotpotwikiqa_mixup": DataSet("en", "two_stage", "multi_hop_confusing"),
    "lic_mixup": DataSet("zh", "two_stage", "multi_hop_confusing"),
    "factrecall_en": DataSet("en", "f1", "factrecall", 16),
    "factrecall_zh": DataSet("zh", "f1", "factrecall", 16),
}
"""The 11 sets; `group` as OpenCompass groups them ("confusing": with confusing facts)."""
GROUP_METRICS = ("keyword_recall", "keyword_recall_filtered", "lveval_score")
"""Those that every data set has."""


class LVEvalTask(PublishedTask):
    """One data set at one level.

    `metadata`: `dataset`, `level`; `max_prompt_tokens`, by default the model's window less 500.
    """

    def __init__(self, config: JsonObject) -> None:
        self._set = DATA_SETS[config["metadata"]["dataset"]]
        self._template = prompts()[config["metadata"]["dataset"]]
        self._cutter: MiddleCutter | None = None
        self._n_cut = 0
        super().__init__(config)

    def build_docs(self, spec: ModelSpec, config: RunConfig) -> None:  # noqa: ARG002 - the base's
        """Read the data set's file, and take the model's tokenizer and the limit for prompts.

        Raises:
            ConfigError: a window is known but no tokenizer, or it leaves no room.
        """
        self._cutter, self._n_cut = self._new_cutter(spec), 0
        self._docs = self.read_docs()

    @property
    def longest_context(self) -> int:
        """Tokens that the level is named after; longer texts lose their middle, as in the benchmark."""
        return int(str(self.config.metadata["level"]).removesuffix("k")) * 1_024

    def read_docs(self) -> Docs:
        """Return the rows without their contexts, which stay on disk."""
        metadata = self.config.metadata
        self.dataset = load(
            dataset=metadata["dataset"],
            level=metadata["level"],
            package_data=self.package_data,
            data_dir=self.data_dir,
            offline=self.offline,
        )
        rows = self.dataset["test"].remove_columns("context").to_list()
        return [{"row": i, **row} for i, row in enumerate(rows)]

    def prompt_of(self, doc: Doc) -> str:
        """Return the doc's prompt, without its middle where it is too long; contexts stay on disk."""
        context = self.dataset["test"][doc["row"]]["context"]
        question = Template(self._template["after"]).substitute(input=doc["input"])
        text: str = self._template["before"].removesuffix("$context") + context + question
        if self._cutter is None or (shorter := self._cutter.without_middle(text)) is None:
            return text
        self._n_cut += 1
        self.dataset.warning = (
            f"{self.task_name}: {self._n_cut} prompts are longer than {self._cutter.limit:,} tokens; their middle is "
            "left out as in the benchmark, and may hold the answer"
        )
        return shorter

    def doc_to_target(self, doc: Doc, doc_to_target: object = None) -> str:  # noqa: ARG002 - lm-eval's hook
        """Return the first answer, the only one that the source scores."""
        return str(doc["answers"][0]) if doc else ""

    def process_results(self, doc: Doc, results: Sequence[str]) -> dict[str, float]:
        """Score a response; a metric without a value for this doc is left out."""
        return score(
            results[0],
            answer=doc["answers"][0],
            keywords=doc["answer_keywords"],
            language=self._set.language,
            kind=self._set.kind,
        )

    def aggregation(self) -> dict[str, Any]:
        """Return how metrics are aggregated: as means over docs."""
        return dict.fromkeys(METRICS, mean)

    def metric_specs(self) -> dict[str, MetricSpec]:
        """Return that all metrics are shares."""
        return dict.fromkeys(METRICS, metric("share"))

    def _new_cutter(self, spec: ModelSpec) -> MiddleCutter | None:
        limit = self.config.metadata.get("max_prompt_tokens")
        if limit is None and spec.max_length is not None:
            limit = spec.max_length - WINDOW_RESERVE
        if limit is None:
            return None
        if not isinstance(limit, int) or limit < MIN_PROMPT_TOKENS:
            raise ConfigError(
                f"Task {self.task_name!r} would cut prompts to {limit} tokens (max_prompt_tokens in its metadata, else "
                f"the model's {spec.max_length} less {WINDOW_RESERVE}): {MIN_PROMPT_TOKENS} or more are needed"
            )
        if spec.tokenizer is None:
            raise ConfigError(
                f"Task {self.task_name!r} cuts prompts to {limit} tokens of {spec.name!r}, whose tokenizer is not "
                "known: name it with tokenizer=NAME_OR_FOLDER in --model_args"
            )
        return MiddleCutter(spec.tokenizer, limit)


class LVEvalGroup(Group):  # type: ignore[misc]  # lm-eval has no types
    """All data sets of a level, or of several; YAML selects it with `class:`.

    `metadata`: `level` or `levels`, `datasets` (all by default), and what `LVEvalTask` takes. Every score is the plain
    mean of its data sets' scores, as in the source.
    """

    def __init__(self, config: JsonObject) -> None:
        metadata = dict(config["metadata"])
        levels = metadata.pop("levels", None) or [metadata.pop("level", None)]
        names = metadata.pop("datasets", None) or list(DATA_SETS)
        _check_names("level", levels, LEVELS)
        _check_names("data set", names, DATA_SETS)
        super().__init__(config["task"], aggregate_metric_list=_means(), metadata=dict(config["metadata"]))
        for level in levels:
            whole = self if len(levels) == 1 else self._subgroup(f"{config['task']}_{level}")
            parts: dict[str, Group] = {}
            for name in names:
                kind = DATA_SETS[name].group
                if kind not in parts:
                    parts[kind] = Group(f"{whole.name}_{kind}", aggregate_metric_list=_means(), metadata=self.metadata)
                    whole.add(parts[kind])
                task = f"{whole.name}_{name}"
                parts[kind].add(LVEvalTask(_task_config(config, task, {**metadata, "dataset": name, "level": level})))

    def _subgroup(self, name: str) -> Group:
        group = Group(name, aggregate_metric_list=_means(), metadata=self.metadata)
        self.add(group)
        return group


@cache
def prompts() -> Mapping[str, Mapping[str, str]]:
    """Return the prompts of `tasks/lveval/prompts.yaml` by data set."""
    import yaml

    text = (content_dir("tasks") / "lveval" / "prompts.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)["prompts"]
    return found


def _task_config(config: JsonObject, task: str, metadata: JsonObject) -> dict[str, Any]:
    """Return the configuration of one data set's task from its group's."""
    longest = DATA_SETS[metadata["dataset"]].max_gen_toks
    generation = {"until": [], "do_sample": False, "max_gen_toks": longest, **config.get("generation_kwargs", {})}
    rest = {key: value for key, value in config.items() if key != "class"}
    summary = f"LV-Eval, {metadata['dataset']} at {metadata['level']}"
    return rest | {
        "task": task,
        "generation_kwargs": generation,
        "metadata": REFERENCES | {**metadata, "summary": summary},
    }


def _means() -> list[AggMetricConfig]:
    return [AggMetricConfig(metric, weight_by_size=False) for metric in GROUP_METRICS]


def _check_names(what: str, names: Any, known: Any) -> None:
    if not isinstance(names, list) or (unknown := [name for name in names if name not in known]):
        shown = names if not isinstance(names, list) else unknown[0]
        raise ConfigError(f"LV-Eval has no {what} {shown!r}; the task's metadata may name {', '.join(known)}")
