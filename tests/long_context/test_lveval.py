"""LV-Eval's tasks on self-written rows in the published format: reading, prompts, cuts, scores, groups, bad input."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qwen2eval import RunConfig, run
from qwen2eval.content import content_dir
from qwen2eval.errors import ConfigError, DataFileError, MissingDataError
from qwen2eval.long_context.lveval.data import LEVELS, load
from qwen2eval.long_context.lveval.middle import cut_middle
from qwen2eval.long_context.lveval.task import DATA_SETS, prompts
from qwen2eval.rescore import rescore
from qwen2eval.tasks.references import reference_of
from qwen2eval.tasks.registry import user_entries
from tests.long_context.needlebench_scripted import planned, score_scripted, value_of


def row(name, i, **changes):
    is_english = DATA_SETS[name].language == "en"
    made = {
        "input": f"Who keeps bee {i}?" if is_english else f"谁养蜂{i}？",  # noqa: RUF001
        "context": f"### Passage {i}\nBegin. " + "Hum. " * 40 + "End."
        if is_english
        else "开头。" + "嗡嗡。" * 40 + "结尾。",
        "answers": [f"Anna keeps bee {i}", "nobody"] if is_english else [f"张三养蜂{i}", "没有人"],
        "length": 44,
        "dataset": name,
        "language": DATA_SETS[name].language,
        "confusing_facts": "Otto keeps it.",
        "answer_keywords": f"bee {i}" if is_english else f"养蜂{i}",
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def write_zip(folder, name, rows, level="16k"):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        archive.writestr(f"{name}/{name}_{level}.jsonl", text)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    for name in DATA_SETS:
        write_zip(tmp_path / "data" / "lveval", name, [row(name, i) for i in range(3)])
    return tmp_path / "data"


def own_task(folder, metadata):
    cls = "!function qwen2eval.long_context.lveval.task.LVEvalGroup"
    (folder / "mine.yaml").write_text(f"task: mine\nclass: {cls}\nmetadata: {{version: 1.0, {metadata}}}\n")
    return {"include_path": (str(folder),)}


def one_set(tmp_path, data, name, more="", **options):
    made = planned("mine", data_dir=data, **own_task(tmp_path, f"level: 16k, datasets: [{name}]{more}"), **options)
    return made, made.tasks[f"mine_{name}"]


def test_every_level_is_shipped():
    found = user_entries([str(content_dir("tasks") / "lveval")])
    assert {f"lveval_{level}" for level in LEVELS} == set(found)
    assert len(DATA_SETS) == 11
    assert set(prompts()) == set(DATA_SETS)
    for name, prompt in prompts().items():
        assert prompt["before"].endswith(("Article: $context", "文章：$context"))  # noqa: RUF001
        assert prompt["after"].endswith(("Question: $input\nAnswer:", "问题：$input\n回答："))  # noqa: RUF001
        assert ("Only give me the answer" in prompt["before"]) == (
            DATA_SETS[name].language == "en" and name != "factrecall_en"
        )


def test_rows_are_read_from_the_zip_or_unpacked(data, tmp_path):
    from_zip = load(dataset="lic_mixup", level="16k", data_dir=str(data))
    assert from_zip["test"][1] == {
        "input": "谁养蜂1？",  # noqa: RUF001
        "context": row("lic_mixup", 1)["context"],
        "answers": ["张三养蜂1", "没有人"],
        "answer_keywords": "养蜂1",
        "length": 44,
    }
    assert from_zip.source.endswith("lic_mixup.zip")
    rows = [row("lic_mixup", i, answer_keywords=None, length=None) for i in range(2)]
    text = "".join(json.dumps(r) + "\n" for r in rows)
    for inside in ("", "lic_mixup/"):
        path = tmp_path / f"unpacked{len(inside)}" / inside / "lic_mixup_32k.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        unpacked = load(dataset="lic_mixup", level="32k", data_dir=str(tmp_path / f"unpacked{len(inside)}"))
        assert unpacked["test"]["answer_keywords"] == [None, None]
        assert unpacked["test"]["length"] == [None, None]


def test_a_changed_file_is_read_again(data):
    before = load(dataset="lic_mixup", level="16k", data_dir=str(data))
    write_zip(data / "lveval", "lic_mixup", [row("lic_mixup", 9)])
    after = load(dataset="lic_mixup", level="16k", data_dir=str(data))
    assert (len(before["test"]), len(after["test"])) == (3, 1)
    assert before.sha256 != after.sha256


@pytest.mark.parametrize("name", DATA_SETS)
def test_prompts_and_answers_of_each_set(tmp_path, data, name):
    made, task = one_set(tmp_path, data, name)
    first = task.docs[0]
    assert "context" not in first  # half a gigabyte a level
    prompt = str(task.requests[0].prompt)
    assert row(name, 0)["context"] in prompt
    assert prompt.endswith(("Answer:", "回答："))  # noqa: RUF001
    assert prompt.count(first["input"]) == 1
    assert task.requests[0].gen_kwargs["max_gen_toks"] == (16 if name.startswith("factrecall") else 64)
    assert task.preflight == "ok"
    reference = reference_of("mine", 0, task.task, first)
    assert (reference.text, reference.answer) == (first["input"], "\n".join(first["answers"]))
    scores, _ = score_scripted(made, lambda doc, request: doc["answers"][0])  # noqa: ARG005
    assert value_of(scores, f"mine_{name}", "keyword_recall") == 1
    assert value_of(scores, f"mine_{name}", "lveval_score") == pytest.approx(1)
    scores, _ = score_scripted(made, lambda doc, request: doc["answers"][1])  # noqa: ARG005 - only the first one counts
    assert value_of(scores, f"mine_{name}", "lveval_score") < 0.5


def test_a_prompt_that_is_too_long_loses_its_middle(tmp_path, data, tiny_model):
    made, task = one_set(tmp_path, data, "hotpotwikiqa_mixup", ", max_prompt_tokens: 301", tokenizer=tiny_model)
    whole = prompts()["hotpotwikiqa_mixup"]["before"].removesuffix("$context") + row("hotpotwikiqa_mixup", 0)["context"]
    whole += prompts()["hotpotwikiqa_mixup"]["after"].replace("$input", "Who keeps bee 0?")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer(whole)["input_ids"]  # as the source cuts: an odd limit is rounded down
    assert len(ids) > 301
    assert str(task.requests[0].prompt) == tokenizer.decode(ids[:150]) + tokenizer.decode(ids[-150:])
    assert any("3 prompts are longer than 301 tokens" in warning for warning in made.warnings)


def test_the_limit_is_the_models_window_less_500(tmp_path, data, tiny_model):
    _, task = one_set(tmp_path, data, "cmrc_mixup", tokenizer=tiny_model, max_length=800)
    # a Chinese character is three bytes, thus three tokens: none is cut in two
    assert all(296 <= r.n_context_tokens <= 300 for r in task.requests)
    assert all("\ufffd" not in str(r.prompt) for r in task.requests)
    _, whole = one_set(tmp_path, data, "cmrc_mixup", tokenizer=tiny_model, max_length=5000)
    assert all(row("cmrc_mixup", 0)["context"] in str(r.prompt) for r in whole.requests)


@given(text=st.text(min_size=1, max_size=60), limit=st.integers(2, 70))
def test_cutting_keeps_both_ends(text, limit):
    cut = cut_middle(text, range(len(text)), limit=limit) if len(text) > limit else text
    half = limit // 2
    assert cut == text if len(text) <= limit else cut == text[:half] + text[-half:]


def test_a_window_without_a_tokenizer_or_without_room(tmp_path, data, tiny_model):
    with pytest.raises(ConfigError, match="tokenizer is not known"):
        one_set(tmp_path, data, "lic_mixup", max_length=800)
    with pytest.raises(ConfigError, match="cut prompts to 12 tokens"):
        one_set(tmp_path, data, "lic_mixup", tokenizer=tiny_model, max_length=512)


def test_groups_are_plain_means_of_data_sets(data):
    write_zip(data / "lveval", "dureader_mixup", [row("dureader_mixup", i) for i in range(9)])
    made = planned("lveval_16k", data_dir=data)
    assert len(made.tasks) == 11
    right = ("factrecall_en", "dureader_mixup", "lic_mixup")
    scores, _ = score_scripted(made, lambda doc, request: "¤")  # noqa: ARG005
    assert value_of(scores, "lveval_16k", "keyword_recall") == 0
    samples = {name.removeprefix("lveval_16k_"): task for name, task in made.tasks.items()}
    known = {doc_id for name in right for doc_id in map(id, samples[name].docs)}
    scores, _ = score_scripted(made, lambda doc, request: doc["answers"][0] if id(doc) in known else "¤")  # noqa: ARG005
    assert value_of(scores, "lveval_16k", "keyword_recall") == pytest.approx(3 / 11)
    assert value_of(scores, "lveval_16k_factrecall", "lveval_score") == pytest.approx(1 / 2)
    assert value_of(scores, "lveval_16k_multi_hop", "lveval_score") == pytest.approx(1 / 3)
    assert value_of(scores, "lveval_16k_multi_hop_confusing", "keyword_recall") == pytest.approx(1 / 2)
    assert value_of(scores, "lveval_16k_single_hop", "keyword_recall") == 0


def test_several_levels_in_one_group(tmp_path, data):
    for name in ("lic_mixup", "cmrc_mixup"):
        write_zip(data / "lveval", name, [row(name, 0)], level="32k")
        (data / "lveval" / f"{name}_16k.jsonl").write_text(json.dumps(row(name, 1)))
    options = own_task(tmp_path, "levels: [16k, 32k], datasets: [lic_mixup, cmrc_mixup]")
    made = planned("mine", data_dir=data, **options)
    assert list(made.tasks) == [
        "mine_16k_lic_mixup",
        "mine_16k_cmrc_mixup",
        "mine_32k_lic_mixup",
        "mine_32k_cmrc_mixup",
    ]
    scores, _ = score_scripted(made, lambda doc, request: doc["answers"][0] if doc["input"].endswith("1？") else "¤")  # noqa: ARG005, RUF001
    assert value_of(scores, "mine", "keyword_recall") == 0.5
    assert value_of(scores, "mine_16k", "keyword_recall") == 1


def test_rows_that_can_not_be_scored_are_counted(tmp_path, data):
    name = "loogle_SD_mixup"
    odd = [row(name, 0, answer_keywords="the"), row(name, 1, answer_keywords=None), row(name, 2, answers=["The."])]
    write_zip(data / "lveval", name, [*odd, row(name, 3)])
    made, _ = one_set(tmp_path, data, name)
    scores, samples = score_scripted(made, lambda doc, request: "Anna keeps bee")  # noqa: ARG005
    of_task = scores[scores.task == f"mine_{name}"].set_index("metric")
    assert of_task.n_unscored.to_dict() == {
        "keyword_recall": 1,
        "keyword_recall_filtered": 1,
        "lveval_score": 1,
        "keyword_recall_official": 3,
    }
    assert [s.metrics.get("keyword_recall") for s in samples[f"mine_{name}"]] == [0.75, 0.75, None, 0.5]


def test_one_missing_zip_fails_its_task_only_and_names_three_ways(data):
    (data / "lveval" / "lic_mixup.zip").unlink()
    made = planned("lveval_16k", data_dir=data)
    assert list(made.failures) == ["lveval_16k_lic_mixup"]
    with pytest.raises(
        MissingDataError, match=r"(?s)Three ways.*lic_mixup\.zip.*--data_dir.*data package.*Infinigence/LVEval"
    ):
        raise made.failures["lveval_16k_lic_mixup"]
    scores, _ = score_scripted(made, lambda doc, request: doc["answers"][0])  # noqa: ARG005
    assert (
        scores[scores.task == "lveval_16k"].value.isna().all()
    )  # a mean over the sets that are there would pass for it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ('{"input": "q"', "line 1: not JSON"),
        ("[1]", "must be an object"),
        (
            json.dumps(row("lic_mixup", 0)) + '\n{"input": "q", "answers": ["a"]}',
            "line 2: column 'context' must be text",
        ),
        (json.dumps(row("lic_mixup", 0, answers=[])), "'answers' must be a list of at least one text"),
        (json.dumps(row("lic_mixup", 0, answer_keywords=["a"])), "'answer_keywords' must be text or absent"),
        (json.dumps(row("lic_mixup", 0, length="long")), "'length' must be a whole number"),
    ],
)
def test_broken_rows_are_named(tmp_path, text, said):
    path = tmp_path / "data" / "lic_mixup_16k.jsonl"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataFileError, match=said) as info:
        load(dataset="lic_mixup", level="16k", data_dir=str(path.parent))
    assert "lic_mixup_16k.jsonl" in str(info.value)


def test_broken_archives_are_named(data):
    with pytest.raises(DataFileError, match=r"holds no lic_mixup_64k\.jsonl; it has lic_mixup/lic_mixup_16k\.jsonl"):
        load(dataset="lic_mixup", level="64k", data_dir=str(data))
    (data / "lveval" / "lic_mixup.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataFileError, match=r"lic_mixup\.zip can't be read"):
        load(dataset="lic_mixup", level="16k", data_dir=str(data))
    (data / "lveval" / "lic_mixup_16k.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataFileError, match="not UTF-8"):
        load(dataset="lic_mixup", level="16k", data_dir=str(data))


@pytest.mark.parametrize(
    "metadata",
    ["level: 17k", "datasets: [lic_mixup]", "level: 16k, datasets: [lic]", "level: 16k, datasets: lic_mixup"],
)
def test_a_variant_that_can_not_be(tmp_path, data, metadata):
    with pytest.raises(ConfigError, match=r"LV-Eval has no (level ('17k'|None)|data set 'lic)"):
        planned("mine", data_dir=data, **own_task(tmp_path, metadata))


def test_the_whole_path(tmp_path, data, tiny_model):
    config = RunConfig(
        model="dummy",
        model_args={"tokenizer": str(tiny_model), "max_length": 900},
        tasks=("mine",),
        data_dir=str(data),
        offline=True,
        output_path=str(tmp_path / "runs"),
        **own_task(tmp_path, "level: 16k, datasets: [factrecall_en, dureader_mixup]"),
    )
    finished = run(config, quiet=True)
    assert finished.info.status == "finished"
    check_whole(finished)
    path = finished.path / "samples" / "mine_factrecall_en.parquet"
    table = pq.read_table(path)  # other answers, scored again without a model
    column = table.schema.get_field_index("response")
    pq.write_table(table.set_column(column, "response", pa.array(["Anna", "bee 1", "x"], pa.string())), path)
    again = rescore(finished.path)
    assert value_of(again.scores, "mine_factrecall_en", "keyword_recall") == pytest.approx(1 / 3)
    assert again.samples("mine_factrecall_en").keyword_recall.tolist() == [0, 1, 0]
    check_whole(again)


def check_whole(finished):
    reported = finished.scores[finished.scores.metric == "keyword_recall"]
    assert reported.task.tolist()[:3] == ["mine_factrecall_en", "mine_dureader_mixup", "mine"]
    assert reported.n_docs.tolist()[:3] == [3, 3, 6]
    assert finished.info.tasks["mine_factrecall_en"].data.source.endswith("factrecall_en.zip")
    assert finished.samples("mine_factrecall_en").target.tolist() == [f"Anna keeps bee {i}" for i in range(3)]
