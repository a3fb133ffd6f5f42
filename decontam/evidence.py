"""A scan's matches side by side: the benchmark item, and the document in which it was found, alike parts marked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from decontam.errors import DecontamError
from decontam.kernels.words import split
from decontam.normalize import fold
from decontam.results import Results, write_text

_RUN = 4
"""Words in a row that are marked in the item."""
_MOST_CHARACTERS = 2_000
_PICTURES = {**{i: 0x2400 + i for i in range(32) if i not in (9, 10)}, 127: 0x2421}
_UNSEEN = dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], 0xFFFD)
_VISIBLE = _PICTURES | _UNSEEN
"""Control characters as pictures; what turns the direction of text as a mark that something was there."""


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
    rows = [
        row
        for row in results.matches.to_dict("records")
        if reference in (None, row["reference_id"], row["benchmark"])
        and (document is None or _is_at(row, document))
        and (min_df is None or not row["min_df"] > min_df)
    ]
    rows.sort(key=lambda row: (-row["longest_match"], row["document_path"], row["document_row"], row["reference_id"]))
    return [_evidence(row, items[row["reference_id"]], results) for row in rows[:limit]]


def print_evidence(found: Sequence[Evidence], *, file: TextIO) -> None:
    """Print matches, in two columns where the terminal is wide enough."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False, emoji=False)

    def marked(segments: Sequence[Segment]) -> Text:
        text = Text()
        for segment in segments:
            text.append(segment.text.translate(_VISIBLE), style="bold reverse" if segment.is_found else "")
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
    write_text(path, _PAGE.format(style=_STYLE, n_matches=len(found), sections=sections))


def _section(one: Evidence) -> str:
    def marked(segments: Sequence[Segment]) -> str:
        parts = ((escape(segment.text.translate(_VISIBLE)), segment.is_found) for segment in segments)
        return "".join(f"<mark>{text}</mark>" if is_found else text for text, is_found in parts)

    names = (one.reference_id, one.place, ", ".join(one.facts))
    title, place, facts = (escape(name.translate(_VISIBLE)) for name in names)
    columns = f"<div><h3>Item</h3><pre>{marked(one.reference)}</pre></div>"
    columns += f"<div><h3>Document</h3><pre>{marked(one.document)}</pre></div>"
    head = f'<h2>{title}</h2><p class="place">{place}</p><p>{facts}</p>'
    return f'<section>{head}<div class="pair">{columns}</div></section>'


def _evidence(row: Any, item: Any, results: Results) -> Evidence:
    facts = [f"{row['rule']} rule", f"{row['n_shared_ngrams']:,} shared n-grams"]
    facts.append(f"longest run {row['longest_match']:,} tokens")
    if row["lcs_length"] == row["lcs_length"]:
        facts.append(f"common subsequence {int(row['lcs_length']):,} tokens, {row['lcs_ratio']:.0%}")
    if row["min_df"] == row["min_df"]:
        facts.append(f"rarest n-gram in {int(row['min_df']):,} documents of the corpus")
    shift, excerpt = int(row["excerpt_begin"]), row["excerpt"]
    spans = [(int(span["begin"]) - shift, int(span["end"]) - shift) for span in row["spans"]]
    text = f"{item.text}\n{item.answer}" if item.answer else item.text
    fold_case = bool(results.manifest["rule"]["fold_case"])
    alike = _alike(text, [excerpt[begin:end] for begin, end in spans], fold_case=fold_case)
    return Evidence(
        reference_id=str(row["reference_id"]),
        place=f"{row['document_path']}:{row['document_row']}",
        facts=tuple(facts),
        reference=tuple(_segments(text[:_MOST_CHARACTERS], alike)),
        document=tuple(_segments(excerpt, spans)),
    )


def _alike(text: str, found: Sequence[str], *, fold_case: bool) -> list[tuple[int, int]]:
    """Return where in an item runs of words stand that were found in the document."""
    words, spans = _words(text, fold_case=fold_case)
    alike: list[tuple[int, int]] = []
    for part in found:
        matcher = SequenceMatcher(None, words, _words(part, fold_case=fold_case)[0], autojunk=False)
        blocks = (block for block in matcher.get_matching_blocks() if block.size >= _RUN)
        alike += [(spans[block.a][0], spans[block.a + block.size - 1][1]) for block in blocks]
    return sorted(alike)


def _words(text: str, *, fold_case: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the words of a text, as hashes, and where they stand."""
    folded = fold(text, fold_case=fold_case)
    words = split(folded)
    begins, ends = folded.begins[words.begins].tolist(), folded.ends[words.ends - 1].tolist()
    return words.hashes.tolist(), list(zip(begins, ends, strict=True))


def _segments(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[Segment]:
    done = 0
    for first, stop in spans:
        begin, end = max(first, done), min(stop, len(text))
        if begin < end:
            if done < begin:
                yield Segment(text[done:begin], is_found=False)
            yield Segment(text[begin:end], is_found=True)
            done = end
    if done < len(text):
        yield Segment(text[done:], is_found=False)


def _is_at(row: Any, document: str) -> bool:
    path, colon, number = document.rpartition(":")
    if colon and number.isdigit():
        return bool(row["document_row"] == int(number)) and str(row["document_path"]).endswith(path)
    return str(row["document_path"]).endswith(document)


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
<body><h1>Benchmark items in a corpus</h1><p>{n_matches} matches; what item and document share is marked.</p>
{sections}
</body></html>
"""
