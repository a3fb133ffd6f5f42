"""A run's settings as flags: each is made from its field of `RunConfig`, and read back into one."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from qwen2eval.config import PLACE, RunConfig, load_config
from qwen2eval.errors import ConfigError
from qwen2eval.key_values import parse_key_values
from qwen2eval.settings import Setting, by_field, read_value, settings_of

MOVED_DATA = "folder with benchmark data, if it has moved since the run [default: the folder that the run used]"
"""The help of `--data_dir` where a run is finished."""


class _TakesFlags(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add a flag."""


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting, under its heading, and `--config`; a flag that is not given is None."""
    headings = dict.fromkeys(known.about.group for known in settings_of(RunConfig).values())
    groups = {heading: parser.add_argument_group(heading) for heading in headings}
    for known in settings_of(RunConfig).values():
        _add_flag(groups[known.about.group], known)
    groups[PLACE].add_argument(
        "--config", metavar="FILE", help="YAML file with any of these settings; a flag overrides the file"
    )


def add_flags(parser: argparse.ArgumentParser, *names: str, has_defaults: bool = False, **helps: str) -> None:
    """Add some settings' flags to a command other than `run` and `plan`.

    Args:
        parser: the command's parser.
        names: the settings' fields.
        has_defaults: whether a flag that is not given has its field's default; otherwise it is None.
        helps: the help, by field, of flags whose meaning differs in this command.
    """
    for name in names:
        known = settings_of(RunConfig)[name]
        action = _add_flag(parser, known)
        action.help = helps.get(name, known.help)
        if has_defaults:
            action.default = list(known.default) if known.is_list else known.default


def config_from_args(args: argparse.Namespace) -> RunConfig:
    """Return the run's config: the YAML file's values, overridden by the flags that were given."""
    in_file = load_config(args.config) if args.config else {}
    in_file.pop("config", None)
    in_file = by_field(RunConfig, in_file)
    given = {}
    for name, known in settings_of(RunConfig).items():
        if getattr(args, name) is not None:
            given[name] = flag_value(args, name, in_file=in_file.get(name))
            for other in known.about.replaces:
                in_file.pop(other, None)
    if given.get("tasks") == []:
        raise ConfigError("--tasks names no task: list them with `qwen2eval tasks`")
    return RunConfig.from_dict(in_file | given)


def flag_value(args: argparse.Namespace, name: str, *, in_file: object = None) -> Any:
    """Return the plain value of a setting's flag; of k=v pairs, none if it was not given.

    Args:
        args: the parsed command line.
        name: the setting's field.
        in_file: the file's value; k=v pairs of flags are added to it, and later pairs win.
    """
    known, value = settings_of(RunConfig)[name], getattr(args, name)
    if known.about.has_commas:
        return [part for text in value for part in text.split(",") if part]
    if not known.is_mapping:
        return value
    pairs = {} if in_file is None else read_value(known, in_file)
    if not isinstance(pairs, Mapping):
        # A value of the wrong type: the config refuses it
        return pairs
    given = [parse_key_values(text, flag=f"--{known.name}") for texts in value or () for text in texts]
    return {key: one for group in (pairs, *given) for key, one in group.items()}


def _add_flag(parser: _TakesFlags, known: Setting) -> argparse.Action:
    names = [f"--{name}" for name in (known.name, *known.about.old_names)]
    return parser.add_argument(*names, dest=known.field_name, help=known.help, **_options(known))


def _options(known: Setting) -> dict[str, Any]:
    """Return what argparse has to know to read a setting's flag, by the types of the setting."""
    # None when the flag is not given, which `store_true` would make False: then the YAML file's value is used
    if known.accepted == (bool,) and known.default is False:
        return {"action": "store_const", "const": True}
    shown = {"metavar": known.about.metavar}
    if known.is_mapping:
        return {"action": "append", "nargs": "+", **shown}
    if known.is_list:
        return {"action": "append", **shown} if known.about.is_repeated else {"nargs": "+", **shown}
    if bool in known.accepted:
        return {"nargs": "?", "const": True, "type": str if str in known.accepted else _yes_no, **shown}
    return {"type": _reader(known), **shown}


def _reader(known: Setting) -> Callable[[str], Any]:
    """Return what turns the flag's text into a value."""
    if int in known.accepted and str in known.accepted:
        return _integer_or_word(str(known.default))
    return next((one for one in (float, int) if one in known.accepted), str)


def _integer_or_word(word: str) -> Callable[[str], int | str]:
    def read(text: str) -> int | str:
        try:
            return text if text == word else int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither {word} nor a number") from None

    return read


def _yes_no(text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
