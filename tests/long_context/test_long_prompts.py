"""Long prompts in parts: cut at ends of sentences, shared beside another sentence, and cut in their middle."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from qwen2eval.long_context.lveval.middle import MiddleCutter
from qwen2eval.long_context.safe_cuts import first_cut, last_cut
from qwen2eval.prompts import CUTTING_PATTERNS, LONG_PIECE, PrefixCounter, PromptPool, TokenCounter
from tests.small_bpe import small_bpe

WORDS = ("The", "barn", "waits", "it's", "I'LL", "1,200", "山水", "他走了", "_", "(so)", "🙂", "Café", "cafe\u0301")
ENDS = (". ", "! ", "?\n", ".\n\n", "。", "，", "\n", "  ", ".” ", "... ", "\r\n", "\t")  # noqa: RUF001
SENTENCES = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(ENDS)).map("".join), max_size=6).map("".join)


@pytest.fixture(scope="module", params=CUTTING_PATTERNS, ids=["qwen2", "llama3"])
def tokenizer(request):
    texts = [a + end + b for a in WORDS for end in ENDS for b in WORDS]
    return small_bpe(texts, n_tokens=600, pattern=request.param, normalizer=normalizers.NFC())


def long_text(seed, n_chars=3 * LONG_PIECE, ends=ENDS):
    rng = random.Random(seed)
    parts = []
    while sum(map(len, parts)) < n_chars:
        parts.append(" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) + rng.choice(ends))
    return "".join(parts)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_the_parts_of_a_long_piece_have_the_tokens_of_the_whole(tokenizer, seed):
    text = long_text(seed)
    prompt = PromptPool().add(text)
    assert "".join(prompt.pieces) == text
    assert all(prompt.pieces)
    ids = [token for piece in TokenCounter(tokenizer).pieces(prompt) for token in piece]
    assert ids == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("ends", [(". ",), ("\n",), ("。",)], ids=["sentences", "lines", "Chinese"])
def test_another_sentence_in_a_long_piece_leaves_its_other_parts_as_they_are(ends):
    """A needle in an essay without blank lines made 13 kB of new text of it, in each of thousands of prompts."""
    text = long_text(1, n_chars=20 * LONG_PIECE, ends=ends)
    at = text.index(ends[0], len(text) // 2) + len(ends[0])
    pool = PromptPool()
    before, after = (set(pool.add(one).pieces) for one in (text, f"{text[:at]}\nHere it is.\n{text[at:]}"))
    assert len(before) > 20
    assert len(after - before) <= 3


def test_short_pieces_are_not_cut_on():
    text = "One line.\nAnother line. And on.\n" * 9
    assert PromptPool().add(text).pieces == (text,)


@given(texts=st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=8))
def test_prefixes_are_counted_as_in_a_tree(texts):
    counter, seen = PrefixCounter(), set()
    for pieces in texts:
        prompt = PromptPool().add("")
        prompt.pieces = tuple(pieces)
        counter.add(prompt, [1] * len(pieces))
        seen |= {tuple(pieces[: n + 1]) for n in range(len(pieces))}
    assert counter.n_new_tokens == len(seen)
    assert counter.n_tokens == sum(map(len, texts))


def test_long_texts_are_tokenized_in_batches(tokenizer, monkeypatch):
    """The tokenizer takes hundreds of bytes a token while it works."""
    monkeypatch.setattr("qwen2eval.prompts.BATCH_CHARS", 2_000)
    sizes = []

    class Recorder:
        backend_tokenizer, get_added_vocab = tokenizer.backend_tokenizer, tokenizer.get_added_vocab

        def __call__(self, texts, **options):
            sizes.append(sum(map(len, texts)))
            return tokenizer(texts, **options)

    counter, pool = TokenCounter(Recorder()), PromptPool()
    counter.prepare([pool.add(f"{i} " + "waits " * 100) for i in range(9)] + [pool.add("waits " * 500)])
    *batches, of_one_text = sorted(sizes)
    assert of_one_text == 3_000  # one text may have more
    assert max(batches) <= 2_000
    assert len(batches) > 2


@given(left=SENTENCES, right=SENTENCES)
@example(left="a", right=" b")
@settings(max_examples=300)
def test_tokens_are_parted_at_safe_cuts_whatever_stands_around(tokenizer, left, right):
    text = left + right
    for cut in {first_cut(text), last_cut(text)} - {None}:
        parts = [tokenizer(part)["input_ids"] for part in (text[:cut], text[cut:])]
        assert parts[0] + parts[1] == tokenizer(text)["input_ids"]
        assert first_cut(text) <= cut <= last_cut(text)


@given(seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=60)
def test_a_middle_is_left_out_as_of_the_whole_text(tokenizer, seed, data):
    text = long_text(seed, n_chars=data.draw(st.integers(1, 5 * LONG_PIECE)))
    n_tokens = len(tokenizer(text)["input_ids"])
    limit = max(16, data.draw(st.integers(n_tokens - 3, n_tokens + 3) | st.integers(16, n_tokens + 16)))
    cutter, whole = MiddleCutter(tokenizer, limit), MiddleCutter(tokenizer, limit)
    whole._is_piecewise = False
    assert cutter._is_piecewise
    assert cutter.without_middle(text) == whole.without_middle(text)
