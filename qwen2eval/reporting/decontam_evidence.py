"""What `qwen2eval decontam show` makes of a scan's matches: text in two columns, a page, or JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from decontam.files import beside
from qwen2eval.errors import ConfigError
from qwen2eval.reporting.markup import visible
from qwen2eval.reporting.numbers import format_count

if TYPE_CHECKING:
    from decontam.evidence import Evidence, Segment

_TWO_COLUMNS = 100
"""Characters of a line, at least, for item and document side by side."""


def print_evidence(found: "Sequence[Evidence]", *, file: TextIO) -> None:
    """Print matches, in two columns where there is room; not on a terminal, ⟦what is marked⟧ is in brackets."""
    console = Console(file=file, highlight=False, emoji=False)
    for one in found:
        console.print(Text(visible(one.reference_id), style="bold"), soft_wrap=True)
        console.print(Text(visible(place(one)), style="dim"), soft_wrap=True)
        console.print(Text(", ".join(facts(one))))
        item, document = (_marked(side, console) for side in (one.reference, one.document))
        if console.width >= _TWO_COLUMNS:
            table = Table(box=None, pad_edge=False, expand=True)
            table.add_column("item", ratio=1)
            table.add_column("document", ratio=1)
            table.add_row(item, document)
            console.print(table)
        else:
            for name, text in (("item", item), ("document", document)):
                console.print(Text(name, style="dim"))
                console.print(text)
        console.print()


def write_evidence_html(path: Path, found: "Sequence[Evidence]") -> None:
    """Write matches as a page that needs no other file, whole or not at all.

    Raises:
        ConfigError: the file can't be written.
    """
    # jinja takes a moment to load, which only a page needs
    from qwen2eval.reporting.render import render_page

    matches = [{"match": one, "place": place(one), "facts": facts(one)} for one in found]
    (page,) = render_page(
        "decontam_evidence", formats=("html",), matches=matches, n_matches=_count(len(found), "match", "es")
    ).values()
    try:
        with beside(path) as scratch:
            scratch.write_text(page, encoding="utf-8", newline="\n")
    except OSError as err:
        raise ConfigError(f"Can't write {str(path)!r}: {err.strerror}: give --html another file") from err


def as_json(found: "Sequence[Evidence]") -> list[dict[str, Any]]:
    """Return matches as `--json` prints them; a piece of a text is [text, is_found]."""
    return [
        {
            "reference_id": one.reference_id,
            "place": place(one),
            "facts": facts(one),
            "reference": one.reference,
            "document": one.document,
        }
        for one in found
    ]


def place(one: "Evidence") -> str:
    """Return where a document is: file and record, from 0."""
    return f"{one.document_path}:{one.document_row}"


def facts(one: "Evidence") -> list[str]:
    """Return in a few words each what item and document have in common."""
    found = [f"{one.rule} rule", _count(one.n_shared_ngrams, "shared n-gram")]
    found.append(f"longest run {_count(one.longest_match, 'token')}")
    if one.lcs_length is not None:
        found.append(f"common subsequence {_count(one.lcs_length, 'token')}, {one.lcs_ratio or 0:.0%}")
    if one.min_df is not None:
        found.append(f"rarest n-gram in {_count(one.min_df, 'document')} of the corpus")
    if one.n_characters_cut:
        found.append(f"{_count(one.n_characters_cut, 'character')} more of it further on")
    return found


def _marked(segments: "Sequence[Segment]", console: Console) -> Text:
    """Return a text with what was found in another style; in brackets where styles do not show."""
    text = Text()
    for segment in segments:
        shown = visible(segment.text)
        if segment.is_found and not console.is_terminal:
            shown = f"⟦{shown}⟧"
        text.append(shown, style="bold reverse" if segment.is_found else "")
    return text


def _count(number: int, name: str, plural: str = "s") -> str:
    return f"{format_count(number)} {name}{'' if number == 1 else plural}"
