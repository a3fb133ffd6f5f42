"""Fenced code blocks in a model's answer: CommonMark's (section 4.5), read as models write them.

A block may stand in a list or a quotation; its lines lose the fence's indentation. Two things are taken that CommonMark
does not take: a fence that is indented by four spaces or more, and lines of a list's block that are not indented.
"""

import re
from typing import NamedTuple

_LIST_OR_QUOTE = r"(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])(?=[ \t>`~]))*"
_FENCE = re.compile(rf"^(?P<prefix>{_LIST_OR_QUOTE}[ \t]*)(?P<sign>`{{3,}}|~{{3,}})[ \t]*(?P<info>.*)$")
_QUOTE = re.compile(r"^ {0,3}>[ \t]?")
_LANGUAGE = re.compile(r"\{?\.?([\w+#-]*)")
# Only from the begin of a row of signs: a row of thousands would be tried from each of them
_LOOSE = re.compile(r"(?<![`~])(?P<sign>`{3,}|~{3,})(?P<info>[^\n`~]*)\n(?P<code>.*?)(?:(?P=sign)|\Z)", re.DOTALL)
_CLOSING_INDENT = 3


class Block(NamedTuple):
    """One fenced block."""

    language: str
    """The first word behind the fence, in lower case; empty where there is none."""
    code: str
    """Its lines, each with its end; of a block that has no end, as of an answer that was cut off, as they are."""


def fenced_blocks(text: str) -> list[Block]:
    r"""Return the blocks of a text with line ends `\n`, in order.

    A block ends with a line of as many of the same sign and nothing else, with its quotation, or with the text.

    >>> fenced_blocks("1. Do:\n\n   ```sh\n   ls\n     -l\n   ```\n")
    [Block(language='sh', code='ls\n  -l\n')]
    """
    blocks: list[Block] = []
    opening: _Opening | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        if opening is None:
            opening, lines = _opening(line), []
            continue
        inside = opening.inside(line)
        if inside is None or opening.is_closed_by(inside):
            blocks.append(Block(opening.language, "".join(f"{one}\n" for one in opening.without_indent(lines))))
            opening, lines = _opening(line) if inside is None else None, []
        else:
            lines.append(inside)
    # Cut off
    if opening is not None:
        blocks.append(Block(opening.language, "\n".join(opening.without_indent(lines))))
    return blocks


def loose_blocks(text: str) -> list[Block]:
    r"""Return what stands between fences that are not alone on their lines, as some models write them.

    >>> loose_blocks("Use this: ```python\nx = 1```.")
    [Block(language='python', code='x = 1')]
    """
    return [Block(_language(found["info"]), found["code"]) for found in _LOOSE.finditer(text)]


class _Opening(NamedTuple):
    sign: str
    language: str
    n_quotes: int
    """Signs of quotation before the fence."""
    indent: int
    """Columns before the fence, behind those."""

    def inside(self, line: str) -> str | None:
        """Return a line without its signs of quotation; None where it has too few: it is outside."""
        for _ in range(self.n_quotes):
            found = _QUOTE.match(line)
            if found is None:
                return None
            line = line[found.end() :]
        return line

    def is_closed_by(self, line: str) -> bool:
        marks = line.strip()
        return (
            marks.startswith(self.sign)
            and not marks.strip(self.sign[0])
            and _indent(line) <= self.indent + _CLOSING_INDENT
        )

    def without_indent(self, lines: list[str]) -> list[str]:
        """Return the block's lines without the fence's indentation, where they have it."""
        if not self.indent:
            return lines
        # A block that does not keep to its list's indentation begins at the margin
        first = next((line for line in lines if line.strip()), "")
        n_columns = min(self.indent, _indent(first))
        return [_shifted(line, n_columns) for line in lines]


def _opening(line: str) -> _Opening | None:
    found = _FENCE.match(line)
    if found is None or (found["sign"][0] == "`" and "`" in found["info"]):
        return None
    quotes, behind = found["prefix"].count(">"), found["prefix"].rpartition(">")[2]
    # The space behind a sign of quotation belongs to it
    indent = len(behind.expandtabs(4)) - (1 if quotes and behind[:1] in (" ", "\t") else 0)
    return _Opening(found["sign"], _language(found["info"]), quotes, indent)


def _language(info: str) -> str:
    found = _LANGUAGE.match(info.strip())
    return found[1].lower() if found else ""


def _indent(line: str) -> int:
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _shifted(line: str, n_columns: int) -> str:
    """Return a line without up to so many columns of white space at its beginning."""
    if line.startswith(" " * n_columns):
        return line[n_columns:]
    body = line.lstrip(" \t")
    return " " * max(_indent(line) - n_columns, 0) + body
