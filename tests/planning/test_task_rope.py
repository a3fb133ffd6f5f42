"""A task's own `rope`, and what `--rope auto` makes room for: on the shipped model, which was trained on 512 tokens."""

from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.errors import ModelError
from qwen2eval.evaluate import plan
from qwen2eval.reporting.side_by_side import ComparedRun, grouped_maps, label
from qwen2eval.rescore import rescore

run_module = import_module("qwen2eval.evaluate")

SMALL = """
task: {name}
class: !function qwen2eval.long_context.niah.task.NiahTask
output_type: generate_until
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metadata: {{version: 1, lengths: [250, 1000], intervals: 2, instances: 2, rope: {rope}}}
"""


@pytest.fixture
def own_tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, rope in (("plain", "none"), ("stretched", "yarn+dca")):
        (folder / f"{name}.yaml").write_text(SMALL.format(name=name, rope=rope))
    return str(folder)


@pytest.mark.slow
def test_each_task_is_answered_by_the_model_with_its_own_rope(own_tasks, tmp_path):
    config = RunConfig(
        model="demo",
        tasks=("stretched", "plain", "demo_gsm8k"),
        include_path=(own_tasks,),
        limit=3,
        output_path=str(tmp_path / "runs"),
    )
    made = run(config, quiet=True)
    ropes = {name: task.rope for name, task in made.info.tasks.items()}
    assert ropes == {"stretched": "yarn+dca x4", "plain": "none", "demo_gsm8k": None}
    assert made.info.model.rope == "none"
    assert list(made.info.tasks) == ["stretched", "plain", "demo_gsm8k"]
    plain, stretched = made.samples("plain"), made.samples("stretched")
    pd.testing.assert_series_equal(plain["prompt"], stretched["prompt"])
    again = run(config, quiet=True)
    assert again.info.requests.n_answered == 0
    assert again.info.requests.n_tokens_computed == 0  # told, though it is nothing
    assert list(again.samples("stretched")["response"]) == list(stretched["response"])


def test_answers_of_one_rope_are_not_taken_for_those_of_another(own_tasks, tmp_path):
    config = RunConfig(model="demo", include_path=(own_tasks,), output_path=str(tmp_path / "runs"), tasks=("plain",))
    run(config, quiet=True)
    second = run(
        RunConfig(model="demo", include_path=(own_tasks,), output_path=str(tmp_path / "runs"), tasks=("stretched",)),
        quiet=True,
    )
    assert second.info.requests.n_from_store == 0


def test_a_backend_that_cannot_stretch_fails_that_task_only(own_tasks):
    made = plan(
        RunConfig(
            model="dummy",
            model_args={"tokenizer": str(_shipped_model()), "max_length": 2048},
            tasks=("plain", "stretched"),
            include_path=(own_tasks,),
        )
    )
    assert list(made.tasks) == ["plain"]
    assert "can stretch the context" in str(made.failures["stretched"])


def test_auto_leaves_no_room_for_tasks_without_data(monkeypatch):
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    made = plan(RunConfig(model="demo", tasks=("lveval_256k", "niah_4k"), offline=True))
    assert made.spec.rope == "yarn+dca x8"
    assert set(made.tasks) == {"niah_4k"}
    assert all(name.startswith("lveval_256k") for name in made.failures)


def test_missing_data_of_one_benchmark_is_told_in_one_message(monkeypatch):
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    made = plan(RunConfig(model="demo", tasks=("lveval_16k", "lveval_32k", "demo_gsm8k"), offline=True))
    assert len(made.failures) == 22
    (message,) = {str(err) for err in made.failures.values()}
    assert "and 19 more in DIR/lveval/" in message


def test_rescoring_builds_docs_as_long_as_they_were_asked(tiny_model, tmp_path):
    (tmp_path / "long.yaml").write_text(
        "task: long\nclass: !function qwen2eval.long_context.niah.task.NiahTask\n"
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 2, do_sample: false}\n'
        "metadata: {version: 1, lengths: [480, 1300], intervals: 1, instances: 1, rope: yarn}\n"
    )
    made = run(
        RunConfig(
            model="qwen2",
            model_args={"pretrained": str(tiny_model)},
            tasks=("long",),
            include_path=(str(tmp_path),),
            output_path=str(tmp_path / "runs"),
            rope="none",
        ),
        quiet=True,
    )
    assert made.info.tasks["long"].rope == "yarn x4"
    again = rescore(made.path, quiet=True)
    pd.testing.assert_frame_equal(again.samples("long"), made.samples("long"))


def test_auto_as_a_tasks_own_rope_is_what_every_task_has(own_tasks):
    (Path(own_tasks) / "auto.yaml").write_text(SMALL.format(name="auto", rope="auto").replace("1000", "3000"))
    made = plan(RunConfig(model="demo", tasks=("auto",), include_path=(own_tasks,)))
    assert made.spec.rope.startswith("yarn+dca x")
    assert made.tasks["auto"].model is None


def test_heat_maps_side_by_side_name_the_tasks_own_rope(own_tasks, tmp_path):
    made = run(
        RunConfig(
            model="demo",
            tasks=("plain", "stretched"),
            include_path=(own_tasks,),
            output_path=str(tmp_path / "runs"),
        ),
        quiet=True,
    )
    names = {
        maps[0].task: maps[0].model
        for maps in grouped_maps([ComparedRun(label(made.info), made.info, made.score_rows())])
    }
    assert names == {"plain": "qwen2-nano", "stretched": "qwen2-nano yarn+dca x4"}


def test_a_second_model_that_cannot_be_opened_costs_its_tasks_only(own_tasks, tmp_path, monkeypatch):
    opened, real = [], run_module.open_model

    def open_once(config, spec):
        opened.append(config.rope)
        if len(opened) > 1:
            raise ModelError("no memory left")
        return real(config, spec)

    monkeypatch.setattr(run_module, "open_model", open_once)
    config = RunConfig(
        model="demo", tasks=("plain", "stretched"), include_path=(own_tasks,), output_path=str(tmp_path / "runs")
    )
    made = run(config, quiet=True)
    assert opened == ["none", "yarn+dca"]
    assert made.exit_code == 70
    assert list(made.failed_tasks) == ["stretched"]
    assert len(made.samples("plain")) == 8


def _shipped_model():
    from qwen2eval.demo.shipped import MODEL

    return MODEL
