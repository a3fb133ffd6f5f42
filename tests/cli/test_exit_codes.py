"""Exit codes: the help, the docs and the exceptions say the same."""

import re
from pathlib import Path

import pytest

from qwen2eval.cli.main import main
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.exit_codes import ExitCode, exit_codes_line
from qwen2eval.sandbox import levels  # its errors are ours, too

ROOT = Path(__file__).resolve().parents[2]


def exceptions(of=Qwen2EvalError):
    yield of
    for child in of.__subclasses__():
        yield from exceptions(child)


def test_the_docs_list_every_exit_code_with_its_meaning():
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    table = page.split("## Exit codes")[1]
    assert re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE) == [(str(c.value), c.meaning) for c in ExitCode]


def test_the_help_of_every_command_names_every_exit_code(capsys):
    for words in ([], ["run"], ["decontam", "scan"], ["model", "info"]):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert exit_codes_line() in " ".join(capsys.readouterr().out.split())
    assert exit_codes_line().startswith("exit codes: 0 ok, 3 missing data, 64 usage, 70 ")


def test_every_exception_ends_with_one_of_them():
    assert levels.SandboxError in set(exceptions())
    assert {type(one.exit_code) for one in exceptions()} == {ExitCode}


def test_an_exit_code_is_an_integer_with_a_sentence():
    assert ExitCode(70) is ExitCode.INCOMPLETE == 70
    assert all(code.meaning.endswith(".") for code in ExitCode)
