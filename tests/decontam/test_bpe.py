"""Tokens of a tokenizer: the same verdicts as reading the whole stripped text at once, and no match is missed."""

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from decontam import DecontamError, Reference, ReferenceIndex, Rule, scan
from decontam.bpe import BpeTokens
from decontam.normalize import fold
from tests.decontam import slow
from tests.decontam.test_anchors import as_lines, flag_lines, rows
from tests.decontam.texts import hard_texts, word_runs

QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MIXED = ("abc", "one", "red", "two", "others", "苹果", "中", "龘", "48", "x", "th", "ther", "กำ", "ẖ", "H\u0331", "Ab")
"""Words that begin or end in the middle of others, or of their tokens, where nothing divides them."""
LEARNT = [
    *("one two red others abc th ther x ab", "苹果中苹果中苹果abc中one苹果red中two", "xabc xone xred thone abctwo") * 3,
    "the quick brown fox jumps over lazy dogs",
    "there thence other brother mother",
    "小明有十五个苹果，他给了小红三个",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A byte-level BPE with Qwen2's pre-tokenizer, small enough that words are of many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LEARNT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    slow.TOKENIZERS[f"hf:{folder}"] = tokenizer
    return f"hf:{folder}"


numbers = st.lists(st.sampled_from(["1", "20", "333", "4000", "55555", "0123456789", "7x7y7z"]), max_size=9).map(
    " ".join
)
long_words = st.text(st.sampled_from("abth0"), min_size=8, max_size=40)
signs = st.text(st.sampled_from("龘𠮷あกำขẖ̱ß"), max_size=8)
mixed = st.lists(st.tuples(st.sampled_from(MIXED), st.sampled_from(["", "", " ", ", "])), min_size=6, max_size=40).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)
BEFORE = ("", "x ", "x", "one", "中", "x x ", "th")
BEHIND = ("", " x", "x", "others", "中", "ther")
texts = st.lists(mixed | word_runs | numbers | long_words | signs, min_size=1, max_size=4).map(". ".join)
answers = st.just("") | texts
choices = st.lists(st.sampled_from(["one", "the two", "1999", "abc d"]), min_size=2, max_size=3).map(tuple)
items = st.lists(
    st.one_of(
        st.builds(Reference, st.just(""), texts, answers),
        st.builds(Reference, st.just(""), st.sampled_from(["x", "which one", "other x"]), choices=choices),
    ),
    min_size=1,
    max_size=3,
).map(lambda found: [replace(item, id=f"r/{i}", benchmark="r") for i, item in enumerate(found)])
options = st.fixed_dictionaries(
    {
        "ngram_size": st.sampled_from([3, 8, 10, 13, 13]),
        "min_lcs": st.integers(1, 8),
        "min_lcs_ratio": st.sampled_from([0.3, 0.6, 1.0]),
        "sequence": st.sampled_from(["window", "document"]),
        "fold_case": st.booleans(),
        "markup": st.booleans(),
        "min_whole": st.integers(2, 5),
    }
)


@st.composite
def cases(draw):
    """Items, and a text that mostly holds a stretch of one of them, whether or not it begins with a word."""
    references = draw(items)
    source = draw(st.sampled_from(references))
    labels = draw(st.sampled_from([("", ""), ("A. ", "B. ", "C. ")]))
    both = "\n".join([source.text, *(labels[i % len(labels)] + part for i, part in enumerate(source.parts))])
    begin = draw(st.integers(0, len(both)))
    piece = both[begin : begin + draw(st.integers(0, 200))]
    return references, draw(hard_texts) + draw(st.sampled_from(["", " ", "7", "a", "中"])) + piece + draw(texts)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(case=cases(), options=options)
def test_verdicts_are_those_of_the_slow_reading(path, case, options):
    references, text = case
    rule = Rule(tokenizer=path, **options)
    index = ReferenceIndex.build(references, rule)
    found = {match.reference_id: match.rule for match in index.find_all_matches(text)}
    verdicts = {item.id: slow.verdict(text, item, references, rule) for item in references}
    assert found == {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    if found and "\\ud" not in ascii(text):
        assert flag_lines(index, list(as_lines(text))) == [1, 1, 1]
        assert index.flag_texts(*rows([text.encode()])).tolist() == [1]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(text=mixed | texts, size=st.sampled_from([8, 13]), fold_case=st.booleans())
def test_each_ngram_is_found_in_any_surroundings(path, text, size, fold_case):
    """Cut out of its text, with other letters, signs or numbers of words before and behind it."""
    rule, tokenizer = Rule(tokenizer=path, ngram_size=size, fold_case=fold_case), slow.TOKENIZERS[path]
    index, ids = ReferenceIndex.build([Reference("r/0", text)], rule), slow.read(text, rule)
    for i in range(len(ids) - size + 1):
        piece, ngram = tokenizer.decode(ids[i : i + size]), tuple(ids[i : i + size])
        texts = [f"{before}{piece}{behind}" for before in BEFORE for behind in BEHIND]
        holds = [ngram in slow.ngrams(slow.read(one, rule), size) for one in texts]
        flags = index.flag_texts(*rows([one.encode() for one in texts])).tolist()
        assert all(flag for flag, is_there in zip(flags, holds, strict=True) if is_there)


def flags_of_strict(path, item, text, sizes):
    """What the quick look says of a text, wherever the two share an n-gram."""
    for size in sizes:
        rule = Rule(tokenizer=path, ngram_size=size)
        reference = Reference("r/0", item)
        if slow.is_strict(text, reference, rule):
            yield ReferenceIndex.build([reference], rule).flag_texts(*rows([text.encode()])).tolist() == [1]


def test_a_sign_that_the_ngram_cuts_may_be_another(path):
    """Of three tokens each: 龘 and 龙 have the same beginning, 龘 and 侘 the same end."""
    rng, flags = random.Random(0), []
    for _ in range(60):
        words = " ".join(rng.sample(["abc", "one", "red", "two", "others", "thx", "ther", "ab", "xone"], 6))
        # so large that nothing but the n-gram with a part of the sign is shared
        sizes = [len(slow.read(words, Rule(tokenizer=path))) + n_more for n_more in (1, 2)]
        flags += flags_of_strict(path, f"{words}龘", f"x {words}龙", sizes)
        flags += flags_of_strict(path, f"龘 {words}", f"侘 {words}", sizes)
    assert len(flags) > 50
    assert all(flags)


def test_signs_of_many_tokens(path):
    """Thirteen tokens are hardly more than four of them."""
    rng, flags = random.Random(0), []
    for _ in range(40):
        signs = "".join(rng.choices("龘䂘邘龙侘", k=8))
        flags += flags_of_strict(path, signs, f"中{signs[1:-1]}中", [13])
        flags += flags_of_strict(path, signs, signs[2:], [13])
    assert len(flags) > 50
    assert all(flags)


@settings(max_examples=300, deadline=None)
@given(text=texts | hard_texts, fold_case=st.booleans())
@example(text="ﬁ 48 x̱2²é 小明a7", fold_case=True)
def test_stretch_by_stretch_is_the_same_as_all_at_once(path, text, fold_case):
    read = BpeTokens(path).read(fold(text, fold_case=fold_case))
    assert read.ids.tolist() == slow.read(text, Rule(tokenizer=path, fold_case=fold_case, markup=False))


def test_a_match_and_its_place(path):
    item = Reference("a/0", "The quick brown fox jumps over 12 lazy dogs, and 7 brothers watch it.", "", "a")
    index = ReferenceIndex.build([item], Rule(tokenizer=path))
    text = "Once: THE QUICK brown fox -- jumps over 12 lazy dogs; and 7 Brothers watch it!! The end."
    (match,) = index.find_matches(text)
    assert [text[begin:end] for begin, end in match.spans] == [text[6 : text.index("!!")]]
    assert match.lcs_ratio == 1.0
    assert pickle.loads(pickle.dumps(index)).find_matches(text) == [match]
    assert flag_lines(index, list(as_lines("Nothing of the kind: 12 brothers."))) == [0, 0, 0]


def test_many_texts_at_once_are_as_one_by_one(path):
    items = [
        Reference(f"a/{i}", f"The {i} quick brown foxes jump over {i + 7} lazy dogs today.", "", "a") for i in range(9)
    ]
    index = ReferenceIndex.build(items, Rule(tokenizer=path))
    texts = ["", *(f"x {item.text} y" for item in items), "\u0301 mark first", "e\u0301", items[3].text.upper()]
    found = index.find_in_texts(texts)
    for i, text in enumerate(texts):
        pairs = [(int(a), int(b)) for a, b in zip(found.texts_R, found.items_R, strict=True) if a == i]
        assert [items[item].id for _, item in pairs] == [match.reference_id for match in index.find_all_matches(text)]
    assert len(np.unique(found.texts_R)) == 10


def test_the_fingerprint_is_the_tokenizers_own(path, tmp_path):
    item = [Reference("a/0", LEARNT[0], "", "a")]
    fingerprint = ReferenceIndex.build(item, Rule(tokenizer=path)).fingerprint
    assert fingerprint != ReferenceIndex.build(item, Rule()).fingerprint
    other = Tokenizer.from_file(f"{path.removeprefix('hf:')}/tokenizer.json")
    other.add_tokens(["brownfox"])
    other.save(str(tmp_path / "tokenizer.json"))
    assert BpeTokens(f"hf:{tmp_path}").fingerprint != BpeTokens(path).fingerprint


def test_tokenizers_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DecontamError, match="give hf:PATH"):
        BpeTokens(f"hf:{tmp_path}")
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(DecontamError, match="don't say where a word begins"):
        BpeTokens(f"hf:{tmp_path / 'words.json'}")
    with pytest.raises(DecontamError, match="ngram_size_cjk"):
        Rule(tokenizer="qwen2", ngram_size_cjk=20)


def test_a_scan(path, tmp_path):
    item = Reference("a/0", "The quick brown fox jumps over 12 lazy dogs, and 7 brothers watch it.", "", "a")
    (tmp_path / "a.jsonl").write_text(
        '{"text": "no"}\n{"text": "So: the quick brown fox jumps over 12 lazy dogs and 7 brothers watch it"}\n'
    )
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build([item], Rule(tokenizer=path)), output=tmp_path / "out")
    assert results.matches[["document_row", "reference_id", "rule"]].to_numpy().tolist() == [[1, "a/0", "qwen2"]]
    assert results.manifest["rule"]["tokenizer"] == path
