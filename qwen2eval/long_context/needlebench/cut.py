"""A prompt of NeedleBench as a cut of its haystack with needles in it: its text, and its tokens without the text.

Where the tokenizer parts words by a known pattern, only the text around needles and ends is tokenized: the tokens of
the haystack between `safe_cuts` are known. A prompt of 128K tokens is counted in a fraction of a millisecond.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qwen2eval.long_context import safe_cuts
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench.stack import Stack


class Cut(NamedTuple):
    """The beginning of a haystack, and what is put into it."""

    end: int
    """Characters of the haystack."""
    inserts: Sequence[str]
    places: Sequence[int]
    """Where each insert goes, in characters of the haystack, ascending; none is behind `end`."""
    filler: str = ""
    """What follows the haystack."""

    def stops(self, after: str) -> Iterator[tuple[int, str]]:
        """Yield what interrupts the haystack and where, in order; last its end, with what comes `after` it."""
        for place, insert in zip(self.places, self.inserts, strict=True):
            yield min(place, self.end), insert
        yield self.end, self.filler + after


class Around(NamedTuple):
    """The text around a context in the final prompt."""

    before: str
    after: str
    n_added: int
    """Tokens that belong to no text, such as BOS."""


def spelled(stack: Stack, before: str, after: str, cut: Cut) -> str:
    """Return the text of a cut with the text around it."""
    parts, done = [before], 0
    for place, insert in cut.stops(after):
        parts += [stack.between(done, place), insert]
        done = place
    return "".join(parts)


def frame_around(before: str, after: str, counter: PromptCounter) -> Around | None:
    """Return the text around a context in the final prompt; None where parts of it can't be counted by themselves.

    Args:
        before: what the user says before the context.
        after: and behind it.
    """
    parts = counter.around(before, after) if counter.has_safe_cuts else None
    if parts is None:
        return None
    bare = "".join(parts)
    return Around(*parts, counter.count_rendered(bare) - counter.count_alone(bare))


def count_tokens(stack: Stack, around: Around, cut: Cut, counter: PromptCounter) -> int:
    """Return the tokens of the final prompt."""
    n_tokens, done, text = around.n_added, 0, around.before
    after, rest = around.after, ""
    if first := safe_cuts.first_cut(after):
        # A long question is counted once
        after, rest = after[:first], after[first:]
    for place, insert in cut.stops(after):
        begin, end = stack.first_cut(done, place), stack.last_cut(done, place)
        if begin is None or end is None:
            text += stack.between(done, place)
        else:
            n_tokens += counter.count_alone(text + stack.between(done, begin))
            n_tokens += stack.token_at(end) - stack.token_at(begin)
            text = stack.between(end, place)
        text, done = text + insert, place
    return n_tokens + counter.count_alone(text) + counter.count_alone(rest)
