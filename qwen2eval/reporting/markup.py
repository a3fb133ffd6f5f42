"""Text that a model or a data set wrote, made safe to show: in HTML, in GitHub-flavoured markdown, in a terminal.

Jinja has no autoescape for Markdown, so this module makes one: `Markdown` marks what is safe, and the renderer passes
everything else through `md_prose`. Backslashes alone don't do: GitHub turns addresses, @names, #numbers, commit hashes
and $…$ into links and formulas after the escapes are gone. Such words are set as code, where it leaves them alone.
"""

import re
import unicodedata
from collections.abc import Mapping

FORMATS = ("html", "md")
"""In which a report can be written."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LINE_ENDS = "\u2028\u2029\ufeff"
# Tags show nothing at all, so a text can hide another text in them.
_TAGS = "".join(map(chr, range(0xE0000, 0xE0080)))


def _shown_codes() -> dict[int, str]:
    """Return the characters that could steer a terminal or reorder a line, each with what is shown for it."""
    controls = {code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc"} - {ord("\n"), ord("\t")}
    return {code: f"⟨U+{code:04X}⟩" for code in controls.union(map(ord, _BIDI + _LINE_ENDS + _TAGS))}


_SHOWN_CODES = _shown_codes()


def visible(text: str) -> str:
    r"""Make control and direction characters visible, so that no text can steer what shows it.

    Line ends become "\n"; what UTF-8 can't hold becomes U+FFFD.

    >>> visible("a\x1b[31mb")
    'a⟨U+001B⟩[31mb'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", text).translate(_SHOWN_CODES)


def group_by_message(messages: Mapping[str, str]) -> list[tuple[list[str], str]]:
    """Return each message once, with the names that it applies to, in order.

    >>> group_by_message({"a": "no data", "b": "no room", "c": "no data"})
    [(['a', 'c'], 'no data'), (['b'], 'no room')]
    """
    names = dict[str, list[str]]()
    for name, message in messages.items():
        names.setdefault(message, []).append(name)
    return [(same, message) for message, same in names.items()]


def clip(text: str, *, limit: int) -> str:
    """Cut the middle out of a text longer than `limit` characters, and say how much is missing.

    The end gets two thirds of the room: a few-shot prompt asks its question there.
    """
    if len(text) <= limit:
        return text
    n_head = limit // 3
    n_tail = limit - n_head
    return f"{text[:n_head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-n_tail:]}"


def fold_name(name: str, width: int) -> str:
    """Break a long name into lines after its own separators: rich would break it anywhere."""
    lines = [""]
    for piece in re.findall(r"[^_\-/.]*[_\-/.]?", visible(name)):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


class Markdown(str):
    """Text that is markdown already and must not be escaped again."""

    __slots__ = ()


# What GitHub and other readers make into a link, a mention, a formula or an emoji, anywhere in prose.
_TAKEN_FOR_A_LINK = re.compile(
    r"@\w|[$`\\_]|://|www\.|\w\w\.[a-z]{2}|#\d|\bgh-\d|\b[0-9a-f]{7}|:[\w+-]+:|^(?:javascript|data|mailto|xmpp):",
    re.IGNORECASE,
)
_ESCAPES = str.maketrans(
    {"*": r"\*", "[": r"\[", "]": r"\]", "~": r"\~", "<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}
)
# At the start of a line these open a heading or a list, or underline a heading or a table.
_BLOCK_START = re.compile(r"^(\d{0,9})([#+=:.)-])(?=[#+=:\s-]|$)")


def md_prose(text: str) -> Markdown:
    """Write text as one line of inert markdown prose, also fit for a table cell.

    >>> md_prose("see https://a.b/c, a|b and <b>")
    'see `https://a.b/c`, a&#124;b and &lt;b&gt;'
    """
    line = " ".join(_md_word(word) for word in visible(text).split())
    return Markdown(_BLOCK_START.sub(r"\1\\\2", line))


def _md_word(word: str) -> str:
    if not _TAKEN_FOR_A_LINK.search(word):
        return word.translate(_ESCAPES)
    core = word.lstrip("(\"'").rstrip(".,;:!?)\"'")
    head, _, tail = word.partition(core) if core else ("", "", "")
    return f"{head}{md_code(core or word)}{tail}"


def md_code(text: str) -> Markdown:
    """Write text as inline code on one line, also fit for a table cell.

    A pipe would end the cell in some readers even when escaped, so it is set between two pieces of code.

    >>> md_code("exact_match"), md_code("a|b")
    ('`exact_match`', '`a`&#124;`b`')
    """
    line = " ".join(visible(text).split())
    return Markdown("&#124;".join(_code_span(part) for part in line.split("|")) or "—")


def _code_span(part: str) -> str:
    if not part.strip():
        return part
    fence = "`" * (_longest_run(part) + 1)
    # A reader takes one space off each end where both have one
    pad = " " if "`" in (part[0], part[-1]) or part[0] == part[-1] == " " else ""
    return f"{fence}{pad}{part}{pad}{fence}"


def md_block(text: str) -> Markdown:
    """Write text as a fenced code block that no content can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{fence}text\n{visible(text)}\n{fence}")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
