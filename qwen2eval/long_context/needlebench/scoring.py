"""NeedleBench's scorers, versions 1 and 2, in points (0-100) as published, and how its parts become one figure.

Paper: Li et al. 2024, arXiv 2407.11963. Formulae are those of open-compass/opencompass (Apache-2.0) at commit a5acc4bb.
Where we differ unless `faithful` is asked for: the overall weighs the three parts as documented (the original's table
prints multi-needle retrieval as single-needle retrieval, too); answers of version 2 are compared after both sides were
cleaned (the original cleans the prediction only, so O'Brien is never right); and a model that fails from the start has
traced nobody (the original: all).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

Part = Literal["single", "reasoning", "retrieval"]
PARTS: tuple[Part, ...] = ("single", "reasoning", "retrieval")
"""Single-needle retrieval, multi-needle reasoning, multi-needle retrieval."""
WEIGHTS: Mapping[int, Mapping[Part, float]] = {
    1: {"single": 0.4, "reasoning": 0.3, "retrieval": 0.3},
    2: {"single": 1 / 3, "reasoning": 1 / 3, "retrieval": 1 / 3},
}
"""By version of the benchmark."""
MISS_WEIGHT = 0.2
"""Version 1 gives up to this share of the points to an answer that only looks like the needle."""
PASSED = 60.0
"""Points under which version 1's ancestral trace challenge counts as failed."""
_BRACED = re.compile(r"\{(.*)\}", re.DOTALL)
_TEXT_COMMAND = re.compile(r"\\(?:text|boxed)\{([^{}]+)\}")


class Length(NamedTuple):
    """The points of one length of the ancestral trace challenge."""

    length: int
    """Version 1: people of the chain; version 2: sentences."""
    points: float


def single_retrieval_v1(response: str, *, needle: str, keyword: str) -> float:
    """Score a single-needle retrieval of version 1.

    Args:
        needle: the whole sentence that was hidden.
        keyword: what is asked for; matched exactly, case included.

    Returns:
        100 if the keyword is in the response; else up to 20 for likeness to the needle, white space left out.

    >>> single_retrieval_v1("a b", needle="a c", keyword="c")
    10.0
    """
    if keyword in response:
        return 100.0
    given, wanted = "".join(response.split()), "".join(needle.split())
    longer = max(len(given), len(wanted))
    likeness = 1 - Levenshtein.distance(given, wanted) / longer if longer else 1.0
    return MISS_WEIGHT * 100 * likeness


def keyword_found(response: str, keyword: str) -> float:
    """Return 100 if the response has the keyword, matched exactly, else 0: multi-needle retrieval, version 2's single.

    >>> keyword_found("It is the Ghost Pearl.", "Ghost Pearl"), keyword_found("ghost pearl", "Ghost Pearl")
    (100.0, 0.0)
    """
    return 100.0 if keyword in response else 0.0


def multi_retrieval(response: str, keywords: Sequence[str]) -> list[float]:
    """Score a multi-needle retrieval: 100 or 0 for each needle, in the order of their depths.

    >>> multi_retrieval("the Ghost Pearl", ["Stardust Shard", "Ghost Pearl"])
    [0.0, 100.0]
    """
    return [keyword_found(response, keyword) for keyword in keywords]


def reasoning_v1(response: str, *, answer: str) -> float | None:
    """Return the share of the answer's words that occur anywhere in the response, case folded; None without words.

    A Chinese answer has no spaces, so it is one word.

    >>> reasoning_v1("york", answer="New York")
    50.0
    """
    words = answer.lower().split()
    if not words:
        return None
    lowered = response.lower()
    return 100 * sum(word in lowered for word in words) / len(words)


def boxed_answer(response: str) -> str | None:
    r"""Return what the last `\boxed{…}` holds, one pair of doubled braces dropped; None where there is none.

    >>> boxed_answer(r"First \boxed{Ann}, no: \boxed{{\text{Bo}}}.")
    '\\text{Bo}'
    """
    # The last one: models that reason often box intermediate results
    start = response.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(response)):
        # Braces are counted, because an answer may contain braces itself, as in \text{…}
        depth += (response[end] == "{") - (response[end] == "}")
        if depth == 0:
            inside = response[start + len("\\boxed{") : end]
            doubled = _BRACED.fullmatch(inside)
            return doubled[1] if doubled else inside
    return None


def clean_answer(text: str) -> str:
    r"""Drop `\text`, backslashes and quotes, turn `~` into a space, and collapse spaces.

    >>> clean_answer(r" \text{Jo~ O'Brien}\\ ")
    'Jo OBrien'
    """
    text = _TEXT_COMMAND.sub(r"\1", text)
    text = re.sub(r"\\[\[\]]", "", text).replace("\\", "")
    return " ".join(text.translate(str.maketrans("~", " ", "\"'")).split())


def boxed_match(response: str, *, answer: str, faithful: bool = False) -> float:
    r"""Return 100 if the last boxed answer is the right one, else 0: version 2's reasoning and ancestral trace.

    >>> boxed_match(r"So it is \boxed{O'Brien}", answer="O'Brien"), boxed_match("O'Brien", answer="O'Brien")
    (100.0, 0.0)
    """
    boxed = boxed_answer(response)
    wanted = answer.strip() if faithful else clean_answer(answer)
    return 100.0 if boxed is not None and clean_answer(boxed) == wanted else 0.0


def overall(points: Mapping[Part, float], *, version: int, faithful: bool = False) -> float:
    """Combine the means of the three parts.

    Args:
        points: 0-100 each; all three.
        version: 1 or 2.
        faithful: as the original's table prints it, multi-needle retrieval in place of single-needle retrieval.

    >>> overall({"single": 100, "reasoning": 50, "retrieval": 0}, version=1)
    55.0
    """
    used = {**points, "single": points["retrieval"]} if faithful else points
    return sum(weight * used[part] for part, weight in WEIGHTS[version].items())


def overall_weights(*, version: int, faithful: bool = False) -> dict[Part, float]:
    """Return what `overall` multiplies each part with."""
    return {part: overall(_only(part), version=version, faithful=faithful) for part in PARTS}


def points_by_length(scored: Iterable[tuple[int, float]]) -> list[Length]:
    """Return the mean points of each length, ascending.

    >>> points_by_length([(4, 0.0), (2, 100.0), (2, 0.0)])
    [Length(length=2, points=50.0), Length(length=4, points=0.0)]
    """
    rows: dict[int, list[float]] = defaultdict(list)
    for length, points in scored:
        rows[length].append(points)
    return [Length(length, sum(rows[length]) / len(rows[length])) for length in sorted(rows)]


def traced_length(lengths: Sequence[Length], *, faithful: bool = False) -> float:
    """Return version 1's summary: the length before the one where the points last fall under 60; all if they never do.

    A model that is under 60 from the start has traced 0; `faithful`: all, as its points never fall.

    >>> traced_length([Length(2, 90.0), Length(3, 50.0), Length(4, 70.0), Length(5, 10.0)])
    4.0
    """
    if not faithful and all(row.points < PASSED for row in lengths):
        return 0.0
    falls = [before.length for before, after in pairwise(lengths) if before.points >= PASSED > after.points]
    return float(falls[-1] if falls else lengths[-1].length)


def effective_length(lengths: Sequence[Length], *, least_points: float = 50.0) -> float:
    """Return ENL-50 of the 2025 paper: the greatest length with at least 50 points; 0 where none has.

    >>> effective_length([Length(2, 90.0), Length(4, 40.0), Length(8, 50.0)])
    8.0
    """
    return float(max((row.length for row in lengths if row.points >= least_points), default=0))


def length_weighted(lengths: Sequence[Length]) -> float:
    """Return the mean of the points weighted by length, as in the 2025 paper.

    >>> length_weighted([Length(2, 100.0), Length(8, 0.0)])
    20.0
    """
    return sum(row.length * row.points for row in lengths) / sum(row.length for row in lengths)


def _only(part: Part) -> dict[Part, float]:
    return {other: float(other == part) for other in PARTS}
