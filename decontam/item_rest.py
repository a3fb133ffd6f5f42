r"""What stands of an item beside the n-grams that were found: its first and last words, its choices, its answer key.

An n-gram is shared up to the first changed token, so of `Q?\nA. red\nB. blue\nAnswer: B` often only `Q?` was found. Cut
out alone, it would leave the choices and the answer in the text.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from decontam.json_edit import Span
from decontam.kernels.words import split
from decontam.resolved import fold_resolved

_MOST_GAP = 6
"""Words between two words of the item that are none of its own."""
_SURE_RUN = 3
"""Words in a row that are the item's, whatever is between."""
_LABELS = frozenset(
    {
        *("question", "q", "problem", "choices", "choice", "options", "option"),
        *("answers", "answer", "ans", "solution", "response", "output", "assistant", "user", "human", "gpt"),
    }
)
"""Words that stand between the pieces of an item, as a single letter or digit does."""
_FILLERS = frozenset({"the", "is", "correct", "right", "final", "key"})
"""Words that stand beside those."""
_JOINED = 60
"""Characters between two n-grams of one item that are taken with them: changed words."""
_ANSWER = (
    r"(?:the\ )?(?:(?:final\ |correct\ |right\ )?(?:answer|ans|solution|key)"
    r"|答案|正确答案|回答|答え|답|antwort|réponse|respuesta|risposta|ответ)(?:\ is|\ key|は|是)?"
)
_BETWEEN = (
    r"(?:[^\w<\\&]|</?[a-z][^<>]{0,80}>"
    r"|\\(?:[nrt]|u003c/?[a-z][^<>&\\]{0,80}\\+u003e)?"
    r"|&(?:(?:amp;)*(?:nbsp;|quot;|\#160;|lt;/?[a-z][^<>&]{0,80}&(?:amp;)*gt;))?)"
)
"""A sign or a tag. Each text can be read in one way only, so that many signs take no time."""
_KEY = re.compile(
    rf"""
    {_BETWEEN}{{0,40}}?                           # what ends the item
    (?:
        {_ANSWER}\ *[:\uff1a=]?{_BETWEEN}{{0,6}}?(?:option\ |choice\ )?
        (?:[A-J]\b|[-+]?\d[\d.,]*\b)               # a letter or a number
        [\])*.]{{0,4}}
      | (?<=\n)[(\[*]{{0,3}}[A-J][)\]*.:]{{0,4}}[ \t]*(?=\n|$)     # a letter alone in its line
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BEFORE_ANSWER = re.compile(rf"{_BETWEEN}{{0,40}}?{_ANSWER}\ *[:\uff1a=]?", re.IGNORECASE)
_LABEL = re.compile(r"\s*[(\[*]{0,3}([A-J])[)\].:*]{1,4}[^\S\n]", re.IGNORECASE)
_CHOICE_LABEL = re.compile(rf"[^\w\n]*\n{_LABEL.pattern}", re.IGNORECASE)
_CHOICE = re.compile(rf"{_CHOICE_LABEL.pattern}[^\n]*", re.IGNORECASE)


class _Words(NamedTuple):
    """The words of a text, in order or backwards."""

    hashes: Sequence[int]
    begins: Sequence[int]
    ends: Sequence[int]
    texts: Sequence[str]
    """In lower case."""
    stops: frozenset[int]
    """One past the last word of each line."""

    def backwards(self) -> "_Words":
        """Return the words in the other direction, with stops where lines begin."""
        stops = frozenset(len(self.hashes) - stop for stop in (0, *self.stops))
        return _Words(self.hashes[::-1], self.begins[::-1], self.ends[::-1], self.texts[::-1], stops)

    def part(self, begin: int, end: int) -> "_Words":
        """Return some of the words, without stops."""
        own = slice(begin, end)
        return _Words(self.hashes[own], self.begins[own], self.ends[own], self.texts[own], frozenset())


def with_rest_of_item(text: str, spans: Sequence[Span], item: str, *, markup: bool = False) -> list[Span]:
    r"""Return spans that also take what stands of the item before, between and behind them.

    Args:
        text: of the document.
        spans: where the item's n-grams are in it, in characters, ascending.
        item: its question and its answer or choices.
        markup: whether markup is no text, as the rule of the scan says.

    >>> text = "So: what is the colour of tar in the sun?\nA. red\nB. black\nAnswer: B\nNext."
    >>> item = "What is the colour of tar in the sun?\nred\nblack"
    >>> [text[begin:end] for begin, end in with_rest_of_item(text, [(4, 40)], item)]
    ['what is the colour of tar in the sun?\nA. red\nB. black\nAnswer: B']
    """
    wanted, room = _words(item, markup=markup), 2 * len(item) + 200
    return _joined([_one_with_rest(text, span, wanted, room, markup=markup) for span in _joined(spans)])


def _one_with_rest(text: str, span: Span, item: _Words, room: int, *, markup: bool) -> Span:
    """Return one span with the rest of its item, which is looked for in so many characters on both sides."""
    first = max(0, span[0] - room)
    words = _words(text[first : span[1] + room], markup=markup)
    inside = [i for i, begin in enumerate(words.begins) if span[0] <= first + begin < span[1]]
    if not inside:
        return span
    begin, end = inside[0], inside[-1] + 1
    n_before = _n_more(words.part(0, end).backwards(), end - begin, item.backwards())
    n_behind = _n_more(words.part(begin, len(words.hashes)), end - begin, item)
    start = first + words.begins[begin - n_before] if n_before else span[0]
    stop = first + words.ends[end - 1 + n_behind] if n_behind else span[1]
    return start, _behind_choices_and_key(text, stop, item, room, markup=markup)


def _words(text: str, *, markup: bool) -> _Words:
    folded = fold_resolved(text, fold_case=True, markup=markup)
    words = split(folded)
    begins, ends = folded.begins[words.begins].tolist(), folded.ends[words.ends - 1].tolist()
    texts = [text[begin:end].lower() for begin, end in zip(begins, ends, strict=True)]
    between = zip(ends, [*begins[1:], len(text)], strict=True)
    stops = frozenset(i + 1 for i, (end, begin) in enumerate(between) if "\n" in text[end:begin])
    return _Words(words.hashes.tolist(), begins, ends, texts, stops | {len(texts)})


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1] + _JOINED:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def _n_more(words: _Words, n_found: int, item: _Words) -> int:
    """Return how many words behind those that were found go on with the item.

    Args:
        words: of the document, from the first that was found on.
        n_found: how many of them were found.
    """
    places: dict[int, list[int]] = {}
    for place, word in enumerate(item.hashes):
        places.setdefault(word, []).append(place)
    expected = _end_in_item(words.hashes[:n_found], item.hashes, places)
    rest, at = set(range(expected, len(item.hashes))), n_found
    while rest:
        for gap in range(min(_MOST_GAP, len(words.hashes) - at - 1) + 1):
            size, start = _longest_run(words.hashes, at + gap, item.hashes, rest, places)
            between = words.texts[at : at + gap]
            has_marks = any(map(_is_mark, between)) and all(_is_mark(one) or one in _FILLERS for one in between)
            goes_on = not gap and start == expected and (size > 1 or start + size in item.stops)
            if size >= _SURE_RUN or (size and (has_marks or goes_on)):
                rest -= set(range(start, start + size))
                at, expected = at + gap + size, start + size
                break
        else:
            break
    return at - n_found


def _is_mark(word: str) -> bool:
    return len(word) == 1 or word in _LABELS


def _longest_run(
    words: Sequence[int], at: int, item: Sequence[int], rest: set[int], places: Mapping[int, Sequence[int]]
) -> tuple[int, int]:
    """Return the size and the begin of the longest run of the item's rest that goes on at a word."""
    best = 0, -1
    for start in places.get(words[at], ()) if at < len(words) else ():
        size = 0
        while at + size < len(words) and start + size in rest and item[start + size] == words[at + size]:
            size += 1
        best = max(best, (size, start), key=itemgetter(0))
    return best


def _end_in_item(found: Sequence[int], item: Sequence[int], places: Mapping[int, Sequence[int]]) -> int:
    """Return where in the item what was found ends: one past the word that fits best."""
    best = 0, 0
    for last in places.get(found[-1], ()):
        size = 0
        while size < min(last + 1, len(found)) and item[last - size] == found[-1 - size]:
            size += 1
        best = max(best, (size, last + 1), key=itemgetter(0))
    return best[1]


def _behind_choices_and_key(text: str, end: int, item: _Words, room: int, *, markup: bool) -> int:
    """Return where lines of choices end that stand directly behind, and the answer: its letter, number or words."""
    letters = [label[1].upper()] if (label := _LABEL.match(text, text.rfind("\n", 0, end) + 1, end)) else []
    # the words of a choice may have been changed
    at = max(end, text.find("\n", end)) if letters else end
    while (choice := _CHOICE.match(text, at)) and (not letters or ord(choice[1].upper()) == ord(letters[-1]) + 1):
        letters.append(choice[1].upper())
        at = choice.end()
    end = at if len(letters) > 1 else end
    # one alone may begin any sentence
    for before in (_CHOICE_LABEL.match(text, end), _BEFORE_ANSWER.match(text, end), _KEY.match(text, end)):
        if before and (behind := _behind_line(text[before.end() : before.end() + room], item, markup=markup)):
            return before.end() + behind
    key = _KEY.match(text, end)
    return key.end() if key else end


def _behind_line(text: str, item: _Words, *, markup: bool) -> int:
    """Return where the longest line of the item ends with which a text begins; 0: with none."""
    words = _words(text, markup=markup)
    lines = pairwise(sorted({0, *item.stops}))
    sizes = [stop - begin for begin, stop in lines if words.hashes[: stop - begin] == item.hashes[begin:stop]]
    return words.ends[max(sizes) - 1] if sizes else 0
