"""Help of every command: it fits the terminal, lists each flag once, and says what it does in whole sentences."""

import argparse
import re
from dataclasses import fields

import pytest

from decontam import Rule
from qwen2eval.cli.main import build_parser, main

COLUMNS = (60, 80, 102, 200)
STUMBLES = re.compile(
    r"\b(tells?|told|mend(s|ed)?|stands? in|of yours|of its own|by arithmetic|goes on|as a whole|looked for)\b"
)
FRAGMENT = re.compile(r"(of|that|its|his|also|as|for|in|from|by) ")


def commands(parser=None, words=()):
    """Yield every command with its parser, the whole command line first."""
    parser = parser or build_parser()
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from commands(command, (*words, name))


COMMANDS = dict(commands())
everywhere = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def help_of(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@everywhere
@pytest.mark.parametrize("columns", COLUMNS)
def test_no_line_is_wider_than_the_terminal(capsys, monkeypatch, words, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_of(capsys, words).splitlines()
    # an example is one line, to be copied, whatever the terminal
    wrapped = [line for line in lines if columns > 100 or not line.startswith("  qwen2eval ")]
    assert max(map(len, wrapped)) <= min(columns - 2, 100)


def test_help_that_goes_to_no_terminal_is_as_wide_as_can_be(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert 90 < max(map(len, help_of(capsys, ["run"]).splitlines())) <= 100


@everywhere
def test_every_flag_is_listed_once_with_one_spelling(capsys, words):
    shown = help_of(capsys, words)
    listed = re.findall(r"^  (?:-h, )?(--[\w-]+)", shown, re.MULTILINE)
    flags = [action.option_strings[0] for action in COMMANDS[words]._actions if action.option_strings]
    assert sorted(listed) == sorted(flag.replace("-h", "--help") if flag == "-h" else flag for flag in flags)
    assert not [flag for flag in listed if "-" in flag[2:]]
    names = [line.strip().split("  ")[0] for line in shown.splitlines() if line.startswith("  --")]
    assert [name.count("--") for name in names] == [1] * len(names)


@everywhere
def test_every_help_is_a_sentence_of_common_words(words):
    parser = COMMANDS[words]
    helps = {"/".join(one.option_strings) or one.dest: one.help for one in parser._actions if one.dest != "help"}
    for flag, text in helps.items():
        if text is None:  # the list of commands
            continue
        sentence = text.partition(" [default: ")[0]
        assert len(sentence.split()) > 1, flag
        assert not sentence.endswith("."), flag
        assert not FRAGMENT.match(sentence), flag
        assert not STUMBLES.search(text), flag
    assert not STUMBLES.search(parser.description)
    assert parser.description.endswith(".")


@everywhere
def test_every_example_is_a_command_that_parses(words):
    examples = re.findall(r"^  qwen2eval (.+)$", COMMANDS[words].epilog, re.MULTILINE)
    assert examples
    for example in examples:
        build_parser().parse_args(example.split())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["run", "--faithful"], ["run", "--reference_implementation"]),
        (["decontam", "scan", "c", "--references", "r", "--output", "o", "--min-whole", "6"], ["--min_exact_tokens"]),
        (["decontam", "filter", "c", "--matches", "m", "--output", "o", "--include_whole"], ["--include_exact"]),
    ],
    ids=lambda words: words[-1],
)
def test_old_names_of_flags_still_work_and_are_in_no_help(capsys, old, new):
    at = next(i for i, word in enumerate(old) if word in ("--faithful", "--min-whole", "--include_whole"))
    renamed = [*old[:at], new[-1], *old[at + 1 :]]
    assert vars(build_parser().parse_args(old)) | {"parser": 0} == vars(build_parser().parse_args(renamed)) | {
        "parser": 0
    }
    command = old[:1] if old[0] == "run" else old[:2]
    shown = help_of(capsys, command)
    assert new[-1] in shown
    assert old[at].replace("-", "_").replace("__", "--", 1) not in shown


def test_the_help_of_a_scan_says_the_defaults_of_the_rule():
    actions = {action.dest: action for action in COMMANDS["decontam", "scan"]._actions}
    for field in fields(Rule):
        if field.name in actions and field.default is not None:
            assert actions[field.name].help.endswith(f"[default: {field.default}]")


def test_a_value_may_look_like_a_flag_with_dashes():
    args = build_parser().parse_args(["run", "--system-instruction=--be-brief", "--model_args", "a-b=c-d"])
    assert (args.system_instruction, args.model_args) == ("--be-brief", [["a-b=c-d"]])
