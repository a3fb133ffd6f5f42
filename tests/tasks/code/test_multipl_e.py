"""MultiPL-E's tasks: own rows in its format, read from each place, run, scored, and not scored where nothing runs."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval import RunConfig, run
from qwen2eval.content import content_dir
from qwen2eval.errors import DataFileError, MissingDataError, TaskFileError
from qwen2eval.quiet import prepared_libraries
from qwen2eval.rescore import rescore
from qwen2eval.sandbox.compiled import LANGUAGES, CompiledSandbox
from qwen2eval.sandbox.compiled.hello import HELLO
from qwen2eval.sandbox.levels import BWRAP
from qwen2eval.sandbox.probe import probe
from qwen2eval.tasks.code.multipl_e.data import COLUMNS, load
from qwen2eval.tasks.code.multipl_e.task import complete, cut
from qwen2eval.tasks.index import read_task_yaml
from qwen2eval.tasks.registry import load_tasks

needs_bwrap = pytest.mark.skipif(not probe(BWRAP).works, reason="compilers need namespaces")
TESTS = (
    '}\n\ncandidate() {\n    %s "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate "%s") = "%s" ]]\n}\n\nrun_test\n'
)
DOUBLE = {
    "name": "Own_0_double",
    "language": "sh",
    "prompt": "#!/bin/bash\n# Print twice the number $1.\ndouble() {\n",
    "tests": TESTS % ("double", "4", "8"),
    "stop_tokens": ["\n}"],
}
LENGTH = {
    "name": "Own_1_length",
    "language": "sh",
    "prompt": "#!/bin/bash\n# Print how many characters $1 has.\nlength() {\n",
    "tests": TESTS % ("length", "four", "4"),
    "stop_tokens": ["\n}"],
}
RIGHT = "  echo $(($1 + $1))\n}\n\necho more\n"


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data" / "multipl_e"
    folder.mkdir(parents=True)
    for configuration in ("humaneval-sh", "humaneval-swift", "humaneval-jl"):
        with (folder / f"{configuration}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in (DOUBLE, LENGTH))
    return folder.parent


def a_run(tmp_path, data_dir, task="multipl_e_sh", **options):
    settings = {"tasks": (task,), "offline": True, "output_path": str(tmp_path / "runs"), **options}
    return run(RunConfig(model="dummy", data_dir=str(data_dir), **settings), quiet=True)


def with_responses(finished, responses):
    """The same run with other answers, by task, scored again."""
    for task, of_task in responses.items():
        path = finished.path / "samples" / f"{task}.parquet"
        table = pq.read_table(path)
        at = table.schema.get_field_index("response")
        pq.write_table(table.set_column(at, "response", pa.array(of_task, pa.string())), path)
    return rescore(finished.path)


@pytest.mark.parametrize(
    "answer",
    [
        "  echo $(($1 + $1))\n",
        f"Sure:\n```bash\n{DOUBLE['prompt']}  echo $(($1 + $1))\n}}\n```\nIt doubles.",
        f"```\n{DOUBLE['prompt']}  echo $(($1 + $1))\n",  # stopped
        "```sh\n  echo $(($1 + $1))\n```",
        "First:\n```python\nprint(1)\n```\nthen\n```shell\n  echo $(($1 + $1))\n```",
        "1. Write:\n\n   ```bash\n   double() {\n     echo $(($1 + $1))\n   }\n   ```",
        "double() {\n  echo $(($1 + $1))\n}\n",
        "<think>\n```sh\n  echo 1\n```\n</think>\n  echo $(($1 + $1))\n}",
    ],
)
def test_the_function_in_an_answer(answer):
    program = complete([[answer]], [DOUBLE])[0][0]
    assert program.split() == [*DOUBLE["prompt"].split(), *["echo", "$(($1", "+", "$1))"]]


@needs_bwrap
def test_a_run_with_right_and_wrong_programs(tmp_path, data_dir):
    finished = a_run(tmp_path, data_dir)
    assert finished.scores[["metric", "value", "n_unscored"]].to_numpy().tolist() == [["pass@1", 0.0, 0]]
    assert finished.samples("multipl_e_sh").prompt.tolist() == [DOUBLE["prompt"], LENGTH["prompt"]]
    finished = with_responses(finished, {"multipl_e_sh": [RIGHT, "  echo 3"]})
    samples = finished.samples("multipl_e_sh")
    assert samples.verdict.tolist() == ["passed", "failed"]
    assert samples["pass@1"].tolist() == [1.0, 0.0]
    assert finished.scores.value.tolist() == [0.5]
    assert finished.info.tasks["multipl_e_sh"].sandbox == BWRAP
    finished = with_responses(finished, {"multipl_e_sh": ["  :\n  }\nexit 0\nx() {", "  echo ${#1}"]})
    samples = finished.samples("multipl_e_sh")
    assert samples.verdict.tolist() == ["error", "passed"]
    assert samples.verdict_detail[0] == "it ended before the tests were done"


def missing_language():
    return next((name for name in ("swift", "jl") if CompiledSandbox().why_not(name)), None)


def test_a_language_without_compiler_is_not_scored(tmp_path, data_dir):
    name = missing_language()
    if name is None:
        pytest.skip("Swift and Julia are both here")
    finished = a_run(tmp_path, data_dir, f"multipl_e_{name}")
    score = finished.scores.iloc[0]
    assert (score.n_docs, score.n_unscored) == (2, 2)
    assert score.value != score.value, "no number, and no zero"
    samples = finished.samples(f"multipl_e_{name}")
    assert set(samples.verdict) == {"not_run"}
    assert "is not installed" in samples.verdict_detail[0]
    assert samples["pass@1"].isna().all()
    assert sum("is not installed" in warning for warning in finished.info.warnings) == 1


@needs_bwrap
def test_a_level_that_can_not_hold_compilers_scores_nothing(tmp_path, data_dir):
    finished = a_run(tmp_path, data_dir, sandbox="landlock")
    assert finished.scores.n_unscored.tolist() == [2]
    assert finished.samples("multipl_e_sh").verdict.tolist() == ["not_run", "not_run"]


@needs_bwrap
def test_each_doc_stops_as_its_language_does(data_dir):
    config = RunConfig(model="dummy", tasks=("multipl_e_sh",), data_dir=str(data_dir), gen_kwargs={"until": ["</s>"]})
    task = load_tasks(config).tasks["multipl_e_sh"].lm_eval
    request = task.construct_requests(DOUBLE, DOUBLE["prompt"], metadata=("multipl_e_sh", 0, 1))
    assert request.arguments[0] == DOUBLE["prompt"]
    assert request.arguments[1]["until"] == ["\n}", "</s>"]
    other = task.construct_requests(DOUBLE | {"stop_tokens": ["x"]}, "", metadata=("multipl_e_sh", 0, 1))
    assert other.arguments[1]["until"] == ["x", "</s>"]


@needs_bwrap
def test_several_tries(data_dir, tmp_path):
    shipped = content_dir("tasks") / "multipl_e" / "_multipl_e.yaml"
    text = f"include: {shipped}\ntask: own_tries\nrepeats: 4\ndataset_kwargs: {{configuration: humaneval-sh}}\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_tries.yaml").write_text(text + "metadata: {version: 1.0, k: [1, 2]}\n")
    config = RunConfig(
        model="dummy", tasks=("own_tries",), data_dir=str(data_dir), include_path=(str(tmp_path / "own"),)
    )
    loaded = load_tasks(config)
    assert loaded.failures == {}
    task = loaded.tasks["own_tries"].lm_eval
    results = complete([[RIGHT, "  echo 1", "  echo 2", RIGHT]], [DOUBLE])
    assert task.process_results(DOUBLE, results) == {}
    task.run_programs([(DOUBLE, results)])
    assert task.process_results(DOUBLE, results) == {"pass@1": 0.5, "pass@2": pytest.approx(1 - 1 / 6)}


@needs_bwrap
@pytest.mark.slow
def test_the_mean_of_eight_languages(tmp_path, data_dir):
    """Rows made of each language's first program; those whose compiler is missing leave the mean without a number."""
    row = {"task_id": "Own/0", "prompt": 'def f(x):\n    """Return x."""\n', "entry_point": "f"}
    row["canonical_solution"] = "    return x\n"
    row["test"] = "def check(candidate):\n    assert candidate(1) == 1\n"
    (data_dir / "HumanEval.jsonl").write_text(json.dumps(row) + "\n")
    names = ("cpp", "java", "php", "ts", "cs", "sh", "js")
    for name in names:
        program, tests = HELLO[name]
        made = {"name": "Own", "language": name, "prompt": program, "tests": tests, "stop_tokens": ["¤"]}
        (data_dir / "multipl_e" / f"humaneval-{name}.jsonl").write_text(json.dumps(made) + "\n")
    finished = a_run(tmp_path, data_dir, "multipl_e")
    finished = with_responses(finished, {f"multipl_e_{name}": [""] for name in names})
    scores = finished.scores.set_index("task").value
    found = {name: scores[f"multipl_e_{name}"] for name in names if not CompiledSandbox().why_not(name)}
    assert set(found.values()) == {1.0}
    assert scores["humaneval"] == 0.0
    if len(found) == len(names):
        assert scores["multipl_e"] == pytest.approx(7 / 8)
    # Python alone is no mean of eight languages
    weaker = a_run(tmp_path, data_dir, "multipl_e", sandbox="landlock").scores.set_index("task")
    assert weaker.n_unscored.loc[[f"multipl_e_{name}" for name in names]].tolist() == [1] * len(names)
    assert weaker.value.notna().loc[["humaneval", "multipl_e"]].tolist() == [True, False]


def test_each_language_has_a_task():
    folder = content_dir("tasks") / "multipl_e"
    tasks = {path.stem: read_task_yaml(path) for path in folder.glob("multipl_e_*.yaml")}
    assert tasks.keys() == {f"multipl_e_{name}" for name in LANGUAGES}
    for name, config in tasks.items():
        assert config["task"] == name
        assert config["dataset_kwargs"] == {"configuration": f"humaneval-{name.removeprefix('multipl_e_')}"}
    group = read_task_yaml(folder / "multipl_e.yaml")
    assert len(group["task"]) == 8
    assert set(group["task"]) <= {*tasks, "humaneval"}


def write_jsonl(path):
    path.write_text("".join(json.dumps(row) + "\n" for row in (DOUBLE, LENGTH)))


def write_gzip(path):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in (DOUBLE, LENGTH))


def write_parquet(path):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([DOUBLE | {"original": "x"}, LENGTH | {"original": "y"}]), path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_jsonl, "mbpp-sh.jsonl"),
        (write_gzip, "mbpp-sh.jsonl.gz"),
        (write_parquet, "mbpp-sh.parquet"),
        (write_parquet, "mbpp-sh/test-00000-of-00001.parquet"),
    ],
)
@pytest.mark.parametrize("inside", ["multipl_e", "."])
def test_every_form_of_the_file_is_read(tmp_path, write, name, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    write(tmp_path / inside / name)
    loaded = load(configuration="mbpp-sh", data_dir=str(tmp_path), offline=True)
    assert loaded["test"].to_list() == [DOUBLE, LENGTH]
    assert tuple(loaded["test"].column_names) == COLUMNS
    assert len(loaded.sha256) == 64


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (DOUBLE | {"stop_tokens": "\n}"}, "row 2: stop_tokens"),
        (DOUBLE | {"stop_tokens": [""]}, "row 2: stop_tokens"),
        (DOUBLE | {"tests": 3}, "row 2: tests"),
        ({"name": "x"}, "line 2: no column 'language'"),
    ],
)
def test_broken_rows_are_named(tmp_path, row, message):
    (tmp_path / "mbpp-sh.jsonl").write_text(f"{json.dumps(DOUBLE)}\n{json.dumps(row)}\n")
    with pytest.raises(DataFileError, match=message):
        load(configuration="mbpp-sh", data_dir=str(tmp_path), offline=True)


def test_broken_parquet_is_named(tmp_path):
    (tmp_path / "mbpp-sh.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataFileError, match=r"mbpp-sh\.parquet can't be read as parquet"):
        load(configuration="mbpp-sh", data_dir=str(tmp_path), offline=True)
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "mbpp-sh.parquet")
    with pytest.raises(DataFileError, match="no column 'language'"):
        load(configuration="mbpp-sh", data_dir=str(tmp_path), offline=True)


def test_no_data_and_no_language(tmp_path):
    with prepared_libraries(offline=True), pytest.raises(MissingDataError, match=r"humaneval-sh\.jsonl"):
        load(configuration="humaneval-sh", data_dir=str(tmp_path), offline=True)
    with pytest.raises(TaskFileError, match="unknown language 'cobol'"):
        load(configuration="humaneval-cobol", data_dir=str(tmp_path), offline=True)


@given(
    text=st.text(alphabet="ab\n}", max_size=20),
    stops=st.lists(st.text(alphabet="a\n}", min_size=1, max_size=3), max_size=3),
)
def test_what_is_cut_is_the_longest_beginning_without_a_stop(text, stops):
    found = cut(text, stops)
    assert text.startswith(found)
    assert not any(stop in found for stop in stops)
    rest = text[len(found) :]
    assert not rest or any(rest.startswith(stop) for stop in stops)
