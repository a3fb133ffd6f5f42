"""Filters that make whole programs of a model's answers, for the tasks of `tasks.code`."""

import re
from collections.abc import Callable, Sequence

from qwen2eval.requests import Doc

Docs = Sequence[Doc]
Responses = Sequence[Sequence[str]]
"""For each request the responses of its repeats."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*(\w*)[^`\n]*$")
_PYTHON = ("", "python", "python3", "py", "py3", "python2", "ipython", "python3k")
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
CONTEST_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
CONTEST_IMPORTS = (
    "".join(f"from {name} import *; " for name in (*CONTEST_MODULES, "typing", "builtins"))
    + f"import {', '.join(CONTEST_MODULES)}; sys.setrecursionlimit(50000)\n"
)
"""What contest solutions use without importing it; contest sites have it ready."""


def complete(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return programs of which the prompt is the beginning: a base model continues with the function's body."""
    return _each(responses, docs, lambda text, doc: doc["prompt"] + text)


def as_is(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the answers: they are programs already."""
    return _each(responses, docs, lambda text, _doc: text)


def extract(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the programs of a chat model's answers: the first fenced block that defines the function, else all of it.

    A block with the function's body only is put behind the prompt.
    """
    return _each(responses, docs, _extracted)


def extract_function(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the first fenced block that defines the doc's function, else the first block, else the whole answer.

    For docs whose prompt is not the beginning of a program.
    """
    return _each(responses, docs, lambda text, doc: _block_with(text, doc)[0])


def extract_contest(responses: Responses, docs: Docs) -> list[list[str]]:
    """Return the last fenced block of each answer, else all of it, with the imports of contest sites.

    A block that has no end, as of an answer that was cut off, is taken as it is.
    """
    return _each(responses, docs, lambda text, _doc: with_imports((code_blocks(text) or [text])[-1]))


def code_blocks(text: str) -> list[str]:
    r"""Return the fenced blocks of an answer; those in another language than Python only if there are no Python ones.

    A block ends with a line of as many of the same sign and nothing else (CommonMark, fenced code blocks), or with the
    text.

    >>> code_blocks("```bash\npip install x\n```\nThen:\n```python3\nprint(1)\n```\nDone.")
    ['print(1)\n']
    """
    blocks: list[tuple[str, str]] = []
    fence, language, lines = "", "", list[str]()
    for line in text.replace("\r\n", "\n").split("\n"):
        found = _FENCE.match(line)
        if not fence and found:
            fence, language, lines = found[1], found[2].lower(), []
        elif fence and found and found[1].startswith(fence) and not line.strip(" \t`~"):
            blocks.append((language, "".join(f"{one}\n" for one in lines)))
            fence = ""
        elif fence:
            lines.append(line)
    # Cut off
    if fence:
        blocks.append((language, "\n".join(lines)))
    return [code for language, code in blocks if language in _PYTHON] or [code for _, code in blocks]


def with_imports(program: str) -> str:
    r"""Put the imports that contest sites have ready before a program, but behind its `from __future__`.

    >>> with_imports("print(gcd(4, 6))").endswith("(50000)\nprint(gcd(4, 6))")
    True
    """
    future = _FUTURE.findall(program)
    return "".join(f"{line}\n" for line in future) + CONTEST_IMPORTS + _FUTURE.sub("", program)


def _each(responses: Responses, docs: Docs, make: Callable[[str, Doc], str]) -> list[list[str]]:
    return [[make(text, doc) for text in of_doc] for of_doc, doc in zip(responses, docs, strict=True)]


def _extracted(text: str, doc: Doc) -> str:
    block, defines_it = _block_with(text, doc)
    if defines_it:
        # what the prompt imports and defines, the answer may use
        return f"{doc['prompt']}    pass\n\n{block}"
    return str(doc["prompt"]) + block


def _block_with(text: str, doc: Doc) -> tuple[str, bool]:
    """Return the block of an answer that defines the doc's function, or else the first, and whether it does."""
    blocks = code_blocks(text) or [text]
    defines = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(doc['entry_point'])}\b", re.MULTILINE)
    block = next((block for block in blocks if defines.search(block)), None)
    return (blocks[0], False) if block is None else (block, True)
