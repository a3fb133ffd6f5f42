"""Prompts in pieces: joined they are the text, counted they are the whole text's tokens, and shared prefixes add up."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qwen2eval.prompts import CUTTING_PATTERNS, PrefixCounter, PromptPool, TokenCounter, digest_ids
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from tests.small_bpe import small_bpe

QWEN2, LLAMA3 = CUTTING_PATTERNS
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# What might go on over a blank line or a turn: all kinds of white space, line ends, marks, letters, digits, specials
FRAGMENTS = (
    *("\n\n", "\n", "\r\n", "\r", " ", "  ", "\t", "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u180e", "\u2002"),
    *("\u2028", "\u2029", "\u200b", "\u3000", "\ufeff", "\u0301", "e\u0301", "é", "\u0345", "각", "\u11a8", "\u0903"),
    *(
        "Question:",
        "Answer:",
        "A",
        "'s",
        "'S",
        "'\u017f",
        "!",
        "!<",
        "...",
        "<|",
        "12",
        "٣",
        "½",
        "中文",
        "。",
        "🙂",
        "\0",
    ),
    *SPECIALS,
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=14).map("".join)


def make_tokenizer(pattern: str, *, specials: tuple[str, ...] = SPECIALS, normalizer: Any = None) -> Any:
    """Return a byte-level BPE tokenizer of Qwen2's kind, with merges over all that `FRAGMENTS` can put together."""
    texts = [
        "\n\n\n \n\n  \r\n\r\n",
        "Question: Answer: !<| ... <|im_start|> 中文。 e\u0301é \u3000\u3000\xa0\x85\x1c",
    ] * 3
    texts += [left + right for left in FRAGMENTS for right in FRAGMENTS if not {left, right} & set(SPECIALS)]
    return small_bpe(
        texts, n_tokens=1500, pattern=pattern, normalizer=normalizer, additional_special_tokens=list(specials)
    )


@pytest.fixture(scope="module")
def qwen2_tokenizer():
    return make_tokenizer(QWEN2, normalizer=normalizers.NFC())


@pytest.fixture(scope="module")
def llama3_tokenizer():
    """Return one that does not know ChatML: to it `<|im_start|>` is ordinary text."""
    return make_tokenizer(LLAMA3, specials=SPECIALS[:1])


def assert_counted_as_a_whole(tokenizer, text):
    pieces = TokenCounter(tokenizer).pieces(PromptPool().add(text))
    assert [token for ids in pieces for token in ids] == tokenizer(text, verbose=False)["input_ids"]


@given(text=TEXTS)
@example(text="Question: a\n\nAnswer: b\n\n\nC\r\n\r\nD\n\n\u3000E")
@example(text="<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n")
@settings(max_examples=400)
def test_the_tokens_of_the_pieces_are_those_of_the_whole(qwen2_tokenizer, text):
    assert_counted_as_a_whole(qwen2_tokenizer, text)


@given(text=TEXTS)
@example(text="Hi!<|im_start|>user")
@settings(max_examples=400)
def test_so_are_those_of_a_tokenizer_that_does_not_know_turns(llama3_tokenizer, text):
    assert_counted_as_a_whole(llama3_tokenizer, text)


@pytest.mark.real
def test_so_are_the_real_tokenizers(real_model):
    tokenizer = AutoTokenizer.from_pretrained(real_model)

    @given(text=TEXTS)
    @settings(max_examples=400)
    def check(text):
        assert_counted_as_a_whole(tokenizer, text)

    check()


@pytest.mark.parametrize("pattern", CUTTING_PATTERNS)
def test_a_tokenizer_of_the_known_kinds_is_asked_for_pieces(pattern):
    counter = TokenCounter(make_tokenizer(pattern))
    assert counter.is_piecewise
    assert len(counter.pieces(PromptPool().add("Q: A\n\nQ: B\n\nQ: C"))) == 3


def test_a_second_bos_is_not_counted_and_changes_no_digest():
    """As lm-eval's backends encode: a prompt that begins with BOS gets no other."""
    tokenizer = make_tokenizer(LLAMA3, specials=["<s>"])
    tokenizer.bos_token = "<s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    with_bos, without = PromptPool().add("<s>ab"), PromptPool().add("ab")
    assert [TokenCounter(tokenizer).count(prompt) for prompt in (with_bos, without)] == [3, 3]
    counter = TokenCounter(tokenizer, add_bos_token=False)
    assert [counter.count(prompt) for prompt in (with_bos, without)] == [3, 2]
    # What stores of before know the request by
    assert counter.pieces(with_bos)[0].tolist()[:2] == [tokenizer.bos_token_id] * 2


def test_turns_whose_marks_are_no_tokens_are_counted_as_a_whole(qwen2_tokenizer, llama3_tokenizer):
    prompt = PromptPool().add("<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n")
    for tokenizer, is_in_pieces in ((qwen2_tokenizer, True), (llama3_tokenizer, False)):
        counter = TokenCounter(tokenizer)
        assert counter.is_in_pieces(prompt) == is_in_pieces
        assert len(counter.pieces(prompt)) == (len(prompt.pieces) if is_in_pieces else 1)


@given(text=TEXTS)
def test_a_digest_does_not_depend_on_the_cuts(qwen2_tokenizer, text):
    from array import array

    pieces = TokenCounter(qwen2_tokenizer).pieces(PromptPool().add(text))
    assert digest_ids(pieces) == digest_ids([array("I", qwen2_tokenizer(text, verbose=False)["input_ids"])])


def gpt2_tokenizer():
    vocabulary = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Question": 1, ":": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def bos_tokenizer():
    tokenizer = make_tokenizer(QWEN2)
    bos = tokenizer.convert_tokens_to_ids(SPECIALS[0])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A", special_tokens=[(SPECIALS[0], bos)]
    )
    return tokenizer


def stripping_tokenizer():
    """Return one whose turns take the white space before them."""
    tokenizer = make_tokenizer(QWEN2)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|turn|>", lstrip=True)]})
    return tokenizer


class SlowTokenizer:
    """A tokenizer in Python: nothing tells where it cuts."""

    def __call__(self, texts, **_):
        if isinstance(texts, str):
            return {"input_ids": [len(word) for word in texts.split("\n")]}
        return {"input_ids": [self(text)["input_ids"] for text in texts]}


OTHERS = {
    "gpt2": gpt2_tokenizer,
    "words": word_tokenizer,
    "adds a token at the start": bos_tokenizer,
    "takes space before a token": stripping_tokenizer,
    "another normalizer": lambda: make_tokenizer(QWEN2, normalizer=normalizers.Lowercase()),
    "in Python": SlowTokenizer,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_a_tokenizer_of_another_kind_gets_whole_prompts(make):
    tokenizer = make()
    counter = TokenCounter(tokenizer)
    assert not counter.is_piecewise
    for text in ("Question: A\n\nQuestion: B", "Question: A\n\nQuestion: C", ""):
        (ids,) = counter.pieces(PromptPool().add(text))
        assert ids.tolist() == tokenizer(text)["input_ids"]


def test_a_continuation_is_counted_by_itself_without_added_tokens():
    tokenizer = bos_tokenizer()
    counter = TokenCounter(tokenizer)
    assert counter.continuation(" Answer").tolist() == tokenizer.encode(" Answer", add_special_tokens=False)
    (prompt,) = counter.pieces(PromptPool().add(" Answer"))
    assert len(prompt) == len(counter.continuation(" Answer")) + 1


@given(texts=st.lists(TEXTS, max_size=5))
def test_pieces_join_to_the_text_and_equal_pieces_are_one_object(texts):
    pool = PromptPool()
    prompts = [pool.add(text) for text in texts]
    assert [str(prompt) for prompt in prompts] == texts
    objects = {}
    for prompt in prompts:
        assert all(prompt.pieces) or prompt.pieces == ("",)
        for piece in prompt.pieces:
            assert objects.setdefault(piece, piece) is piece


def test_a_prompt_is_cut_at_blank_lines_and_turns():
    text = "Intro.\n\nQ: 1\nA: 2\n\n\nQ: 3\n\n  indented\n\n<|im_start|>user\n"
    pieces = ("Intro.\n\n", "Q: 1\nA: 2\n\n\n", "Q: 3\n\n  indented\n\n", "<|im_start|>user\n")
    assert PromptPool().add(text).pieces == pieces


def test_the_same_text_twice_in_a_row_is_one_prompt():
    pool = PromptPool()
    first, equal = pool.add("A\n\nB"), pool.add("A\n\n" + "B")
    assert equal is first
    assert pool.add("C") is not first


@given(
    prompts=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), max_size=12),
    lengths=st.fixed_dictionaries({piece: st.integers(0, 9) for piece in "abc"}),
)
def test_shared_prefixes_are_counted_once(prompts, lengths):
    """The oracle: each distinct prefix brings the tokens of its last piece."""
    from qwen2eval.prompts import PromptText

    counter = PrefixCounter()
    for pieces in prompts:
        counter.add(PromptText(tuple(pieces)), [lengths[piece] for piece in pieces])
    prefixes = {tuple(pieces[: n + 1]) for pieces in prompts for n in range(len(pieces))}
    n_new, n_tokens = sum(lengths[p[-1]] for p in prefixes), sum(lengths[p] for pieces in prompts for p in pieces)
    assert (counter.n_new_tokens, counter.n_tokens) == (n_new, n_tokens)
    assert counter.shared_ratio == (1 - n_new / n_tokens if n_tokens else None)


@pytest.mark.parametrize(
    "template",
    [
        "{{a}}",
        "{{a}}\n",
        "  {{b[1:] | join('-')}}\n\n",
        "{% for x in b %}{{loop.index}}{{x}}\n{% endfor %}",
        "{{c.d}}",
        "",
    ],
)
def test_compiled_templates_render_as_lm_eval_does(template):
    from lm_eval import utils

    docs = [{"a": "1 < 2 {{b}}", "b": ["x", "y", "ü"], "c": {"d": None}}, {"a": 7, "b": [], "c": {"d": "\n"}}]
    expected = [utils.apply_template(template, doc) for doc in docs]
    with compiled_templates():
        assert [utils.apply_template(template, doc) for doc in docs] == expected


def test_compiled_templates_miss_the_same_columns_and_leave_lm_eval_as_it_was():
    from jinja2 import UndefinedError
    from lm_eval import utils

    original = utils.apply_template
    with compiled_templates():
        replaced = utils.apply_template
    assert replaced is not original
    with pytest.raises(UndefinedError, match="answer"), compiled_templates():
        utils.apply_template("{{answer}}", {"question": "?"})
    assert utils.apply_template is original
