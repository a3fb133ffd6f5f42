"""NeedleBench's prompts: the same to the byte however they are counted, and the forms that version 1 has them in."""

import hashlib
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench.context import FittedContexts, Hidden
from qwen2eval.long_context.needlebench.cut import Cut, count_tokens, frame_around, spelled
from qwen2eval.long_context.needlebench.stack import Stack, measured_texts
from qwen2eval.long_context.needlebench.task import read_grid
from qwen2eval.long_context.needlebench.texts import Frame, left_open
from tests.long_context.needlebench_files import write_needlebench
from tests.long_context.needlebench_scripted import planned, score_scripted, value_of
from tests.small_bpe import small_bpe

GOLDEN = "23ecbe5eb8a6b2f3"
"""Of all prompts of `SMALL`, as they were when every prompt was tokenized as a whole (commit ad71858)."""
SMALL = "lengths: [1500, 2500, 9000], depths: [0, 21, 50, 100], n_repeats: 2"
WHERE = "the document given to you by the user is "
FRAGMENTS = (
    *("\n", "\n\n", " ", "  ", "\t", "\r\n", "\u3000", "\xa0", "\u0301", "e\u0301"),
    *("The barn", " waits", ".", "? ", "'s", "12", "山水", "。", "，他", "🙂", "_", "¡Hola! "),  # noqa: RUF001
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_needlebench(tmp_path_factory.mktemp("needlebench"))


def own_task(folder, more, *, version=1):
    cls = "!function qwen2eval.long_context.needlebench.task.NeedleBenchGroup"
    metadata = f"{{version: 1.0, benchmark: {version}, setting: 4k, {more}}}"
    (folder / "mine.yaml").write_text(f"task: mine\nclass: {cls}\nmetadata: {metadata}\n")
    return {"include_path": (str(folder),)}


@pytest.fixture(scope="module")
def spec():
    """A model whose tokens are up to three characters or so, parted into words as Qwen2's are."""
    tokenizer = small_bpe([a + b for a in FRAGMENTS for b in FRAGMENTS], n_tokens=500)
    return ModelSpec("dummy", "tiny", tokenizer=tokenizer)


def test_prompts_are_what_they_were(data, tiny_model, tmp_path):
    """The golden hash: to count faster must not change a byte."""
    made = planned("mine", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, SMALL))
    digest = hashlib.sha256()
    for task in made.tasks.values():
        for request in task.requests:
            digest.update(str(request.prompt).encode() + b"\0")
    assert digest.hexdigest()[:16] == GOLDEN


@settings(max_examples=300)
@given(
    texts=st.lists(TEXTS.map(lambda text: text + "So it is"), min_size=1, max_size=5),
    needle=TEXTS,
    after=TEXTS,
    data=st.data(),
)
def test_a_prompt_counted_in_parts_has_the_tokens_of_the_whole(spec, texts, needle, after, data):
    counter = PromptCounter(spec, RunConfig())
    stack = Stack(measured_texts(texts, counter), counter, data.draw(st.integers(0, 2)))
    around = frame_around("Read: ", after, counter)
    assert stack.is_countable
    assert around is not None
    end = data.draw(st.integers(0, sum(map(len, texts)) + 2 * len(texts)))
    places = sorted(data.draw(st.lists(st.integers(0, end), min_size=2, max_size=2)))
    cut = Cut(end, [f"\n{needle}\n", "\nIt is here.\n"], places, data.draw(st.sampled_from(["", " .", "\n"])))
    assert count_tokens(stack, around, cut, counter) == counter.count(spelled(stack, "Read: ", after, cut))


def test_a_template_that_strips_what_the_user_says_is_not_counted_in_parts(spec):
    """Its ends of the context would be others than those that were counted."""

    def stripping(messages, *, add_generation_prompt):  # noqa: ARG001 - a template's arguments
        return "".join(f"<u>{m['content'].strip()}</u>" for m in messages)

    plain = PromptCounter(spec, RunConfig())
    strict = PromptCounter(
        ModelSpec("dummy", "strict", tokenizer=spec.tokenizer, chat_template=stripping),
        RunConfig(apply_chat_template=True),
    )
    assert frame_around("Read: ", " \n", plain) is not None
    assert frame_around("Read: ", " \n", strict) is None
    assert frame_around("Read: ", "\nWho?", strict) is not None
    contexts = FittedContexts(["The barn waits. Then it rots.  \n"] * 9, strict)
    built = contexts.build(Frame("Read: ", "\n\n"), Hidden("single", ("Here.",), (50,)), n_tokens=120, repeat=0)
    assert strict.count(built.prompt) == 120


def test_a_needle_is_never_behind_the_last_sentence_of_its_haystack(spec):
    """The haystack ends within a sentence as a rule: at depth 100 a needle stands before that one, not in it."""
    counter = PromptCounter(spec, RunConfig())
    contexts = FittedContexts(["The old barn waits. The red boat lies by the lake for a long time. "] * 40, counter)
    n_inside = 0
    for n_tokens in range(300, 340):
        built = contexts.build(Frame("", "\nWho?"), Hidden("single", ("Here.",), (100,)), n_tokens=n_tokens, repeat=0)
        before, _, behind = built.prompt.partition("\nHere.\n")
        assert before.endswith((".", "\n"))
        n_inside += len(behind.removesuffix("\nWho?").strip()) > 2
    assert n_inside > 20


def test_a_haystack_that_ends_uncountable_when_it_begins_again_is_counted_as_a_whole(spec):
    """A text without a safe cut, last of the second round, made prompts of 339 tokens where 400 were asked for."""
    counter = PromptCounter(spec, RunConfig())
    contexts = FittedContexts(["\n\n 山", "🙂"], counter)
    hidden = Hidden("single", ("Here.",), (50,))
    was_countable = [contexts._stack(repeat).is_countable for repeat in range(4)]
    for repeat in range(4):
        for n_tokens in (150, 400):
            built = contexts.build(Frame("Doc: ", "\n\nWho?"), hidden, n_tokens=n_tokens, repeat=repeat)
            assert counter.count(built.prompt) == n_tokens
    assert any(was_countable)
    assert not any(contexts._stack(repeat).is_countable for repeat in range(4))


def test_a_haystack_of_blank_texts_is_refused(data, tiny_model, tmp_path):
    """Blank lines merge into a few tokens, so no number of them is long enough: planning never ended."""
    folder = tmp_path / "data" / "needlebench"
    shutil.copytree(data / "needlebench", folder)
    (folder / "PaulGrahamEssays.jsonl").write_text('{"text": ""}\n{"text": " \\n"}\n')
    with pytest.raises(DataFileError, match=r"PaulGrahamEssays.jsonl holds no text: all of its rows are blank"):
        planned("mine", data_dir=tmp_path / "data", tokenizer=tiny_model, **own_task(tmp_path, SMALL))


@pytest.mark.parametrize("part", ["single", "retrieval", "reasoning"])
@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_the_question_first(data, tiny_model, tmp_path, part, language):
    more = f"{SMALL}, parts: [{part}], languages: [{language}], position: start"
    made = planned("mine", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, more))
    task = made.tasks[f"mine_{part}"]
    for request, doc in zip(task.requests, task.docs, strict=True):
        prompt = str(request.prompt)
        document = prompt.lower().index(WHERE if language == "English" else "用户现在给你的文档是")
        assert prompt.index(doc["question"]) + len(doc["question"]) < document
        assert all(prompt.index(f"\n{needle}\n") > document for needle in doc["needles"])
        assert request.n_context_tokens == doc["length"]
    assert value_of(score_scripted(made, lambda doc, _: ", ".join(doc["keywords"]))[0], f"mine_{part}", "acc") == 1


def test_a_base_models_prompt_ends_where_the_answer_begins(data, tiny_model, tmp_path):
    made = planned("mine", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, f"{SMALL}, base: true"))
    for request, doc in zip(made.tasks["mine_single"].requests, made.tasks["mine_single"].docs, strict=True):
        place = doc["needles"][0].split(" is the")[0].removeprefix("Hidden on ").split("上藏着")[0]
        form = f"in the format 'On {place} is" if doc["language"] == "English" else f"请按照'{place}上藏着"
        assert str(request.prompt).endswith(form)
        assert request.n_context_tokens == doc["length"]
    for request, doc in zip(made.tasks["mine_retrieval"].requests, made.tasks["mine_retrieval"].docs, strict=True):
        assert str(request.prompt).endswith(" is" if doc["language"] == "English" else "上藏着")
    # the questions of the chains have no format of answer
    reasoning = made.tasks["mine_reasoning"]
    assert all(str(r.prompt).endswith(d["question"]) for r, d in zip(reasoning.requests, reasoning.docs, strict=True))


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("Who? Please answer in the format 'It is King's ____.'", "Who? Please answer in the format 'It is King's"),
        ("Who? Please answer in the format 'It is ...'.", "Who? Please answer in the format 'It is"),
        ("Who? Please answer in the format 'a name'.", "Who? Please answer in the format 'a name"),
        ("Who?", "Who?"),
    ],
)
def test_what_is_left_of_a_format(question, left):
    assert left_open(Frame("before", question)) == Frame("before", left)


def test_a_chat_template_closes_an_open_prompt_and_it_is_said(data, tiny_model, tmp_path):
    config = RunConfig(
        model="hf",
        model_args={"pretrained": str(tiny_model), "max_length": 4000},
        tasks=("mine",),
        data_dir=str(data),
        apply_chat_template=True,
        **own_task(tmp_path, "lengths: [1500], depths: [50], n_repeats: 1, parts: [single], base: true"),
    )
    from qwen2eval.evaluate import plan

    assert any("the chat template closes it" in warning for warning in plan(config).warnings)


@pytest.mark.parametrize(
    ("version", "more", "said"),
    [
        (1, "position: middle", "'middle'; it may be end or start"),
        (1, "base: maybe", "'base' in the metadata must be of the kind bool"),
        (1, "base: true, position: start", "needs 'position: end'"),
        (2, "position: start", "version 1's prompts only"),
        (2, "base: true", "version 1's prompts only"),
    ],
)
def test_a_form_that_can_not_be(data, tmp_path, version, more, said):
    with pytest.raises(ConfigError, match=said):
        planned("mine", data_dir=data, **own_task(tmp_path, more, version=version))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"depths": [0, 150]}, "'depths' in the metadata are percent, 0 to 100, not 150"),
        ({"n_repeats": 0}, "'n_repeats' in the metadata is 0: nothing would be asked"),
        ({"benchmark": 3}, "no version 3: `benchmark` in the task's metadata is 1 or 2"),
        ({"lengths": [True]}, r"'lengths' in the metadata must list whole numbers, not \[True\]"),
    ],
)
def test_a_grid_that_can_not_be(more, said):
    """A depth of 150 was taken for the haystack's end, and `true` for a length of one token."""
    with pytest.raises(ConfigError, match=said):
        read_grid({"benchmark": 1, "setting": "4k", **more})


def test_a_retrieval_has_a_score_of_each_depth(data, tiny_model, tmp_path):
    def finds_the_first_half(doc, _):
        return " ".join(keyword for keyword, depth in zip(doc["keywords"], doc["depths"], strict=True) if depth < 50)

    made = planned("mine", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, f"{SMALL}, parts: [retrieval]"))
    scores, samples = score_scripted(made, finds_the_first_half)
    found = {depth: value_of(scores, "mine_retrieval", f"acc_depth_{depth}") for depth in (0, 21, 50, 100)}
    assert found == {0: 1, 21: 1, 50: 0, 100: 0}
    assert value_of(scores, "mine_retrieval", "acc") == 0.5
    assert list(samples["mine_retrieval"].plan.task.aggregations) == ["acc", *(f"acc_depth_{d}" for d in found)]
    reasons = planned("mine", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, f"{SMALL}, parts: [single]"))
    assert list(reasons.tasks["mine_single"].task.aggregations) == ["acc"]
