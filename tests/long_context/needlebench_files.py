"""NeedleBench in its published file formats, with needles, names, chains and haystacks that are written here."""

import json
import random
from pathlib import Path
from typing import Any

ENGLISH = "The {a} {b} {c} near the {d}, and nobody asks why."
CHINESE = "{a}边的{b}很{c}，没有人问{d}为什么。"  # noqa: RUF001
WORDS = {
    "a": ("old", "red", "new", "grey"),
    "b": ("barn", "boat", "bridge", "road"),
    "c": ("stands", "waits", "lies", "rots"),
    "d": ("hill", "lake", "mill", "wood"),
}
SIGNS = {"a": "山水天地", "b": "风花雪月", "c": "高大新旧", "d": "他她它谁"}


def write_needlebench(data_dir: Path, *, n_texts: int = 12, n_names: int = 60, n_needles: int = 30) -> Path:
    """Write all files into `data_dir/needlebench` and return `data_dir`."""
    folder = data_dir / "needlebench"
    folder.mkdir(parents=True)
    needles = [row for i in range(n_needles) for row in (english_needle(i), chinese_needle(i))]
    _write_lines(folder / "needles.jsonl", needles)
    names = {"English": [f"Ann Q{i}" for i in range(n_names)], "Chinese": [f"王{i}" for i in range(n_names)]}
    _write_json(folder / "names.json", {language: ",".join(people) for language, people in names.items()})
    for code in ("en", "zh"):
        _write_json(
            folder / f"multi_needle_reasoning_{code}.json", [chain(k, i) for k in (2, 3, 4, 5) for i in range(6)]
        )
    rng = random.Random(1)
    english = [" ".join(_sentence(ENGLISH, WORDS, rng) for _ in range(40)) for _ in range(n_texts)]
    chinese = ["".join(_sentence(CHINESE, SIGNS, rng) for _ in range(40)) for _ in range(n_texts)]
    _write_lines(folder / "PaulGrahamEssays.jsonl", [{"text": text} for text in english])
    _write_lines(folder / "zh_finance.jsonl", [{"text": text} for text in chinese])
    return data_dir


def english_needle(i: int) -> dict[str, str]:
    return {
        "language": "English",
        "needle": f"Hidden on Isle {i}x is the famous Gem {i}y.",
        "retrieval_question": f"What is hidden on Isle {i}x? Please answer in the format 'On Isle {i}x is ____.'",
        "arg1": f"Isle {i}x",
        "arg2": f"Gem {i}y",
    }


def chinese_needle(i: int) -> dict[str, str]:
    return {
        "language": "Chinese",
        "needle": f"小岛{i}甲上藏着宝石{i}乙。",
        "retrieval_question": f"小岛{i}甲上藏着什么？请按照'小岛{i}甲上藏着____。'的格式回答。",  # noqa: RUF001
        "arg1": f"小岛{i}甲",
        "arg2": f"宝石{i}乙",
    }


def chain(n_facts: int, i: int) -> dict[str, Any]:
    facts = [f"Fact {j} of case {n_facts}-{i} is told." for j in range(n_facts)]
    question = f"Who was it in case {n_facts}-{i}?"
    return {"derivations": facts, "derivation_count": n_facts, "question": question, "answer": f"Lord {i} of {n_facts}"}


def _sentence(form: str, words: dict[str, Any], rng: random.Random) -> str:
    return form.format(**{key: rng.choice(choices) for key, choices in words.items()})


def _write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
