r"""Places in a text where its tokens are always parted, whatever text is before and behind.

True of the pre-tokenizers of `prompts.CUTTING_PATTERNS` (Qwen2; cl100k and Llama 3): none of their words continues
from a newline to a non-space, from a letter or full stop to a space and a letter, or from a Chinese sign to a mark
behind it.
So the tokens up to such a place are known from another text that has the same characters there.
"""

import re

_CUT = re.compile(r"(?<=\n)(?=\S)|(?<=[A-Za-z.,])(?= [A-Za-z])|(?<=[\u4e00-\u9fa5])(?=[，。！？；：、])")  # noqa: RUF001


def first_cut(text: str) -> int | None:
    r"""Return the first such place within a text, in characters; None where there is none.

    >>> first_cut("So he\nleft at once"), first_cut("left")
    (2, None)
    """
    return match.start() if (match := _CUT.search(text, 1)) else None


def last_cut(text: str) -> int | None:
    """Return the last such place within a text.

    >>> last_cut("So he left at 9.")
    10
    """
    found = None
    for match in _CUT.finditer(text, 1):
        found = match.start()
    return found
