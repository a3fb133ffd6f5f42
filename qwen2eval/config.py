"""The settings of a run: one frozen value; each setting with its default, type, flag and help is declared here once.

The command line, a YAML file and Python callers all end in a `RunConfig`; nothing past this module reads raw flags.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from qwen2eval.errors import ConfigError
from qwen2eval.generation import read_flags
from qwen2eval.requests import GenKwargs
from qwen2eval.settings import Flag, by_field, check_types, plain_values, read_value, setting, settings_of

# The defaults of lm-eval's `simple_evaluate`: with them a run draws the same few-shot examples as lm-eval
LM_EVAL_SEEDS = (0, 1234, 1234, 1234)
ModelArgs = Mapping[str, Any]
"""Arguments of a backend by name, as `--model_args` gives them."""
ROPES = ("auto", "none", "yarn", "yarn+dca")
"""The values of `rope`."""
MODEL, TASKS, PROMPTS = "model", "tasks and data", "prompts and generation"
CONTAMINATION, JUDGE, PLACE = "contamination", "judge", "where and how"


@dataclass(frozen=True)
class Seeds:
    """Random seeds of a run, in lm-eval's order."""

    python: int = LM_EVAL_SEEDS[0]
    numpy: int = LM_EVAL_SEEDS[1]
    torch: int = LM_EVAL_SEEDS[2]
    fewshot: int = LM_EVAL_SEEDS[3]

    @classmethod
    def parse(cls, text: str | int) -> "Seeds":
        """Read `"7"` (one seed for all) or `"0,1234,1234,1234"` (python, numpy, torch, few-shot).

        >>> Seeds.parse("7")
        Seeds(python=7, numpy=7, torch=7, fewshot=7)
        """
        try:
            numbers = [int(part) for part in str(text).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 4
        if len(numbers) != 4:
            raise ConfigError(f"--seed {text!r} is not a seed: give one integer, or four as in 0,1234,1234,1234")
        return cls(*numbers)

    @classmethod
    def read(cls, value: object) -> "Seeds":
        """Read what `parse` reads, or the seeds by name, as run.json holds them."""
        if not isinstance(value, Mapping):
            return cls.parse(str(value))
        if set(value) - {f.name for f in fields(cls)}:
            raise ConfigError(f"Setting 'seeds' is {value!r}: give python, numpy, torch and fewshot, or use seed: 7")
        return cls(**value)

    def __post_init__(self) -> None:
        """Refuse seeds that numpy or torch would not accept."""
        for seed in vars(self).values():
            if not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise ConfigError(f"--seed {seed!r} can't be used: give an integer from 0 to 4294967295")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Names are lm-eval's where lm-eval has the same thing."""

    model: str | None = setting(
        None,
        Flag(
            "backend of the model: qwen2, hf, vllm, local-completions, local-chat-completions, dummy or demo",
            group=MODEL,
            metavar="NAME",
            unset="demo, the embedded model",
        ),
    )
    model_args: ModelArgs = setting(
        {},
        Flag(
            "arguments of the backend, as k=v or JSON, e.g. pretrained=DIR,dtype=float32; may be repeated",
            group=MODEL,
            metavar="K=V",
        ),
    )
    batch_size: int | str = setting(
        "auto",
        Flag("prompts of one forward pass: a number, or auto to fill a budget of tokens", group=MODEL, metavar="N"),
    )
    device: str | None = setting(
        None,
        Flag(
            "torch device of the model, e.g. cpu, cuda or cuda:1",
            group=MODEL,
            metavar="DEVICE",
            unset="cuda if there is a GPU, else cpu",
        ),
    )
    rope: str = setting(
        "auto",
        Flag(
            "how --model qwen2 and vllm extend the context beyond the trained length: none, yarn, yarn+dca, or auto, "
            "which extends it only for long-context tasks that need it",
            group=MODEL,
            metavar="METHOD",
            choices=ROPES,
        ),
    )
    tasks: tuple[str, ...] = setting(
        (),
        Flag(
            "tasks to run: names of tasks, groups or tags, globs, or YAML files, separated by commas or spaces",
            group=TASKS,
            metavar="NAME",
            unset="those of --suite",
            has_commas=True,
            replaces=("suite",),
        ),
    )
    suite: str | None = setting(
        None,
        Flag(
            "named list of tasks to run, instead of --tasks; `qwen2eval tasks --suites` lists them",
            group=TASKS,
            metavar="NAME",
            unset="demo, if no --tasks are given",
            replaces=("tasks",),
        ),
    )
    limit: float | None = setting(
        None,
        Flag("maximum docs per task; a value below 1 is a fraction of the docs", group=TASKS, metavar="N", unset="all"),
    )
    include_path: tuple[str, ...] = setting(
        (),
        Flag(
            "folder with your own task YAML files, which take precedence over the shipped ones; may be repeated",
            group=TASKS,
            metavar="DIR",
            is_repeated=True,
        ),
    )
    data_dir: str | None = setting(
        None,
        Flag(
            "folder with benchmark data in the published file formats",
            group=TASKS,
            metavar="DIR",
            unset="$QWEN2EVAL_DATA, if it is set",
        ),
    )
    reference_implementation: bool = setting(
        False,
        Flag(
            "NeedleBench: reproduce the reference implementation exactly, known bugs included",
            group=TASKS,
            old_names=("faithful",),
        ),
    )
    num_fewshot: int | None = setting(
        None,
        Flag(
            "number of examples in each prompt; a task that is defined with 0 examples is refused",
            group=PROMPTS,
            metavar="N",
            unset="as each task defines",
        ),
    )
    apply_chat_template: bool | str = setting(
        False,
        Flag(
            "wrap prompts in the tokenizer's chat template, or in its template of this name",
            group=PROMPTS,
            metavar="NAME",
            unset="no template",
        ),
    )
    fewshot_as_multiturn: bool = setting(
        True,
        Flag(
            "with a chat template: give each few-shot example its own turns of the conversation (true or false)",
            group=PROMPTS,
            metavar="BOOL",
        ),
    )
    system_instruction: str | None = setting(
        None,
        Flag("system message, placed before the task's description", group=PROMPTS, metavar="TEXT", unset="no message"),
    )
    gen_kwargs: GenKwargs = setting(
        {},
        Flag(
            "generation arguments that override those of every generating task, as k=v or JSON, e.g. "
            "max_gen_toks=512,temperature=0.7; may be repeated",
            group=PROMPTS,
            metavar="K=V",
            is_public=True,
        ),
    )
    seeds: Seeds = setting(
        Seeds(),
        Flag(
            "random seeds: one integer for all, or four for python, numpy, torch and the choice of few-shot examples",
            group=PROMPTS,
            metavar="N",
            unset=",".join(map(str, LM_EVAL_SEEDS)),
            name="seed",
            read=Seeds.read,
        ),
    )
    corpus: tuple[str, ...] = setting(
        (),
        Flag(
            "training corpus to search for test items (files, folders or globs); adds scores on clean and contaminated "
            "docs",
            group=CONTAMINATION,
            metavar="PATH",
            unset="no corpus",
        ),
    )
    text_field: str = setting(
        "text",
        Flag(
            "field of a corpus record that holds its text; a.b for a nested field", group=CONTAMINATION, metavar="NAME"
        ),
    )
    matches: str | None = setting(
        None,
        Flag(
            "folder of a finished `qwen2eval decontam scan`; its matches are used instead of searching a --corpus",
            group=CONTAMINATION,
            metavar="DIR",
            unset="no scan",
        ),
    )
    judge: str | None = setting(
        None,
        Flag(
            "backend of a judge model, for tasks that support one (currently niah); same values as --model",
            group=JUDGE,
            metavar="NAME",
            unset="no judge",
        ),
    )
    judge_args: ModelArgs = setting(
        {},
        Flag(
            "arguments of the judge's backend, as --model_args, e.g. pretrained=DIR,max_gen_toks=512; may be repeated",
            group=JUDGE,
            metavar="K=V",
        ),
    )
    sandbox: str = setting(
        "auto",
        Flag(
            "isolation level for programs that the model wrote; `qwen2eval sandbox check` lists the levels",
            group=PLACE,
            metavar="LEVEL",
            unset="auto, the strongest that works here",
        ),
    )
    output_path: str = setting(
        "runs", Flag("folder for the run folders and the store of answers", group=PLACE, metavar="DIR")
    )
    fresh: bool = setting(
        False,
        Flag(
            "ask the model again, also for answers that the store has; the new answers replace the stored ones",
            group=PLACE,
        ),
    )
    offline: bool = setting(
        False,
        Flag(
            "open no connection beyond this machine: data and models must already be on it",
            group=PLACE,
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values that would only fail later, during the run."""
        check_types(self)
        if self.limit is not None and not (math.isfinite(self.limit) and self.limit > 0):
            raise ConfigError(f"--limit {self.limit:g} would leave no docs: give a positive number")
        if self.limit is not None and self.limit > 1 and self.limit != int(self.limit):
            raise ConfigError(f"--limit {self.limit:g} is neither a number of docs nor a fraction below 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ConfigError(f"--num_fewshot {self.num_fewshot} is negative: give 0 or more")
        if not (self.batch_size == "auto" or (isinstance(self.batch_size, int) and self.batch_size > 0)):
            raise ConfigError(f'--batch_size {self.batch_size!r}: give "auto" or a positive integer')
        read_flags(self.gen_kwargs)
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Refuse settings that exclude or need each other."""
        if self.corpus and self.matches:
            raise ConfigError(
                "--corpus and --matches were both given: give one of them, the matches of a scan replace its corpus"
            )
        if not self.judge and (self.judge_args or self.judge is not None):
            raise ConfigError("--judge names no backend: give one that --model takes, as in --judge hf")
        if self.tasks and self.suite:
            raise ConfigError("--tasks and --suite were both given: give one of them, a suite is a list of tasks")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of what is run, before suites are expanded."""
        return self.tasks or (f"suite:{self.suite or 'demo'}",)

    @property
    def label(self) -> str:
        """The last part of the run folder's name."""
        return self.suite or ("-".join(dict.fromkeys(self.tasks)) if self.tasks else "demo")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, by field name, with secrets replaced by ***; `from_dict` reads them back."""
        return plain_values(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "RunConfig":
        """Build a config from plain values, as a YAML file or run.json holds them.

        Raises:
            ConfigError: a key that no field has (with the nearest one), or a value that doesn't fit.
        """
        known = settings_of(cls)
        return replace(cls(), **{name: read_value(known[name], value) for name, value in by_field(cls, values).items()})


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a run's YAML file into the values that `RunConfig.from_dict` takes."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"--config {str(path)!r} can't be read: {err.strerror}") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"--config {str(path)!r} is not valid YAML: {err}") from err
    if not isinstance(values, dict):
        raise ConfigError(f"--config {str(path)!r} must hold `name: value` lines, as in `tasks: [mmlu, gsm8k]`")
    return values
