"""When a document counts as holding a benchmark item: the numbers of the rule, and their check.

The Qwen2 report (arXiv 2407.10671, section 5.2.6) removes a training sequence s_t for a test sequence s_e if they share
an n-gram, and |LCS(s_t, s_e)| >= 13 and >= 0.6 min(|s_t|, |s_e|) tokens; LCS is the longest common subsequence. It
scores benchmarks again on the items with no 13-gram in the training data: the strict rule. It doesn't say how text is
normalised, what a token is, nor how long a sequence is: these are options here.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from decontam.errors import DecontamError

_MOST_TOKENS = 100_000
RuleName = Literal["qwen2", "strict", "whole", "template"]
"""Which rule applies to a document and an item. qwen2: an n-gram and the longest common subsequence, so strict, too;
whole: a question or item too short for an n-gram occurs in the document in full; template: all shared n-grams are such
that other items of the benchmark have them, too, so they don't say which item it is, or whether it is one."""
RULES: tuple[RuleName, ...] = ("strict", "qwen2", "whole", "template")
"""The rules by the numbers that tables have for them; part files hold these numbers, so the order stays."""
STRICT, QWEN2, WHOLE, TEMPLATE = range(4)
"""Places in RULES."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """All that decides what matches."""

    ngram_size: int = 13
    """Tokens in a row that must be shared."""
    ngram_size_cjk: int | None = None
    """The same for items mostly of one-character tokens (Chinese, Japanese, Thai ...), where 20 are about as much text
    as 13 BPE tokens. None: as `ngram_size`."""
    min_lcs: int = 13
    """Tokens of the longest common subsequence, at least."""
    min_lcs_ratio: float = 0.6
    """Its share of the shorter sequence's tokens, at least, 0-1."""
    sequence: Literal["window", "document"] = "window"
    """What of a document is compared: the text around shared n-grams, twice the item's length to each side; or all of
    it, the paper's words, which in a long document are fulfilled by chance."""
    tokenizer: str = "words"
    """What a token is; "words": a run of letters and digits, or one character where no spaces divide words; "qwen2",
    "hf:PATH" or "hf:NAME" of the hub: as the model's tokenizer reads what is left without symbols and punctuation."""
    fold_case: bool = True
    """Whether upper and lower case are the same."""
    markup: bool = True
    """Whether HTML's tags and entities, and escapes with a backslash, are read as what they stand for; else their names
    are words."""
    min_whole: int = 5
    """Questions and items with fewer tokens than an n-gram are searched for in full if they have at least so many."""
    template_items: int = 1
    """An n-gram that more than so many different items of a benchmark have is a template: it is no evidence for any of
    them. Benchmarks that have a template in common count as one. 0: no n-gram is a template."""

    def __post_init__(self) -> None:
        for name, low in (("ngram_size", 2), ("min_lcs", 0), ("min_whole", 2), ("template_items", 0)):
            _check(low <= getattr(self, name) <= _MOST_TOKENS, name, getattr(self, name), f"{low} to {_MOST_TOKENS:,}")
        if (size := self.ngram_size_cjk) is not None:
            _check(2 <= size <= _MOST_TOKENS, "ngram_size_cjk", size, f"2 to {_MOST_TOKENS:,}")
        _check(0 <= self.min_lcs_ratio <= 1, "min_lcs_ratio", self.min_lcs_ratio, "from 0 to 1")
        _check(self.sequence in ("window", "document"), "sequence", self.sequence, "window or document")
        is_known = self.tokenizer in ("words", "qwen2") or self.tokenizer.startswith("hf:")
        _check(is_known, "tokenizer", self.tokenizer, "words, qwen2 or hf:PATH")
        if self.tokenizer != "words":
            _check(self.ngram_size_cjk is None, "ngram_size_cjk", self.ngram_size_cjk, "no such size for a tokenizer")

    @classmethod
    def strict(cls, **options: Any) -> Self:
        """Return the rule of the clean scores: one shared n-gram is enough."""
        return cls(min_lcs=0, min_lcs_ratio=0.0, **options)

    @property
    def name(self) -> Literal["qwen2", "strict"]:
        """The rule that a match must fulfil."""
        return "qwen2" if self.min_lcs or self.min_lcs_ratio else "strict"

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens of an n-gram, in items of words and in items of single characters."""
        return self.ngram_size, self.ngram_size if self.ngram_size_cjk is None else self.ngram_size_cjk

    def as_dict(self) -> dict[str, Any]:
        """Return all options, for a record of what was done."""
        return asdict(self)


def _check(is_right: bool, name: str, value: object, wanted: str) -> None:
    if not is_right:
        raise DecontamError(f"{name} is {value!r}: give {wanted}")
