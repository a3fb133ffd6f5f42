"""The items to search for, ready to be found: what a scan keeps in memory, and what it asks for each document.

    ReferenceIndex.build(references, rule).find_matches(text)

Two steps, since almost no document of a corpus holds an item: `flag_json_lines` and `flag_texts` say from raw bytes
which documents are candidates, `find_in_texts` compares these token by token.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeVocabulary
from decontam.errors import DecontamError
from decontam.files import beside
from decontam.item_ngrams import ItemNgrams, Testable, bpe_anchors, index_items, testable_forms, word_anchors
from decontam.items import read_tokens
from decontam.kernels import anchors
from decontam.kernels.compare import DocumentMatches
from decontam.matching import Match, SearchTables, as_matches, find_in_texts
from decontam.normalize import TEXT_VERSION, fold_table
from decontam.references import Reference
from decontam.rule import Rule
from decontam.short_items import find_short_items

_VERSION = 4
"""Of what matches are found; part of the fingerprint. A change of it makes every stopped scan begin again."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReferenceIndex:
    """All items under one rule; `build` makes it. Threads may share it, and it can be pickled."""

    references: tuple[Reference, ...]
    """The items, in the order in which they were given."""
    tables: SearchTables
    """Their tokens and n-grams."""
    testable: npt.NDArray[np.bool_]
    """Whether each item has an n-gram that could be found."""
    forms: Testable
    """By what each item is found in each form."""
    anchor_set: anchors.AnchorSet
    """What is searched for in raw bytes."""

    @classmethod
    def build(cls, references: Iterable[Reference], rule: Rule | None = None) -> Self:
        """Index items.

        Raises:
            DecontamError: no items, or an id that is there twice.
        """
        references, rule = tuple(references), rule or Rule()
        _check_ids(references)
        read, benchmark_I = read_tokens(references, rule), _number_benchmarks(references)
        found: ItemNgrams = index_items(read.items, benchmark_I, rule)
        short_items = find_short_items(read.items, found.group_I, benchmark_I, rule)
        if read.bpe is None:
            anchor_set = word_anchors(read, found, short_items, rule)
        else:
            anchor_set = bpe_anchors(read, read.bpe, short_items, rule)
        anchor_set = anchor_set._replace(reads_markup=rule.markup)
        tables = SearchTables(rule, read.items, benchmark_I, read.vocabulary, found.tables, short_items)
        forms = testable_forms(references, read.items, found, short_items)
        return cls(references, tables, found.has_ngram_I, forms, anchor_set)

    @property
    def rule(self) -> Rule:
        """What decides what matches."""
        return self.tables.rule

    @property
    def fingerprint(self) -> str:
        """Hash of the items and the rule, hexadecimal."""
        content = [
            _VERSION,
            TEXT_VERSION,
            # another version of Unicode folds some texts in another way
            unicodedata.unidata_version,
            self.rule.as_dict(),
            [list(asdict(reference).values()) for reference in self.references],
        ]
        if isinstance(self.tables.vocabulary, BpeVocabulary):
            content.append(self.tables.vocabulary.tokenizer.fingerprint)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def n_ngrams(self) -> int:
        """Distinct n-grams; `Match.ngram_ids` are below."""
        return sum(table.n_ngrams for table in self.tables.ngrams)

    @property
    def n_tokens(self) -> Ints:
        """Tokens of each item's question and answer."""
        return self.tables.items.n_tokens_I

    @property
    def benchmark_I(self) -> Ints:
        """A number for the benchmark of each item."""
        return self.tables.benchmark_I

    def find_matches(self, text: str) -> list[Match]:
        """Return the items that a text holds by the rule, in the order of the references; at most one match each."""
        rules = ("qwen2",) if self.rule.name == "qwen2" else ("qwen2", "strict")
        return [match for match in self.find_all_matches(text) if match.rule in rules]

    def find_all_matches(self, text: str, *, limit: int | None = None) -> list[Match]:
        """Return every item with which a text shares an n-gram, or that it holds in full; a match says by which rule.

        Args:
            limit: as for `find_in_texts`.
        """
        return list(as_matches(self.find_in_texts([text], limit=limit), self.references))

    def find_in_texts(self, texts: Sequence[str], *, limit: int | None = None) -> DocumentMatches:
        """Return what many texts have in common with items, as columns; other threads run meanwhile.

        Args:
            limit: keep only about so many rows of a text, the strongest ones; all are counted. None: all.
        """
        return find_in_texts(self.tables, texts, limit=limit)

    def flag_json_lines(self, buffer: Bytes, begins: Ints, ends: Ints, field: bytes) -> Bytes:
        """Say which lines of JSON are candidates, without parsing them; other threads run meanwhile.

        Args:
            buffer: bytes that hold the lines.
            begins: where lines begin in it.
            ends: one past their last bytes, without line ends.
            field: name of the string at the top level that is searched.

        Returns:
            (lines,) 0: an object with that string, which shares nothing; 1: parse it and compare its text.
        """
        name, folds = np.frombuffer(field, np.uint8), fold_table(self.rule.fold_case)
        lower = _lower_case_bits(self.rule)
        flags: Bytes = anchors.flag_json_lines(buffer, begins, ends, name, self.anchor_set, lower, folds)
        return flags

    def flag_texts(self, buffer: Bytes, begins: Ints, ends: Ints) -> Bytes:
        """Say which UTF-8 texts are candidates; as `flag_json_lines`. Invalid UTF-8 always is one."""
        folds = fold_table(self.rule.fold_case)
        flags: Bytes = anchors.flag_texts(buffer, begins, ends, self.anchor_set, _lower_case_bits(self.rule), folds)
        return flags

    def save(self, path: Path) -> None:
        """Write what the index is made of; to build it again takes seconds."""
        content = {"rule": self.rule.as_dict(), "references": [asdict(reference) for reference in self.references]}
        with beside(path) as scratch:
            scratch.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DecontamError: no such file, or not one of `save`.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
            return cls.build((Reference(**row) for row in content["references"]), Rule(**content["rule"]))
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise DecontamError(f"{path}: not an index ({err}): build it again from the references") from err


def _lower_case_bits(rule: Rule) -> np.uint64:
    """Return the bits that make eight letters of ASCII lower case; none where case is kept."""
    return np.uint64(0x2020202020202020 if rule.fold_case else 0)


def _check_ids(references: tuple[Reference, ...]) -> None:
    if not references:
        raise DecontamError("there are no references: give at least one item to search for")
    seen = set[str]()
    for reference in references:
        if reference.id in seen:
            raise DecontamError(f"reference {reference.id!r} is there twice: give each item a separate id")
        seen.add(reference.id)


def _number_benchmarks(references: tuple[Reference, ...]) -> Ints:
    """Return a number for the benchmark of each item, in the order of their first items."""
    names = dict.fromkeys(reference.benchmark for reference in references)
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[reference.benchmark] for reference in references], np.int64)


__all__ = ["Match", "ReferenceIndex"]
