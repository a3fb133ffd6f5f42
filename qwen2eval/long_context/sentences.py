"""Where sentences end, in any script: the places where a needle may be put."""

import re

_PLAIN_ENDS = ".!?…"
"""End a sentence only where a space and no small letter follows."""
_SURE_ENDS = "。！？｡؟۔।॥։።‽"  # noqa: RUF001 - in any script
_CLOSERS = "\"'”’»)]」』）》】"  # noqa: RUF001 - in any script
_END = re.compile(
    rf"[{re.escape(_PLAIN_ENDS)}]+[{re.escape(_CLOSERS)}]*(?=\s)"
    rf"|[{re.escape(_SURE_ENDS)}][{re.escape(_SURE_ENDS + _PLAIN_ENDS)}]*[{re.escape(_CLOSERS)}]*"
    r"|(?=\n)|\Z"
)
_ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "st", "prof", "rev", "capt", "gen", "col", "jr", "sr", "no", "vol"}
)
_LAST_WORD = re.compile(r"(\w+)\.$")


def sentence_ends(text: str) -> list[int]:
    r"""Return the places between sentences, in characters, ascending: the begin, behind each sentence, and the end.

    A place is behind closing quotes and before the space that follows. The end of a line is one, too.

    >>> text = 'He said "No." Then Mr. Bo left! 她走了。又\n\nTo be'
    >>> [text[a:b] for a, b in zip(sentence_ends(text), sentence_ends(text)[1:])]
    ['He said "No."', ' Then Mr. Bo left!', ' 她走了。', '又', '\n\nTo be']
    """
    places = {0}
    for match in _END.finditer(text):
        if match.end() and not text[match.end() - 1].isspace() and _is_end(text, match):
            places.add(match.end())
    return sorted(places)


def _is_end(text: str, match: "re.Match[str]") -> bool:
    """Whether a mark ends a sentence: not in "Mr. Bo", "J. Bo" or "wait … and see"."""
    mark = match[0]
    if not mark or mark[0] not in _PLAIN_ENDS:
        return True
    rest = text[match.end() : match.end() + 4].lstrip(" \t\r")
    if rest[:1].islower():
        return False
    word = _LAST_WORD.search(text, max(0, match.start() - 12), match.start() + 1)
    is_initial = word is not None and len(word[1]) == 1 and word[1].isupper() and word[1] != "I"
    return mark != "." or word is None or not (is_initial or word[1].lower() in _ABBREVIATIONS)
