"""Generation arguments: one name for each, which of them act, and where each comes from.

A flag wins over the task, and the task over the checkpoint's generation_config.json, whatever names they use. An
argument that would not act is refused where a user gives it; where a task or a checkpoint has it, it is left out.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from qwen2eval.errors import ConfigError
from qwen2eval.requests import GenKwargs, is_sampled

ALIASES = {
    **dict.fromkeys(("max_new_tokens", "max_tokens", "max_completion_tokens"), "max_gen_toks"),
    **dict.fromkeys(("stop", "stop_strings", "stop_sequences"), "until"),
}
"""Names that backends have for lm-eval's arguments."""
SAMPLING_ARGS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""They act only when tokens are drawn."""
CHECKPOINT_ARGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What counts of a checkpoint's generation_config.json besides the tokens that end a text, for each backend."""


class Setting(NamedTuple):
    """A generation argument as it is applied."""

    value: object
    source: str
    """"--gen_kwargs", "task", "generation_config.json" or "default"."""


def read_flags(given: GenKwargs) -> dict[str, Any]:
    """Return what `--gen_kwargs` asks for, under lm-eval's names.

    Raises:
        ConfigError: an argument that would not act, a value that is not possible, or two that contradict each other.

    >>> read_flags({"max_new_tokens": 3, "temperature": 0.7})
    {'max_gen_toks': 3, 'temperature': 0.7, 'do_sample': True}
    """
    if "max_length" in given:
        raise ConfigError("--gen_kwargs max_length counts the prompt, too: give max_gen_toks, the tokens of an answer")
    flags: dict[str, Any] = {}
    for name, value in given.items():
        own = ALIASES.get(name, name)
        if own in flags and flags[own] != value:
            raise ConfigError(f"--gen_kwargs gives {own} twice, as {name} and under another name: give it once")
        flags[own] = value
    check_values(flags, where="--gen_kwargs")
    temperature, do_sample = flags.get("temperature"), flags.get("do_sample")
    if temperature is not None:
        if do_sample is not None and do_sample != (temperature > 0):
            raise ConfigError(
                f"--gen_kwargs do_sample={str(do_sample).lower()} and temperature={temperature} contradict each "
                "other: sampling needs a temperature over 0, and greedy decoding has none"
            )
        if temperature > 0:
            flags["do_sample"] = True
    return flags


def with_flags(task: GenKwargs, given: GenKwargs) -> dict[str, Any]:
    """Return a task's generation arguments with those of `--gen_kwargs` in their place.

    Raises:
        ConfigError: as `read_flags`; or an argument of sampling where the task does not sample.

    >>> with_flags({"max_tokens": 20, "do_sample": False, "temperature": 0.0}, {"max_new_tokens": 3})
    {'do_sample': False, 'temperature': 0.0, 'max_gen_toks': 3}
    >>> with_flags({"do_sample": False}, {"temperature": 0.7})
    {'do_sample': True, 'temperature': 0.7}
    """
    flags = read_flags(given)
    if flags.get("temperature") is not None and not flags.get("do_sample") and is_sampled(task):
        flags["do_sample"] = False
    merged = {name: value for name, value in task.items() if ALIASES.get(name, name) not in flags}
    if flags.get("do_sample") and "temperature" not in flags and not float(merged.get("temperature") or 0) > 0:
        merged.pop("temperature", None)
    merged |= flags
    # In the task's order, so that nothing changes where nothing was given
    merged = {name: merged[name] for name in (*[n for n in task if n in merged], *[n for n in merged if n not in task])}
    idle = [name for name in SAMPLING_ARGS if name in flags and name != "temperature"]
    if idle and not is_sampled(merged):
        raise ConfigError(
            f"--gen_kwargs {idle[0]}={flags[idle[0]]} acts only where answers are sampled: add do_sample=true, or a "
            "temperature over 0"
        )
    return merged


def applied(gen_kwargs: GenKwargs, checkpoint: GenKwargs) -> dict[str, Any]:
    """Return the arguments that act, under lm-eval's names, with `do_sample` always among them.

    Args:
        gen_kwargs: the task's, with the flags.
        checkpoint: what its generation_config.json says; {} for a server, which has its own.

    >>> applied({"do_sample": False, "temperature": 0.7}, {"top_p": 0.8, "repetition_penalty": 1.1})
    {'do_sample': False, 'repetition_penalty': 1.1}
    """
    acts: dict[str, Any] = {}
    # lm-eval's own name goes before others, as in lm-eval
    for name, value in sorted(gen_kwargs.items(), key=lambda item: item[0] not in ALIASES):
        if value is not None:
            acts[ALIASES.get(name, name)] = value
    sampled = is_sampled(gen_kwargs)
    acts["do_sample"] = sampled
    for name in CHECKPOINT_ARGS:
        if name not in acts and checkpoint.get(name) is not None:
            acts[name] = checkpoint[name]
    if not sampled:
        return {name: value for name, value in acts.items() if name not in SAMPLING_ARGS}
    if not float(acts.get("temperature", 1.0)) > 0:
        raise ValueError(f"do_sample needs a temperature over 0, not {acts['temperature']}")
    return {**acts, "temperature": float(acts.get("temperature", 1.0))}


def described(
    gen_kwargs: GenKwargs, checkpoint: GenKwargs, *, flags: GenKwargs, max_gen_toks: int
) -> dict[str, Setting]:
    """Return each argument as it is applied, and where it comes from.

    Args:
        gen_kwargs: the task's, with the flags.
        checkpoint: what its generation_config.json says.
        flags: `--gen_kwargs`.
        max_gen_toks: where nobody says how long an answer may get.
    """
    own, given = {ALIASES.get(name, name) for name in gen_kwargs}, read_flags(flags)
    settings = {}
    for name, value in {"max_gen_toks": max_gen_toks, **applied(gen_kwargs, checkpoint)}.items():
        by_checkpoint = "generation_config.json" if checkpoint.get(name) is not None else "default"
        source = "--gen_kwargs" if name in given else "task" if name in own else by_checkpoint
        settings[name] = Setting(value, source)
    return settings


def checkpoint_notes(settings: Mapping[str, Setting]) -> list[str]:
    """Return the arguments that a checkpoint adds to a task's protocol, as `name=value`."""
    return [f"{name}={one.value}" for name, one in settings.items() if one.source == "generation_config.json"]


def check_values(gen_kwargs: GenKwargs, *, where: str) -> None:
    """Refuse values that no backend can use, or that would act as others than they look.

    Args:
        gen_kwargs: under lm-eval's names or others.
        where: they stand, for the message.

    Raises:
        ConfigError: one is out of its range.
    """
    for name, value in gen_kwargs.items():
        allowed = _ALLOWED.get(ALIASES.get(name, name))
        if value is not None and allowed is not None and not allowed.holds(value):
            raise ConfigError(f"{where} {name}={value!r} is not {allowed}")


class _Range(NamedTuple):
    """Which numbers an argument takes."""

    low: float
    high: float = math.inf
    is_whole: bool = False
    is_low_out: bool = False
    """Whether `low` itself is not allowed."""

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        return (self.low < value if self.is_low_out else self.low <= value) and value <= self.high and value != math.inf

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        low = f"{'over' if self.is_low_out else 'of at least'} {self.low:g}"
        return f"{kind} {low}" + ("" if self.high == math.inf else f" and at most {self.high:g}")


class _Flag(NamedTuple):
    """Yes or no: any text would count as yes."""

    def holds(self, value: object) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


_ALLOWED: Mapping[str, _Range | _Flag] = {
    "max_gen_toks": _Range(1, is_whole=True),
    "do_sample": _Flag(),
    "temperature": _Range(0),
    # -1 is vLLM's word for all tokens, 0 transformers'
    "top_k": _Range(-1, is_whole=True),
    "top_p": _Range(0, 1, is_low_out=True),
    "min_p": _Range(0, 1),
    "typical_p": _Range(0, 1, is_low_out=True),
    "repetition_penalty": _Range(0, is_low_out=True),
}
