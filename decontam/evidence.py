"""A scan's matches side by side: the benchmark item, and the document in which it was found, alike parts marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pandas as pd

from decontam.errors import DecontamError
from decontam.json_edit import widened
from decontam.kernels.words import split
from decontam.normalize import fold
from decontam.part_result import EXCERPT_CHARACTERS
from decontam.results import Results, write_text

_MOST_CHARACTERS, _AROUND = 2_000, 200
"""Of an item; of an item before, and of a document behind what was found."""
_CUT = "…"
_PICTURES = {**{i: 0x2400 + i for i in range(32) if i not in (9, 10)}, 127: 0x2421}
_UNSEEN = (
    *range(0x80, 0xA0),  # controls of terminals
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # direction of text
    *(0x2028, 0x2029, 0xFEFF, *range(0xE0000, 0xE0080)),  # line ends, and what shows nothing at all
)
_VISIBLE = _PICTURES | dict.fromkeys(_UNSEEN, 0xFFFD)
"""Control characters as pictures; what turns text around or hides in it as a mark that something was there."""


class Segment(NamedTuple):
    """A piece of a text."""

    text: str
    is_found: bool


@dataclass(frozen=True)
class Evidence:
    """One match, to be shown."""

    reference_id: str
    place: str
    """File and record, from 0."""
    facts: tuple[str, ...]
    reference: tuple[Segment, ...]
    document: tuple[Segment, ...]


def show_matches(
    results: Results,
    *,
    reference: str | None = None,
    document: str | None = None,
    min_df: int | None = None,
    limit: int | None = 20,
) -> list[Evidence]:
    """Return matches, those that have most in common first.

    Args:
        reference: id of an item, or the name of a benchmark; None: all.
        document: a path, or the end of one, with `:ROW` or without.
        min_df: only matches whose rarest n-gram is in at most so many documents; others are common phrases.
        limit: at most so many; None: all.

    Raises:
        DecontamError: an item or benchmark that the scan did not search for.
    """
    items = {str(item.id): item for item in results.references.itertuples()}
    if reference is not None and reference not in items and reference not in set(results.references.benchmark):
        raise DecontamError(f"{results.path} holds no item or benchmark {reference!r}")
    matches = results.matches
    if reference is not None:
        matches = matches[(matches.reference_id == reference) | (matches.benchmark == reference)]
    if document is not None:
        matches = matches[_is_at(matches, document)]
    if min_df is not None:
        matches = matches[~(matches.min_df > min_df)]  # of short items none is known: they stay
    order = ["longest_match", "document_path", "document_row", "reference_id"]
    rows = matches.sort_values(order, ascending=[False, True, True, True])[:limit].to_dict("records")
    return [_evidence(row, items[row["reference_id"]], results) for row in rows]


def print_evidence(found: Sequence[Evidence], *, file: TextIO) -> None:
    """Print matches, in two columns where there is room; not on a terminal, ⟦what is marked⟧ stands in brackets."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False, emoji=False)

    def marked(segments: Sequence[Segment]) -> Text:
        text = Text()
        for segment in segments:
            shown = segment.text.translate(_VISIBLE)
            if segment.is_found and not console.is_terminal:
                shown = f"⟦{shown}⟧"
            text.append(shown, style="bold reverse" if segment.is_found else "")
        return text

    for one in found:
        console.print(Text(one.reference_id.translate(_VISIBLE), style="bold"), soft_wrap=True)
        console.print(Text(one.place.translate(_VISIBLE), style="dim"), soft_wrap=True)
        console.print(Text(", ".join(one.facts)))
        if console.width >= 100:
            table = Table(box=None, pad_edge=False, expand=True)
            table.add_column("item", ratio=1)
            table.add_column("document", ratio=1)
            table.add_row(marked(one.reference), marked(one.document))
            console.print(table)
        else:
            for name, segments in (("item", one.reference), ("document", one.document)):
                console.print(Text(name, style="dim"))
                console.print(marked(segments))
        console.print()


def write_evidence_html(path: Path, found: Sequence[Evidence]) -> None:
    """Write matches as a page that needs no other file."""
    sections = "\n".join(_section(one) for one in found) or "<p>No matches.</p>"
    write_text(path, _PAGE.format(style=_STYLE, n_matches=_count(len(found), "match", "es"), sections=sections))


def _section(one: Evidence) -> str:
    def marked(segments: Sequence[Segment]) -> str:
        parts = ((escape(segment.text.translate(_VISIBLE)), segment.is_found) for segment in segments)
        return "".join(f"<mark>{text}</mark>" if is_found else text for text, is_found in parts)

    names = (one.reference_id, one.place, ", ".join(one.facts))
    title, place, facts = (escape(name.translate(_VISIBLE)) for name in names)
    texts = (("Item", one.reference), ("Document", one.document))
    # a line end behind <pre> is none, so one more
    columns = "".join(f'<div><h3>{name}</h3><pre tabindex="0">\n{marked(text)}</pre></div>' for name, text in texts)
    head = f'<h2>{title}</h2><p class="place">{place}</p><p>{facts}</p>'
    return f'<section>{head}<div class="pair">{columns}</div></section>'


def _evidence(row: Any, item: Any, results: Results) -> Evidence:
    facts = [f"{row['rule']} rule", _count(row["n_shared_ngrams"], "shared n-gram")]
    facts.append(f"longest run {_count(row['longest_match'], 'token')}")
    if row["lcs_length"] == row["lcs_length"]:
        facts.append(f"common subsequence {_count(row['lcs_length'], 'token')}, {row['lcs_ratio']:.0%}")
    if row["min_df"] == row["min_df"]:
        facts.append(f"rarest n-gram in {_count(row['min_df'], 'document')} of the corpus")
    shift, excerpt = int(row["excerpt_begin"]), row["excerpt"]
    spans = [(int(span["begin"]) - shift, int(span["end"]) - shift) for span in row["spans"]]
    stop = min(len(excerpt), max(end for _, end in spans) + _AROUND)
    if n_more := sum(max(0, end - max(begin, stop)) for begin, end in spans):
        facts.append(f"{_count(n_more, 'character')} more of it further on")
    text = f"{item.text}\n{item.answer}" if item.answer else item.text
    alike = _alike(text, [excerpt[begin:end] for begin, end in spans], rule=results.manifest["rule"])
    return Evidence(
        reference_id=str(row["reference_id"]),
        place=f"{row['document_path']}:{row['document_row']}",
        facts=tuple(facts),
        reference=_item_segments(text, alike),
        # an excerpt of full length is one that was cut
        document=_segments(excerpt, spans, 0, stop, cut=(shift > 0, stop < len(excerpt) or stop >= EXCERPT_CHARACTERS)),
    )


def _alike(text: str, found: Sequence[str], *, rule: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return where in an item n-grams stand that were found in the document."""
    fold_case = bool(rule["fold_case"])
    words, spans = _words(text, fold_case=fold_case)
    parts = [_words(part, fold_case=fold_case)[0] for part in found]
    # an item that is too short for an n-gram is found as a whole
    size = min(rule["ngram_size"], rule["ngram_size_cjk"] or rule["ngram_size"], max(map(len, parts), default=0))
    if not size:
        return []
    ngrams = {tuple(part[i : i + size]) for part in parts for i in range(len(part) - size + 1)}
    firsts = (i for i in range(len(words) - size + 1) if tuple(words[i : i + size]) in ngrams)
    return [(spans[i][0], spans[i + size - 1][1]) for i in firsts]


def _words(text: str, *, fold_case: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the words of a text, as hashes, and where they stand."""
    folded = fold(text, fold_case=fold_case)
    words = split(folded)
    begins, ends = folded.begins[words.begins].tolist(), folded.ends[words.ends - 1].tolist()
    return words.hashes.tolist(), list(zip(begins, ends, strict=True))


def _item_segments(text: str, alike: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Return an item, or as much as fits from what is alike on."""
    begin = 0
    if alike and alike[0][1] > _MOST_CHARACTERS:
        begin = alike[0][0] - _AROUND
    end = min(len(text), begin + _MOST_CHARACTERS)
    return _segments(text, alike, begin, end, cut=(begin > 0, end < len(text)))


def _segments(
    text: str, spans: Sequence[tuple[int, int]], start: int, stop: int, *, cut: tuple[bool, bool]
) -> tuple[Segment, ...]:
    """Return what stands from `start` to `stop`, with a sign where more comes before or behind."""
    inside = [(max(begin, start), min(end, stop)) for begin, end in spans]
    found, done = [Segment(_CUT if cut[0] else "", is_found=False)], start
    for begin, end in widened([(begin, end) for begin, end in inside if begin < end], 0, stop):
        found += [Segment(text[done:begin], is_found=False), Segment(text[begin:end], is_found=True)]
        done = end
    found += [Segment(text[done:stop], is_found=False), Segment(_CUT if cut[1] else "", is_found=False)]
    return tuple(segment for segment in found if segment.text)


def _is_at(matches: pd.DataFrame, document: str) -> "pd.Series[bool]":
    """Return which matches are in a document: a path, or its last names, with `:ROW` or without."""

    def has_path(path: str) -> "pd.Series[bool]":
        return (matches.document_path == path) | matches.document_path.str.endswith(f"/{path}")

    path, colon, number = document.rpartition(":")
    if colon and number.isdecimal():
        return has_path(path) & (matches.document_row == int(number))
    return has_path(document)


def _count(number: float, name: str, plural: str = "s") -> str:
    return f"{int(number):,} {name}{'' if number == 1 else plural}"


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #5b6476; --line: #d8dce4; --paper: #fff; --mark: #ffe08a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa3b5; --line: #343b49; --paper: #14171d; --mark: #6b5510; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1200px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 0; } h3 { font-size: .8rem; color: var(--soft); margin: 0; }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
p { margin: .2rem 0; } .place { color: var(--soft); overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1rem; margin-top: .6rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; margin: .2rem 0;
  max-height: 24rem; overflow: auto; }
mark { background: var(--mark); color: inherit; border-radius: 2px; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Benchmark items in a corpus</title><style>{style}</style></head>
<body><h1>Benchmark items in a corpus</h1><p>{n_matches}; what item and document share is marked.</p>
{sections}
</body></html>
"""
