"""What of a corpus a scan did not read, or not as it should, in words: for terminal and reports."""

from collections.abc import Mapping

_WORDS = {
    "unknown_format": ("file of a format that is not read", "files of formats that are not read"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "unreadable": ("file or folder that can't be read", "files, folders or parts of files that can't be read"),
    "truncated": ("file that is cut or damaged", "files that are cut or damaged"),
    "not_json_lines": ("file of JSON that is not JSON lines", "files of JSON that are not JSON lines"),
    "missing_column": ("file without the text's column", "files without the text's column"),
    "missing_field": ("record without text", "records without text"),
    "broken_json": ("line that is not JSON", "lines that are not JSON"),
    "line_too_long": ("line that is too long", "lines that are too long"),
    "invalid_utf8": (
        "record with invalid UTF-8, searched nevertheless",
        "records with invalid UTF-8, searched nevertheless",
    ),
}
"""By kind, in the order in which they are told: one, and many."""


def problem_words(problems: Mapping[str, int]) -> str:
    """Return counts of problems as a list of words.

    >>> problem_words({"missing_field": 2, "unknown_format": 1})
    '1 file of a format that is not read, 2 records without text'
    """
    order = [*(kind for kind in _WORDS if kind in problems), *(kind for kind in problems if kind not in _WORDS)]
    return ", ".join(f"{problems[kind]:,} {_word(kind, problems[kind])}" for kind in order)


def _word(kind: str, count: int) -> str:
    one, many = _WORDS.get(kind, (kind.replace("_", " "),) * 2)  # a scan of another version may know others
    return one if count == 1 else many
