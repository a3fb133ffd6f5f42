"""LV-Eval's scorers: how much of the answer's keywords a response has, and the benchmark's own metric.

Paper: Yuan et al. 2024, arXiv 2402.05136. Formulae, thresholds and word lists are those of infinigence/LVEval (MIT) at
commit 63e7ae93; the published tables come from that code. The Qwen2 report (arXiv 2407.10671, section 5.2.3) names
"keyword recall" without a formula: `keyword_recall` is our reading. Where we differ: keywords without a word never
divide by zero, and what can't be scored has no score instead of 0.
"""

import logging
import re
import string
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

from qwen2eval.content import cache_dir

Language = Literal["en", "zh"]
Kind = Literal["two_stage", "f1", "rouge"]
METRICS = ("keyword_recall", "keyword_recall_filtered", "keyword_recall_official", "lveval_score")
"""The reported one first."""
FIRST_STAGE: Mapping[Language, float] = {"en": 0.2, "zh": 0.4}
"""Keyword recall under which the benchmark's own metric is 0."""
_ENGLISH_BLACKLIST = """
and to of in her was with for it from is that his he by she they or at because be on are their what as had were about
being this who but have has when which does
"""
_CHINESE_BLACKLIST = """
的 和 是 等 在 年 可以 为 与 ‰ 了 或 一种 月 c 至 日 有 进行 于 不 中 × 根据 小 由 亩 也 要 指 法 会 元 主要
以及 通过 首先 对 然后 号 以 所 后 丁 包括 无 将 用 能 形 方面 因素 位于 而 从 到 一定 用于 但 使用 让 具有 并
亿元 万元 上 类 基于 才 来 地 片 其他 个 或者 变得 时 给 你 使 条 受 已经 带 度
"""
BLACKLIST: Mapping[Language, frozenset[str]] = {
    "en": frozenset(_ENGLISH_BLACKLIST.split()),
    "zh": frozenset(_CHINESE_BLACKLIST.split()),
}
"""Words that don't count as keywords: 38 and 85."""
_CJK_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿"  # noqa: RUF001 - these signs are meant
    "｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟"  # noqa: RUF001
    "〰〾〿–—‘’‛“”„‟…‧﹏"  # noqa: RUF001
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + _CJK_PUNCTUATION)


def score(response: str, *, answer: str, keywords: str | None, language: Language, kind: Kind) -> dict[str, float]:
    """Score one response by every metric that applies, 0-1 each.

    Args:
        answer: the first of the doc's answers; the source scores no other.
        keywords: `answer_keywords` of the doc; None where its data set has none.
        kind: the data set's own metric: F1 after a keyword test, plain F1, or ROUGE-L.

    Returns:
        Values by metric. One that isn't there has no value for this doc: `keyword_recall_official` where the source has
        no keyword stage; all of them where the answer has no words at all.

    >>> score("He liked it.", answer="Paris", keywords=None, language="en", kind="f1")
    {'keyword_recall': 0.0, 'keyword_recall_filtered': 0.0, 'lveval_score': 0.0}
    """
    words = english_words if language == "en" else chinese_words
    # a mark of the end that servers leave in the text would be glued to the last word
    response = response.replace("</s>", " ")
    given, wanted = words(response), words(answer)
    if not wanted:
        return {}
    asked = words(keywords or "")
    blacklist = BLACKLIST[language]
    # the Chinese scorer of the source takes the whole answer where no keywords are given
    official = asked or (wanted if language == "zh" and kind == "two_stage" else [])
    values = {
        "keyword_recall": recall(given, asked or wanted),
        "keyword_recall_filtered": filtered_recall(given, asked or wanted, blacklist=blacklist),
    }
    if official:
        values["keyword_recall_official"] = official_recall(given, official, blacklist=blacklist)
    if kind == "rouge":
        if rouge_wanted := rouge_words(answer):
            values["lveval_score"] = rouge_l(rouge_words(response), rouge_wanted)
    elif kind == "two_stage" and values.get("keyword_recall_official", 1.0) < FIRST_STAGE[language]:
        values["lveval_score"] = 0.0
    else:
        values["lveval_score"] = f1(given, wanted)
    return values


def english_words(text: str) -> list[str]:
    """Cut English text into words: lower case, ASCII punctuation deleted (`O(n)` becomes `on`), articles left out.

    >>> english_words("The O(n) of a 1,200-page book.")
    ['on', 'of', '1200page', 'book']
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def chinese_words(text: str) -> list[str]:
    """Cut Chinese text into words with jieba, then drop punctuation and white space, and lower the case.

    >>> chinese_words("这部电影。A的")
    ['这部', '电影', 'a', '的']
    """
    return [word for token in _jieba().cut(text) if (word := _normal_token(token))]


def recall(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of `wanted` words, counted as often as they occur, that are among `given`.

    >>> recall(["a", "b", "a"], ["a", "a", "c", "d"])
    0.5
    """
    return (Counter(given) & Counter(wanted)).total() / len(wanted)


def filtered_recall(given: Sequence[str], wanted: Sequence[str], *, blacklist: frozenset[str]) -> float:
    """Return the recall of those wanted words that are not in the blacklist, or of all where that leaves none.

    >>> filtered_recall(["music"], ["for", "music"], blacklist=frozenset({"for"}))
    1.0
    """
    return recall(given, [word for word in wanted if word not in blacklist] or wanted)


def official_recall(given: Sequence[str], wanted: Sequence[str], *, blacklist: frozenset[str]) -> float:
    """Return the source's recall: blacklisted words count among the wanted, and never as found.

    >>> official_recall(["for", "music"], ["for", "music"], blacklist=frozenset({"for"}))
    0.5
    """
    found = Counter(given) & Counter(wanted)
    return sum(n for word, n in found.items() if word not in blacklist) / len(wanted)


def f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of the words, 0 where none is shared.

    >>> f1(["a", "b"], ["a", "c"])
    0.5
    """
    n_shared = (Counter(given) & Counter(wanted)).total()
    if n_shared == 0:
        return 0.0
    precision, recalled = n_shared / len(given), n_shared / len(wanted)
    return 2 * precision * recalled / (precision + recalled)


def rouge_l(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F of ROUGE-L as the `rouge` package counts it: over sets of words; 0 where one side has none.

    >>> round(rouge_l(["a", "b", "c"], ["a", "c"]), 4)
    0.8
    """
    from rouge import Rouge  # type: ignore[import-untyped]

    texts = [" ".join(words) for words in (given, wanted)]
    if not all(text.strip() for text in texts):
        return 0.0
    with _room_for_recursion(len(given) + len(wanted)):
        found = Rouge(metrics=["rouge-l"]).get_scores(*texts)
    return float(found[0]["rouge-l"]["f"])


def rouge_words(text: str) -> list[str]:
    """Cut Chinese text into the words of dureader's metric, without the blacklisted ones.

    As in the source it is cut twice, the second time with the first cut's words set apart by spaces.
    """
    tokens = map(_normal_token, _jieba().cut(" ".join(_jieba().cut(text))))
    return [token for token in tokens if token and token not in BLACKLIST["zh"]]


def _normal_token(token: str) -> str:
    return "".join(token.lower().translate(_NO_PUNCTUATION).split())


@contextmanager
def _room_for_recursion(n_steps: int) -> Iterator[None]:
    """Let `rouge` walk back through long texts, for which the source gets a RecursionError and scores 0."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + n_steps)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@cache
def _jieba() -> Any:
    """Return jieba's default tokenizer; it keeps its table in our cache folder, not in a file of anyone's in /tmp."""
    with warnings.catch_warnings():
        # Of old habits that newer versions of Python complain about
        warnings.simplefilter("ignore")
        import jieba  # type: ignore[import-untyped]
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    folder = cache_dir() / "jieba"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.tmp_dir = str(folder)
    return tokenizer
