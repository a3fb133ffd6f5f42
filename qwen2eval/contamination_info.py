"""The `contamination` part of run.json as types: what a corpus holds of a run's docs, and the scores without them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from qwen2eval.typed_json import OPTIONAL, Record


class PartScore(NamedTuple):
    """A score on a part of a task's docs."""

    value: float | None
    """None: not scored."""
    ci_low: float | None
    """Of the 95 % interval; None: not known."""
    ci_high: float | None
    """Of the 95 % interval; None: not known."""
    n_docs: int
    """Of the part, scored or not."""


class Difference(NamedTuple):
    """Clean score minus original score."""

    value: float | None
    """None: there is no clean score."""
    ci_low: float | None
    """Of the 95 % interval; None: not known."""
    ci_high: float | None
    """Of the 95 % interval; None: not known."""


@dataclass(frozen=True)
class SubsetScores(Record):
    """One metric with and without what the corpus holds."""

    metric: str
    """Its name."""
    filter: str
    """"none" where there is no named one."""
    original: PartScore | None
    """On all docs."""
    clean: PartScore | None
    """On docs that share no n-gram with the corpus."""
    contaminated: PartScore | None
    """On docs that do."""
    delta: Difference
    """The effect of the contaminated docs on the score."""


@dataclass(frozen=True)
class ShownMatch(Record):
    """A doc's longest match with a corpus, short enough for a report."""

    doc_id: int
    """Of the task."""
    document_path: str
    """File of the corpus."""
    document_row: int
    """Record in it, from 0."""
    rule: str
    """By which it was found."""
    n_shared_ngrams: int | None
    """Distinct n-grams that both have."""
    longest_match: int
    """Tokens in a row that both have."""
    lcs_length: int | None
    """Tokens of the longest common subsequence; None: not computed."""
    lcs_ratio: float | None
    """Its share of the shorter text, 0-1; None: not computed."""
    min_df: int | None
    """Documents that hold the rarest shared n-gram; None: not counted."""
    before: str
    """Text of the document before what was found."""
    found: str
    """What was found."""
    after: str
    """Text after it."""


@dataclass(frozen=True)
class TaskContaminationInfo(Record):
    """What a corpus holds of one task's docs."""

    n_docs: int
    """All that were asked."""
    n_clean: int
    """Of which the corpus holds no n-gram of their own."""
    n_contaminated: int
    """Of which it does, or the whole of a question that is shorter than an n-gram."""
    n_contaminated_qwen2: int | None
    """By n-gram and longest common subsequence; None: the scan didn't ask."""
    n_not_testable: int
    """Too short for an n-gram."""
    n_found_whole: int
    """Of these, that occur in the corpus in full."""
    scores: tuple[SubsetScores, ...]
    """One for each metric and filter."""
    evidence: tuple[ShownMatch, ...]
    """The longest matches."""
    n_template: int | None = field(default=None, metadata=OPTIONAL)
    """Clean ones of which the corpus holds what other docs have, too; None: an older scan didn't ask."""
    n_with_templates: int | None = field(default=None, metadata=OPTIONAL)
    """That share an n-gram with the corpus, be it such a template or not; None: an older scan didn't ask."""
    n_questions_found_whole: int | None = field(default=None, metadata=OPTIONAL)
    """Contaminated ones, of which the corpus holds the whole short question and no n-gram; None: not asked."""


@dataclass(frozen=True)
class RuleInfo(Record):
    """The rule of a scan; what a report doesn't show of it is in `extra`."""

    ngram_size: int
    """Tokens in a row that must be shared."""
    ngram_size_cjk: int | None
    """The same for text of one-character tokens; None: as `ngram_size`."""
    min_lcs: int
    """Tokens of the longest common subsequence, at least."""
    min_lcs_ratio: float
    """Its share of the shorter text, at least, 0-1."""
    sequence: str
    """What of a document is compared: window or document."""


@dataclass(frozen=True)
class CorpusInfo(Record):
    """What a scan read."""

    n_documents: int
    """That could be read."""
    n_documents_matched: int | None = field(default=None, metadata=OPTIONAL)
    """That hold an item."""
    n_bytes: int = 0
    """Of the files."""


@dataclass(frozen=True)
class ContaminationInfo(Record):
    """What a corpus holds of a run's tasks."""

    matches: str
    """The scan's folder."""
    rule: RuleInfo
    """When a document counts as holding an item."""
    corpus: CorpusInfo
    """What was read."""
    problems: Mapping[str, int]
    """Records that could not be read, by kind."""
    tasks: Mapping[str, TaskContaminationInfo]
    """By name."""
