"""What a filter acts on, and what it reports: options, documents with their spans, counts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from decontam.errors import DecontamError
from decontam.item_rest import with_rest_of_item
from decontam.json_edit import Span, widened
from decontam.results import Results
from decontam.rule import RuleName
from decontam.walk import Unread

Action = Literal["drop", "cut", "mask"]


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """What is done to which documents."""

    action: Action = "drop"
    rule: Literal["qwen2", "strict"] = "qwen2"
    """strict: an n-gram is enough."""
    include_whole: bool = False
    """Also documents in which an item too short for an n-gram occurs in full."""
    min_df: int | None = None
    """Only matches whose rarest n-gram is in at most so many documents: others are common phrases. None: all."""
    margin: int = 0
    """Characters that are cut or masked on each side of what was found."""
    mask: str = "[MASKED]"

    def __post_init__(self) -> None:
        if self.action not in ("drop", "cut", "mask"):
            raise DecontamError(f"action is {self.action!r}: give drop, cut or mask")
        if self.rule not in ("qwen2", "strict"):
            raise DecontamError(f"rule is {self.rule!r}: give qwen2 or strict")
        try:
            self.mask.encode("utf-8")
        except UnicodeEncodeError:
            raise DecontamError(f"mask is {self.mask!r}: give text that UTF-8 can hold") from None
        if self.margin < 0 or (self.min_df is not None and self.min_df < 1):
            raise DecontamError("margin must not be negative, and min_df be 1 or more")


class Target(NamedTuple):
    """A document to act on."""

    spans: tuple[Span, ...]
    excerpt: str
    excerpt_begin: int
    benchmarks: tuple[str, ...]
    rule: RuleName
    """The strongest that holds."""
    items: tuple[tuple[str, tuple[Span, ...]], ...] = ()
    """The text of each item, with where its n-grams are."""
    markup: bool = False
    """Whether markup is no text, as the rule of the scan says."""


@dataclass
class FileSummary:
    """What was done with one file."""

    path: str
    output: str | None = None
    """None: all of it was dropped."""
    n_documents_kept: int = 0
    """As they were; all lines count that are not blank, also broken ones."""
    n_documents_dropped: int = 0
    n_documents_edited: int = 0
    n_characters_cut: int = 0
    n_not_editable: int = 0
    """Dropped although they should have been edited: JSON that is nested too deeply to find the text in it."""
    by_benchmark: dict[str, int] = field(default_factory=dict)
    """Documents acted on, for each benchmark that they hold an item of."""
    by_rule: dict[str, int] = field(default_factory=dict)
    """Documents acted on, for the strongest rule that holds for them."""


_TOTALS = (
    "n_documents_kept",
    "n_documents_dropped",
    "n_documents_edited",
    "n_characters_cut",
    "n_not_editable",
)


@dataclass(frozen=True)
class FilterSummary:
    """What was done with all files."""

    files: tuple[FileSummary, ...]
    options: FilterOptions
    n_not_scanned: int
    """Records that the scan could not read: they are copied as they are."""
    unread: tuple[Unread, ...] = ()
    """Files and folders of the corpus that no scan reads: they have no copy."""
    again: tuple[str, ...] = ()
    """Links to files that have a copy under another name: they have no copy."""
    n_left_out: int = 0
    """Files that were scanned, and that this filter was not given."""
    n_weaker: int = 0
    """Documents that hold something of an item and are kept, since the options ask for more."""

    @property
    def totals(self) -> dict[str, int]:
        """Counts over all files."""
        totals = {name: sum(getattr(file, name) for file in self.files) for name in _TOTALS}
        return {**totals, "n_not_scanned": self.n_not_scanned}

    @property
    def by_benchmark(self) -> dict[str, int]:
        """Documents acted on, for each benchmark."""
        return _added(file.by_benchmark for file in self.files)

    @property
    def by_rule(self) -> dict[str, int]:
        """Documents acted on, for the strongest rule that holds for them."""
        return _added(file.by_rule for file in self.files)


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def find_targets(results: Results, options: FilterOptions) -> dict[str, dict[int, Target]]:
    """Return the documents to act on, by path and row."""
    rules: list[RuleName] = ["qwen2"] if options.rule == "qwen2" else ["qwen2", "strict"]
    if options.include_whole:
        rules.append("whole")
    by_document: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in results.matches.to_dict("records"):
        is_common = options.min_df is not None and row["min_df"] > options.min_df
        if row["rule"] in rules and not is_common:
            by_document[row["document_path"], int(row["document_row"])].append({str(k): v for k, v in row.items()})
    names = zip(results.references.id, results.references.text, results.references.answer, strict=True)
    texts = {name: f"{text}\n{answer}" for name, text, answer in names}
    markup = bool(results.manifest["rule"].get("markup"))
    found: dict[str, dict[int, Target]] = defaultdict(dict)
    for (path, number), rows in by_document.items():
        items = tuple((texts[row["reference_id"]], _spans(row)) for row in rows)
        spans = tuple(span for _, own in items for span in own)
        benchmarks = tuple(sorted({row["benchmark"] for row in rows}))
        strongest = min((row["rule"] for row in rows), key=rules.index)
        excerpt = rows[0]["excerpt"], int(rows[0]["excerpt_begin"])
        found[path][number] = Target(spans, *excerpt, benchmarks, strongest, items, markup)
    return dict(found)


def _spans(match: Mapping[str, Any]) -> tuple[Span, ...]:
    return tuple((int(span["begin"]), int(span["end"])) for span in match["spans"])


def spans_to_cut(text: str, target: Target, options: FilterOptions) -> list[Span]:
    """Return what is to be cut out of a document's text: what was found, and what else stands there of the items.

    Raises:
        DecontamError: the text is not the one that was scanned.
    """
    stop = target.excerpt_begin + len(target.excerpt)
    if text[target.excerpt_begin : stop].encode("utf-8", "replace").decode() != target.excerpt:
        raise DecontamError("the document has changed since the scan: scan again")
    if options.action == "drop":
        return list(target.spans)
    rests = (with_rest_of_item(text, own, item, markup=target.markup) for item, own in target.items)
    spans = [span for rest in rests for span in rest]
    return widened(spans, options.margin, len(text))


def count_edited(summary: FileSummary, spans: Sequence[Span]) -> None:
    """Count a document that was edited."""
    summary.n_documents_edited += 1
    summary.n_characters_cut += sum(end - begin for begin, end in spans)
