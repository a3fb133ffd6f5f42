"""What a run is told to do: one frozen value, the home of every default.

The command line, a YAML file and Python callers all end in a `RunConfig`; nothing past this module reads raw flags.
"""

import ast
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qwen2eval.errors import ConfigError
from qwen2eval.redact import redacted

LM_EVAL_SEEDS = (0, 1234, 1234, 1234)
ROPES = ("auto", "none", "yarn", "yarn+dca")
"""What `rope` may be."""
KEY_VALUES = ("model_args", "gen_kwargs", "judge_args")
"""Settings that are given as k=v."""


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

    def __post_init__(self) -> None:
        """Refuse what numpy and torch don't take."""
        for seed in vars(self).values():
            if not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise ConfigError(f"--seed {seed!r} is no seed: give an integer from 0 to 4294967295")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Names are lm-eval's where lm-eval has the same thing."""

    model: str | None = None
    """Backend: hf, vllm, local-completions, local-chat-completions, dummy. None: the embedded demo model."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the backend, e.g. {"pretrained": "Qwen/Qwen2-0.5B"}."""
    tasks: tuple[str, ...] = ()
    """Benchmarks, lm-eval task, group or tag names, globs, or paths of task YAML files."""
    suite: str | None = None
    """A named list of tasks; "demo" when neither tasks nor suite are given."""
    num_fewshot: int | None = None
    """Examples in the prompt; None: what each task says. A task that says 0 keeps 0, as in lm-eval."""
    limit: float | None = None
    """Docs a task; below 1 a fraction of them. None: all."""
    batch_size: int | str = "auto"
    """Rows of one forward pass, or "auto" (a token budget)."""
    device: str | None = None
    """Torch device; None: CUDA if there is one, else CPU."""
    apply_chat_template: bool | str = False
    """True, or the name of one of the tokenizer's templates."""
    fewshot_as_multiturn: bool = True
    """With a chat template: few-shot examples as turns of their own, as lm-eval does by default."""
    system_instruction: str | None = None
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Generation arguments that override every generating task's own, e.g. {"max_gen_toks": 512}."""
    seeds: Seeds = field(default_factory=Seeds)
    include_path: tuple[str, ...] = ()
    """Folders with task YAML of the user's own; they win over shipped ones."""
    data_dir: str | None = None
    """Folder with benchmarks in their published file formats; None: `QWEN2EVAL_DATA`, if set."""
    corpus: tuple[str, ...] = ()
    """Training text: files, folders or globs; scores are given again on the docs that are not in it."""
    text_field: str = "text"
    """Where a corpus record's text is."""
    matches: str | None = None
    """Folder of a finished `qwen2eval decontam scan`, instead of a corpus."""
    sandbox: str = "auto"
    """Where programs that the model wrote are run: a level of `qwen2eval.sandbox`, or the strongest that works here."""
    rope: str = "auto"
    """How the context is stretched beyond the trained length: auto (only where a long-context task asks for more),
    none, yarn, or yarn+dca. `--model qwen2` and `vllm` can do it."""
    faithful: bool = False
    """Do as the original does where it is faulty or unseeded, in tasks that know how (NeedleBench's)."""
    judge: str | None = None
    """Backend of a second model that judges finished answers, of tasks that can be judged; None: no judge is asked."""
    judge_args: Mapping[str, Any] = field(default_factory=dict)
    """As `model_args`, of the judge."""
    output_path: str = "runs"
    offline: bool = False
    """Open no socket: data and models must be on this machine."""

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        for name, wanted in _TYPES.items():
            if not isinstance(value := getattr(self, name), wanted) or (isinstance(value, bool) and bool not in wanted):
                shown = " or ".join("nothing" if t is type(None) else t.__name__ for t in wanted)
                raise ConfigError(f"Setting {name!r} is {value!r}; it takes {shown}")
        for name in ("tasks", "include_path", "corpus"):
            if not all(isinstance(item, str) and item for item in getattr(self, name)):
                raise ConfigError(f"Setting {name!r} must be a list of names, not {list(getattr(self, name))!r}")
        if self.limit is not None and not (math.isfinite(self.limit) and self.limit > 0):
            raise ConfigError(f"--limit {self.limit:g} would leave no docs: give a positive number")
        if self.limit is not None and self.limit > 1 and self.limit != int(self.limit):
            raise ConfigError(f"--limit {self.limit:g} is neither a number of docs nor a fraction below 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ConfigError(f"--num_fewshot {self.num_fewshot} is negative: give 0 or more")
        if not (self.batch_size == "auto" or (isinstance(self.batch_size, int) and self.batch_size > 0)):
            raise ConfigError(f'--batch_size {self.batch_size!r}: give "auto" or a positive integer')
        if self.rope not in ROPES:
            raise ConfigError(f"--rope {self.rope!r}: give one of {', '.join(ROPES)}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Refuse settings that exclude, or need, one another."""
        if self.corpus and self.matches:
            raise ConfigError("--corpus and --matches were both given: the matches of a scan stand for its corpus")
        if not self.judge and (self.judge_args or self.judge is not None):
            raise ConfigError("--judge names no backend: give one that --model takes, as in --judge hf")
        if self.tasks and self.suite:
            raise ConfigError("--tasks and --suite were both given: a suite is a list of tasks, give one of them")

    @property
    def task_names(self) -> tuple[str, ...]:
        """What to run, before suites are expanded."""
        return self.tasks or (f"suite:{self.suite or 'demo'}",)

    @property
    def label(self) -> str:
        """The last part of the run folder's name."""
        return self.suite or ("-".join(dict.fromkeys(self.tasks)) if self.tasks else "demo")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, by field name, with secrets blotted out; `from_dict` reads them back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"model_args": redacted(self.model_args), "gen_kwargs": dict(self.gen_kwargs)}
        values |= {"judge_args": redacted(self.judge_args)}
        values |= {"tasks": list(self.tasks), "include_path": list(self.include_path), "seeds": vars(self.seeds).copy()}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build a config from plain values, as a YAML file or run.json holds them.

        Raises:
            ConfigError: a key that no field has (with the nearest one), or a value that doesn't fit.
        """
        return replace(cls(), **dict(_typed(values)))


_TEXT, _OPTIONAL_TEXT = (str,), (str, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "model": _OPTIONAL_TEXT,
    "model_args": (Mapping,),
    "tasks": (tuple,),
    "suite": _OPTIONAL_TEXT,
    "num_fewshot": (int, type(None)),
    "limit": (int, float, type(None)),
    "batch_size": (int, str),
    "device": _OPTIONAL_TEXT,
    "apply_chat_template": (bool, str),
    "fewshot_as_multiturn": (bool,),
    "system_instruction": _OPTIONAL_TEXT,
    "gen_kwargs": (Mapping,),
    "seeds": (Seeds,),
    "include_path": (tuple,),
    "data_dir": _OPTIONAL_TEXT,
    "corpus": (tuple,),
    "text_field": _TEXT,
    "matches": _OPTIONAL_TEXT,
    "sandbox": _TEXT,
    "rope": _TEXT,
    "faithful": (bool,),
    "judge": _OPTIONAL_TEXT,
    "judge_args": (Mapping,),
    "output_path": _TEXT,
    "offline": (bool,),
}


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a run's YAML file into the values that `RunConfig.from_dict` takes."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"--config {str(path)!r} can't be read: {err.strerror}") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"--config {str(path)!r} is not YAML: {err}") from err
    if not isinstance(values, dict):
        raise ConfigError(f"--config {str(path)!r} must hold `name: value` lines, as in `tasks: [mmlu, gsm8k]`")
    return values


def parse_key_values(text: str, *, flag: str) -> dict[str, Any]:
    """Read `k=v,k=v` or a JSON object, as lm-eval's `--model_args` and `--gen_kwargs`.

    >>> parse_key_values("pretrained=a/b,dtype=float32,until=['x','y'],add_bos_token=true", flag="--model_args")
    {'pretrained': 'a/b', 'dtype': 'float32', 'until': ['x', 'y'], 'add_bos_token': True}
    """
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as err:
            raise ConfigError(f"{flag} {text!r} starts like JSON but isn't: {err}") from err
        return dict(values)
    result: dict[str, Any] = {}
    for part in _split_outside_brackets(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {text!r}: {part!r} is not key=value")
        result[key.strip()] = _literal(value.strip())
    return result


def _split_outside_brackets(text: str) -> Iterator[str]:
    depth, quote, start = 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[({":
            depth += 1
        elif char in "])}":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    if text[start:].strip():
        yield text[start:]


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _typed(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give each plain value the type its field has."""
    known = {f.name for f in fields(RunConfig)}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name == "seed":
            yield "seeds", Seeds.parse(value)
        elif name == "seeds":
            if not isinstance(value, Mapping) or set(value) - {f.name for f in fields(Seeds)}:
                raise ConfigError(
                    f"Setting 'seeds' is {value!r}; it takes python, numpy, torch and fewshot, or use seed: 7"
                )
            yield "seeds", Seeds(**value)
        elif name not in known:
            import difflib

            near = difflib.get_close_matches(name, known | {"seed"}, n=1)
            raise ConfigError(f"Unknown setting {key!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        elif name in ("tasks", "include_path", "corpus"):
            listed = value.split(",") if isinstance(value, str) else value
            yield name, tuple(listed) if isinstance(listed, list | tuple) else listed
        elif name in KEY_VALUES and isinstance(value, str):
            yield name, parse_key_values(value, flag=f"--{name}")
        else:
            yield name, value
