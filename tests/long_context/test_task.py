"""What long-context tasks share: docs that are built for a model, defaults of the YAML, the cache of docs."""

import json

import pytest

from qwen2eval import RunConfig
from qwen2eval.errors import ConfigError
from qwen2eval.long_context.doc_cache import cached_docs
from qwen2eval.long_context.task import LongContextTask
from qwen2eval.planning.plan import plan_task
from qwen2eval.tasks.lm_eval_task import EvalTask
from tests.long_context.scripted import qwen_like_tokenizer, spec_of


class Counting(LongContextTask):
    """Its docs say how long they are."""

    def make_docs(self, counter, config):
        self.warnings.append(f"seed {config.seeds.python}")
        text = counter.first_tokens("one two three four five " * 9, 20)
        return [{"prompt": text, "target": str(counter.count(text)), "cell": {"length": 20, "depth": 50}}]


def task(**config) -> Counting:
    return Counting({"task": "counting", "class": "…", "doc_to_target": "{{target}}", **config})


def test_docs_are_there_when_they_are_built():
    made = task()
    with pytest.raises(ConfigError, match="'counting' has no docs but those that are built for a model"):
        _ = made.eval_docs
    planned = plan_task("counting", EvalTask(made), config=RunConfig(), spec=spec_of(qwen_like_tokenizer()))
    (request,) = planned.requests
    assert str(request.n_context_tokens) == planned.docs[0]["target"] == "20"
    assert made.dataset.warning == "seed 0"


def test_warnings_are_of_the_last_build():
    made = task()
    for _ in range(2):
        made.build_docs(spec_of(qwen_like_tokenizer()), RunConfig())
    assert made.warnings == ["seed 0"]


def test_yaml_wins_over_defaults():
    assert task().config.num_fewshot == 0
    assert task().OUTPUT_TYPE == "generate_until"
    assert task(output_type="loglikelihood").OUTPUT_TYPE == "loglikelihood"


def test_cache_is_by_every_input_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> list[dict[str, object]]:
        made.append(len(made))
        return [{"text": "é你", "number": made[-1]}]

    first = cached_docs("t", {"a": 1}, make)
    assert cached_docs("t", {"a": 1}, make) == first
    assert cached_docs("t", {"a": 2}, make) != first
    (path,) = (file for file in (tmp_path / "long_context").iterdir() if '"number": 0' in file.read_text())
    for damage in ("", "[]", "{", json.dumps({"key": "other", "docs": []})):
        path.write_text(damage)
        assert cached_docs("t", {"a": 1}, make)[0]["text"] == "é你"
    assert len(made) == 6
    assert all(file.suffix == ".json" for file in (tmp_path / "long_context").iterdir())


def test_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path / "file"))
    assert cached_docs("t", {}, lambda: [{"a": 1}]) == [{"a": 1}]
