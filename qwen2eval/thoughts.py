"""Thoughts of models that think before they answer: where they begin and end, and what is left as the answer.

A response is kept whole, as the model wrote it; `read_thought` takes the thought off when it is scored. While a thought
is open only the end of the text ends a generation: stop strings act on what follows it. Marks that are known without
being named: `<think>` and other tags whose name says so, and those of gpt-oss, Gemma, Mistral, Cohere, Kimi and others.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from qwen2eval.requests import Answer

_TAG = r"(?P<tag>[\w:]*(?:think|thought|reasoning)[\w:]*)"
_KNOWN = (
    (rf"<{_TAG}>", r"</\g<tag>>"),
    (r"\[THINK\]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    (r"<\|START_THINKING\|>", "<|END_THINKING|>"),
    (r"<\|begin_of_thought\|>", "<|end_of_thought|>"),
    (r"<\|inner_prefix\|>", "<|inner_suffix|>"),
    (r"<\|channel\|>(?:analysis|commentary)", "<|channel|>final<|message|>"),
    (r"<\|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
"""What opens a thought, as a pattern, and what closes it."""
_OPEN = re.compile("|".join(f"(?:{pattern})" for pattern, _ in _KNOWN), re.IGNORECASE)
_CLOSE = re.compile(
    r"</[\w:]*(?:think|thought|reasoning)[\w:]*>|" + "|".join(re.escape(close) for _, close in _KNOWN[1:]),
    re.IGNORECASE,
)


class Split(NamedTuple):
    """A response in two parts; together they are its text up to the stop string."""

    thought: str
    """With its marks and the white space after them; empty: there is none."""
    answer: str
    is_open: bool = False
    """Whether the text ends inside a thought: there is no answer."""
    is_stopped: bool = False
    """Whether a stop string ended the answer."""


@dataclass(frozen=True)
class Thinking:
    """How a model's thoughts are recognised."""

    end: str | None = None
    """`think_end_token`: everything up to it is thought, and without it there is no answer; None: known marks."""
    is_off: bool = False
    """Nothing is taken for a thought."""
    is_expected: bool = False
    """Whether it is known before any answer that the model may think."""

    @classmethod
    def read(
        cls,
        model_args: Mapping[str, Any],
        *,
        template: str | None = None,
        decode: Callable[[int], str] | None = None,
    ) -> "Thinking":
        """Return what a model's arguments and its chat template say.

        Args:
            model_args: `think_end_token`: a text, a token's id, or false to leave thoughts in the answer.
            template: the text of the chat template that is applied; None: none is.
            decode: returns the text of a token id.
        """
        end = model_args.get("think_end_token")
        if end is False:
            return cls(is_off=True)
        if isinstance(end, int) and decode is not None:
            end = decode(end)
        is_expected = (
            end is not None or bool(model_args.get("enable_thinking")) or bool(template and marks_in(template))
        )
        return cls(end=None if end is None else str(end), is_expected=is_expected)

    def is_inside(self, prompt: str) -> bool:
        """Whether an answer to `prompt` begins inside a thought, which the prompt or its template has opened."""
        return self._closing(prompt) is not None

    def split(
        self,
        text: str,
        *,
        prompt: str = "",
        until: Sequence[str] = (),
        ends: Sequence[str] = (),
        is_final: bool = True,
        may_begin_inside: bool = False,
    ) -> Split:
        r"""Return thought and answer of a response.

        Args:
            text: what the model wrote.
            prompt: before it.
            until: stop strings; the first one after the thought ends the answer.
            ends: texts that end the response also inside a thought, such as that of the EOS token.
            is_final: the response is complete; False: more may come, so a mark may yet be closed.
            may_begin_inside: the template is not known, and may open a thought: a lone end mark then ends one.

        >>> Thinking().split("<think>3?\n\nNo.</think>\n\n7\n\nNext", until=["\n\n"])
        Split(thought='<think>3?\n\nNo.</think>\n\n', answer='7', is_open=False, is_stopped=True)
        >>> Thinking().split("<think>It may be 7").is_open
        True
        """
        at = min((found for end in ends if end and (found := text.find(end)) >= 0), default=len(text))
        is_ended, text = at < len(text), text[:at]
        if self.is_off:
            cut = _first_stop(text, until, 0, 0)
            return Split("", text[:cut], is_stopped=is_ended or cut < len(text))
        closing = self._closing(prompt)
        if closing is None and self.end is None and may_begin_inside:
            closing = _lone_closing(text)
        return _scan(text, until, closing, self.end, is_ended=is_ended, is_final=is_final)

    def _closing(self, prompt: str) -> "re.Pattern[str] | None":
        """Return what closes the thought in which an answer begins; None: it begins outside."""
        if self.is_off:
            return None
        before = prompt[-200:].rstrip()
        if self.end is not None:
            # The template of a model that is told not to think closes the thought itself
            return None if before.endswith(self.end) else re.compile(re.escape(self.end))
        opened = [found for found in _OPEN.finditer(before) if found.end() == len(before)]
        return _closing_of(opened[0]) if opened else None


def marks_in(template: str) -> list[str]:
    """Return the marks of thoughts that a chat template's text holds.

    >>> marks_in("{% if thinks %}<think>{% endif %}")
    ['<think>']
    """
    return [found[0] for pattern in (_OPEN, _CLOSE) for found in pattern.finditer(template)]


def read_thought(
    answer: Answer, *, prompt: str, thinking: Thinking, n_tokens: Callable[[str], int] | None = None
) -> Answer:
    """Return a generated answer without its thought, which is beside it; one that is read already stays as it is.

    Args:
        prompt: that was answered.
        n_tokens: counts those of a text; None: no tokenizer is known.
    """
    if answer.response is None or answer.thought is not None:
        return answer
    found = thinking.split(answer.response, prompt=prompt)
    if not found.thought:
        return answer
    count = None if n_tokens is None else n_tokens(found.thought)
    return replace(
        answer,
        response=found.answer,
        thought=found.thought,
        is_thought_open=found.is_open,
        n_thought_tokens=count,
    )


def _scan(
    text: str,
    until: Sequence[str],
    closing: "re.Pattern[str] | None",
    end: str | None,
    *,
    is_ended: bool,
    is_final: bool,
) -> Split:
    """Read a response from left to right: thoughts, and the answer after the last one."""
    start = at = 0
    has_thought, ignored = False, -1
    if closing is None and (first := _OPEN.match(text, len(text) - len(text.lstrip()))) and end is None:
        closing = _closing_of(first)
    while True:
        if closing is not None:
            closed = closing.search(text, at)
            if closed is None:
                return Split(text, "", is_open=True)
            has_thought, closing = True, None
            start = at = _skip_space(text, closed.end())
        # A stop string of white space alone doesn't end what has not begun
        stop = _first_stop(text, until, _before_space(text, start) if has_thought else start, start)
        mark = _next_mark(text, max(at, ignored + 1), stop, end)
        if mark is None:
            return Split(text[:start], text[start:stop], is_stopped=is_ended or stop < len(text))
        if end is None and _is_quoted(text[start : mark.start()], text[mark.end() :]):
            ignored = mark.start()
            continue
        if _is_close(mark, end):
            # Whatever stands before a closing mark was thought
            has_thought = True
            start = at = _skip_space(text, mark.end())
            continue
        closing = _closing_of(mark)
        if closing.search(text, mark.end()) is None and is_final and not has_thought:
            # An answer about marks, not a thought
            closing, ignored = None, mark.start()
        at = mark.end()


def _lone_closing(text: str) -> "re.Pattern[str] | None":
    """Return what closes a thought that nothing in the text opens; None: there is no such mark."""
    mark = _next_mark(text, 0, len(text), None)
    is_close = mark is not None and _is_close(mark, None) and not _is_quoted(text[: mark.start()], text[mark.end() :])
    return _pattern(mark[0]) if mark is not None and is_close else None


def _next_mark(text: str, at: int, stop: int, end: str | None) -> "re.Match[str] | None":
    """Return the next mark before a stop string."""
    patterns = (re.compile(re.escape(end)),) if end is not None else (_OPEN, _CLOSE)
    found = [mark for pattern in patterns if (mark := pattern.search(text, at)) and mark.start() < stop]
    return min(found, key=lambda mark: mark.start(), default=None)


def _is_quoted(before: str, behind: str) -> bool:
    """Whether a mark between two texts is a part of them: quoted, or within a line of a code block."""
    line = before.rpartition("\n")[2]
    is_in_quotes = behind[:1] in ("`", "'", '"') and line.count(behind[:1]) % 2 == 1
    return line.endswith(("`", "'", '"')) or is_in_quotes or (before.count("```") % 2 == 1 and bool(line.strip()))


def _is_close(mark: "re.Match[str]", end: str | None) -> bool:
    return end is not None or _CLOSE.fullmatch(mark[0]) is not None


def _closing_of(opened: "re.Match[str]") -> "re.Pattern[str]":
    """Return what closes the thought that a mark opens."""
    for pattern, close in _KNOWN:
        if found := re.fullmatch(pattern, opened[0], re.IGNORECASE):
            return _pattern(f"</{found['tag']}>" if "tag" in found.groupdict() else close)
    raise AssertionError(f"{opened[0]!r} opens no thought")


def _pattern(mark: str) -> "re.Pattern[str]":
    return re.compile(re.escape(mark), re.IGNORECASE)


def _first_stop(text: str, until: Iterable[str], start: int, begins: int) -> int:
    """Return where the first stop string begins that ends after `begins`; the text's length if there is none."""
    places = [len(text)]
    for stop in until:
        at = text.find(stop, start) if stop else -1
        while at >= 0 and begins > start and at + len(stop) <= begins:
            at = text.find(stop, at + 1)
        if at >= 0:
            places.append(max(at, begins))
    return min(places)


def _skip_space(text: str, at: int) -> int:
    """Return where the text behind white space begins; a line's indentation is part of it, as of a function's body."""
    end = len(text) - len(text[at:].lstrip())
    line = text.rfind("\n", at, end) + 1
    return line if line and end - line > 1 and end < len(text) else end


def _before_space(text: str, at: int) -> int:
    return len(text[:at].rstrip())
