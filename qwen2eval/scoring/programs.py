"""Filters that make whole programs of a model's answers, for the tasks of `tasks.code`.

Thoughts are cut first. Of an answer's fenced blocks the last counts that defines the function and is no mere stub of
it; imports and helpers of other blocks go before it. An answer without such a block is searched for its longest part
that Python can read. What all filters leave alone is a program that stands in the answer as it should.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

from qwen2eval.requests import Doc
from qwen2eval.scoring.code_blocks import Block, fenced_blocks, loose_blocks
from qwen2eval.scoring.python_source import (
    definitions,
    does_something,
    longest_beginning,
    parse,
    python_parts,
    readable,
    reads_input,
    with_helpers,
    without_session,
)
from qwen2eval.thoughts import Thinking

Docs = Sequence[Doc]
Responses = Sequence[Sequence[str]]
"""For each request the responses of its repeats."""

_PYTHON = ("", "python", "python3", "py", "py3", "python2", "ipython", "ipython3", "python3k", "pypy", "pypy3")
_SESSIONS = ("pycon", "python-repl", "pyrepl")
_FUTURE = re.compile(r"^from __future__ import (?:\([^)]*\)|.*)$", re.MULTILINE)
CONTEST_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
CONTEST_IMPORTS = (
    "".join(f"from {name} import *; " for name in (*CONTEST_MODULES, "typing", "builtins"))
    + f"import {', '.join(CONTEST_MODULES)}; sys.setrecursionlimit(50000); sys.set_int_max_str_digits(50000)\n"
)
"""What contest solutions use without importing it, and the limits of LiveCodeBench's own runner."""


def complete(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return programs of which the prompt is the beginning: a base model continues with the function's body.

    An answer that is none, and has the function in a fenced block, is taken as a chat model's.
    """
    return _each(responses, docs, _completed)


def as_is(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the answers: they are programs already; of one that is not Python its fenced block with the function."""
    return _each(responses, docs, lambda text, doc: _if_python(text) or _in_fences(text, doc["entry_point"]) or text)


def extract(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the programs of a chat model's answers, behind what the prompt imports and defines.

    A block with the function's body only is put behind the prompt.
    """
    return _each(responses, docs, _extracted)


def extract_function(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the programs of a chat model's answers; for docs whose prompt is not the beginning of a program."""
    return _each(responses, docs, lambda text, doc: _function(text, doc["entry_point"]) or _rest(text, doc))


def extract_contest(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the program of each answer, with the imports of contest sites.

    It is the last block that defines the doc's `func_name`; of a doc without one, the last that reads input, else the
    last that does something.
    """
    return _each(responses, docs, lambda text, doc: with_imports(_contest(text, doc)))


def code_blocks(text: str) -> list[str]:
    r"""Return the fenced blocks of an answer; those in another language than Python only if there are no Python ones.

    >>> code_blocks("```bash\npip install x\n```\nThen:\n```python3\nprint(1)\n```\nDone.")
    ['print(1)\n']
    """
    return _python_first(fenced_blocks(_one_line_end(text)))


def with_imports(program: str) -> str:
    r"""Put the imports that contest sites have ready before a program, but behind its `from __future__`.

    >>> with_imports("print(gcd(4, 6))").endswith("(50000)\nprint(gcd(4, 6))")
    True
    """
    return _behind(CONTEST_IMPORTS, program)


def without_thoughts(text: str) -> str:
    """Return an answer without its thoughts; empty where it ended within them.

    >>> without_thoughts("<think>Hm.</think>x = 1"), without_thoughts("<think>Hm"), without_thoughts("x = 1")
    ('x = 1', '', 'x = 1')
    """
    found = Thinking().split(text)
    # The space behind a thought may be the indentation of a function's body
    return "" if found.is_open else text[len(found.thought.rstrip()) :]


def _each(responses: Responses, docs: Docs, make: Callable[[str, Doc], str]) -> list[list[str]]:
    return [
        [make(_one_line_end(without_thoughts(text)), doc) for text in of_doc]
        for of_doc, doc in zip(responses, docs, strict=True)
    ]


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _completed(text: str, doc: Doc) -> str:
    program = doc["prompt"] + text
    block = None if _if_python(program) else _in_fences(text, doc["entry_point"])
    return program if block is None else _behind_prompt(doc["prompt"], block)


def _extracted(text: str, doc: Doc) -> str:
    prompt, name = str(doc["prompt"]), doc["entry_point"]
    # Goes on with the prompt as it should
    if text.lstrip("\n")[:1].isspace() and _defines(prompt + text, name):
        return prompt + text
    found = _function(text, name)
    if found is not None:
        return _behind_prompt(prompt, found)
    return _continued(text, prompt, name) or _rest(text, doc)


def _function(text: str, name: str) -> str | None:
    """Return the program in an answer that defines a function; None: no part of it does."""
    found = _last(_candidates(text), lambda source: _defines(source, name))
    return None if found is None else without_session(found)


def _in_fences(text: str, name: str) -> str | None:
    stages = (_readable(fenced_blocks(text)), _readable(loose_blocks(text)))
    found = _last(iter(stages), lambda source: _defines(source, name))
    return None if found is None else without_session(found)


def _contest(text: str, doc: Doc) -> str:
    if name := doc.get("func_name"):
        return _method(text, name, str(doc.get("starter_code") or "")) or _rest(text, {"entry_point": name})
    tests: tuple[Callable[[str], bool], ...] = (_reads, _runs)
    found = (_last(_candidates(text), test) for test in tests)
    return next(filter(None, found), None) or (code_blocks(text) or [text])[-1]


def _method(text: str, name: str, starter: str) -> str | None:
    """Return a program with `Solution.name`, or the function by itself."""
    found = _last(_candidates(text), lambda source: _defines(source, f"Solution.{name}") or _defines(source, name))
    if found is None:
        return _continued(text, starter, f"Solution.{name}")
    # A method without its class
    if not _defines(found, f"Solution.{name}") and re.search(rf"^def {re.escape(name)}\(self\b", found, re.MULTILINE):
        found = f"{found}\n\nclass Solution:\n    {name} = {name}\n"
    return without_session(found)


def _candidates(text: str) -> Iterator[list[str]]:
    """Yield the sources that an answer may hold, the likeliest kind first."""
    yield _readable(fenced_blocks(text))
    yield _readable(loose_blocks(text))
    yield python_parts(text)
    yield python_parts(readable(text))


def _readable(blocks: Sequence[Block]) -> list[str]:
    """Return sources of blocks: Python's; what an interpreter printed before them, so that the last is none of it."""
    sessions = [readable(block.code) for block in blocks if block.language in _SESSIONS]
    return sessions + [readable(code) for code in _python_first([b for b in blocks if b.language not in _SESSIONS])]


def _python_first(blocks: Sequence[Block]) -> list[str]:
    return [code for language, code in blocks if language in _PYTHON] or [code for _, code in blocks]


def _last(kinds: Iterator[list[str]], is_wanted: Callable[[str], bool]) -> str | None:
    """Return the last source of the first kind that has a wanted one, with what it needs of the others."""
    for sources in kinds:
        wanted = [i for i, source in enumerate(sources) if is_wanted(source)]
        if wanted:
            return with_helpers(sources, wanted[-1])
    return None


def _defines(source: str, name: str) -> bool:
    tree = parse(source)
    return tree is not None and definitions(tree).get(name, False)


def _reads(source: str) -> bool:
    tree = parse(source)
    return tree is not None and does_something(tree) and reads_input(tree)


def _runs(source: str) -> bool:
    tree = parse(source)
    return tree is not None and does_something(tree)


def _if_python(text: str) -> str | None:
    return text if parse(text) is not None else None


def _continued(text: str, prompt: str, name: str) -> str | None:
    """Return prompt and answer as one program, where the answer, or a block of it, is a function's body."""
    sources = [block for blocks in (fenced_blocks(text), loose_blocks(text)) for block in _python_first(blocks)[::-1]]
    for source in [*sources, text]:
        plain = source.strip("\n")
        bodies = [plain]
        # What gives nothing back was not meant as a body
        if re.search(r"\b(?:return|yield)\b", plain):
            bodies += [f"    {plain}", *(textwrap.indent(plain, margin) for margin in ("    ", "        "))]
        made = (longest_beginning(f"{prompt.rstrip(' ')}{body}\n") for body in bodies)
        if whole := [program for program in made if program is not None and _defines(program, name)]:
            return max(whole, key=lambda program: program.count("\n"))
    return None


def _rest(text: str, doc: Doc) -> str:
    """Return what is taken of an answer without a program: the block that names the function, else the first."""
    blocks = code_blocks(text) or [text]
    named = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(doc['entry_point'])}\b", re.MULTILINE)
    return next((block for block in reversed(blocks) if named.search(block)), blocks[0])


def _behind_prompt(prompt: str, program: str) -> str:
    """Return a program behind what the prompt imports and defines."""
    ends = ("    pass\n\n", "\n    pass\n\n", "\n  pass\n\n", "\n\tpass\n\n", "\n")
    return _behind(next((prompt + end for end in ends if parse(prompt + end) is not None), ""), program)


def _behind(before: str, program: str) -> str:
    """Return a program behind another source; its `from __future__` has to come first."""
    future = _FUTURE.findall(program)
    return "".join(f"{line}\n" for line in future) + before + _FUTURE.sub("", program)
