"""A judge that grades by a script, and short ways to a run that it judges."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qwen2eval import RunConfig, load_run
from qwen2eval.cli.main import main
from qwen2eval.long_context.niah.needles import load_needles
from qwen2eval.long_context.niah.task import NiahTask
from qwen2eval.run_folder.folder import Run
from tests.backends.openai_server import TinyServer, serve_openai
from tests.long_context.scripted import depth_percent

NEEDLES = [needle.needle for needle in load_needles("fictional")]
N_DOCS = 16
TASK = "niah_mine"


def grade(prompt: str) -> str:
    """Grade as a good judge would: 10 if the reference is in the answer, else 3."""
    reference, answer = prompt.split("[Reference]\n")[1].split("\n\n[Answer]\n")
    return f"It {reference[:5]} … Rating: [[{10 if reference in answer else 3}]]"


def half_mute(prompt: str) -> str:
    """Give no rating where the answer is wrong."""
    verdict = grade(prompt)
    return verdict if "10" in verdict else "It depends."


def found_early(document: str, needle: str) -> str:
    """Find what is in the first half; no two answers are the same."""
    percent = f"{depth_percent(document, needle):.3f} of {len(document)}"
    return f"{needle} ({percent})" if depth_percent(document, needle) < 50 else f"I don't know ({percent})."


def judge_words(url: str, *more: str, model: str = "grader") -> list[str]:
    return ["--judge", "local-chat-completions", "--judge_args", ",".join((f"base_url={url},model={model}", *more))]


@contextmanager
def nobody_at_home(tiny_model: Path) -> Iterator[str]:
    """Yield the address of a server that has gone."""
    with serve_openai(tiny_model) as running:
        url = running.chat_url
    yield url


def run_here(words: list[str], *more: str, exit_code: int = 0) -> Run:
    assert main([*words, *more]) == exit_code
    return load_run(Path(words[words.index("--output_path") + 1]) / "latest")


def whole_scores(finished: Run) -> dict[str, dict[str, Any]]:
    """Return the scores of the whole task, by metric."""
    scores = finished.scores
    whole = scores[scores["cell_length"].isna() & scores["cell_depth"].isna()]
    return {row["metric"]: row for row in whole.to_dict("records")}


def judge_args(server: TinyServer, **more: object) -> dict[str, Any]:
    return {"base_url": server.chat_url, "model": "grader", **more}


def config_of(common: list[str], output: Path, server: TinyServer) -> RunConfig:
    values = dict(zip((word.removeprefix("--") for word in common[::2]), common[1::2], strict=True))
    judge = {"judge": "local-chat-completions", "judge_args": judge_args(server)}
    return RunConfig.from_dict({**values, "output_path": str(output), **judge})


class OddTask(NiahTask):
    """Fails on some docs, as a task author's methods may."""

    def judge_prompt(self, doc: dict, response: str) -> str:
        if doc["cell"]["depth"] < 25:
            raise KeyError("shallow")
        return super().judge_prompt(doc, response)

    def judge_metrics(self, verdict: str) -> dict[str, float | None]:
        if "[[3]]" in verdict:
            raise ZeroDivisionError("three")
        return {"grade": super().judge_metrics(verdict)["judge_score"]}


class ClashingTask(NiahTask):
    """Calls a judge's metric as it calls its own."""

    def judge_metrics(self, verdict: str) -> dict[str, float | None]:
        return {"acc": float(len(verdict))}
