r"""Answers that say the target in other words and score 0: the extraction, not the model, may be wrong.

What an answer says is looked for in its end only: after the last "answer is", "Answer:", "####" or `\boxed{`, else in
its last line, so that a target that a model considers and drops does not count. Chat models often say a letter, a
number, yes or no at once, and explain it then: where there is no such cue, the first line's beginning counts for these.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from qwen2eval.results.sample import DocSample, TaskSamples
from qwen2eval.tasks.metric_spec import MetricSpec, as_number

_CUE = re.compile(
    r"####|\\boxed\s*\{|(?:\b(?:answer|antwort|réponse|respuesta|risposta|resposta)\b|答案|答え|정답|ответ)"
    r"(?:\s+(?:is|ist|est|es|è|é)\b|是|は|은|为)?\s*[:\uff1a]?",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?<![A-Za-z0-9_'])([A-Z])(?![A-Za-z0-9_'])")
# An article or a pronoun begins a sentence: a small word follows it
_ARTICLE = re.compile(r"(?<![A-Za-z0-9_(\[{*])[AI] (?=[a-z])")
# A letter that stands alone or before its choice, and "the correct option is B"
_FIRST_LETTER = re.compile(r"(?=\(?[A-Z]\b|\([a-z]\))\(?(?P<letter>[A-Za-z])(?:\)|\s*[.:,;–—-](?!\w)|\s*$)")
_OPTION = re.compile(r".{0,40}?\b(?i:option|choice)\s+is\W+(?P<letter>[A-Z])\b")
_NOT_DENIED = r"(?<!not )(?<!n't )(?<!never )"
# What follows a "no" that is the answer, and not that of "no idea"
_GOES_ON = r"(?=\W*$|[.,;:!]|\s+(?:it|he|she|this|that|these|the|there|they|we|you|because|since|as)\b)"
_YES_NO = frozenset({"yes", "no", "true", "false"})
_NUMBER = re.compile(r"(?<![\w./])[-−]?\d+(?:[,   ]\d{3})*(?:\.\d+)?(?!\w)")
_MARKS = re.compile(r"[*_`$]+|\\(?:text|mathrm|mathbf)\s*\{")


def suspicious_docs(samples: TaskSamples) -> Mapping[str, list[DocSample]]:
    """Return by filter the docs that score 0 although the answer seems to say the target.

    Returns:
        Nothing for tasks that don't generate, whose answers are programs, or whose target is no answer.
    """
    task = samples.plan.task
    if task.output_type != "generate_until" or not task.target_is_answer or task.programs is not None:
        return {}
    specs = task.metrics()
    return {
        name: [doc for doc in docs if _scores_nothing(doc.metrics, specs) and _says_target(samples, doc)]
        for name, docs in samples.by_filter.items()
    }


def shown_response(doc: DocSample) -> str:
    """Return the end of a doc's answer, in one line."""
    return " ".join(_final_part(_response(doc)).split())[:60]


def says(response: str, target: str) -> bool:
    r"""Return whether an answer ends, or begins, with the target in other words.

    >>> [says(text, "B") for text in ("B. 4", "The answer is (B).", "\\boxed{B}", "A or B", "Bees")]
    [True, True, True, False, False]
    >>> says("So it costs $1,200.", "1200"), says("First 12, so 13", "12"), says("It is Paris, of course.", "paris")
    (True, False, True)
    >>> says("B) 2\n\nHope this helps!", "B"), says("No.\n\nBirds fly.", "no"), says("It is not Paris.", "Paris")
    (True, True, False)
    """
    wanted = _bare(_final_part(target)).strip(" .,;:()[]{}\"'")
    if not wanted:
        return False
    final = _final_part(response)
    at_once = final if _CUE.search(response) else response
    return _ends_with(_bare(final), wanted) or (_is_short(wanted) and _begins_with(at_once, wanted))


def _ends_with(said: str, wanted: str) -> bool:
    if _is_letter(wanted):
        return _letters(said, wanted) == {wanted} and re.search(rf"(?:\bnot|n't)\W+{wanted}\b", said) is None
    if (number := _as_number(wanted)) is not None:
        found = _NUMBER.findall(said)
        return bool(found) and _as_number(found[-1]) == number
    said, wanted = " ".join(said.casefold().split()), " ".join(wanted.casefold().split())
    if not wanted.isascii():  # many scripts have no blanks between words
        return wanted in said
    # "No" is a word of other answers, too
    if wanted in _YES_NO:
        return re.search(rf"^\W*{wanted}{_GOES_ON}|{_NOT_DENIED}(?<![a-z0-9]){wanted}\W*$", said) is not None
    after = r"(?![a-z0-9]| is (?:false|not|wrong)\b| isn't\b)"
    return re.search(rf"{_NOT_DENIED}(?<![a-z0-9]){re.escape(wanted)}{after}", said) is not None


def _begins_with(response: str, wanted: str) -> bool:
    """Return whether the first line says a short target at once, and an explanation follows."""
    first = next((line for line in response.splitlines() if line.strip()), "")
    said = _bare(first).strip()
    if _is_letter(wanted):
        found = _FIRST_LETTER.match(said) or _OPTION.match(said)
        return found is not None and found["letter"].upper() == wanted and _letters(said, wanted) <= {wanted}
    if (number := _as_number(wanted)) is not None:
        alone = re.match(rf"{_NUMBER.pattern}(?=\s*(?:$|[.,;:](?!\d)))", said)
        return alone is not None and _as_number(alone[0]) == number
    return re.match(rf"{wanted.casefold()}{_GOES_ON}", said.casefold()) is not None


def _is_letter(wanted: str) -> bool:
    return len(wanted) == 1 and wanted.isascii() and wanted.isupper()


def _is_short(wanted: str) -> bool:
    return _is_letter(wanted) or _as_number(wanted) is not None or wanted.casefold() in _YES_NO


def _letters(said: str, wanted: str) -> set[str]:
    return set(_LETTER.findall(_ARTICLE.sub("", said) if wanted in "AI" else said))


def _says_target(samples: TaskSamples, doc: DocSample) -> bool:
    response = _response(doc)
    targets = doc.target if isinstance(doc.target, list | tuple) else [doc.target]
    texts = [samples.plan.task.target_text(doc.doc, target) for target in islice(targets, 20)]
    return bool(response.strip()) and any(says(response, text) for text in texts if text)


def _response(doc: DocSample) -> str:
    """Return the first repeat's answer; of a conversation that to its last turn."""
    return (doc.answers[-1][0].response or "").rpartition("</think>")[2] if doc.answers else ""


def _scores_nothing(metrics: Mapping[str, Any] | None, specs: Mapping[str, MetricSpec]) -> bool:
    """Return whether all metrics of which more is better are 0, and there is one."""
    known = [(as_number(value), specs.get(name, MetricSpec())) for name, value in (metrics or {}).items()]
    scores = [value for value, spec in known if value is not None and spec.higher_is_better is not False]
    return bool(scores) and not any(scores)


def _final_part(text: str) -> str:
    cues = list(_CUE.finditer(text))
    if cues and text[cues[-1].end() :].strip():
        return text[cues[-1].end() :].strip().split("\n\n")[0]
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _bare(text: str) -> str:
    return _MARKS.sub(" ", text).replace("}", " ")


def _as_number(text: str) -> float | None:
    bare = re.sub(r"[,   ]", "", text.strip().rstrip(".")).replace("−", "-").removeprefix("$").removesuffix("%")
    return float(bare) if re.fullmatch(r"-?\d+(\.\d+)?", bare) else None
