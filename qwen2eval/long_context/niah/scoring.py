"""Was the needle found? By its keywords, or by a judge as in the original test.

The keyword rule agrees with the original's judge (a score of 7 or more) on all 35 recorded answers of Claude 2.1 at
200,000 tokens. The judge is that of gkamradt/LLMTest_NeedleInAHaystack (commit 7b90d285): LangChain's labelled criteria
with one criterion, accuracy, in five steps. Its prompt is said anew here: it rates alike, not to the word. It has a
known fault: right answers with a word more than the needle may get 1 (issue 39 there).
"""

import re
from collections.abc import Sequence

from qwen2eval.errors import DataFileError
from qwen2eval.thoughts import Thinking

JUDGE_SCORES = (1, 3, 5, 7, 10)
"""What the judge may say: unrelated, minor relevance, moderate but inaccurate, minor omissions, accurate."""
JUDGE_FOUND = 7
"""From this score on the needle counts as found."""
JUDGE_PROMPT = (
    "You are a fair judge of answers. Rate how accurate the answer to a question is, by this scale only:\n"
    "1: it has nothing to do with the reference.\n"
    "3: it has a little to do with the reference, but does not match it.\n"
    "5: it matches the reference in part, and is wrong in part.\n"
    "7: it matches the reference, and leaves out something minor.\n"
    "10: it matches the reference wholly.\n\n"
    "[Question]\n{question}\n\n[Reference]\n{needle}\n\n[Answer]\n{answer}\n\n"
    'Explain in a sentence, then end with the rating in double brackets, as in "Rating: [[5]]".'
)
"""What the judge is asked: the original's steps and order, in our own words."""
_RATING = re.compile(r"\[\[(\d+)\]\]")


def has_keywords(response: str, keywords: Sequence[str]) -> bool:
    r"""Tell whether all keywords are in an answer, whatever their case and white space.

    Raises:
        DataFileError: there are no keywords, so nothing could be found.

    >>> has_keywords("Sit in  Dolores\nPark!", ["dolores park"]), has_keywords("A park.", ["dolores park"])
    (True, False)
    """
    wanted = [folded for keyword in keywords if (folded := _folded(keyword))]
    if not wanted:
        raise DataFileError("A needle has no keywords: its answers can't be scored")
    answer = _folded(response)
    return all(keyword in answer for keyword in wanted)


def judge_prompt(question: str, answer: str, needle: str) -> str:
    """Return what the judge is asked about one answer; `needle` is the reference.

    >>> judge_prompt("Where?", "There. {needle}", "It is there.").count("It is there.")  # an answer is only text
    1
    """
    return JUDGE_PROMPT.format(question=question.strip(), answer=answer.strip(), needle=needle.strip())


def parse_judgement(verdict: str) -> int | None:
    """Return the judge's score; None where it gave none of the scale: the answer is then not scored.

    The last rating counts, after the thoughts of a judge that thinks; a number by itself is taken
    as well.

    >>> parse_judgement("Close. Rating: [[7]]"), parse_judgement("10"), parse_judgement("I can't say")
    (7, 10, None)
    """
    said = Thinking().split(verdict).answer.strip()
    found = _RATING.findall(said) or ([said] if said.isdecimal() else [])
    score = int(found[-1]) if found else None
    return score if score in JUDGE_SCORES else None


def is_found(judge_score: int | None) -> bool | None:
    """Tell whether a judge's score says that the needle was found; None: it said nothing.

    >>> is_found(10), is_found(3), is_found(None)
    (True, False, None)
    """
    return None if judge_score is None else judge_score >= JUDGE_FOUND


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
