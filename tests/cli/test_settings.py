"""Settings: one declaration makes the flag, its help, the check and the reading of files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from qwen2eval.cli import run_flags as cli_settings
from qwen2eval.cli.main import build_parser
from qwen2eval.cli.run_flags import config_from_args
from qwen2eval.config import PLACE, RunConfig, Seeds, load_config
from qwen2eval.errors import ConfigError
from qwen2eval.settings import Flag, check_types, plain_values, setting, settings_of

SETTINGS = settings_of(RunConfig)


@dataclass(frozen=True)
class MoreSettings(RunConfig):
    """A run with three settings that nothing else in the program mentions."""

    colour: str = setting("red", Flag("colour of the bars", group=PLACE, metavar="NAME", choices=("red", "blue")))
    places: tuple[str, ...] = setting((), Flag("places of the bars", group="bars", metavar="NAME"))
    guard_args: Mapping[str, Any] = setting({}, Flag("arguments of the guard", group="bars", metavar="K=V"))


def from_flags(*words):
    return config_from_args(build_parser().parse_args(["run", *words]))


def run_flags():
    """Return the actions of `run` by name."""
    verbs = next(action for action in build_parser()._actions if action.dest == "verb")
    return {action.dest: action for action in verbs.choices["run"]._actions}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_field_is_a_flag_with_help_and_default(name):
    known, action = SETTINGS[name], run_flags()[name]
    assert action.option_strings[0] == f"--{known.name}"
    assert action.default is None, "a flag that is not given must not override the file"
    takes_value = action.nargs != 0
    assert action.help.startswith(known.about.help)
    assert ("[default: " in action.help) == (takes_value and "may be repeated" not in action.help)


def test_a_new_field_is_a_flag_a_key_and_checked(capsys, monkeypatch, tmp_path):
    """Nothing but the field is written for a new setting."""
    monkeypatch.setattr(cli_settings, "RunConfig", MoreSettings)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--help"])
    shown = capsys.readouterr().out
    assert "bars:\n  --places NAME [NAME ...]" in shown
    assert "colour of the bars [default: red]" in shown
    assert from_flags().colour == "red"
    made = from_flags("--colour", "blue", "--places", "a", "b", "--guard-args", "x=1,api_key=secret")
    assert (made.colour, made.places, made.guard_args) == ("blue", ("a", "b"), {"x": 1, "api_key": "secret"})
    file = tmp_path / "run.yaml"
    file.write_text("colour: blue\nplaces: a,b\nguard-args: x=1\n")
    assert from_flags("--config", str(file), "--guard_args", "y=2").guard_args == {"x": 1, "y": 2}
    kept = json.loads(json.dumps(made.as_dict()))
    assert kept["guard_args"] == {"x": 1, "api_key": "***"}
    assert MoreSettings.from_dict(kept).places == ("a", "b")
    with pytest.raises(ConfigError, match="--colour 'green': give one of red, blue"):
        from_flags("--colour", "green")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_type_in_a_yaml_file_is_refused_by_name(tmp_path, name):
    known = SETTINGS[name]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({known.name: [[1]]}))
    with pytest.raises(ConfigError, match=rf"(Setting '{name}'|--{known.name}) "):
        RunConfig.from_dict(load_config(file))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("limit", "abc", "an integer, a number or nothing"),
        ("offline", "no", "true or false"),
        ("batch_size", 1.5, "an integer or text"),
        ("num_fewshot", True, "an integer or nothing"),
        ("model_args", 3, "names with values"),
        ("tasks", 3, "a list of names"),
    ],
)
def test_the_message_says_in_words_what_a_setting_takes(name, value, wanted):
    with pytest.raises(ConfigError, match=f"Setting '{name}' is {value!r}; it must be {wanted}$"):
        RunConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--batch_size", "auto"], "batch_size", "auto"),
        (["--batch_size", "8"], "batch_size", 8),
        (["--limit", "0.5"], "limit", 0.5),
        (["--apply_chat_template"], "apply_chat_template", True),
        (["--apply_chat_template", "tools"], "apply_chat_template", "tools"),
        (["--fewshot_as_multiturn", "False"], "fewshot_as_multiturn", False),
        (["--fewshot_as_multiturn"], "fewshot_as_multiturn", True),
        (["--seed", "7"], "seeds", Seeds(7, 7, 7, 7)),
        (["--include_path", "a", "--include-path", "b,c"], "include_path", ("a", "b,c")),
        (["--corpus", "a", "b,c"], "corpus", ("a", "b,c")),
        (["--tasks", "a,b", "c"], "tasks", ("a", "b", "c")),
        (["--gen_kwargs", "a=1", "b=2", "--gen_kwargs", "a=3"], "gen_kwargs", {"a": 3, "b": 2}),
        (["--offline"], "offline", True),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_flags_are_read_by_their_type(words, name, value):
    assert getattr(from_flags(*words), name) == value


def test_tasks_and_suite_given_as_flags_replace_each_other_in_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("suite: demo\n")
    assert from_flags("--config", str(file), "--tasks", "a").task_names == ("a",)
    file.write_text("tasks: [a]\n")
    assert from_flags("--config", str(file), "--suite", "demo").task_names == ("suite:demo",)


def test_tasks_and_suite_as_flags_together_are_refused():
    """The suite once won, without a word."""
    with pytest.raises(ConfigError, match="--tasks and --suite were both given"):
        from_flags("--tasks", "a", "--suite", "demo")
    with pytest.raises(ConfigError, match="--tasks names no task"):
        from_flags("--tasks", ",")


@pytest.mark.parametrize("key", ["faithful", "reference_implementation", "reference-implementation"])
def test_the_old_name_of_a_setting_is_read_from_files(key):
    config = RunConfig.from_dict({key: True})
    assert config.reference_implementation
    assert config.as_dict()["reference_implementation"] is True


def test_a_name_in_the_file_with_dashes_is_completed_by_flags(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model-args: {pretrained: a, dtype: float32}\n")
    made = from_flags("--config", str(file), "--model_args", "pretrained=b")
    assert made.model_args == {"pretrained": "b", "dtype": "float32"}


def test_a_default_that_is_a_dict_belongs_to_one_instance():
    assert RunConfig().model_args is not RunConfig().model_args


def test_plain_values_are_json_and_are_read_back():
    config = RunConfig(corpus=("a",), seeds=Seeds(1, 2, 3, 4))
    kept = json.loads(json.dumps(plain_values(config)))
    assert kept["seeds"] == {"python": 1, "numpy": 2, "torch": 3, "fewshot": 4}
    assert RunConfig.from_dict(kept) == config
    check_types(config)
