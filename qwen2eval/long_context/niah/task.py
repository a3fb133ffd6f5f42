"""Needle in a haystack, by the reading of the Qwen2 report (arXiv 2407.10671, section 5.2.3, figure 1).

One sentence, the needle, is hidden in a long text, and asked for. Lengths are those of the final prompt in tokens of
the model under test. The report leaves open needle, text, length step and rule of an answer: each is a choice here.

Prompts of one length differ from the needle on only: the ten depths of an instance have the same haystack from the same
place, which is that of the other lengths, too. So an engine with a prefix cache computes half of them.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from lm_eval.api.metrics import mean

from qwen2eval.backends.model_spec import hash_tokenizer
from qwen2eval.colours import COLOUR_STOPS
from qwen2eval.config import RunConfig
from qwen2eval.content import package_folder
from qwen2eval.errors import ConfigError
from qwen2eval.long_context.doc_cache import cached_docs
from qwen2eval.long_context.fitting import Frame, Stretch, assemble, fit
from qwen2eval.long_context.haystack import Haystack, find_haystack
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.niah.needles import Needle, load_needles
from qwen2eval.long_context.niah.scoring import (
    JUDGE_PROMPT,
    has_keywords,
    is_found,
    judge_prompt,
    parse_judgement,
)
from qwen2eval.long_context.task import Docs, LongContextTask
from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec, metric
from qwen2eval.typed_json import JsonObject

FRAMES = {
    "en": Frame(
        "Read the document below, then answer the question that follows it. Answer in one short sentence, only with "
        "what the document says.\n\nDocument:\n\n",
        "\n\nQuestion: {question}\nAnswer:",
    ),
    "zh": Frame(
        "请阅读下面的文档，然后回答文档后面的问题。只用一句简短的话回答，只根据文档的内容。\n\n文档：\n\n",  # noqa: RUF001
        "\n\n问题：{question}\n回答：",  # noqa: RUF001 - as Chinese is written
    ),
}


@dataclass(frozen=True)
class NiahGrid:
    """What is asked: the `metadata` of the task's YAML, with these defaults."""

    lengths: tuple[int, ...] = tuple(8_192 * k for k in range(1, 17))
    """Tokens of the final prompt, for the model under test."""
    intervals: int = 10
    """Into which the depths from 0 to 100 % are parted."""
    instances: int = 2
    """Prompts in each interval; each has another needle and another part of the haystack."""
    depths: str = "even"
    """Of an interval's instances: even, or drawn by seed, length, interval and instance."""
    needles: str = "fictional"
    """A shipped set, or the path of a JSONL file with needle, question and keywords."""
    language: str = "en"
    """Of the haystack and of the words around it: en or zh."""
    haystack: str = "auto"
    """auto: the user's text files in the data folder, else the shipped prose; shipped: always that."""
    package_data: str | None = None
    """A shipped folder that `needles` is the path of a file in, and that has the haystack; None: neither is."""

    @classmethod
    def from_metadata(cls, metadata: JsonObject) -> "NiahGrid":
        """Read a task's metadata, other keys than ours left out.

        Raises:
            ConfigError: a value that can't be.
        """
        # The YAML's metadata also has keys of other readers (version, summary)
        own = {f.name: metadata[f.name] for f in fields(cls) if f.name in metadata}
        if isinstance(own.get("lengths"), int):
            own["lengths"] = [own["lengths"]]
        lengths = own.get("lengths", cls.lengths)
        if not isinstance(lengths, list | tuple) or not lengths or not all(_is_count(length) for length in lengths):
            raise ConfigError(f"`lengths` is {lengths!r}; it takes a list of tokens, as [8192, 16384]")
        for name in ("intervals", "instances"):
            if name in own and not _is_count(own[name]):
                raise ConfigError(f"`{name}` is {own[name]!r}; it takes a number from 1 on")
        if not isinstance(own.get("needles", cls.needles), str):
            raise ConfigError(f"`needles` is {own['needles']!r}; it takes the name of a shipped set or a path")
        known = {"language": tuple(FRAMES), "haystack": ("auto", "shipped"), "colours": tuple(COLOUR_STOPS)}
        known["depths"] = ("even", "drawn")
        for name, values in known.items():
            if name in metadata and metadata[name] not in values:
                raise ConfigError(f"`{name}` is {metadata[name]!r}; it takes {' or '.join(values)}")
        return cls(**{**own, "lengths": tuple(sorted(set(lengths)))})

    def cell_depth(self, interval: int) -> float:
        """Return the middle of an interval, percent: its name in a heat map."""
        return 100 * (interval + 0.5) / self.intervals

    def depth(self, interval: int, instance: int, *, length: int, seed: int) -> float:
        """Return where a prompt's needle should be, percent of the haystack before it.

        >>> [NiahGrid().depth(9, instance, length=8192, seed=0) for instance in (0, 1)]
        [92.5, 97.5]
        """
        if self.depths == "even":
            within = (instance + 0.5) / self.instances
        else:
            within = random.Random(f"{seed} depth {length} {interval} {instance}").random()
        return 100 * (interval + within) / self.intervals


class NiahTask(LongContextTask):
    """Needle in a haystack. A doc holds the place of its needle, not its prompt, which `prompt_of` spells out."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **LongContextTask.DEFAULTS,
        "doc_to_target": "{{needle}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 64, "do_sample": False},
    }

    judge_template = JUDGE_PROMPT

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self.grid = NiahGrid.from_metadata(self.config.metadata or {})
        self.missing_lengths: tuple[int, ...] = ()
        """Lengths that the model doesn't take: their cells are missing."""
        self._haystack: Haystack | None = None
        self._texts: dict[int, str] = {}

    def make_docs(self, counter: PromptCounter, config: RunConfig) -> Docs:
        """Build the grid for a model, or take it from the cache."""
        targets = self._targets(counter)
        folder = package_folder(self.grid.package_data) if self.grid.package_data else None
        needles = load_needles(str(folder / self.grid.needles) if folder else self.grid.needles)
        self._texts = {}
        self._haystack = find_haystack(
            self.grid.language,
            data_dir=str(folder) if folder else config.data_dir,
            max_tokens=max(targets.values()),
            is_shipped=self.grid.haystack == "shipped",
        )
        self.dataset.source, self.dataset.sha256 = self._haystack.source, self._haystack.sha256
        inputs = {
            "grid": asdict(self.grid),
            "prompt_lengths": sorted(targets.items()),
            "seed": config.seeds.python,
            "needles": [asdict(needle) for needle in needles],
            "haystack": self._haystack.sha256,
            "tokenizer": counter.spec.tokenizer_hash or hash_tokenizer(counter.spec.tokenizer),
            "add_bos_token": config.model_args.get("add_bos_token"),
            "template": counter.render("¤"),
            "frame": asdict(FRAMES[self.grid.language]),
        }
        docs = cached_docs("niah", inputs, lambda: self._new_docs(counter, needles, targets, seed=config.seeds.python))
        if n_repeated := sum(doc["is_repeated"] for doc in docs):
            self.warnings.append(
                f"{self.task_name}: the haystack ({self._haystack.source}) is too short for {n_repeated} of {len(docs)}"
                " prompts, and begins there again from another paragraph"
            )
        return docs

    @property
    def longest_context(self) -> int:
        """Tokens of the longest prompt; a model of just this length has room for it, as the prompt gives way."""
        return max(self.grid.lengths)

    def prompt_of(self, doc: Doc) -> str:
        """Return the haystack with the needle in it, and the question."""
        assert self._haystack is not None, "docs are built before prompts are asked for"
        start, end = doc["haystack_start"], doc["haystack_end"]
        if len(self._texts.get(start, "")) < end:
            self._texts[start] = self._haystack.text(start, n_chars=end)
        frame = self._frame(doc["question"])
        place = {"needle_at": doc["needle_at"], "end": end, "filler": doc["filler"]}
        return assemble(frame, self._texts[start], doc["needle"], **place)

    def process_results(self, doc: Doc, results: list[object]) -> dict[str, float]:
        """Return whether all keywords are in the answer."""
        return {"acc": float(has_keywords(str(results[0]), doc["keywords"]))}

    def aggregation(self) -> dict[str, Any]:
        """Return how `acc` is aggregated: as a mean over prompts."""
        return {"acc": mean}

    def metric_specs(self) -> dict[str, MetricSpec]:
        """Return that answers are right or wrong, and that a judge rates them from 1 to 10."""
        return {
            "acc": metric("share"),
            "judge_score": metric("rating", scale=(1.0, 10.0)),
            "judge_found": metric("share"),
        }

    def judge_prompt(self, doc: Doc, response: str) -> str:
        """Return what a judge is asked of an answer (`--judge`); thoughts are not part of it."""
        return judge_prompt(doc["question"], response, doc["needle"])

    def judge_metrics(self, verdict: str) -> dict[str, float | None]:
        """Return a verdict's rating, 1 to 10, and whether it says that the needle was found; None: it has no rating."""
        rating = parse_judgement(verdict)
        is_right = is_found(rating)
        return {
            "judge_score": None if rating is None else float(rating),
            "judge_found": None if is_right is None else float(is_right),
        }

    def _targets(self, counter: PromptCounter) -> dict[int, int]:
        """Return how long the prompts of each length that the model takes are to be, in tokens.

        A length that is all of the model's context leaves no room for an answer: its prompts are shorter by that.
        """
        longest, window = counter.max_prompt_tokens(self.config.generation_kwargs), counter.spec.max_length
        targets = {
            length: length if longest is None else min(length, longest)
            for length in self.grid.lengths
            if window is None or length <= window
        }
        self.missing_lengths = tuple(length for length in self.grid.lengths if length not in targets)
        if not targets:
            raise ConfigError(
                f"Task {self.task_name!r}: the shortest of its lengths, {min(self.grid.lengths):,} tokens, is over the "
                f"{window:,} of model {counter.spec.name!r}. {self._advice(counter)}"
            )
        if self.missing_lengths:
            n_cells = len(self.missing_lengths) * self.grid.intervals
            self.warnings.append(
                f"{self.task_name}: {n_cells} of {len(self.grid.lengths) * self.grid.intervals} cells are missing: "
                f"lengths from {min(self.missing_lengths):,} on are over the model's {window:,} tokens. "
                f"{self._advice(counter)}"
            )
        for length in (length for length, target in targets.items() if target < length):
            self.warnings.append(
                f"{self.task_name}: prompts of length {length:,} have {targets[length]:,} tokens: the model's "
                f"{window:,} hold the answer, too"
            )
        return targets

    def _advice(self, counter: PromptCounter) -> str:
        if trained := counter.spec.original_max_length:
            factor = -(-max(self.grid.lengths) // trained)
            return f"yarn_factor={factor} in --model_args makes room (alone, or with dual_chunk=true)"
        return "Take a task with other `lengths` (niah_4k, niah_32k), or a model with a longer context"

    def _new_docs(self, counter: PromptCounter, needles: list[Needle], targets: dict[int, int], *, seed: int) -> Docs:
        assert self._haystack is not None, "it is read by then"
        n_paragraphs = len(self._haystack.paragraphs)
        # A generator for each draw: another grid or --limit does not change the remaining draws
        starts = [random.Random(f"{seed} haystack {i}").randrange(n_paragraphs) for i in range(self.grid.instances)]
        longest = max(targets.values())
        stretches = [Stretch(self._haystack, start, n_tokens=longest, counter=counter) for start in starts]
        docs = []
        for length, n_tokens in targets.items():
            for instance, (start, stretch) in enumerate(zip(starts, stretches, strict=True)):
                # from the deepest on: a prefix cache then has the haystack of all others
                for interval in reversed(range(self.grid.intervals)):
                    needle = _draw(needles, f"{seed} needle {length} {interval}", self.grid.instances)[instance]
                    depth = self.grid.depth(interval, instance, length=length, seed=seed)
                    placed = fit(
                        stretch,
                        self._frame(needle.question),
                        needle.needle,
                        length=n_tokens,
                        depth_percent=depth,
                        counter=counter,
                    )
                    docs.append(
                        {
                            "cell": {"length": length, "depth": self.grid.cell_depth(interval)},
                            "instance": instance,
                            **asdict(needle),
                            "keywords": list(needle.keywords),
                            "n_prompt_tokens": n_tokens,
                            "asked_depth_percent": depth,
                            # The place that was found, which may differ from the one that was asked for
                            "depth_percent": round(placed.depth_percent, 3),
                            "haystack_start": start,
                            "needle_at": placed.needle_at,
                            "haystack_end": placed.end,
                            "filler": placed.filler,
                            "is_repeated": stretch.is_repeated_at(placed.end),
                        }
                    )
        return docs

    def _frame(self, question: str) -> Frame:
        frame = FRAMES[self.grid.language]
        return Frame(frame.before, frame.after.replace("{question}", question))


def _draw(needles: Sequence[Needle], seed: str, n_wanted: int) -> list[Needle]:
    """Draw the needles of a cell's instances: different ones, as far as there are."""
    drawn: list[Needle] = []
    rng = random.Random(seed)
    # More instances than needles: then all needles are used equally often
    while len(drawn) < n_wanted:
        drawn += rng.sample(needles, len(needles))
    return drawn[:n_wanted]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
