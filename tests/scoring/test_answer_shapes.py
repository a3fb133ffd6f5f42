"""Shapes of answers with programs in them, as chat models write them, and the verdict that each must get.

Right and wrong programs are put into shapes: a shape is right where a reader would run the right program. All run in
the sandbox, at once.
"""

import textwrap

import pytest
from markdown_it import MarkdownIt

from qwen2eval.sandbox import Check, Sandbox
from qwen2eval.scoring import programs
from qwen2eval.scoring.code_blocks import fenced_blocks

F = "```"
PROMPT = 'def add_all(xs):\n    """Return the sum of xs."""\n'
BODY = "    t = 0\n    for x in xs:\n        t += x\n    return t\n"
GOOD, WRONG = f"def add_all(xs):\n{BODY}", "def add_all(xs):\n    return 1\n"
REDUCE = "def add_all(xs):\n    return reduce(lambda a, b: a + b, xs, 0)\n"
IMPORT = "from functools import reduce\n"
HELPED = "def add_all(xs):\n    return total(xs, 0)\n"
HELPER = "def total(xs, start):\n    return sum(xs, start)\n"
STUB = f"{PROMPT}    pass\n"
TESTS = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
STDIN = "a, b = map(int, input().split())\nprint(a + b)\n"
METHOD = "class Solution:\n    def add(self, a: int, b: List[int]) -> List[int]:\n        return [a + x for x in b]\n"
STARTER = "class Solution:\n    def add(self, a: int, b: List[int]) -> List[int]:\n        "
CALL = "def check(candidate):\n    assert candidate(1, [2, 3]) == [3, 4]\n"


def block(code, language="python", fence=F):
    return f"{fence}{language}\n{code}{fence}\n"


def moved(text, by):
    return textwrap.indent(text, by)


def quoted(text):
    return "".join(f"> {line}\n" if line else ">\n" for line in text.splitlines())


def session(code, shown="[1]\n"):
    first, *rest = code.splitlines()
    return f">>> {first}\n" + "".join(f"... {line}\n" for line in rest) + f"...\n>>> add_all([1])\n{shown}"


FUNCTION = {
    # Fences
    "a block": block(GOOD),
    "no language": block(GOOD, ""),
    "python3": block(GOOD, "python3"),
    "capital letters": block(GOOD, "Python"),
    "a title": block(GOOD, 'py title="a.py"'),
    "braces": block(GOOD, "{.python}"),
    "tildes": block(GOOD, fence="~~~"),
    "five signs, a fence inside": block(f'{GOOD}\nX = """\n```\n"""\n', fence="`````"),
    "never closed": f"Here:\n{F}python\n{GOOD}",
    "Windows line ends": block(GOOD).replace("\n", "\r\n"),
    "fences within lines": f"The code: {F}python\n{GOOD}{F} Done.",
    "closed on the last line": f"{F}python\n{GOOD.rstrip()}{F}",
    "a docstring with a fence": block(
        f'def add_all(xs):\n    """\n    {F}\n    add_all([1])\n    {F}\n    """\n{BODY}'
    ),
    # Lists and quotations
    "a list": f"1. Write:\n\n{moved(block(GOOD), '   ')}",
    "a list of two digits": f"10. Write:\n\n{moved(block(GOOD), '    ')}",
    "a list in a list": f"- So:\n  - Write:\n\n{moved(block(GOOD), '      ')}",
    "behind the list's sign": f"- {moved(block(GOOD), '  ').lstrip()}",
    "a list whose block is at the margin": f"1. Write:\n\n   {F}python\n{GOOD}   {F}\n",
    "a quotation": quoted(block(GOOD)),
    "a quotation without spaces": quoted(block(GOOD)).replace("> ", ">"),
    "a list in a quotation": quoted(f"1. Write:\n\n{moved(block(GOOD), '   ')}"),
    # Several blocks
    "a command first": block("pip install numpy\n", "bash") + block(GOOD),
    "output after": block(GOOD) + "It prints:\n" + block("3\n", "text"),
    "output without a language": block(GOOD) + "It prints:\n" + block("3\n", ""),
    "the problem first": block(STUB) + "So:\n" + block(GOOD),
    "the problem last": block(GOOD) + "For this signature:\n" + block(f"{PROMPT}    ...\n"),
    "to be implemented": block(GOOD) + block("def add_all(xs):\n    raise NotImplementedError\n"),
    "a wrong draft": block(WRONG) + "No, this is wrong. Better:\n" + block(GOOD),
    "imports before": block(IMPORT) + "then\n" + block(REDUCE),
    "imports with a draft": block(IMPORT + WRONG) + "then\n" + block(REDUCE),
    "imports after": block(REDUCE) + "with\n" + block(IMPORT),
    "a helper before": block(HELPER) + block(HELPED),
    "a helper with an example": block(f"{HELPER}print(total([1], 2))\n1 / 0\n") + block(HELPED),
    "a helper's draft": block("def total(xs, start):\n    return 7\n") + block(HELPER) + block(HELPED),
    "tests of its own": block(GOOD) + "Test:\n" + block("assert add_all([2]) == 5\n"),
    "a use of it": block(GOOD) + block(">>> add_all([1, 2])\n3\n", "pycon"),
    "the second is cut off": block(GOOD) + f"Or shorter:\n{F}python\ndef add_all(xs):\n    return sum(",
    # No fence
    "prose before": f"Sure, here it is:\n\n{GOOD}",
    "prose around": f"Sure:\n\n{IMPORT}\n{REDUCE}\nIt's done.\nComplexity: O(n)",
    "bare": GOOD,
    "a constant first": "So:\n\nZERO = 0\ndef add_all(xs):\n    return sum(xs, ZERO)\n\nThat's it.",
    "indented by four": f"Sure:\n\n{moved(GOOD, '    ')}\nDone.",
    "only the output is in a fence": f"{GOOD}\nprints\n{block('3')}",
    # Not quite Python
    "a session": f"Try:\n{block(session(GOOD))}",
    "a session without a fence": f"Try:\n\n{session(GOOD)}",
    "no-break spaces": block(GOOD.replace("    ", "\u00a0" * 4)),
    "wide spaces": block(GOOD.replace("    ", "\u3000\u3000")),
    "signs of Chinese typing": block(GOOD.replace("(xs):", "（xs）：")),  # noqa: RUF001
    "a session's output below": block(f"{GOOD}\n>>> add_all([1])\n1\n"),
    "an invisible sign": block(f"\ufeff{GOOD}"),
    "tabs": block(GOOD.replace("    ", "\t")),
    "tabs beside spaces": block(GOOD.replace("        t", "\tt").replace("    for", "    for")),
    # What is run beside
    "asks when it is run": block(f"{GOOD}\nif __name__ == '__main__':\n    print(add_all([int(input())]))\n"),
    "asks when it is loaded": block(f"{GOOD}\nn = int(input())\nprint(add_all([n]))\n"),
    "from the future": block(f"from __future__ import annotations\n{GOOD}"),
    "several functions": block(f"{HELPER}\n{HELPED}\ndef more(x):\n    return x\n"),
    "a lambda": block("add_all = lambda xs: sum(xs)\n"),
    "async helper": block(f"async def other():\n    pass\n\n{GOOD}"),
    # Goes on with the prompt
    "the body": BODY,
    "the body with a variable of its name": BODY.replace("t =", "add_all =").replace("t +", "add_all +")[:-2]
    + "add_all",
    "the body in a block": block(BODY),
    "the body without its indentation": block(textwrap.dedent(BODY)),
    "the body, its first line at the margin": BODY.lstrip(),
    "the body, then prose": f"{BODY}{F}\n\nThis adds them.",
    # Thoughts
    "thoughts": f"<think>\n{block(WRONG)}no.\n</think>\n{block(GOOD)}",
    "thoughts whose beginning is in the prompt": f"{block(WRONG)}no.\n</think>\n\n{GOOD}",
}
NOT_PASSED = {
    "the wrong one is the last": (block(GOOD) + "Hm, no:\n" + block(WRONG), "failed"),
    "another name": (block(GOOD.replace("add_all", "sum_all")), "error"),
    "prose only": ("I can't do that.", "error"),
    "nothing": ("", "error"),
    "cut off": (f"{F}python\ndef add_all(xs):\n    return (", "error"),
    "a stub only": (block(STUB), "failed"),
    "in its thoughts only": (f"<think>{block(GOOD)}</think>No.", "error"),
}
CONTEST = {
    "a block": block(STDIN),
    "examples after": block(STDIN) + "Input:\n" + block("1 2\n", "") + "Output:\n" + block("3\n", ""),
    "a word after": block(STDIN) + "Output:\n" + block("Yes\n", ""),
    "a draft before": block(STDIN.replace("+ b", "- b")) + "No:\n" + block(STDIN),
    "no fence": f"Here it is:\n\n{STDIN}\nIt's done.",
    "main": block(f"def main():\n{moved(STDIN, '    ')}\nif __name__ == '__main__':\n    main()\n"),
    "a function, then its call": block(f"def solve():\n{moved(STDIN, '    ')}") + block("solve()\n"),
    "a helper after": block(STDIN.replace("a + b", "plus(a, b)")) + block("def plus(a, b):\n    return a + b\n"),
    "tests after": block(STDIN) + block("assert 1 + 2 == 3\n"),
    "thoughts": f"<think>{block('print(5)')}</think>{block(STDIN)}",
    "a list": f"1. Write:\n\n{moved(block(STDIN), '   ')}",
}
METHODS = {
    "a class": block(METHOD),
    "a use of it": block(METHOD) + "Use:\n" + block("print(Solution().add(1, [2]))\n"),
    "a function": block("def add(a, b):\n    return [a + x for x in b]\n"),
    "a method without its class": block("def add(self, a, b):\n    return [a + x for x in b]\n"),
    "the starter code first": block(f"{STARTER}pass\n") + block(METHOD),
    "goes on with the starter code": "return [a + x for x in b]",
    "no fence": f"Sure:\n\n{METHOD}\nThat's all.",
}
COMPLETED = {
    "the body": (BODY, "passed"),
    "the signature again": (f"{GOOD}", "passed"),
    "a block": (f"Sure:\n{block(GOOD)}", "passed"),
    "thoughts": (f"<think>Hm.</think>{BODY}", "passed"),
    # As published
    "not Python": (f"{BODY}{F}\n\nThis adds them.", "error"),
}


@pytest.fixture(scope="module")
def verdict_of():
    """Return a function: (filter, answer) -> verdict; all programs run at once."""
    doc = {"entry_point": "add_all", "prompt": PROMPT}
    method = {"func_name": "add", "starter_code": STARTER}
    checks = {}

    def program(name, answer, of_doc):
        return getattr(programs, name)([[answer]], [of_doc])[0][0]

    for name, answers in {
        "extract": [*FUNCTION.values(), *(answer for answer, _ in NOT_PASSED.values())],
        "extract_function": [answer for key, answer in FUNCTION.items() if not key.startswith("the body")],
        "complete": [answer for answer, _ in COMPLETED.values()],
        "as_is": [GOOD, block(GOOD), f"Sure.\n{block(GOOD)}", "Sure."],
    }.items():
        for answer in answers:
            checks[name, answer] = Check(program(name, answer, doc), entry_point="add_all", tests=TESTS, setup=PROMPT)
    for answer in CONTEST.values():
        source = program("extract_contest", answer, {})
        checks["extract_contest", answer] = Check(source, stdin="1 2\n", expected_stdout="3\n")
    for answer in METHODS.values():
        source = program("extract_contest", answer, method)
        entry_point = "Solution.add" if "class Solution" in source else "add"
        checks["extract_contest", answer] = Check(source, entry_point=entry_point, tests=CALL)
    with Sandbox() as sandbox:
        found = dict(zip(checks, sandbox.check_many(checks.values()), strict=True))
    return lambda name, answer: (found[name, answer].verdict, found[name, answer].detail)


def expect(verdict_of, name, shapes):
    """Compare all shapes of a table together, so that one message shows all that are wrong."""
    found = {key: (*verdict_of(name, answer), wanted) for key, (answer, wanted) in shapes.items()}
    assert {key: row for key, row in found.items() if row[0] != row[2]} == {}


def test_the_function_is_found_in_a_chat_models_answer(verdict_of):
    assert len(FUNCTION) >= 60
    expect(verdict_of, "extract", {key: (answer, "passed") for key, answer in FUNCTION.items()})
    found = {key: (answer, "passed") for key, answer in FUNCTION.items() if not key.startswith("the body")}
    expect(verdict_of, "extract_function", found)


def test_nothing_is_made_of_an_answer_that_is_wrong(verdict_of):
    expect(verdict_of, "extract", NOT_PASSED)


def test_contest_programs_are_found(verdict_of):
    expect(verdict_of, "extract_contest", {key: (answer, "passed") for key, answer in CONTEST.items()})
    expect(verdict_of, "extract_contest", {key: (answer, "passed") for key, answer in METHODS.items()})


def test_completions_stay_as_they_are_unless_they_are_a_chat_models(verdict_of):
    expect(verdict_of, "complete", COMPLETED)
    as_is = {"bare": (GOOD, "passed"), "a block": (block(GOOD), "passed"), "prose": ("Sure.", "error")}
    expect(verdict_of, "as_is", as_is)


@pytest.mark.parametrize("answer", ["<think>Hm, I", "<think>\n```python\ndef add_all(xs): return sum(xs)\n```"])
@pytest.mark.parametrize("name", ["extract", "extract_function", "extract_contest", "complete", "as_is"])
def test_an_answer_that_ends_within_its_thoughts_has_no_program(name, answer):
    doc = {"entry_point": "add_all", "prompt": PROMPT}
    assert getattr(programs, name)([[answer]], [doc]) == getattr(programs, name)([[""]], [doc])


# To CommonMark the first is no block, and `<think>` is HTML
OUTSIDE_COMMONMARK = ("a list whose block is at the margin", "thoughts")


@pytest.mark.parametrize("key", [key for key in FUNCTION if key not in OUTSIDE_COMMONMARK])
def test_blocks_are_those_of_commonmark(key):
    answer = FUNCTION[key].replace("\r\n", "\n")
    tokens = [token for token in MarkdownIt("commonmark").parse(answer) if token.type == "fence"]
    # A block that is cut off ends with the text, whose last line may have no end
    assert [block.code.rstrip("\n") for block in fenced_blocks(answer)] == [
        token.content.rstrip("\n") for token in tokens
    ]


@pytest.mark.parametrize("text", ["(" * 100_000, "-" * 100_000 + "1", "\0", "x = " + "9" * 10_000, "if x:\n" * 3_000])
def test_hostile_answers_are_read_without_harm(text):
    doc = {"entry_point": "add_all", "prompt": PROMPT}
    found = programs.extract([[f"{F}python\n{text}\n{F}"], [text]], [doc, doc])
    assert all(isinstance(program, str) for of_doc in found for program in of_doc)
