"""NeedleBench's contexts: places of needles, exact lengths, and the original's own way."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench.context import (
    FittedContexts,
    Hidden,
    OriginalContexts,
    haystack_order,
    needle_places,
)
from qwen2eval.long_context.needlebench.texts import Frame
from qwen2eval.long_context.sentences import sentence_ends
from tests.small_bpe import small_bpe

FRAME = Frame("The document: ", "\n\nNow, the question is: what is hidden?")
FACTS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("depth", "original", "ours"),
    [
        (0, [0, 120, 250], [0, 100, 200]),
        (50, [500, 620, 750], [500, 600, 700]),
        (80, [800, 920, 1000], [800, 900, 1000]),
        (90, [900, 1000, 1000], [900, 1000, 1000]),
        (100, [1000, 1000, 1000], [1000, 1000, 1000]),
    ],
)
def test_published_places_of_facts(depth, original, ours):
    facts = Hidden("reasoning", FACTS, (depth,))
    assert needle_places(facts, 1000, [20, 30, 25], faithful=True) == original
    assert needle_places(facts, 1000, [20, 30, 25]) == ours


def test_needles_of_a_retrieval_have_depths_of_their_own():
    assert needle_places(Hidden("retrieval", FACTS, (0, 21, 100)), 1000, [9, 9, 9]) == [0, 210, 1000]


def insert_as_original(haystack, needles, depth):
    """The original's planning and insertion, step by step, on lists: for `test_original_places`."""
    total, planned = len(haystack), []
    for i in range(len(needles)):
        point = int(total * (depth / 100)) if i == 0 else int(planned[-1] + len(needles[i - 1]) + total * (10 / 100))
        planned.append(min(point, total + sum(len(needle) for needle in needles[:i])))
    for i, needle in enumerate(needles):
        haystack = haystack[: planned[i]] + needle + haystack[planned[i] :]
        planned = [point + len(needle) if j > i else point for j, point in enumerate(planned)]
    return haystack


@given(
    st.integers(0, 300),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(0, 100),
)
def test_original_places(n_haystack, lengths, depth):
    haystack = list(range(n_haystack))
    needles = [[f"n{i}"] * length for i, length in enumerate(lengths)]
    expected = insert_as_original(haystack, needles, depth)
    places = needle_places(Hidden("reasoning", ("x",) * len(needles), (depth,)), n_haystack, lengths, faithful=True)
    built, done = [], 0
    for place, needle in zip(places, needles, strict=True):
        built += haystack[done:place] + needle
        done = place
    assert built + haystack[done:] == expected


def test_the_order_of_a_repeat_is_that_of_all_shuffles_before():
    texts = list("abcdefg")
    for repeat in range(4):
        random.Random(repeat).shuffle(texts)  # one list, again and again, as in the original
        assert ["abcdefg"[i] for i in haystack_order(7, repeat)] == texts


def test_a_context_of_the_original():
    """Tokens are characters here: a buffer was taken off already, needles stand anywhere, and nothing is repeated."""
    contexts = OriginalContexts(
        ["abcdefghij", "klmnopqrst"], lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids))
    )
    whole = "".join(["abcdefghij", "klmnopqrst"][i] for i in haystack_order(2, 0))
    built = contexts.build(FRAME, Hidden("single", ("XY",), (50,)), n_tokens=14, repeat=0)
    assert built.prompt == FRAME.before + whole[:5] + "\nXY\n" + whole[5:10] + FRAME.after
    longer = contexts.build(FRAME, Hidden("single", ("XY",), (100,)), n_tokens=999, repeat=0)
    assert longer.prompt == FRAME.before + whole + "\nXY\n" + FRAME.after
    none = contexts.build(FRAME, Hidden("single", ("XY",), (50,)), n_tokens=-3, repeat=0)
    assert none.prompt == FRAME.before + "\nXY\n" + FRAME.after


SENTENCES = {
    "English": [
        f"The {a} {b} waits by the {c}. " for a in ("old", "red") for b in ("barn", "boat") for c in ("hill", "lake")
    ],
    "Chinese": [f"{a}上有{b}，{c}很大。" for a in "山水" for b in "风雪" for c in "天地"],  # noqa: RUF001
    "Emoji": ["So 🙂🙃! ", "Ça va? ", "Naïve ½ … ", "각 hangul. "],
}


def haystack_texts(script, n_texts=8):
    rng = random.Random(script)
    return ["".join(rng.choices(SENTENCES[script], k=30)) for _ in range(n_texts)]


@pytest.fixture(scope="module")
def fronts():
    """Two models: one with merges and the Qwen2 pattern, trained on the texts; one that knows bytes only."""
    texts = [text for script in SENTENCES for text in haystack_texts(script)]
    made = {}
    for name, n_tokens in (("merges", 600), ("bytes", 256)):
        fast = small_bpe(texts if name == "merges" else [], n_tokens=n_tokens)
        made[name] = ModelSpec("dummy", name, tokenizer=fast, chat_template=_template)
    return made


def _template(messages, *, add_generation_prompt):
    assert add_generation_prompt
    return "".join(f"<{m['role']}>\n{m['content']}\n" for m in messages) + "<assistant>\n"


@pytest.fixture(scope="module")
def contexts(fronts):
    """Contexts by (tokenizer, script, with chat template); building them again would dominate the time."""
    made = {}
    for name, spec in fronts.items():
        for script in SENTENCES:
            for chat in (False, True):
                config = RunConfig(apply_chat_template=chat, system_instruction="Be brief." if chat else None)
                counter = PromptCounter(spec, config)
                made[name, script, chat] = FittedContexts(haystack_texts(script), counter), counter
    return made


@settings(max_examples=200)
@given(data=st.data())
def test_prompts_are_exactly_as_long_as_asked_with_every_needle_whole_between_sentences(contexts, data):
    fitted, counter = contexts[data.draw(st.sampled_from(sorted(contexts)))]
    part = data.draw(st.sampled_from(["single", "retrieval", "reasoning"]))
    n_needles = 1 if part == "single" else data.draw(st.integers(1, 4))
    needles = tuple(f"Hidden on Isle {i} is Gem {i}, 宝石。" for i in range(n_needles))
    n_depths = n_needles if part == "retrieval" else 1
    depths = tuple(sorted(data.draw(st.lists(st.integers(0, 100), min_size=n_depths, max_size=n_depths))))
    n_tokens, repeat = data.draw(st.integers(420, 3000)), data.draw(st.integers(0, 3))
    built = fitted.build(FRAME, Hidden(part, needles, depths), n_tokens=n_tokens, repeat=repeat)
    assert built.n_over == 0
    final = counter.render(built.prompt)
    assert len(counter.spec.tokenizer(final)["input_ids"]) == n_tokens
    context = built.prompt.removeprefix(FRAME.before).removesuffix(FRAME.after)
    found = [context.index(f"\n{needle}\n") for needle in needles]
    assert found == sorted(found)
    for needle in needles:
        before, after = (without(needles, text) for text in context.split(f"\n{needle}\n"))
        # at the very end, but for what fills the prompt up
        assert len(before) in sentence_ends(before + after) or not after.strip(" .a\n。")


def without(needles, text):
    for needle in needles:
        text = text.replace(f"\n{needle}\n", "")
    return text


@pytest.mark.parametrize("depth", [0, 25, 50, 100])
def test_a_needle_is_as_deep_as_asked(contexts, depth):
    fitted, counter = contexts["merges", "English", True]
    built = fitted.build(FRAME, Hidden("single", ("Here it is.",), (depth,)), n_tokens=2000, repeat=1)
    before = built.prompt.index("\nHere it is.\n") - len(FRAME.before)
    n_chars = len(built.prompt) - len(FRAME.before) - len(FRAME.after) - len("\nHere it is.\n")
    assert before / n_chars * 100 == pytest.approx(depth, abs=2)
    assert counter.count(built.prompt) == 2000


def test_one_repeat_has_one_haystack_at_all_lengths(contexts):
    fitted, _ = contexts["merges", "Chinese", False]
    prompts = [fitted.build(FRAME, Hidden("single", ("针",), (100,)), n_tokens=n, repeat=2).prompt for n in (500, 900)]
    short, long = (prompt.partition("\n针\n")[0] for prompt in prompts)
    assert long.startswith(short[:-5])
    other = fitted.build(FRAME, Hidden("single", ("针",), (100,)), n_tokens=900, repeat=3).prompt
    assert not other.startswith(short)


def test_texts_that_are_too_short_are_used_again_and_it_is_said(fronts):
    counter = PromptCounter(fronts["bytes"], RunConfig())
    fitted = FittedContexts(["One thing. ", "Two things. "], counter)
    hidden = Hidden("single", ("Here.",), (50,))
    assert not fitted.build(
        FRAME, hidden, n_tokens=counter.count(FRAME.before + FRAME.after) + 20, repeat=0
    ).is_repeated
    built = fitted.build(FRAME, hidden, n_tokens=1000, repeat=0)
    assert built.is_repeated
    assert counter.count(built.prompt) == 1000


def test_a_question_that_is_longer_than_the_length_has_no_haystack(fronts):
    counter = PromptCounter(fronts["bytes"], RunConfig())
    hidden = Hidden("retrieval", ("First needle.", "Second needle."), (0, 100))
    built = FittedContexts(["Hay. "], counter).build(FRAME, hidden, n_tokens=50, repeat=0)
    assert built.prompt == FRAME.before + "\nFirst needle.\n\nSecond needle.\n" + FRAME.after
    assert built.n_over == counter.count(built.prompt) - 50 > 0
