r"""What NeedleBench's prompts say around the context; the words are in `tasks/needlebench/prompts.yaml`.

Version 1 has a role, the document and the question, in this order or with the question first; version 2 puts the
document between tags, and asks for the answer of its kinship questions in `\boxed{}`.
"""

import re
from collections.abc import Sequence
from functools import cache
from string import Template
from typing import Any, Literal, NamedTuple

from qwen2eval.content import content_dir
from qwen2eval.errors import DataFileError
from qwen2eval.long_context.needlebench.data import Language, Needle
from qwen2eval.long_context.needlebench.kinship import Kinship

Question = Literal["eldest", "ancestor", "descendant", "distance"]
QUESTIONS: tuple[Question, ...] = ("eldest", "ancestor", "descendant", "distance")
"""What version 2's ancestral trace challenge asks for: the eldest ancestor, the n-th of the youngest, …"""

Position = Literal["end", "start"]
"""Of the question in a prompt of version 1."""
_FORMAT = re.compile(r"(?:Please answer in the format|请按照)[^']*'")
_BLANK = re.compile(r"_{2,}|…|\.{3}")


class Frame(NamedTuple):
    """The parts of a prompt around its context."""

    before: str
    after: str


def frame(
    question: str,
    *,
    version: int,
    language: Language,
    is_multiple: bool = False,
    notes: str = "",
    position: Position = "end",
) -> Frame:
    """Return a prompt's parts.

    Args:
        is_multiple: the question is several in one.
        notes: follow the question, after a blank line.
        position: where the question is; at the start in version 1 only.
    """
    name = f"v{version}" + ("_retrieval" if is_multiple else "") + ("_start" if position == "start" else "")
    before, after = (
        Template(part).substitute(question=question) for part in prompts()["frames"][name][language].split("$context")
    )
    return Frame(before, after + (f"\n{notes}\n\n" if notes else ""))


def left_open(around: Frame) -> Frame:
    """Return the parts of a prompt for a base model: without what follows the first blank of its format of answer.

    The model continues where the answer belongs. Without a blank only the closing quote is left out, and a question
    without a format stays as it is.

    >>> left_open(Frame("", "Who? Please answer in the format 'It is ____.'")).after
    "Who? Please answer in the format 'It is"
    """
    if (mark := _FORMAT.search(around.after)) is None:
        return around
    blank = _BLANK.search(around.after, mark.end())
    end = blank.start() if blank else around.after.rfind("'")
    return Frame(around.before, around.after[:end].rstrip())


def guided(question: str, *, language: Language) -> str:
    """Return a question of version 1 with the advice to think first, put before its format of answer or at its end.

    >>> guided("Who? Please answer in the format 'It is X.'", language="English")[:22]
    'Who? Before answering,'
    """
    texts = prompts()
    head, mark, tail = question.partition(texts["format_mark"][language])
    space = " " if mark and language == "English" else ""
    return f"{head}{texts['guide'][language]}{space}{mark}{tail}"


def joined_question(needles: Sequence[Needle], *, language: Language) -> str:
    """Return one question about all needles, in their order, with one format of answer.

    Raises:
        DataFileError: a needle's question has no format of answer in single quotes.
    """
    texts = prompts()
    mark, stop = texts["question_mark"][language], texts["full_stop"][language]
    questions, formats = [], []
    for needle in needles:
        quoted = needle.question.split("'")
        if len(quoted) < 2:
            raise DataFileError(
                f"needles.jsonl: the question {needle.question!r} has no answer format in single quotes"
            )
        questions.append(needle.question.split(mark)[0] + mark)
        formats.append(quoted[1].split(stop)[0])
    return "、".join(questions) + Template(texts["all_formats"][language]).substitute(formats="、".join(formats))


def eldest_in_document(youngest: str, *, language: Language) -> str:
    """Return the question of version 2's multi-needle reasoning."""
    return Template(prompts()["eldest_in_document"][language]).substitute(youngest=youngest)


def eldest_in_story(youngest: str, *, language: Language) -> str:
    """Return the question of version 1's ancestral trace challenge."""
    return Template(prompts()["eldest_in_story"][language]).substitute(youngest=youngest)


def plain_examples(language: Language) -> str:
    """Return the worked examples of version 1's ancestral trace challenge."""
    return str(prompts()["examples"]["plain"][language])


def boxed_notes(question: Question, kinship: Kinship, *, language: Language) -> tuple[str, str]:
    r"""Return version 2's worked examples, and its notes with the request to put the answer in `\boxed{}`."""
    texts = prompts()
    last = Template(texts["lasts"][question][language]).substitute(_words(kinship))
    return texts["examples"][question][language], Template(texts["notes"][language]).substitute(last=last)


def trace_prompt(question: Question, kinship: Kinship, *, language: Language) -> str:
    """Return a prompt of version 2's ancestral trace challenge."""
    texts = prompts()
    examples, notes = boxed_notes(question, kinship, language=language)
    return Template(texts["trace_frame"][language]).substitute(
        examples=examples,
        notes=notes,
        story="".join(kinship.sentences),
        question=Template(texts["trace_questions"][question][language]).substitute(_words(kinship)),
    )


@cache
def prompts() -> Any:
    """Return `tasks/needlebench/prompts.yaml`."""
    import yaml

    return yaml.safe_load((content_dir("tasks") / "needlebench" / "prompts.yaml").read_text(encoding="utf-8"))


def _words(kinship: Kinship) -> dict[str, str | int]:
    return {"eldest": kinship.eldest, "youngest": kinship.youngest, "n": kinship.n_generations}
