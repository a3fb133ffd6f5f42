"""Thoughts in responses: known marks, marks that a prompt opens, stop strings, and texts that are about marks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.requests import Answer
from qwen2eval.thoughts import Thinking, marks_in, read_thought

MARKS = [
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
]


@pytest.mark.parametrize(("begin", "end"), MARKS)
@pytest.mark.parametrize("stop", ["\n", "\n\n", "Is"])
def test_known_marks(begin, end, stop):
    text = f"{begin}Is it 9?\n\nNo.{end}\n\n7\n\nIs 8"
    found = Thinking().split(text, until=[stop])
    wanted = "7\n\n" if stop == "Is" else "7"
    assert (found.answer, found.is_stopped, found.is_open) == (wanted, True, False)
    assert Thinking().split(f"{begin}Is it 9?\n\nNo.", until=[stop]) == (f"{begin}Is it 9?\n\nNo.", "", True, False)
    assert marks_in(f"{{% if x %}}{begin}{{% endif %}}")


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_a_prompt_may_open_the_thought_or_close_it(begin, end):
    inside = Thinking().split(f"9?\n\nNo.{end}7", prompt=f"assistant\n{begin}\n", until=["\n"])
    is_bare = begin.strip() != "<|channel|>analysis<|message|>"  # there the message's own mark comes last
    if is_bare:
        assert inside.answer == "7"
        assert Thinking().split("9? Hm", prompt=f"assistant\n{begin}\n").is_open
    closed = Thinking().split("7\n8", prompt=f"assistant\n{begin}\n{end}\n", until=["\n"])
    assert closed == ("", "7", False, True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7\n8", "7"),
        ("\n7", ""),  # as in lm-eval: nothing was thought
        ("<think></think>\n7\n8", "7"),
        ("<think>\n\n</think>\n\n7", "7"),
        ("<think>5?</think>\n\n    return 7", "    return 7"),  # the indentation is the program's
        ("  \n    <think>5?</think> 7", "7"),
        ("The end mark `</think>` comes last: 7", "The end mark `</think>` comes last: 7"),
        ("re.sub('<think>.*</think>', '', x)", "re.sub('<think>.*</think>', '', x)"),
        ("<think>5?</think>Or 5. <think>No.\n</think>7\n", "7"),
        ("<think>5?</think>6\n<think>7", "6"),
        ("<think>5?</think>6 <think>7", ""),
        ("Let me see. <think>5?\n6?</think>7", "7"),
        ("5? 6?</think>7", "7"),
        ("The tag <think> opens a thought.\nNext", "The tag <think> opens a thought."),
        ("<thinking>a</think>b</thinking>7", "7"),
        ("", ""),
    ],
)
def test_what_is_left_as_the_answer(text, answer):
    assert Thinking().split(text, until=["\n"]).answer == answer


def test_end_of_text_ends_a_thought_too():
    found = Thinking().split("<think>5?<|end|>6?</think>7", ends=["<|end|>"])
    assert (found.thought, found.answer, found.is_open) == ("<think>5?", "", True)


def test_an_end_mark_that_is_given_must_come():
    """A model that was told to think by its end mark has no answer before it; its template may close the thought."""
    given = Thinking.read({"think_end_token": "</t>"})
    assert given.split("#### 7").is_open
    assert given.split("5?</t>\n7").answer == "7"
    assert given.split("7", prompt="<t>\n\n</t>\n\n").answer == "7"
    assert Thinking.read({"think_end_token": 5}, decode=lambda number: f"<{number}>").end == "<5>"
    assert Thinking.read({"think_end_token": False}).split("<think>5?</think>7").answer == "<think>5?</think>7"


@pytest.mark.parametrize(
    ("args", "template", "is_expected"),
    [({}, None, False), ({}, "{{ x }}", False), ({}, "<think>", True), ({"enable_thinking": True}, None, True)],
)
def test_who_is_expected_to_think(args, template, is_expected):
    assert Thinking.read(args, template=template).is_expected == is_expected


def test_a_thought_is_read_once():
    read = read_thought(Answer(response="<think>5?</think>7"), prompt="", thinking=Thinking(), n_tokens=len)
    assert (read.response, read.thought, read.n_thought_tokens) == ("7", "<think>5?</think>", 17)
    assert read_thought(read, prompt="", thinking=Thinking(end="x")) is read


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", " ", "7"]), max_size=8).map("".join))
def test_the_parts_are_the_text_up_to_the_stop_string(text):
    found = Thinking().split(text, until=["\n"])
    assert text.startswith(found.thought + found.answer)
    whole = Thinking().split(text)
    assert whole.thought + whole.answer == text
    assert not (whole.is_open and whole.answer)
    # Reading the parts again finds the same parts
    assert Thinking().split(found.thought + found.answer)[:2] == found[:2]


def test_a_mark_in_a_program_is_no_thought():
    program = "```python\n# no </think> tag\nx = re.sub(r'<think>.*?</think>', '', y)\n```"
    assert Thinking().split(program).answer == program
    assert Thinking().split(f"<think>Hm.</think>\n{program}").answer == program
    assert Thinking().split(program, may_begin_inside=True).answer == program
    # a thought that leaves a block open
    assert Thinking().split("Say ```x\n</think>\n7").answer == "7"
