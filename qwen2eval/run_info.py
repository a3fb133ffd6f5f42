"""run.json as types: all that is known of a run besides its samples and scores.

`RunInfo.from_json` is the one reader and `RunInfo.to_json` the one writer. A key without a default has been in every
run.json of schema 1; one that a later version adds gets a default for older files, and keys that this version doesn't
know are kept as they are (`Record.extra`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen2eval.contamination_info import ContaminationInfo
from qwen2eval.errors import RunFolderError
from qwen2eval.typed_json import OPTIONAL, Record, ShapeError, read_json

SCHEMA_VERSION = 1
_FAILED_KEYS = (
    *("status", "error", "description", "version", "output_type", "num_fewshot", "n_prompt_tokens"),
    *("shared_prefix_ratio", "generation_kwargs", "cluster", "task_hash", "template_hash", "preflight"),
    *("first_prompt", "chance", "sandbox", "n_docs", "n_docs_total", "n_requests", "filters", "metrics"),
    *("apply_chat_template", "data"),
)
"""Keys of a failed task, in their order."""


@dataclass(frozen=True)
class ModelInfo(Record):
    """The model under test."""

    backend: str
    """As `--model` names it."""
    name: str
    """What the report calls it."""
    path: str | None
    """Folder or hub name; None: it has neither."""
    dtype: str | None
    """Of its weights; None: not known."""
    device: str | None
    """Where it ran; None: not known, as with a server."""
    max_length: int | None
    """Tokens of context and answer together."""
    rope: str | None
    """How positions beyond the trained context are handled, such as "yarn x4"; "none": not at all; None: not known."""
    n_parameters: int | None
    """All weights; None: not known."""
    fingerprint: str
    """Hash of all that decides its answers; the store keeps models apart by it."""
    tokenizer_hash: str | None
    """None: its tokenizer is not known."""
    chat_template_hash: str | None
    """None: it has no chat template."""
    note: str | None
    """What gives its scores another meaning; shown at the top of the report."""


@dataclass(frozen=True)
class MetricInfo(Record):
    """One metric of a task."""

    higher_is_better: bool | None
    """None: not specified."""
    unit: str | None = field(default=None, metadata=OPTIONAL)
    """"share": 0 to 1, shown in percent; any other is shown as it is; None: not said, as in older runs."""
    low: float | None = field(default=None, metadata=OPTIONAL)
    """Lower end of its scale; None: not said."""
    high: float | None = field(default=None, metadata=OPTIONAL)
    """Upper end of its scale; None: not said."""


@dataclass(frozen=True)
class DataInfo(Record):
    """Where a task's docs came from."""

    source: str | None
    """File, folder or hub name; None: the task failed before."""
    sha256: str | None
    """Of the files; None: not known."""


@dataclass(frozen=True)
class HeatMapInfo(Record):
    """What a task says of its heat map besides the scores."""

    missing_lengths: tuple[int, ...]
    """Tokens; asked for, but over the model's length."""
    colours: str | None
    """None: the usual ones."""


@dataclass(frozen=True)
class TaskInfo(Record):
    """A task: the protocol that decides its number. Of a failed one most is None, 0 or empty."""

    status: Literal["scored", "failed"]
    """failed: it has no score at all."""
    error: str | None
    """Why it failed; None: it didn't."""
    description: str | None
    """In one line."""
    version: str | None
    """Of the task, as its author counts."""
    filters: tuple[str, ...]
    """Names, in order; "none" where there is no named one."""
    metrics: Mapping[str, MetricInfo]
    """By name, the one that is reported first."""
    task_hash: str | None
    """Of the task's whole configuration."""
    sandbox: str | None
    """Level at which the model's programs ran; None: the task has none."""
    output_type: str | None
    """lm-eval's kind of request."""
    num_fewshot: int | None
    """Examples in the prompt; None: the task doesn't say."""
    n_docs: int
    """That were asked."""
    n_docs_total: int
    """That the benchmark has."""
    n_requests: int
    """That its docs make, repeats included."""
    n_prompt_tokens: int | None
    """Prompts and continuations, as if nothing were shared; None: not known."""
    shared_prefix_ratio: float | None
    """Part of the prompt text that another prompt already has as its beginning, 0-1; None: not known."""
    generation_kwargs: Mapping[str, object] | None
    """Arguments of generation as they were applied, by lm-eval's names; None: nothing is generated."""
    cluster: str | None
    """Column whose values group docs that are not independent; None: there is none."""
    apply_chat_template: bool
    """Whether prompts were wrapped."""
    template_hash: str | None
    """Of the task's own templates."""
    data: DataInfo
    """Where the docs came from."""
    preflight: str | None
    """"ok", or the failed sanity check before the run."""
    first_prompt: str | None
    """What the model got for the first doc."""
    chance: float | None
    """Accuracy of guessing, 0-1; None: the task is not multiple choice."""
    generation_sources: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Where each of these comes from: --gen_kwargs, task, generation_config.json or default; None: an older run."""
    rope: str | None = None
    """As of the model, where the task was asked of it with another one."""
    heat_map: HeatMapInfo | None = field(default=None, metadata=OPTIONAL)
    """None: its scores have no places in one."""

    @property
    def is_failed(self) -> bool:
        """Whether the task has no score."""
        return self.status == "failed"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        known = super().to_json()
        keys = _FAILED_KEYS if self.is_failed else _SCORED_KEYS
        return {**{key: known[key] for key in keys if key in known}, **self.extra}


_SCORED_KEYS = (
    *("status", "error", "description", "version", "filters", "metrics", "task_hash", "sandbox", "output_type", "rope"),
    *("num_fewshot", "n_docs", "n_docs_total", "n_requests", "n_prompt_tokens", "shared_prefix_ratio"),
    *(
        "generation_kwargs",
        "generation_sources",
        "cluster",
        "apply_chat_template",
        "template_hash",
        "data",
        "preflight",
        "first_prompt",
    ),
    *("chance", "heat_map"),
)
"""Keys of a scored task, in their order."""


@dataclass(frozen=True)
class GroupInfo(Record):
    """A group of tasks."""

    tasks: tuple[str, ...]
    """Names of its members, of subgroups too."""


@dataclass(frozen=True)
class FlagInfo(Record):
    """Something that a reader of the score must know."""

    check: str
    """The health check that says it."""
    level: Literal["warning", "error"]
    """error: docs are missing from the score; running the same command again may fill them in."""
    message: str
    """What was found, and what to do."""


@dataclass(frozen=True)
class HealthInfo(Record):
    """What happened to a task's docs. Counts are docs unless the name says requests."""

    n_docs: int
    """That were asked."""
    n_unscored: int
    """Without a score."""
    n_truncated_prompts: int
    """Whose prompt was cut to fit the model."""
    n_unfinished: int
    """Whose answer was cut off at max_gen_toks, or ended inside its thought."""
    n_empty: int
    """Whose answer is empty."""
    n_nan: int
    """For which the model returned NaN."""
    n_failed_requests: int
    """Requests that were not answered."""
    n_scoring_errors: int
    """On which the task's scorer failed."""
    n_extraction_failures: Mapping[str, int]
    """By filter, for filters that extract an answer."""
    verdicts: Mapping[str, int]
    """Of the model's programs, in tasks that have some; repeats count."""
    n_same_process: int
    """Programs that shared a process with their tests, which can't be separated: a hostile one could have cheated."""
    flags: tuple[FlagInfo, ...]
    """What a reader must know."""
    n_thoughts: int | None = field(default=None, metadata=OPTIONAL)
    """Whose answer has a thought, which is cut before it is scored; None: not counted, as in older runs."""
    n_unfinished_thoughts: int | None = field(default=None, metadata=OPTIONAL)
    """Whose answer ended inside its thought, and is wrong; they are among `n_unfinished`."""
    n_suspicious: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    """By filter, answers that score 0 and seem to say the target; None: there are none."""


@dataclass(frozen=True)
class RequestCounts(Record):
    """What was asked of the model; other counts of a backend are in `extra`."""

    n_total: int
    """Requests of all tasks, repeats included."""
    n_from_store: int
    """Distinct ones that the store had."""
    n_answered: int
    """Distinct ones that the model answered in this run."""
    n_failed: int
    """Distinct ones without an answer."""
    stored_from: str | None = field(default=None, metadata=OPTIONAL)
    """When the oldest of those in the store was answered, ISO 8601; None: there are none, or an older run."""
    stored_to: str | None = field(default=None, metadata=OPTIONAL)
    """When the newest of them was answered."""
    n_tokens_asked: int | None = field(default=None, metadata=OPTIONAL)
    """Tokens of what was answered, as if nothing were shared; None: the backend doesn't count."""
    n_tokens_computed: int | None = field(default=None, metadata=OPTIONAL)
    """Tokens that went through the layers; None: the backend doesn't count."""


@dataclass(frozen=True)
class EnvironmentInfo(Record):
    """What the run ran on."""

    python: str
    """Its version."""
    platform: str
    """Operating system, as Python names it."""
    processor: str | None
    """Its name."""
    n_cpus: int | None
    """That this process may use."""
    memory_gb: float | None
    """GiB; None: not known."""
    gpus: tuple[str, ...]
    """Names; empty: none was used."""
    packages: Mapping[str, str]
    """Versions by name."""
    git_revision: str | None
    """Of qwen2eval's own checkout; None: it is an installed package."""


@dataclass(frozen=True)
class SeedInfo(Record):
    """Random seeds."""

    python: int
    """Of `random`."""
    numpy: int
    """Of numpy, and of resampling."""
    torch: int
    """Of torch, and of sampled answers."""
    fewshot: int
    """Of the choice of examples."""


@dataclass(frozen=True)
class TimingInfo(Record):
    """Wall time in seconds of each part; None: there was no such part."""

    plan_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Loading tasks, building prompts."""
    corpus_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Searching the corpus."""
    model_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Opening the model."""
    answer_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Answering."""
    score_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Filters, metrics, intervals."""
    judge_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Asking the judge."""
    total_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """From the start to the writing of the run folder."""

    def parts(self) -> dict[str, float]:
        """Return the seconds that are known, by part."""
        return self.to_json()


@dataclass(frozen=True)
class JudgeInfo(Record):
    """The second model that judged answers."""

    backend: str | None
    """As `--judge` names it."""
    name: str | None
    """None here and below: it could not be opened, so nothing is known of it."""
    path: str | None
    """Folder or hub name."""
    dtype: str | None
    """Of its weights."""
    fingerprint: str | None
    """Hash of all that decides its answers."""
    tokenizer_hash: str | None
    """Of its tokenizer."""
    chat_template_hash: str | None
    """Of its chat template."""
    note: str | None
    """As of a model under test."""
    args: Mapping[str, object]
    """Its arguments, without secrets."""
    apply_chat_template: bool
    """Whether its prompts were wrapped."""
    prompt_hashes: Mapping[str, str]
    """By task: of what is the same in all of its prompts."""
    n_from_store: int
    """Verdicts that the store had."""
    n_answered: int
    """Verdicts of this run."""
    n_not_judged: int
    """Answers without a verdict."""
    error: str | None
    """Why it failed; None: it didn't."""
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """What a reader must know of its stored verdicts, such as why they were refused."""


@dataclass(frozen=True)
class RunInfo(Record):
    """A run, as run.json records it."""

    schema_version: int
    """Of the run folder."""
    run_id: str
    """Its folder's name."""
    created: str
    """When it was started, ISO 8601."""
    finished: str
    """When its folder was written, ISO 8601."""
    status: Literal["finished", "failed_tasks"]
    """failed_tasks: some task has no score."""
    qwen2eval_version: str
    """That made it."""
    command: tuple[str, ...]
    """What was typed, without secrets; empty: it was started from Python."""
    config: Mapping[str, object]
    """All settings, for `RunConfig.from_dict`."""
    model: ModelInfo
    """The model under test."""
    tasks: Mapping[str, TaskInfo]
    """By name, in the order of the run."""
    groups: Mapping[str, GroupInfo]
    """By name."""
    health: Mapping[str, HealthInfo]
    """By task; failed tasks have none."""
    warnings: tuple[str, ...]
    """Of the plan."""
    requests: RequestCounts
    """What was asked of the model."""
    environment: EnvironmentInfo
    """What it ran on."""
    seeds: SeedInfo
    """Of everything random."""
    timings: TimingInfo
    """How long it took."""
    judge: JudgeInfo | None = field(default=None, metadata=OPTIONAL)
    """None: no judge was asked."""
    contamination: ContaminationInfo | None = field(default=None, metadata=OPTIONAL)
    """None: no corpus was searched."""

    @classmethod
    def from_json(cls, value: object, *, file: str = "run.json") -> "RunInfo":
        """Read run.json.

        Args:
            value: what the file holds.
            file: its name, for messages.

        Raises:
            RunFolderError: it is of another version, or a key is missing or has a value of the wrong type.
        """
        version = value.get("schema_version") if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and version not in (SCHEMA_VERSION, None):
            raise RunFolderError(
                f"{file!r} has format {version}, this qwen2eval reads {SCHEMA_VERSION}: use the version that wrote it "
                f"({value.get('qwen2eval_version')})"
            )
        try:
            return read_json(cls, value)
        except ShapeError as err:
            raise RunFolderError(
                f"{file!r}: {err}. The file is damaged, or of a version that this qwen2eval doesn't read: run the "
                "same command again, the store has the answers"
            ) from err

    @property
    def scored_tasks(self) -> dict[str, TaskInfo]:
        """Tasks that have a score, in the order of the run."""
        return {name: task for name, task in self.tasks.items() if not task.is_failed}
