"""The command line: help that runs, flags that the docs know, and its promises on output and exit codes."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from qwen2eval.cli.main import build_parser, config_from_args, main
from qwen2eval.config import RunConfig, Seeds

VERBS = ("run", "plan", "tasks", "score", "report", "decontam", "model", "sandbox")
ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
FOREIGN_FLAGS = {"--depth", "--merge", "--no-compile", "--out", "--steps"}  # git, llama.cpp, qwen2eval.demo


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def flags_of(parser):
    """Yield the flags of a parser and of all commands under it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags_of(command)


def test_help_names_every_command(capsys):
    shown = help_of(capsys)
    assert all(re.search(rf"^    {verb} ", shown, re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_an_example_that_parses(capsys, verb):
    example = re.search(r"example:\n  qwen2eval (.*)", help_of(capsys, verb)).group(1)
    assert build_parser().parse_args(shlex.split(example)).verb == verb


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_docs_parses(page):
    for line in re.findall(
        r"^\$? *(?:\.venv/bin/)?qwen2eval (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    ):
        command = line.split("  #")[0].strip()
        if command.startswith(VERBS):
            build_parser().parse_args(shlex.split(command))


@pytest.mark.parametrize(
    "page", [*PAGES, *(f"tasks/{p.parent.name}/README.md" for p in (ROOT / "tasks").glob("*/README.md"))]
)
def test_every_flag_that_the_docs_name_is_one(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", (ROOT / page).read_text(encoding="utf-8"))) - FOREIGN_FLAGS
    assert {"--" + flag[2:].replace("-", "_") for flag in named} <= set(flags_of(build_parser()))


def test_both_spellings_of_a_flag_mean_the_same():
    parse = build_parser().parse_args
    words = ["run", "--num-fewshot", "3", "--output-path", "x", "--model-args", "a=1"]
    assert vars(parse(words)) == vars(
        parse([w.replace("-", "_").replace("__", "--", 1) if i else w for i, w in enumerate(words)])
    )


def test_flags_win_over_the_yaml_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: hf\nmodel_args: {pretrained: a, dtype: float32}\ntasks: [x]\nlimit: 5\nseed: 3\n")
    words = ["run", "--config", str(file), "--limit", "7", "--model_args", "pretrained=b", "--tasks", "y,z", "w"]
    config = config_from_args(build_parser().parse_args(words))
    assert config == RunConfig(
        model="hf",
        model_args={"pretrained": "b", "dtype": "float32"},
        tasks=("y", "z", "w"),
        limit=7,
        seeds=Seeds(3, 3, 3, 3),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--taks", "mmlu"], "Did you mean --tasks"),
        (["runn"], "invalid choice"),
        ([], "required"),
        (["run", "--limit", "many"], "--limit"),
    ],
)
def test_usage_errors_exit_with_64(capsys, monkeypatch, words, message):
    monkeypatch.setattr("sys.argv", ["qwen2eval", *words])
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 64
    assert message in capsys.readouterr().err


def test_tasks_prints_json(capsys):
    assert main(["tasks", "gsm8k", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == "gsm8k"


def test_a_search_without_hits_suggests_names(capsys):
    assert main(["tasks", "gsm9k"]) == 64
    assert "Did you mean 'gsm8k'" in capsys.readouterr().err


def test_plan_shows_requests_and_the_first_prompt(capsys, data_dir):
    assert (
        main(["plan", "--model", "dummy", "--tasks", "gsm8k", "--limit", "2", "--data_dir", str(data_dir), "--offline"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "2 of 1,319" in shown
    assert "first prompt of gsm8k\nQuestion:" in shown
    words = ["plan", "--model", "dummy", "--tasks", "demo_mmlu", "--limit", "2", "--json", "--offline"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["demo_mmlu"]["n_requests"] == 8


def test_run_prints_the_scores_to_stdout_and_nothing_but_problems_to_stderr(capsys, tmp_path):
    words = [
        "run",
        "--model",
        "dummy",
        "--tasks",
        "demo_mmlu",
        "--limit",
        "3",
        "--offline",
        "--output_path",
        str(tmp_path),
    ]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert [row["task"] for row in shown["scores"]] == ["demo_mmlu"]
    assert err == ""
    assert Path(shown["run"], "report.html").is_file()
    assert main(words) == 0
    assert "demo_mmlu" in capsys.readouterr().out
    assert main(["report", shown["run"], "--format", "md"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.md")
