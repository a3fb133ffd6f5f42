"""Needle in a haystack from the plan to the heat map, with models whose answers follow a rule; and its bad input."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen2eval import RunConfig, load_run, run
from qwen2eval.backends import BACKENDS
from qwen2eval.engine.tree import build_tree
from qwen2eval.errors import ConfigError, DataFileError, MissingDataError
from qwen2eval.long_context.niah.needles import load_needles
from qwen2eval.long_context.niah.task import NiahGrid, NiahTask
from qwen2eval.planning.plan import make_plan
from qwen2eval.reporting.heat_map import heat_maps
from qwen2eval.results.sample import Cell
from qwen2eval.stats.errors import mean_estimate
from qwen2eval.tasks.registry import load_tasks
from tests.long_context.scripted import Rule, Scripted, always, in_first_half, never, qwen_like_tokenizer, spec_of

NEEDLES = [needle.needle for name in ("fictional", "fictional_zh") for needle in load_needles(name)]
LENGTHS = (2000, 4000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEN2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    return tmp_path / "cache"


def write_task(folder: Path, **metadata: object) -> str:
    """Write the three lines of a user's own variant; return its path."""
    path = folder / "niah_mine.yaml"
    metadata = {"lengths": list(LENGTHS), "haystack": "shipped", **metadata}
    path.write_text(
        "task: niah_mine\nclass: !function qwen2eval.long_context.niah.task.NiahTask\n"
        f"metadata: {json.dumps(metadata, ensure_ascii=False)}\n"
    )
    return str(path)


def plan_of(folder: Path, *, max_length: int | None = None, config: RunConfig | None = None, **metadata: object):
    config = replace(config or RunConfig(), model="scripted", tasks=(write_task(folder, **metadata),))
    return make_plan(config, spec_of(qwen_like_tokenizer(), max_length=max_length))


def heat(path: Path) -> dict[tuple[int | None, float | None], float | None]:
    finished = load_run(path)
    (found,) = heat_maps(finished.info, finished.score_rows())
    return {place: cell.value for place, cell in found.cells.items()}


def scripted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Rule, *, max_length: int | None = None, **metadata
):
    model = Scripted(qwen_like_tokenizer(), rule, NEEDLES, max_length=max_length)
    monkeypatch.setitem(BACKENDS, "scripted", model.spec())
    config = RunConfig(model="scripted", tasks=(write_task(tmp_path, **metadata),), output_path=str(tmp_path / "runs"))
    return run(config, quiet=True)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("rule", "expected"), [(always, lambda _: 100), (never, lambda _: 0), (in_first_half, lambda d: 100 * (d < 50))]
)
def test_heat_map_is_the_rule(tmp_path, monkeypatch, rule, expected, language):
    needles = {"en": "fictional", "zh": "fictional_zh"}[language]
    finished = scripted_run(tmp_path, monkeypatch, rule, language=language, needles=needles)
    depths = [5.0 + 10 * i for i in range(10)]
    cells = {(length, depth): expected(depth) for length in LENGTHS for depth in depths}
    by_length = {(length, None): sum(map(expected, depths)) / 10 for length in LENGTHS}
    by_depth = {(None, depth): expected(depth) for depth in depths}
    assert heat(finished.path) == {**cells, **by_length, **by_depth}


def test_scores_have_counts_and_intervals_of_every_part(tmp_path, monkeypatch):
    scores = scripted_run(tmp_path, monkeypatch, in_first_half).scores
    whole = scores[scores["cell_length"].isna() & scores["cell_depth"].isna()]
    assert list(whole["n_docs"]) == [40]
    assert set(scores["subset"]) == {"original"}
    parts = {
        (row.cell_length, row.cell_depth): row
        for row in scores.dropna(subset=["cell_length", "cell_depth"]).itertuples()
    }
    assert len(parts) == 20
    found, lost = parts[2000, 5.0], parts[2000, 95.0]
    assert (found.n_docs, found.value, found.ci_low, found.ci_high) == (2, 1.0, *mean_estimate([1.0, 1.0])[1:])
    assert (lost.value, lost.ci_low, lost.ci_high) == (0.0, *mean_estimate([0.0, 0.0])[1:])
    (length,) = scores[(scores["cell_length"] == 4000) & scores["cell_depth"].isna()].itertuples()
    assert (length.n_docs, length.value) == (20, 0.5)
    (depth,) = scores[scores["cell_length"].isna() & (scores["cell_depth"] == 45)].itertuples()
    assert (depth.n_docs, depth.value) == (4, 1.0)


def test_other_readers_see_one_score_a_task(tmp_path, monkeypatch):
    finished = scripted_run(tmp_path, monkeypatch, in_first_half)
    results = json.loads((finished.path / "results.json").read_text())["results"]["niah_mine"]
    assert [key for key in results if key.startswith("acc")] == ["acc,none", "acc_stderr,none"]
    assert results["acc,none"] == 0.5  # of all depths, not of the last cell
    report = (finished.path / "report.md").read_text()
    scores = report.split("## Scores")[1].split("## ")[0]
    assert len(re.findall(r"^\| `niah_mine`", scores, re.MULTILINE)) == 1


def test_samples_know_their_cell(tmp_path, monkeypatch):
    samples = scripted_run(tmp_path, monkeypatch, always).samples("niah_mine")
    cells = [Cell(**json.loads(text)) for text in samples["cell"]]
    assert {cells.count(cell) for cell in cells} == {2}
    assert (samples["n_prompt_tokens"] == [cell.length for cell in cells]).all()


def test_report_and_figures(tmp_path, monkeypatch):
    folder = scripted_run(tmp_path, monkeypatch, in_first_half).path
    names = [f"niah_mine-acc{kind}.{ending}" for kind in ("", "_by_length") for ending in ("png", "svg")]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(names)
    assert (folder / "figures" / names[0]).read_bytes().startswith(b"\x89PNG")
    html = (folder / "report.html").read_text()
    assert "<title>length 2,000, depth 0–10%: 100.0, 95% interval 34.2 – 100.0, n = 2</title>" in html
    assert "<title>length 4,000, depth 90–100%: 0.0, 95% interval 0.0 – 65.8, n = 2</title>" in html
    assert html.count("<g><title>length") == 20
    assert not re.search("src=|style=", html)  # one file, by the page's own policy
    assert "![Heat map](figures/niah_mine-acc.svg)" in (folder / "report.md").read_text()


def test_classic_colours_are_an_option(tmp_path, monkeypatch):
    html = (scripted_run(tmp_path, monkeypatch, in_first_half, colours="classic").path / "report.html").read_text()
    assert (html.count('rx="3" fill="#0cd79f"'), html.count('rx="3" fill="#f0496e"')) == (10, 10)


def test_needles_and_places_depend_on_seed_length_interval_and_instance(tmp_path):
    lengths = [700, 800, 900, 1000, 1100, 1200]

    def docs_of(seed: int) -> list[dict]:
        return plan_of(tmp_path, config=RunConfig.from_dict({"seed": seed}), lengths=lengths).tasks["niah_mine"].docs

    docs, other = docs_of(0), docs_of(5)
    assert docs == docs_of(0)
    assert [doc["needle"] for doc in docs] != [doc["needle"] for doc in other]
    assert {doc["haystack_start"] for doc in docs}.isdisjoint({doc["haystack_start"] for doc in other})
    assert len({doc["haystack_start"] for doc in docs}) == 2
    by_cell: dict[tuple[int, float], list[dict]] = {}
    for doc in docs:
        by_cell.setdefault(tuple(doc["cell"].values()), []).append(doc)
    assert len(by_cell) == 60
    for first, second in by_cell.values():  # drawn apart, a pair would be the same in one cell of twelve
        assert first["needle"] != second["needle"]
        assert second["asked_depth_percent"] - first["asked_depth_percent"] == 5


def test_limit_changes_no_prompt(tmp_path):
    whole = plan_of(tmp_path).tasks["niah_mine"].requests
    few = plan_of(tmp_path, config=RunConfig(limit=3)).tasks["niah_mine"].requests
    assert [str(request.prompt) for request in few] == [str(request.prompt) for request in whole[:3]]


def test_prompts_share_their_haystack(tmp_path):
    """The engine's tree computes at most 60 % of the tokens; the plan counts whole paragraphs only."""
    planned = plan_of(tmp_path, lengths=[1024, 2048, 4096]).tasks["niah_mine"]
    assert planned.shared_prefix_ratio > 0.38  # whole paragraphs; these are long in tokens of so small a tokenizer
    tokenizer = qwen_like_tokenizer()
    ids = [np.array(tokenizer(str(request.prompt))["input_ids"]) for request in planned.requests]
    assert sum(map(len, ids)) == 20 * (1024 + 2048 + 4096)

    def count(node) -> int:
        return len(node.tokens) + sum(map(count, node.children))

    assert count(build_tree(ids)) <= 0.6 * sum(map(len, ids))


def test_built_once_then_read(own_cache):
    spec = spec_of(qwen_like_tokenizer())
    task = NiahTask({"task": "t", "metadata": {"lengths": [900], "haystack": "shipped"}})
    task.build_docs(spec, RunConfig())
    docs, prompts = task.eval_docs, [task.prompt_of(doc) for doc in task.eval_docs]
    (file,) = (own_cache / "long_context").iterdir()
    written = file.stat().st_mtime_ns, file.stat().st_ino
    task.build_docs(spec, RunConfig())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written
    assert (task.eval_docs, [task.prompt_of(doc) for doc in task.eval_docs]) == (docs, prompts)
    file.write_text("{broken")  # as after a full disk
    task.build_docs(spec, RunConfig())
    assert task.eval_docs == docs
    task.build_docs(spec, RunConfig(apply_chat_template=True))
    assert len(list((own_cache / "long_context").iterdir())) == 2


def test_lengths_over_the_models_are_left_out_and_told(tmp_path, monkeypatch):
    finished = scripted_run(tmp_path, monkeypatch, always, max_length=3_000)
    assert {length for length, _ in heat(finished.path)} == {2000, None}
    (warning,) = (text for text in finished.info.warnings if "missing" in text)
    assert "10 of 20 cells are missing: lengths from 4,000 on are over the model's 3,000 tokens" in warning
    assert "10 cells are missing: 4,000 are over the model" in (finished.path / "report.md").read_text()
    assert "not asked: over the model&#39;s length" in (finished.path / "report.html").read_text()


def test_a_length_that_is_the_models_whole_context_leaves_room_for_the_answer(tmp_path):
    plan = plan_of(tmp_path, max_length=4_000)
    lengths = {doc["cell"]["length"]: doc["n_prompt_tokens"] for doc in plan.tasks["niah_mine"].docs}
    assert lengths == {2000: 2000, 4000: 4000 - 64}
    assert any("prompts of length 4,000 have 3,936 tokens" in warning for warning in plan.warnings)
    assert not any(request.is_truncated for request in plan.tasks["niah_mine"].requests)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lengths": []}, r"`lengths` is \[\]; it takes a list of tokens"),
        ({"lengths": "8K"}, "`lengths` is '8K'"),
        ({"lengths": [8192, -1]}, r"`lengths` is \[8192, -1\]"),
        ({"lengths": [True]}, r"`lengths` is \[True\]"),
        ({"intervals": 0}, "`intervals` is 0; it takes a number from 1 on"),
        ({"language": "fr"}, "`language` is 'fr'; it takes en or zh"),
        ({"colours": "rainbow"}, "`colours` is 'rainbow'; it takes viridis or cividis or classic"),
        ({"haystack": "mine"}, "`haystack` is 'mine'; it takes auto or shipped"),
        ({"needles": ["a"]}, r"`needles` is \['a'\]; it takes the name of a shipped set or a path"),
        ({"needles": "nowhere.jsonl"}, "Needle set 'nowhere.jsonl' is neither"),
        ({"lengths": [64]}, "A prompt of 64 tokens is too short"),
    ],
)
def test_bad_metadata_is_named(tmp_path, metadata, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, **metadata)


def test_no_length_that_fits_is_an_error(tmp_path):
    with pytest.raises(
        ConfigError, match="the shortest of its lengths, 2,000 tokens, is over the 500 of model 'scripted'"
    ):
        plan_of(tmp_path, max_length=500)


def test_a_model_without_tokenizer_is_an_error(tmp_path):
    config = RunConfig(model="dummy", tasks=(write_task(tmp_path),))
    with pytest.raises(ConfigError, match=r"need the tokenizer of model 'dummy'.*tokenizer="):
        make_plan(config, replace(spec_of(qwen_like_tokenizer()), name="dummy", tokenizer=None))


def write_haystack(folder: Path, text: str | bytes, name: str = "a.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_own_haystack_is_taken_in_the_order_of_names_and_repeated_where_short(tmp_path):
    data = tmp_path / "data"
    write_haystack(data / "niah" / "haystack", "Second file. It is short.\n", "b.txt")
    write_haystack(data / "niah" / "haystack", "First file.\nIts lines\nare wrapped.\n\nNext paragraph.\n", "a.txt")
    write_haystack(data / "niah" / "haystack", "Not for reading.", "LICENSE.txt")
    plan = plan_of(tmp_path, config=RunConfig(data_dir=str(data)), haystack="auto")
    prompt = str(plan.tasks["niah_mine"].requests[0].prompt)
    assert "First file. Its lines are wrapped.\n\nNext paragraph.\n\nSecond file. It is short.\n\n" in prompt
    assert "Not for reading" not in prompt
    assert plan.tasks["niah_mine"].task.data.source == str(data / "niah" / "haystack")
    assert any("is too short for 40 of 40 prompts, and begins there again" in warning for warning in plan.warnings)
    shipped = plan_of(tmp_path, config=RunConfig(data_dir=str(data)), haystack="shipped")
    assert "First file" not in str(shipped.tasks["niah_mine"].requests[0].prompt)


@pytest.mark.parametrize(("text", "message"), [(b"\xff\xfe\x00", "as UTF-8 text"), (" \n\n ", "hold no text")])
def test_unreadable_haystack_is_named(tmp_path, text, message):
    write_haystack(tmp_path / "data" / "haystack", text)
    with pytest.raises(DataFileError, match=message):
        plan_of(tmp_path, config=RunConfig(data_dir=str(tmp_path / "data")), haystack="auto")


def test_missing_data_folder_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="does not exist"):
        plan_of(tmp_path, config=RunConfig(data_dir=str(tmp_path / "none")), haystack="auto")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_novels_of_project_gutenberg_are_read_without_their_frame(tmp_path, data_dir, language):
    plan = plan_of(
        tmp_path,
        config=RunConfig(data_dir=str(data_dir)),
        haystack="auto",
        language=language,
        needles={"en": "fictional", "zh": "fictional_zh"}[language],
    )
    planned = plan.tasks["niah_mine"]
    assert {request.n_context_tokens for request in planned.requests} == set(LENGTHS)
    haystack = planned.task.lm_eval._haystack
    assert haystack.source == str(data_dir / "haystack" / language)
    assert not any(re.search(r"\*\*\*|END OF|End of (the )?Project", paragraph) for paragraph in haystack.paragraphs)


def test_shipped_tasks():
    assert NiahGrid().lengths == tuple(range(8192, 131073, 8192))
    config = RunConfig(model="scripted", tasks=("niah_4k",))
    planned = make_plan(config, spec_of(qwen_like_tokenizer(), max_length=131072)).tasks["niah_4k"]
    assert (len(planned.docs), planned.preflight) == (60, "ok")
    for name, n_lengths in {"niah": 16, "niah_32k": 4, "niah_zh": 16, "niah_classic": 16}.items():
        task = load_tasks(RunConfig(tasks=(name,))).tasks[name].lm_eval
        assert len(task.grid.lengths) == n_lengths
        assert task.grid.needles in ("fictional", "fictional_zh", "classic")


def test_depths_may_be_drawn_within_their_intervals(tmp_path):
    def depths(seed):
        config = RunConfig(seeds=replace(RunConfig().seeds, python=seed))
        made = plan_of(tmp_path, config=config, lengths=[2000], depths="drawn")
        return [(doc["cell"]["depth"], doc["asked_depth_percent"]) for doc in made.tasks["niah_mine"].docs]

    drawn = depths(1)
    assert len({depth for _, depth in drawn}) == 20
    assert all(abs(depth - middle) <= 5 for middle, depth in drawn)
    assert depths(1) == drawn
    assert depths(2) != drawn
    with pytest.raises(ConfigError, match="`depths` is 'anywhere'"):
        plan_of(tmp_path, depths="anywhere")
