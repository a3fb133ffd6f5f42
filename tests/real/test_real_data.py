"""Our benchmarks on their published rows ask what lm-eval's own task files ask, byte for byte.

Needs the published files (QWEN2EVAL_DATA, or `shared/data` beside the project). lm-eval's task files come from its
package; a YAML made here includes each and only points it to local rows.
"""

import csv
import json

import pytest

from qwen2eval.config import RunConfig
from qwen2eval.evaluate import plan
from qwen2eval.prompts import TokenCounter
from qwen2eval.quiet import quiet_libraries
from qwen2eval.tasks.code.lm_eval_code import instead_of_code_eval
from qwen2eval.tasks.index import lm_eval_tasks_dir
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.tasks.registry import load_tasks

pytestmark = [pytest.mark.real, pytest.mark.slow]

N_SUBJECTS, N_MMLU, N_GSM8K = 57, 14_042, 1_319
SCORING = ("output_type", "filter_list", "metric_list", "generation_kwargs", "repeats")


@pytest.fixture(scope="module", autouse=True)
def datasets_cache(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plan_ours(data_dir):
    def plan_(task, **settings):
        config = RunConfig(model="dummy", tasks=(task,), data_dir=str(data_dir), offline=True, **settings)
        return plan(config).tasks[task]

    return plan_


@pytest.fixture(scope="module")
def our_mmlu(plan_ours):
    return plan_ours("mmlu")


@pytest.fixture(scope="module")
def our_gsm8k(plan_ours):
    return plan_ours("gsm8k")


@pytest.fixture(scope="module")
def their_tasks(data_dir, tmp_path_factory):
    """Return a function that loads lm-eval's tasks by name, on the published rows."""
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("theirs")
    tasks_dir = lm_eval_tasks_dir()
    for path in sorted((data_dir / "mmlu" / "test").glob("*_test.csv")):
        subject = path.name.removesuffix("_test.csv")
        files = {}
        for split in ("dev", "test"):
            rows = read_mmlu(data_dir / "mmlu" / split / f"{subject}_{split}.csv", subject)
            files[split] = write_rows(folder / f"{subject}_{split}.jsonl", rows)
        point_to(folder, f"mmlu_{subject}", tasks_dir / "mmlu" / "default" / f"mmlu_{subject}.yaml", files)
    gsm8k = {split: str(data_dir / "gsm8k" / f"{split}.jsonl") for split in ("train", "test")}
    point_to(folder, "gsm8k", tasks_dir / "gsm8k" / "gsm8k.yaml", gsm8k)
    humaneval = {"test": str(data_dir / "humaneval" / "HumanEval.jsonl.gz")}
    point_to(folder, "humaneval", tasks_dir / "humaneval" / "humaneval.yaml", humaneval)
    lines = (data_dir / "mbpp" / "mbpp.jsonl").read_text().splitlines(keepends=True)
    (folder / "mbpp_test.jsonl").write_text("".join(lines[10:510]))
    point_to(folder, "mbpp", tasks_dir / "mbpp" / "mbpp.yaml", {"test": str(folder / "mbpp_test.jsonl")})

    def load(names):
        with quiet_libraries(), instead_of_code_eval():
            loaded = TaskManager(include_path=str(folder), include_defaults=False).load(list(names))["tasks"]
        for task in loaded.values():
            # as simple_evaluate does
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=5 if task.task_name.startswith("mmlu") else 0)
            task.set_fewshot_seed(seed=1234)
        return loaded

    return load


def read_mmlu(path, subject):
    """Read a csv by itself, not with the reader under test, into the columns of the hub's data set."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row[0] != "question"]
    return [{"question": q, "subject": subject, "choices": choices, "answer": int(a)} for q, *choices, a in rows]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def point_to(folder, name, original, data_files):
    """Write a task file that is lm-eval's but for its data."""
    local = {"include": str(original), "dataset_path": "json", "dataset_name": None, "task": name, "tag": []}
    (folder / f"{name}.yaml").write_text(json.dumps(local | {"dataset_kwargs": {"data_files": data_files}}))


def built(task, limit=None):
    """Return (doc id, index, prompt, continuation or generation arguments) of each request, as lm-eval builds them."""
    with quiet_libraries():
        task.build_all_requests(limit=limit)
    return [(i.doc_id, i.idx, *i.args) for i in task.instances]


def ours_by_doc(planned):
    requests = {}
    for r in planned.requests:
        requests.setdefault(r.doc_id, []).append((r.index, str(r.prompt), r.continuation or r.gen_kwargs))
    return requests


def test_every_mmlu_prompt_is_lm_evals(our_mmlu, their_tasks):
    assert our_mmlu.n_docs_total == len(our_mmlu.docs) == N_MMLU
    ours, subjects = ours_by_doc(our_mmlu), [doc["subject"] for doc in our_mmlu.docs]
    names = sorted(set(subjects))
    assert len(names) == N_SUBJECTS
    tasks = their_tasks(f"mmlu_{subject}" for subject in names)
    n_compared = 0
    with compiled_templates():
        for subject in names:
            first = subjects.index(subject)
            theirs = built(tasks[f"mmlu_{subject}"])
            n_docs = len({doc_id for doc_id, *_ in theirs})
            assert n_docs == subjects.count(subject)
            assert [(i, *request) for i in range(n_docs) for request in ours[first + i]] == theirs, subject
            n_compared += len(theirs)
    assert n_compared == 4 * N_MMLU


def test_every_gsm8k_prompt_is_lm_evals(our_gsm8k, their_tasks):
    with compiled_templates():
        theirs = built(their_tasks(["gsm8k"])["gsm8k"])
    assert len(theirs) == N_GSM8K
    assert [(doc_id, *request) for doc_id, requests in ours_by_doc(our_gsm8k).items() for request in requests] == theirs
    assert len({str(r.prompt).split("\n\n")[0] for r in our_gsm8k.requests}) > 500  # the examples are drawn anew


@pytest.mark.parametrize(("name", "n_docs"), [("humaneval", 164), ("mbpp", 500)])
def test_every_prompt_of_a_code_task_is_lm_evals(plan_ours, their_tasks, name, n_docs):
    planned = plan_ours(name)
    with compiled_templates():
        theirs = built(their_tasks([name])[name])
    ours = [(doc_id, *request) for doc_id, requests in ours_by_doc(planned).items() for request in requests]
    assert len(ours) == n_docs
    assert [request[:3] for request in ours] == [request[:3] for request in theirs]
    # lm-eval leaves its base tasks' length to the backend or says 1024; what ends an answer is the same
    assert {tuple(request[3]["until"]) for request in ours} == {tuple(request[3]["until"]) for request in theirs}


@pytest.mark.parametrize("name", ["mmlu_anatomy", "gsm8k"])
def test_compiled_templates_change_no_prompt(their_tasks, name):
    as_it_is = built(their_tasks([name])[name], limit=30)
    with compiled_templates():
        assert built(their_tasks([name])[name], limit=30) == as_it_is


@pytest.mark.parametrize(("ours", "theirs"), [("mmlu", "mmlu_virology"), ("gsm8k", "gsm8k")])
def test_answers_are_filtered_and_scored_as_lm_evals(data_dir, their_tasks, ours, theirs):
    task = load_tasks(RunConfig(tasks=(ours,), data_dir=str(data_dir))).tasks[ours].lm_eval
    config = their_tasks([theirs])[theirs].dump_config()
    assert {key: task.dump_config().get(key) for key in SCORING} == {key: config.get(key) for key in SCORING}


@pytest.mark.parametrize("limit", [5, 0.1])
@pytest.mark.parametrize("name", ["mmlu", "gsm8k"])
def test_a_limit_changes_no_real_prompt(plan_ours, our_mmlu, our_gsm8k, name, limit):
    whole = ours_by_doc({"mmlu": our_mmlu, "gsm8k": our_gsm8k}[name])
    part = ours_by_doc(plan_ours(name, limit=limit))
    assert len(part) == (5 if limit == 5 else -(-len(whole) // 10))
    assert part == {doc_id: whole[doc_id] for doc_id in part}


def test_real_prompts_are_counted_in_pieces_as_in_whole(real_model, our_mmlu, our_gsm8k):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    counter = TokenCounter(tokenizer)
    assert counter.is_piecewise
    prompts = [r.prompt for r in (*our_mmlu.requests[:: 4 * 40], *our_gsm8k.requests[::20])]
    for prompt, whole in zip(prompts, tokenizer([str(p) for p in prompts])["input_ids"], strict=True):
        assert [token for ids in counter.pieces(prompt) for token in ids] == whole
