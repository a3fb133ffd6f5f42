"""NeedleBench's tasks on self-written data in the published formats: docs, prompts, scores, and bad input."""

import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from qwen2eval import RunConfig, run
from qwen2eval.content import content_dir
from qwen2eval.errors import ConfigError, DataFileError, MissingDataError
from qwen2eval.evaluate import plan
from qwen2eval.long_context.needlebench import texts
from qwen2eval.long_context.needlebench.context import haystack_order
from qwen2eval.long_context.needlebench.data import Needle, NeedleBenchData
from qwen2eval.long_context.needlebench.docs import Grid, make_docs, pick_distinct
from qwen2eval.long_context.needlebench.grid import setting
from qwen2eval.rescore import rescore
from qwen2eval.tasks.registry import load_tasks, user_entries
from tests.long_context.needlebench_files import chain, chinese_needle, english_needle, write_needlebench
from tests.long_context.needlebench_scripted import planned, score_scripted, value_of

SETTINGS = ("4k", "8k", "32k", "128k", "200k", "256k", "1000k")
SMALL = "lengths: [1500, 2500], depths: [0, 40, 100], n_repeats: 2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_needlebench(tmp_path_factory.mktemp("needlebench"))


def own_task(folder, name="small", *, version=1, more=SMALL):
    """Write a user's own variant: three lines."""
    cls = "!function qwen2eval.long_context.needlebench.task.NeedleBenchGroup"
    metadata = f"{{version: 1.0, benchmark: {version}, setting: 4k, {more}}}"
    (folder / f"{name}.yaml").write_text(f"task: {name}\nclass: {cls}\nmetadata: {metadata}\n")
    return {"include_path": (str(folder),)}


def make_all(grid, part, data):
    return make_docs(grid, part, NeedleBenchData(data_dir=str(data)))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_shipped_and_has_its_grid(version, name):
    task = f"needlebench_{name}" if version == 1 else f"needlebench_v2_{name}"
    assert task in user_entries([str(content_dir("tasks") / "needlebench")])
    found = setting(version, name)
    assert all(a < b for values in (found.lengths, found.depths) for a, b in pairwise(values))
    assert found.lengths[-1] == 1000 * int(name[:-1])
    assert found.buffer("single", "Chinese") == 200


def test_the_published_number_of_prompts(data):
    grid = Grid(1, setting(1, "128k"))
    counts = [len(make_all(grid, part, data)) for part in ("single", "reasoning", "retrieval")]
    assert counts == [1760, 7040, 400]


@pytest.mark.parametrize(
    ("version", "name", "part", "buffer"),
    [
        (1, "4k", "retrieval", 1000),
        (1, "8k", "reasoning", 1000),
        (1, "32k", "single", 3000),
        (1, "128k", "reasoning", 600),
        (2, "8k", "single", 500),
        (2, "256k", "retrieval", 3000),
    ],
)
def test_published_buffers(version, name, part, buffer):
    assert setting(version, name).buffer(part, "English") == buffer


def test_single_needles_are_the_originals_draws(data):
    docs = make_all(Grid(1, setting(1, "4k")), "single", data)
    needles = [f"Hidden on Isle {i}x is the famous Gem {i}y." for i in range(30)]
    for repeat in range(10):
        random.seed(repeat)  # as the original: the global generator
        expected = random.choice(needles)
        mine = [doc for doc in docs if doc["language"] == "English" and doc["repeat"] == repeat]
        assert {doc["needles"] for doc in mine} == {(expected,)}
        assert len(mine) == 4 * 20
    assert [doc["length"] for doc in docs] == sorted(doc["length"] for doc in docs)


def test_a_retrieval_has_one_set_of_needles_in_another_order_each_time(data):
    docs = make_all(Grid(2, setting(2, "4k")), "retrieval", data)
    english = [doc for doc in docs if doc["language"] == "English" and doc["length"] == 1000]
    assert len(english) == 25
    assert len({frozenset(doc["needles"]) for doc in english}) == 1
    assert len({doc["needles"] for doc in english}) == 25
    for doc in english:
        assert [needle.split("famous ")[1].rstrip(".") for needle in doc["needles"]] == list(doc["keywords"])
        assert doc["depths"] == tuple(range(0, 101, 10))
    assert "cell" not in english[0]
    again = make_all(Grid(2, setting(2, "4k")), "retrieval", data)
    assert again == docs
    other = make_all(Grid(2, setting(2, "4k"), seed=5), "retrieval", data)
    assert {frozenset(doc["needles"]) for doc in other} != {frozenset(doc["needles"]) for doc in docs}


def test_distinct_needles():
    needles = [Needle(f"n{i}", "q", f"s{i % 3}", f"k{i % 4}") for i in range(12)]
    found = pick_distinct(needles, 3, rng=random.Random(1))
    assert len({n.subject for n in found}) == len({n.keyword for n in found}) == 3
    with pytest.raises(DataFileError, match="4 are needed"):
        pick_distinct(needles, 4, rng=random.Random(1))


def test_reasoning_chains_of_both_versions(data):
    first = make_all(Grid(1, setting(1, "4k")), "reasoning", data)
    assert {len(doc["needles"]) for doc in first} == {2, 3, 4, 5}
    chains = NeedleBenchData(data_dir=str(data)).chains("English", 3)
    random.seed(7)
    chosen = random.choice(chains)
    assert chosen.facts in {d["needles"] for d in first if d["repeat"] == 7 and d["language"] == "English"}
    second = make_all(Grid(2, setting(2, "4k")), "reasoning", data)
    doc = next(d for d in second if len(d["needles"]) == 5 and d["language"] == "English")
    assert doc["keywords"][0] in " ".join(doc["needles"])
    assert "\\boxed{" in doc["notes"]
    assert doc["cell"] == {"length": doc["length"], "depth": doc["depths"][0]}


def test_prompts_of_the_protocol():
    guided = texts.guided("Who? Please answer in the format 'It is ____.'", language="English")
    assert guided == (
        "Who? Before answering, please consider what in the document is most relevant to this question. "
        "Please answer in the format 'It is ____.'"
    )
    assert texts.guided("谁？请按照'是____。'的格式回答。", language="Chinese") == (  # noqa: RUF001
        "谁？在回答之前，请思考文档中与此问题最相关的内容是什么。请按照'是____。'的格式回答。"  # noqa: RUF001
    )
    needles = [Needle("n", f"What is at {p}? Please answer in the format 'At {p} is ____.'", p, "k") for p in "AB"]
    joined = texts.joined_question(needles, language="English")
    assert joined == "What is at A?、What is at B?Please answer in the format of 'At A is ____、At B is ____'"
    around = texts.frame("Who?", version=1, language="English")
    assert around.before.endswith("The document given to you by the user is ")
    assert around.after == "\n\nNow, the question is: Who?"
    with pytest.raises(DataFileError, match="no answer format"):
        texts.joined_question([replace(needles[0], question="What?")], language="English")


def right(doc, _):
    answer = ", ".join(doc["keywords"])
    return f"So it is \\boxed{{{answer}}}."


def test_a_model_that_knows_all_and_one_that_knows_nothing(data, tiny_model, tmp_path):
    for version in (1, 2):
        made = planned("small", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, version=version))
        assert sorted(made.tasks) == ["small_reasoning", "small_retrieval", "small_single"]
        scores, _ = score_scripted(made, right)
        assert scores.value.tolist() == [1.0] * (4 + 3)  # three parts, three depths of multi-retrieval, the overall
        assert scores.n_unscored.tolist() == [0] * 7
        scores, _ = score_scripted(made, lambda doc, request: "¤")  # noqa: ARG005
        assert value_of(scores, "small", "acc") < (0.1 if version == 1 else 1e-9)


def test_the_overall_weighs_its_parts(data, tiny_model, tmp_path):
    def all_but_reasoning(doc, request):
        return "¤" if doc["part"] == "reasoning" else right(doc, request)

    def only_retrieval(doc, request):
        return right(doc, request) if doc["part"] == "retrieval" else "¤" * 999

    for version, faithful, without_reasoning, of_retrieval in (
        (1, False, 0.7, 0.3),
        (1, True, 0.7, 0.7),
        (2, False, 2 / 3, 1 / 3),
    ):
        options = own_task(tmp_path, version=version, more=f"{SMALL}, faithful: {str(faithful).lower()}")
        if faithful:  # the weights only: cl100k_base may not be there
            group = group_of("small", options, data)
            row = {f"{name}": {"acc,none": 0.0, "acc_stderr,none": 0.1} for name in group.weights}
            row["small_retrieval"]["acc,none"] = 1.0
            assert group.aggregate(row)["acc,none"] == pytest.approx(of_retrieval)
            continue
        made = planned("small", data_dir=data, tokenizer=tiny_model, **options)
        assert value_of(score_scripted(made, all_but_reasoning)[0], "small", "acc") == pytest.approx(without_reasoning)
        assert value_of(score_scripted(made, only_retrieval)[0], "small", "acc") == pytest.approx(
            of_retrieval, abs=0.01
        )


def group_of(name, options, data):
    loaded = load_tasks(RunConfig(model="dummy", tasks=(name,), data_dir=str(data), **options))
    assert not loaded.failures
    return loaded.groups[name].lm_eval


def test_the_overall_has_the_error_of_its_parts_and_none_without_a_part(tmp_path, data):
    group = group_of("small", own_task(tmp_path), data)
    row = {name: {"acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 9} for name in group.weights}
    assert group.aggregate(row)["acc_stderr,none"] == pytest.approx(0.1 * (0.4**2 + 2 * 0.3**2) ** 0.5)
    row["small_single"]["acc_stderr,none"] = "N/A"
    assert group.aggregate(row)["acc_stderr,none"] == "N/A"
    del row["small_single"]["acc,none"]
    assert "acc,none" not in group.aggregate(row)


def test_parts_of_a_setting_alone(data, tiny_model, tmp_path):
    options = own_task(tmp_path, more=f"{SMALL}, parts: [reasoning], n_facts: [5], languages: [Chinese]")
    made = planned("small", data_dir=data, tokenizer=tiny_model, **options)
    assert list(made.tasks) == ["small_reasoning"]
    assert made.tasks["small_reasoning"].n_docs_total == 2 * 3 * 2
    scores, _ = score_scripted(made, right)
    assert set(scores.task) == {"small_reasoning"}


@pytest.mark.parametrize("options", [{}, {"apply_chat_template": True, "system_instruction": "Be brief."}])
def test_prompts_have_the_asked_number_of_tokens(data, tiny_model, tmp_path, options):
    """As the plan counts them, which knows nothing of this task: template, system instruction and all."""
    config = RunConfig(
        model="hf",
        model_args={"pretrained": str(tiny_model), "max_length": 4000},
        tasks=("small",),
        data_dir=str(data),
        **own_task(tmp_path, version=2),
        **options,
    )
    made = plan(config)
    for name in ("small_single", "small_reasoning"):
        lengths = {
            doc_id: doc["length"] for doc_id, doc in zip(made.tasks[name].doc_ids, made.tasks[name].docs, strict=True)
        }
        requests = made.tasks[name].requests
        too_long = name == "small_reasoning"  # the notes alone have 1,500 bytes
        wrong = [r for r in requests if r.n_context_tokens != lengths[r.doc_id]]
        assert {lengths[r.doc_id] for r in wrong} <= ({1500} if too_long else set())


def test_lengths_that_the_model_does_not_take_are_left_out_and_named(data, tiny_model, tmp_path):
    options = {"data_dir": data, "tokenizer": tiny_model, **own_task(tmp_path, more=f"{SMALL}, parts: [single]")}
    made = planned("small", **options, max_length=2000)
    assert {doc["length"] for doc in made.tasks["small_single"].docs} == {1500}
    assert any("left out: contexts of 2,500 tokens" in warning for warning in made.warnings)
    with pytest.raises(ConfigError, match="takes prompts of at most 936 tokens; the shortest context has 1,500"):
        planned("small", **options, max_length=1000)


def test_a_question_that_is_too_long_and_a_haystack_that_is_too_short_are_told(data, tiny_model, tmp_path):
    more = "lengths: [60], depths: [50], n_repeats: 1, parts: [single]"
    made = planned("small", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, more=more))
    assert any("needles and question alone are longer than asked" in warning for warning in made.warnings)
    more = "lengths: [90000], depths: [50], n_repeats: 1, parts: [single]"
    made = planned("small", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, more=more))
    assert any("too short for 2 prompts" in warning for warning in made.warnings)


def test_without_a_tokenizer_no_length_can_be_met(data, tmp_path):
    with pytest.raises(ConfigError, match="tokenizer"):
        planned("small", data_dir=data, **own_task(tmp_path))


@pytest.fixture
def byte_cl100k(monkeypatch):
    """An encoding of bytes in tiktoken under the original's name: the real vocabulary must be downloaded."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)}
    encoding = tiktoken.Encoding(
        "cl100k_base", pat_str=r"(?s:.)", mergeable_ranks=ranks, special_tokens={"<|end|>": 256}
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", encoding)


@pytest.mark.usefixtures("byte_cl100k")
@pytest.mark.parametrize("asked", ["in the task", "of the run"])
def test_a_faithful_context_is_the_length_less_its_buffer(data, tmp_path, asked):
    more = "lengths: [2000, 3000], depths: [0, 50], n_repeats: 2, languages: [English]"
    more, flag = (f"{more}, faithful: true", False) if asked == "in the task" else (more, True)
    # the model's tokenizer is not asked for
    made = planned("small", data_dir=data, reference_implementation=flag, **own_task(tmp_path, more=more))
    assert made.groups["small"].lm_eval.weights["small_single"] == 0  # multi-needle retrieval stands in for it
    haystack = "".join(NeedleBenchData(data_dir=str(data)).haystack("English")[i] for i in haystack_order(12, 0))
    for part in ("single", "reasoning", "retrieval"):
        task = made.tasks[f"small_{part}"]
        for request, doc in zip(task.requests, task.docs, strict=True):
            context = (
                str(request.prompt).partition("given to you by the user is ")[2].rpartition("\n\nNow, the question")[0]
            )
            assert len(context) == doc["length"] - setting(1, "4k").buffer(part, "English")
            assert all(f"\n{needle}\n" in context for needle in doc["needles"])
            for needle in doc["needles"]:
                context = context.replace(f"\n{needle}\n", "", 1)
            if doc["repeat"] == 0:  # no separators, no sentence rule
                assert haystack.startswith(context)
    scores, _ = score_scripted(made, right)
    assert value_of(scores, "small", "acc") == 1


def test_reference_implementation_without_a_task_that_supports_it_is_a_warning():
    made = plan(RunConfig(model="demo", tasks=("demo_mmlu",), reference_implementation=True))
    assert any("--reference_implementation changes nothing" in warning for warning in made.warnings)


def test_faithful_without_the_vocabulary_says_what_to_download_and_where(data, tiny_model, tmp_path, monkeypatch):
    """One message has the address and the name of the file; nothing is asked of the network before."""
    tiktoken = pytest.importorskip("tiktoken")
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    options = own_task(tmp_path, more=f"{SMALL}, faithful: true")
    with pytest.raises(ConfigError, match="cl100k_base, whose vocabulary can't be loaded") as info:
        planned("small", data_dir=data, tokenizer=tiny_model, **options)
    said = str(info.value)
    assert "--offline is set" in said
    # the name that tiktoken gives the file: without network it takes no other
    path = tmp_path / "empty" / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    assert (
        f"download https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken, save it as {path}" in said
    )


def test_a_vocabulary_that_is_damaged_is_told_in_the_same_words(data, tiny_model, tmp_path, monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_text("no vocabulary")
    with pytest.raises(ConfigError, match=r"can't be loaded \(.*\): run once without --offline, or download https"):
        planned("small", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path, more=f"{SMALL}, faithful: true"))


def test_missing_files_name_three_ways(tmp_path, tiny_model):
    for data_dir, name in (
        (tmp_path, "needles.jsonl"),
        (write_needlebench(tmp_path / "some"), "PaulGrahamEssays.jsonl"),
    ):
        (data_dir / "needlebench" / name).unlink(missing_ok=True)
        with pytest.raises(
            MissingDataError, match=r"(?s)Three ways.*--data_dir.*data package.*opencompass/NeedleBench"
        ) as info:
            planned("needlebench_4k", data_dir=data_dir, tokenizer=tiny_model)
        assert name in str(info.value)


@pytest.mark.parametrize(
    ("part", "name", "text", "said"),
    [
        ("single", "needles.jsonl", '{"language": "English"}\n', "no column 'needle'"),
        ("single", "needles.jsonl", '{"langu', "not JSON"),
        ("single", "needles.jsonl", json.dumps(english_needle(1) | {"arg2": 7}), "row 1: arg2 is 7, not a text"),
        (
            "single",
            "needles.jsonl",
            json.dumps(english_needle(1) | {"needle": " "}),
            "row 1: needle is ' ', not a text",
        ),
        ("retrieval", "needles.jsonl", json.dumps(english_needle(1) | {"retrieval_question": 3}), "is 3, not a text"),
        ("single", "needles.jsonl", json.dumps(chinese_needle(1)), "no needles with the language 'English'"),
        ("single", "PaulGrahamEssays.jsonl", "", "no rows"),
        ("single", "PaulGrahamEssays.jsonl", '{"text": "a"}\n{"text": 5}\n', "a text is 5"),
        ("single", "zh_finance.jsonl", '{"text": ["a"]}\n', r"a text is \['a'\]"),
        ("single", "zh_finance.jsonl", '{"story": "a"}\n', "no column 'text'"),
        ("reasoning", "multi_needle_reasoning_en.json", "[1]", "expected a list of objects"),
        ("reasoning", "multi_needle_reasoning_en.json", "[]", "no chains of 2 facts"),
        ("reasoning", "multi_needle_reasoning_en.json", "7", "expected a list of objects"),
        (
            "reasoning",
            "multi_needle_reasoning_en.json",
            json.dumps([chain(2, 0) | {"derivations": "ab"}]),
            "derivations",
        ),
        ("reasoning", "multi_needle_reasoning_en.json", json.dumps([chain(2, 0) | {"derivations": [1, 2]}]), "list"),
        ("reasoning", "multi_needle_reasoning_en.json", json.dumps([chain(2, 0) | {"answer": None}]), "answer"),
        ("reasoning", "multi_needle_reasoning_zh.json", json.dumps([{"derivation_count": 2}]), "derivations"),
        ("reasoning", "multi_needle_reasoning_zh.json", "{", "not JSON"),
    ],
)
def test_broken_files_are_named(tmp_path, tiny_model, part, name, text, said):
    data_dir = write_needlebench(tmp_path / "data")
    (data_dir / "needlebench" / name).write_text(text)
    options = own_task(tmp_path, more=f"{SMALL}, parts: [{part}]")
    with pytest.raises(DataFileError, match=said) as info:
        planned("small", data_dir=data_dir, tokenizer=tiny_model, **options)
    assert name in str(info.value)
    assert "\n" not in str(info.value)


def test_names_that_are_missing_or_too_few(tmp_path):
    data_dir = write_needlebench(tmp_path / "data", n_names=3)
    with pytest.raises(DataFileError, match="3 English names; a chain of 4 people"):
        make_all(Grid(2, setting(2, "4k")), "reasoning", data_dir)
    (data_dir / "needlebench" / "names.json").write_text('{"English": ["a"]}')
    with pytest.raises(DataFileError, match="names as text under 'English'"):
        make_all(Grid(2, setting(2, "4k")), "reasoning", data_dir)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("benchmark: 3, setting: 4k", "no version 3"),
        ("benchmark: 1, setting: 5k", "no setting '5k'; there are 4k"),
        ("benchmark: 1, setting: 4k, lengths: 8000", "'lengths'"),
        ("benchmark: 1, setting: 4k, depths: [-1]", "'depths'"),
        ("benchmark: 1, setting: 4k, n_repeats: many", "'n_repeats'"),
        ("benchmark: 1, setting: 4k, languages: [Latin]", "Latin"),
        ("benchmark: 1, setting: 4k, parts: [all]", "'parts'"),
    ],
)
def test_a_variant_that_can_not_be(tmp_path, data, metadata, said):
    cls = "!function qwen2eval.long_context.needlebench.task.NeedleBenchGroup"
    (tmp_path / "odd.yaml").write_text(f"task: odd\nclass: {cls}\nmetadata: {{version: 1.0, {metadata}}}\n")
    with pytest.raises(ConfigError, match=said):
        planned("odd", data_dir=data, include_path=(str(tmp_path),))


def test_the_whole_path(data, tiny_model, tmp_path):
    options = own_task(tmp_path, version=1)
    config = RunConfig(
        model="dummy",
        model_args={"tokenizer": str(tiny_model)},
        tasks=("small",),
        data_dir=str(data),
        offline=True,
        output_path=str(tmp_path / "runs"),
        **options,
    )
    finished = run(config, quiet=True)
    check_whole(finished)
    check_whole(rescore(finished.path))  # without the model, hence without its tokenizer


def check_whole(finished):
    rows = finished.scores[finished.scores.cell_length.isna() & finished.scores.cell_depth.isna()]
    assert [m for m in rows.metric if m != "acc"] == ["acc_depth_0", "acc_depth_40", "acc_depth_100"]
    rows = rows[rows.metric == "acc"]
    assert rows.task.tolist() == ["small_single", "small_reasoning", "small_retrieval", "small"]
    parts = dict(zip(rows.task, rows.value, strict=True))
    weighed = 0.4 * parts["small_single"] + 0.3 * parts["small_reasoning"] + 0.3 * parts["small_retrieval"]
    assert parts["small"] == pytest.approx(weighed)
    samples = finished.samples("small_single")
    assert set(samples.n_prompt_tokens) == {1500, 2500}
    assert samples.cluster.nunique() == 4
    assert finished.info.tasks["small_single"].data.source.endswith("needlebench")
