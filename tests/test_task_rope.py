"""A task's own `rope`, and what `--rope auto` makes room for: on the shipped model, which was trained on 512 tokens."""

import pandas as pd
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.run import plan

SMALL = """
task: {name}
class: !function qwen2eval.long_context.niah.NiahTask
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


def test_each_task_is_answered_by_the_model_with_its_own_rope(own_tasks, tmp_path):
    config = RunConfig(
        model="demo",
        tasks=("stretched", "plain", "demo_gsm8k"),
        include_path=(own_tasks,),
        limit=3,
        output_path=str(tmp_path / "runs"),
    )
    made = run(config, quiet=True)
    ropes = {name: task["rope"] for name, task in made.info["tasks"].items()}
    assert ropes == {"stretched": "yarn+dca x4", "plain": "none", "demo_gsm8k": None}
    assert made.info["model"]["rope"] == "none"
    assert list(made.info["tasks"]) == ["stretched", "plain", "demo_gsm8k"]
    plain, stretched = made.samples("plain"), made.samples("stretched")
    pd.testing.assert_series_equal(plain["prompt"], stretched["prompt"])
    again = run(config, quiet=True)
    assert again.info["requests"]["n_answered"] == 0
    assert list(again.samples("stretched")["response"]) == list(stretched["response"])


def test_answers_of_one_rope_are_not_taken_for_those_of_another(own_tasks, tmp_path):
    config = RunConfig(model="demo", include_path=(own_tasks,), output_path=str(tmp_path / "runs"), tasks=("plain",))
    run(config, quiet=True)
    second = run(
        RunConfig(model="demo", include_path=(own_tasks,), output_path=str(tmp_path / "runs"), tasks=("stretched",)),
        quiet=True,
    )
    assert second.info["requests"]["n_from_store"] == 0


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
    assert made.front.rope == "yarn+dca x8"
    assert set(made.tasks) == {"niah_4k"}
    assert all(name.startswith("lveval_256k") for name in made.failures)


def test_missing_data_of_one_benchmark_is_told_in_one_message(monkeypatch):
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    made = plan(RunConfig(model="demo", tasks=("lveval_16k", "lveval_32k", "demo_gsm8k"), offline=True))
    assert len(made.failures) == 22
    (message,) = {str(err) for err in made.failures.values()}
    assert "and 19 more in DIR/lveval/" in message


def _shipped_model():
    from qwen2eval.demo.shipped import MODEL

    return MODEL
