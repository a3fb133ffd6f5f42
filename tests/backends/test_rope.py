"""`--rope`: what it makes of a model's arguments, what it refuses, and what `auto` does for long texts."""

import pytest

from qwen2eval.backends import load_spec
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.backends.rope import stretched_for, with_rope
from qwen2eval.cli.main import main
from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError
from qwen2eval.evaluate import plan, run
from qwen2eval.rescore import rescore
from tests.backends.openai_server import save_tiny_model


def args_of(rope, model="qwen2", **model_args):
    return dict(with_rope(RunConfig(model=model, rope=rope, model_args=model_args)).model_args)


@pytest.mark.parametrize("model", ["qwen2", "vllm"])
def test_settings_become_arguments_of_the_backend(model):
    assert args_of("yarn", model) == {"yarn_factor": 4.0, "dual_chunk": False}
    assert args_of("yarn+dca", model, yarn_factor=8, pretrained="x") == {
        "yarn_factor": 8,
        "dual_chunk": True,
        "pretrained": "x",
    }
    assert args_of("none", model) == {"yarn_factor": 1.0, "dual_chunk": False}
    assert args_of("auto", model, yarn_factor=2) == {"yarn_factor": 2}


@pytest.mark.parametrize(
    ("rope", "model", "model_args"),
    [
        ("yarn", "hf", {}),
        ("yarn+dca", "local-completions", {}),
        ("none", "qwen2", {"yarn_factor": 4}),
        ("yarn", "qwen2", {"dual_chunk": True}),
        ("yarn+dca", "qwen2", {"dual_chunk": False}),
    ],
)
def test_contradictions_are_refused(rope, model, model_args):
    with pytest.raises(ConfigError, match="--rope"):
        args_of(rope, model, **model_args)


def test_none_is_what_other_backends_do_anyway():
    assert args_of("none", "hf", pretrained="x") == {"pretrained": "x"}


def test_an_unknown_setting(capsys):
    assert main(["run", "--model", "dummy", "--rope", "yarn-dca"]) == 64
    assert "auto, none, yarn, yarn+dca" in capsys.readouterr().err


FRONT = ModelSpec(backend="qwen2", name="m", max_length=131_072, original_max_length=32_768, rope="none")


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    [
        (32_768, None),
        (32_769, {"yarn_factor": 2.0, "dual_chunk": True}),
        (131_072, {"yarn_factor": 4.0, "dual_chunk": True}),
        (262_144, {"yarn_factor": 8.0, "dual_chunk": True}),
    ],
)
def test_auto_stretches_only_beyond_the_trained_length(n_tokens, expected):
    found = stretched_for(RunConfig(model="qwen2"), FRONT, n_tokens)
    assert (None if found is None else dict(found.model_args)) == expected


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(model="qwen2", rope="none"),
        RunConfig(model="qwen2", rope="yarn"),
        RunConfig(model="qwen2", model_args={"yarn_factor": 2}),
        RunConfig(model="qwen2", model_args={"max_length": 4096}),
    ],
)
def test_auto_respects_what_was_said(config):
    assert stretched_for(config, FRONT, 100_000) is None


def test_vllm_gets_yarn_alone():
    found = stretched_for(RunConfig(model="vllm"), FRONT, 40_000)
    assert dict(found.model_args) == {"yarn_factor": 2.0, "dual_chunk": False}


def test_the_front_says_what_is_on(tmp_path):
    folder = save_tiny_model(tmp_path / "model")

    def spec(**settings):
        return load_spec(RunConfig(model="qwen2", model_args={"pretrained": str(folder)}, **settings))

    plain, yarn, both = spec(), spec(rope="yarn"), spec(rope="yarn+dca")
    assert (plain.rope, yarn.rope, both.rope) == ("none", "yarn x4", "yarn+dca x4")
    assert yarn.max_length == 4 * plain.max_length


NIAH = """
task: own_niah
class: !function qwen2eval.long_context.niah.task.NiahTask
metadata: {version: 1, lengths: [500, 1900], intervals: 2, instances: 1}
"""


def planned(tmp_path, **settings):
    folder = save_tiny_model(tmp_path / "model")  # trained on 512 tokens, says its config
    (tmp_path / "own_niah.yaml").write_text(NIAH)
    config = RunConfig(
        model="qwen2",
        model_args={"pretrained": str(folder)},
        tasks=("own_niah",),
        include_path=(str(tmp_path),),
        output_path=str(tmp_path / "runs"),
        gen_kwargs={"max_gen_toks": 8},
        **settings,
    )
    return plan(config)


def test_a_long_context_task_stretches_the_model(tmp_path):
    made = planned(tmp_path)
    assert (made.spec.rope, made.spec.max_length) == ("yarn+dca x4", 2048)
    assert dict(made.config.model_args) | {"pretrained": ""} == {
        "pretrained": "",
        "yarn_factor": 4.0,
        "dual_chunk": True,
    }
    assert len(made.tasks["own_niah"].docs) == 4
    assert any("extended by yarn+dca x4 (--rope auto" in warning for warning in made.warnings)


def test_on_request_it_does_not(tmp_path):
    made = planned(tmp_path, rope="none")
    assert (made.spec.rope, made.spec.max_length) == ("none", 512)
    assert {doc["cell"]["length"] for doc in made.tasks["own_niah"].docs} == {500}


def test_a_run_tells_what_was_on(tmp_path):
    made = planned(tmp_path)
    finished = run(made.config, quiet=True)
    assert finished.info.model.rope == "yarn+dca x4"
    assert finished.scores.value.notna().all()
    again = rescore(finished.path)
    assert again.scores.equals(finished.scores)
    assert again.samples("own_niah").equals(finished.samples("own_niah"))
