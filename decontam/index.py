"""The items to search for, ready to be found: what a scan holds in memory, and what it asks for each document.

    ReferenceIndex.build(references, rule).find_matches(text)

Shape suffixes: I items, T tokens of all items in a row.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeTokens, BpeVocabulary
from decontam.bpe_anchors import BpeItems, anchors_of, read_items
from decontam.errors import DecontamError
from decontam.files import beside
from decontam.kernels import anchors
from decontam.kernels.ngrams import NgramTable, build_ngrams, ngram_starts
from decontam.kernels.words import UNKNOWN, Vocabulary, VocabularyBuilder, split
from decontam.matching import QWEN2, WHOLE, Findings, Match, examine_texts, matches_of
from decontam.normalize import fold, fold_table
from decontam.references import Reference
from decontam.rule import Rule

_BATCH_CHARACTERS = 250_000
"""Text of items that is folded at once."""
_VERSION = 2
"""Of what matches are found; part of the fingerprint."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Examined(NamedTuple):
    """All that a text holds."""

    matches: list[Match]
    """In the order of the items; the strongest ones where there are too many."""
    strict: list[int]
    """Places of all items that share an n-gram, among the references."""
    qwen2: list[int]
    """Of these the ones for which the longest common subsequence is long enough, too."""
    whole: list[int]
    """Items too short for an n-gram that were found whole."""
    ngram_ids: list[int]
    """N-grams of items that the text has."""


@dataclass(frozen=True, eq=False)
class Items:
    """The items' tokens."""

    ids_T: npt.NDArray[np.int32]
    """Numbers of words."""
    starts_I: Ints
    """Where each item begins; its question comes first, its answer behind it."""
    question_stops_I: Ints
    stops_I: Ints
    sizes_I: Ints
    """Tokens of the n-grams that it is found by."""

    @property
    def n_tokens_I(self) -> Ints:
        """Tokens of question and answer."""
        return self.stops_I - self.starts_I

    @property
    def is_short_I(self) -> npt.NDArray[np.bool_]:
        """Whether an item has no n-gram."""
        return self.n_tokens_I < self.sizes_I


@dataclass(frozen=True, eq=False)
class ReferenceIndex:
    """All items under one rule; `build` makes it. Threads may share it, and it can be pickled."""

    references: tuple[Reference, ...]
    rule: Rule
    items: Items
    vocabulary: Vocabulary | BpeVocabulary
    tables: tuple[NgramTable, ...]
    """One for each size of n-grams."""
    whole: NgramTable | None
    """The first words of items that are found whole."""
    anchor_set: anchors.AnchorSet
    benchmark_I: Ints
    """A number for the benchmark of each item."""

    @classmethod
    def build(cls, references: Iterable[Reference], rule: Rule | None = None) -> Self:
        """Index items.

        Raises:
            DecontamError: no items, or an id that is there twice.
        """
        items, rule = tuple(references), rule or Rule()
        _check_ids(items)
        bpe = None if rule.tokenizer == "words" else _read_bpe(items, rule)
        tokens = bpe.tokens if bpe else _tokens_of(items, fold_case=rule.fold_case)
        ids_T, stops_I = tokens.ids, tokens.stops_I
        starts_I = np.concatenate(([0], stops_I[:-1])).astype(np.int64)
        sizes_I = _sizes(tokens.single, starts_I, stops_I, rule)
        held = Items(ids_T, starts_I, tokens.question_stops_I, stops_I, sizes_I)
        tables = tuple(_table(held, size) for size in sorted(set(rule.sizes)))
        is_whole_I = held.is_short_I & (held.n_tokens_I >= rule.min_whole)
        n_whole = _fewest_whole(held, is_whole_I, rule.min_whole)
        whole = build_ngrams(ids_T, starts_I[is_whole_I].astype(np.int32), starts_I, n_whole) if n_whole else None
        if bpe:
            anchor_set = _bpe_anchors(bpe.read, held, tables[0], is_whole_I, rule)
        else:
            anchor_set = anchors.build_anchors(
                tokens.hashes, starts_I, stops_I, held.is_short_I, ngram_size=min(rule.sizes), whole=n_whole
            )
        numbers = {name: number for number, name in enumerate(dict.fromkeys(item.benchmark for item in items))}
        benchmark_I = np.array([numbers[item.benchmark] for item in items], np.int64)
        return cls(items, rule, held, tokens.vocabulary, tables, whole, anchor_set, benchmark_I)

    @property
    def fingerprint(self) -> str:
        """Hash of the items and the rule, hexadecimal."""
        told = [
            _VERSION,
            unicodedata.unidata_version,
            self.rule.as_dict(),
            [list(asdict(reference).values()) for reference in self.references],
        ]
        if isinstance(self.vocabulary, BpeVocabulary):
            told.append(self.vocabulary.tokenizer.fingerprint)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def n_ngrams(self) -> int:
        """Distinct n-grams; `Match.ngram_ids` are below."""
        return sum(table.n_ngrams for table in self.tables)

    @property
    def testable(self) -> npt.NDArray[np.bool_]:
        """Whether each item has an n-gram that could be found."""
        return ~self.items.is_short_I

    @property
    def n_tokens(self) -> Ints:
        """Tokens of each item's question and answer."""
        return self.items.n_tokens_I

    @property
    def n_words(self) -> int:
        """Distinct tokens that items have."""
        vocabulary = self.vocabulary
        return vocabulary.n_known if isinstance(vocabulary, BpeVocabulary) else len(vocabulary.hashes)

    def find_matches(self, text: str) -> list[Match]:
        """Return the items that a text holds by the rule, in the order of the references; at most one match each."""
        wanted = ("qwen2",) if self.rule.name == "qwen2" else ("qwen2", "strict")
        return [match for match in self.find_pairs(text) if match.rule in wanted]

    def find_pairs(self, text: str) -> list[Match]:
        """Return every item with which a text shares an n-gram, or that it holds whole; a match tells what holds."""
        return self.examine(text).matches

    def examine(self, text: str, *, limit: int | None = None) -> Examined:
        """Return all that a text holds, with evidence of at most about `limit` items; None: of all."""
        found = self.examine_texts([text], limit=limit)
        _, items, rules = found.every_item.T
        return Examined(
            matches=list(matches_of(self, found)),
            strict=items[rules != WHOLE].tolist(),
            qwen2=items[rules == QWEN2].tolist(),
            whole=items[rules == WHOLE].tolist(),
            ngram_ids=found.every_ngram[:, 1].tolist(),
        )

    def examine_texts(self, texts: Sequence[str], *, limit: int | None = None) -> Findings:
        """Return what texts hold, as columns; other threads run meanwhile. `limit` as for `examine`."""
        return examine_texts(self, texts, limit=limit)

    def flag_json_lines(self, buffer: Bytes, begins: Ints, ends: Ints, field: bytes) -> Bytes:
        """Say which lines of JSON must be looked at, without parsing them; other threads run meanwhile.

        Args:
            buffer: bytes that hold the lines; `begins` and `ends` (one past) say where, without line ends.
            field: name of the string at the top level that is searched.

        Returns:
            (lines,) 0: an object with that string, which shares nothing; 1: parse it and ask `find_pairs`.
        """
        name, names = np.frombuffer(field, np.uint8), fold_table(self.rule.fold_case)
        flags: Bytes = anchors.flag_json_lines(
            buffer, begins, ends, name, self.anchor_set, _case_bits(self.rule), names
        )
        return flags

    def flag_texts(self, buffer: Bytes, begins: Ints, ends: Ints) -> Bytes:
        """Say which texts, UTF-8, must be looked at; as `flag_json_lines`. Invalid UTF-8 must be."""
        folds = fold_table(self.rule.fold_case)
        flags: Bytes = anchors.flag_texts(buffer, begins, ends, self.anchor_set, _case_bits(self.rule), folds)
        return flags

    def save(self, path: Path) -> None:
        """Write what the index is made of; to build it again takes seconds."""
        told = {"rule": self.rule.as_dict(), "references": [asdict(reference) for reference in self.references]}
        with beside(path) as scratch:
            scratch.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        try:
            told = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
            return cls.build((Reference(**row) for row in told["references"]), Rule(**told["rule"]))
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise DecontamError(f"{path}: not an index ({err}): build it again from the references") from err


def _case_bits(rule: Rule) -> np.uint64:
    """Return the bits that make eight letters of ASCII lower case; none where case is kept."""
    return np.uint64(0x2020202020202020 if rule.fold_case else 0)


def _check_ids(items: tuple[Reference, ...]) -> None:
    if not items:
        raise DecontamError("there are no references: give at least one item to search for")
    seen = set[str]()
    for item in items:
        if item.id in seen:
            raise DecontamError(f"reference {item.id!r} is there twice: give each item an id of its own")
        seen.add(item.id)


class _Tokens(NamedTuple):
    """All items' words in a row."""

    hashes: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.int32]
    single: npt.NDArray[np.bool_]
    question_stops_I: Ints
    stops_I: Ints
    vocabulary: Vocabulary | BpeVocabulary


class _Bpe(NamedTuple):
    tokens: _Tokens
    read: BpeItems


def _read_bpe(items: tuple[Reference, ...], rule: Rule) -> _Bpe:
    """Read the items as tokens of a tokenizer."""
    tokenizer = BpeTokens(rule.tokenizer)
    batches = ([text + "\n" for item in batch for text in (item.text, item.answer)] for batch in _batches(items))
    read = read_items(batches, tokenizer, fold_case=rule.fold_case)
    known, ids = np.unique(read.ids, return_inverse=True)
    numbers = np.full(tokenizer.n_tokens, UNKNOWN, np.int32)
    numbers[known] = np.arange(len(known))
    nothing = np.zeros(len(ids), np.bool_)
    vocabulary = BpeVocabulary(tokenizer, numbers, len(known))
    return _Bpe(
        _Tokens(read.places.hashes_W, ids.astype(np.int32), nothing, read.question_stops_I, read.stops_I, vocabulary),
        read,
    )


def _bpe_anchors(
    read: BpeItems, items: Items, table: NgramTable, is_whole_I: npt.NDArray[np.bool_], rule: Rule
) -> anchors.AnchorSet:
    """Return what is looked for where items' n-grams, or short items as a whole, are."""
    of_size = ~items.is_short_I
    firsts = ngram_starts(items.starts_I[of_size], items.stops_I[of_size], table.size).astype(np.int64)
    starts_I = items.starts_I[is_whole_I]
    runs = [(firsts, firsts + table.size - 1)]
    for stops_I in (items.question_stops_I[is_whole_I], items.stops_I[is_whole_I]):
        is_long = stops_I - starts_I >= rule.min_whole
        runs.append((starts_I[is_long], stops_I[is_long] - 1))
    low, high = (np.concatenate(column) for column in zip(*runs, strict=True))
    return anchors_of(read, low, high)


def _tokens_of(items: tuple[Reference, ...], *, fold_case: bool) -> _Tokens:
    """Read the items, batch by batch."""
    builder, parts, stops, n_words = VocabularyBuilder(), [], [], 0
    for batch in _batches(items):
        # a line end between two texts separates them, and nothing melts across it
        texts = [text + "\n" for item in batch for text in (item.text, item.answer)]
        folded = fold("".join(texts), fold_case=fold_case)
        words = split(folded)
        ends = np.cumsum([len(text) for text in texts])
        stops.append(np.searchsorted(folded.begins[words.begins], ends) + n_words)
        parts.append((words.hashes, builder.add(words), words.single))
        n_words += len(words.hashes)
    hashes, ids, single = (np.concatenate(column) for column in zip(*parts, strict=True))
    all_stops = np.concatenate(stops).astype(np.int64)
    return _Tokens(hashes, ids, single, all_stops[::2], all_stops[1::2], builder.vocabulary())


def _batches(items: tuple[Reference, ...]) -> Iterable[list[Reference]]:
    batch: list[Reference] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.text) + len(item.answer)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sizes(single_T: npt.NDArray[np.bool_], starts_I: Ints, stops_I: Ints, rule: Rule) -> Ints:
    """Return each item's n-gram size: that of single characters where these are most of its tokens."""
    n_single_T1 = np.concatenate(([0], np.cumsum(single_T)))
    is_single_I = 2 * (n_single_T1[stops_I] - n_single_T1[starts_I]) > stops_I - starts_I
    words, single = rule.sizes
    return np.where(is_single_I, single, words).astype(np.int64)


def _fewest_whole(items: Items, is_whole_I: npt.NDArray[np.bool_], min_whole: int) -> int:
    """Return the tokens of the shortest text that is found whole, a question or an item; 0 if there is none."""
    n_question_I = items.question_stops_I - items.starts_I
    lengths_I = np.where(n_question_I >= min_whole, n_question_I, items.n_tokens_I)[is_whole_I]
    return int(lengths_I.min()) if len(lengths_I) else 0


def _table(items: Items, size: int) -> NgramTable:
    """Index the n-grams of all items that are found by this size."""
    of_size = items.sizes_I == size
    starts = ngram_starts(items.starts_I[of_size], items.stops_I[of_size], size)
    return build_ngrams(items.ids_T, starts, items.starts_I, size)


__all__ = ["Items", "Match", "ReferenceIndex"]
