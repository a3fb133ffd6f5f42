"""RunConfig: reading flags and YAML, refusing nonsense, keeping secrets out of files."""

import json

import pytest

from qwen2eval.config import RunConfig, Seeds, load_config
from qwen2eval.errors import ConfigError
from qwen2eval.key_values import parse_key_values
from qwen2eval.redact import hide_secrets, redacted_command


def test_a_config_survives_json():
    config = RunConfig(
        model="hf", model_args={"pretrained": "a/b"}, tasks=("x", "y"), limit=0.5, seeds=Seeds.parse("3")
    )
    assert RunConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,b=x/y", {"a": 1, "b": "x/y"}),
        ("until=['a,b','c'],t=0.5", {"until": ["a,b", "c"], "t": 0.5}),
        ('{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ("a=true,b=None,c=", {"a": True, "b": None, "c": ""}),
        ("url=http://h:1/v1?x=1", {"url": "http://h:1/v1?x=1"}),
        ("", {}),
    ],
)
def test_key_values_are_read_as_lm_eval_reads_them(text, expected):
    assert parse_key_values(text, flag="--model_args") == expected


@pytest.mark.parametrize("text", ["a", "a=1,b", "=1", '{"a": 1'])
def test_broken_key_values_name_the_flag_and_the_part(text):
    with pytest.raises(ConfigError, match="--gen_kwargs"):
        parse_key_values(text, flag="--gen_kwargs")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": 0}, "--limit"),
        ({"num_fewshot": -1}, "--num_fewshot"),
        ({"batch_size": 0}, "--batch_size"),
        ({"batch_size": "big"}, "--batch_size"),
        ({"tasks": "a,b", "suite": "demo"}, "--suite"),
        ({"seed": "1,2"}, "--seed"),
        ({"modle": "hf"}, "Did you mean 'model'"),
        ({"limit": "abc"}, "'limit'"),
        ({"limit": float("nan")}, "--limit"),
        ({"limit": 2.5}, "--limit"),
        ({"num_fewshot": "2"}, "'num_fewshot'"),
        ({"tasks": 5}, "'tasks'"),
        ({"tasks": ["a", 5]}, "'tasks'"),
        ({"model": 3}, "'model'"),
        ({"model_args": ["a"]}, "'model_args'"),
        ({"offline": "no"}, "'offline'"),
        ({"batch_size": True}, "'batch_size'"),
        ({"seeds": {"foo": 1}}, "'seeds'"),
        ({"seed": -1}, "--seed"),
        ({3: 1}, "Unknown setting"),
    ],
)
def test_nonsense_is_refused_at_the_door(values, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_dict(values)


def test_one_seed_sets_all_four():
    assert RunConfig.from_dict({"seed": 7}).seeds == Seeds(7, 7, 7, 7)
    assert RunConfig.from_dict({"seed": "0,1,2,3"}).seeds == Seeds(0, 1, 2, 3)


def test_secrets_never_reach_a_file():
    config = RunConfig(model="local-completions", model_args={"auth_token": "s3cret", "model": "m"})
    assert "s3cret" not in json.dumps(config.as_dict())
    assert "s3cret" not in hide_secrets("model=m,auth_token=s3cret,base_url=u")
    assert hide_secrets('{"auth_token": "s3cret", "model": "m"}') == '{"auth_token": "***", "model": "m"}'


def test_yaml_must_be_a_mapping(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="name: value"):
        load_config(file)
    file.write_text("tasks: [a\n")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(file)
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_python_callers_are_told_that_tasks_is_a_tuple():
    with pytest.raises(ConfigError, match="'tasks'"):
        RunConfig(tasks="gsm8k")


@pytest.mark.parametrize(
    "word",
    [
        "model=m,auth_token=s3cret",
        '{"header": {"Authorization": "Bearer s3cret"}, "model": "m"}',
        '{"api_key": "s3cret s3cret"}',
        "base_url=http://me:s3cret@h:1/v1/completions?key=s3cret,model=m",
    ],
)
def test_a_command_is_shown_without_secrets(word):
    shown = redacted_command(["run", "--model_args", word])
    assert "s3cret" not in " ".join(shown)
    assert shown[1] == "--model_args"
    assert redacted_command([f"--model_args={word}"]) == [f"--model_args={shown[2]}"]
