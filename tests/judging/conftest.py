"""A server with a judge, a model that answers by a rule, and the command line of a run."""

import json
from collections.abc import Iterator

import pytest

from qwen2eval.backends import BACKENDS
from tests.backends.openai_server import TinyServer, serve_openai
from tests.judging.judged import NEEDLES, TASK, found_early, grade
from tests.long_context.scripted import Rule, Scripted, qwen_like_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path / "cache"))
    for name in ("QWEN2EVAL_DATA", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tiny_model) -> Iterator[TinyServer]:
    with serve_openai(tiny_model, model="grader", script=grade) as running:
        yield running


@pytest.fixture
def use_rule(monkeypatch):
    def use(rule: Rule) -> None:
        monkeypatch.setitem(BACKENDS, "scripted", Scripted(qwen_like_tokenizer(), rule, NEEDLES).spec())

    use(found_early)
    return use


@pytest.fixture
def words(tmp_path, use_rule):  # noqa: ARG001 - its model
    """Return the command line of a run on a small grid, without a judge."""
    path = tmp_path / f"{TASK}.yaml"
    metadata = {"lengths": [700, 900], "intervals": 4, "haystack": "shipped"}
    path.write_text(
        f"task: {TASK}\nclass: !function qwen2eval.long_context.niah.task.NiahTask\nmetadata: {json.dumps(metadata)}\n"
    )
    return ["run", "--model", "scripted", "--tasks", str(path), "--output_path", str(tmp_path / "runs")]
