"""A run of ours against lm-eval's own `simple_evaluate`: the same prompts, the same answers, the same numbers.

Both get the same tiny random Qwen2 and the task files of tests/tasks_local; nothing may differ, down to the last bit.
"""

import json
import math
import random
from collections import defaultdict
from pathlib import Path

import pytest

from qwen2eval.config import RunConfig
from qwen2eval.evaluate import plan, run
from qwen2eval.quiet import quiet_libraries

TASK_FILES = Path(__file__).resolve().parent / "tasks_local"
ALL_TASKS = (
    *("local_choices", "local_verdicts", "local_riddles", "local_stories", "local_next_letter", "local_pages"),
    *("local_overlap", "local_prefixed", "local_prefixed_choices"),
)
WITH_EXAMPLES = ("local_choices", "local_riddles", "local_prefixed", "local_prefixed_choices")
RUNS = {
    "as the tasks say": {"tasks": ALL_TASKS},
    "a third of the docs": {"tasks": ALL_TASKS, "limit": 0.33},
    "five docs, three examples": {
        "tasks": (*WITH_EXAMPLES, "local_stories"),
        "limit": 5,
        "num_fewshot": 3,
        "gen_kwargs": {"max_gen_toks": 5, "until": ["e"]},
    },
    "chat, examples as turns": {
        "tasks": WITH_EXAMPLES,
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": "You know every town.",
        "limit": 6,
    },
    "chat, one turn": {
        "tasks": WITH_EXAMPLES,
        "apply_chat_template": True,
        "fewshot_as_multiturn": False,
        "limit": 6,
    },
}
# For anything but a mean, lm-eval gives a slow bootstrap or "N/A": there the errors are ours
NOT_MEANS = ("f1", "mcc", "brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "spread")


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    """Write the tasks' data and go where the task files look for it."""
    import datasets

    folder = tmp_path_factory.mktemp("data")
    for name, rows in make_rows().items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        yield folder


def make_rows():
    """Return the rows of each data file by its name."""
    rng = random.Random(11)
    syllables = ["mar", "tel", "osk", "ny", "brun", "dah", "li", "köp", "wes", "ton"]
    names = ["".join(rng.sample(syllables, rng.randint(2, 3))).capitalize() for _ in range(60)]
    words = ["the", "old", "mill", "town", "by", "its", "river", "sells", "bread", "and", "salt", "in", "winter"]
    letters = "LUZNJ"  # what the tiny model likes to say, so that some answers are right

    def town(i):
        options = [*rng.sample(names, 1 + i % 3), f"{rng.choice(names)} upon {rng.choice(names)}"]
        gold = rng.randrange(len(options))
        question = f"Which town lies {rng.randint(2, 90)} miles from {names[i]}? "
        return {"question": question, "options": options, "gold": gold, "answer": options[gold]}

    def pronoun(i):
        one, two = rng.sample(names, 2)
        ending = rng.choice(["was old", "had no bridge", "lay in ruins", "grew"])
        sentence = f"{one} fell to {two} in {1200 + i} because _ {ending}."
        return {"sentence": sentence, "option1": one, "option2": two, "answer": rng.randint(1, 2)}

    def verdict(i):
        claim = f"{names[i]} is {rng.choice(['older', 'nearer'])} than {rng.choice(names)} by {rng.randint(2, 9)}"
        kind = rng.choice(["surely", "hardly ever", "nobody knows"])
        return {"claim": claim, "holds": rng.randint(0, 1), "kind": kind, "letter": rng.choice(letters)}

    def riddle(i):
        question = f"What is sign {i} of {rng.randint(30, 900)}?"
        return {"question": question, "answer": f"It is a letter. #### {rng.choice(letters)}"}

    def page(i):
        text = " ".join(rng.choices(words, k=rng.choice([8, 20, 130])))
        text += rng.choice(["", "\n\n东边的小镇卖盐和面包。", " — “ça va?”"])
        return {"text": text, "title": names[i], "letter": rng.choice(letters)}

    def ward(i):
        return verdict(i) | {"ward": ["old", "old", "old", "new", "far"][i % 5]}

    counts = {"wards_dev": (ward, 20), "wards": (ward, 25)}
    counts |= {"towns_train": (town, 12), "towns_test": (town, 26), "towns_few": (town, 7), "pages": (page, 20)}
    counts |= {"pronouns_train": (pronoun, 8), "pronouns": (pronoun, 17), "verdicts": (verdict, 24)}
    counts |= {"riddles_train": (riddle, 9), "riddles": (riddle, 22), "verdicts_train": (verdict, 10)}
    counts["pages_train"] = (page, 8)
    return {name: [make(i) for i in range(n)] for name, (make, n) in counts.items()}


@pytest.fixture(scope="module")
def lm(tiny_model):
    import torch
    from lm_eval.models.huggingface import HFLM

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices of 32 columns: with more threads, most of the time is waiting
    with quiet_libraries():
        yield HFLM(pretrained=str(tiny_model), dtype="float32", device="cpu", batch_size=1)
    torch.set_num_threads(n_threads)


def our_config(folder, **settings):
    return RunConfig(include_path=(str(TASK_FILES),), output_path=str(folder), **settings)


def run_ours(tiny_model, folder, **settings):
    """Return the run, its results.json and the lines of each task's samples."""
    model_args = {"pretrained": str(tiny_model), "dtype": "float32"}
    config = our_config(folder, model="hf", model_args=model_args, device="cpu", batch_size=1, **settings)
    made = run(config, quiet=True)
    assert not made.failed_tasks
    samples = {name: read_lines(made.path / f"samples_{name}.jsonl") for name in made.info.tasks}
    return made, json.loads((made.path / "results.json").read_text(encoding="utf-8")), samples


def run_lm_eval(lm, folder, *, tasks, **settings):
    """Run and save as lm-eval's own command does; return results.json and the lines of each task's samples."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder / "results.json"))
    with quiet_libraries(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_MULTIPROC", "1")  # a pool of processes for two draws, whose values are not compared
        results = simple_evaluate(
            model=lm, tasks=list(tasks), task_manager=lm_eval_tasks(), bootstrap_iters=2, **settings
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for name, lines in samples.items():
            tracker.save_results_samples(task_name=name, samples=lines)
    (saved,) = folder.glob("results_*.json")
    files = {name: next(folder.glob(f"samples_{name}_2*.jsonl")) for name in samples}
    return json.loads(saved.read_text(encoding="utf-8")), {name: read_lines(path) for name, path in files.items()}


def lm_eval_tasks():
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASK_FILES), include_defaults=False)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_a_run_gives_what_lm_eval_gives(tiny_model, lm, tmp_path, settings):
    theirs, their_samples = run_lm_eval(lm, tmp_path / "theirs", **settings)
    made, ours, our_samples = run_ours(tiny_model, tmp_path / "ours", **settings)
    assert_same_samples(our_samples, their_samples)
    assert_same_results(ours, theirs)
    assert_scores_are_results(made.scores, theirs["results"])


def assert_same_samples(ours, theirs):
    """Prompts, generation arguments, answers, what was made of them, hashes and metrics, in the same lines."""
    assert list(ours) == list(theirs)
    for name, lines in theirs.items():
        assert len(ours[name]) == len(lines), name
        for our_line, line in zip(ours[name], lines, strict=True):
            assert list(our_line) == list(line), name
            for key, value in line.items():
                assert our_line[key] == value, f"{name}, doc {line['doc_id']}, {line['filter']}: {key}"


def assert_same_results(ours, theirs):
    for part in ("group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes"):
        assert ours[part] == theirs[part], part
    for part in ("results", "groups"):
        assert list(ours.get(part, {})) == list(theirs.get(part, {})), part
        for name, metrics in theirs.get(part, {}).items():
            assert list(ours[part][name]) == list(metrics), f"{part}: {name}"
            assert without_own_errors(ours[part][name]) == without_own_errors(metrics), f"{part}: {name}"
    assert without_metadata(ours["configs"]) == without_metadata(theirs["configs"])


def without_own_errors(metrics):
    return {key: value for key, value in metrics.items() if key.split("_stderr,")[0] not in NOT_MEANS}


def without_metadata(configs):
    """The metadata hold the model's arguments and where the data lie, which is not the same here and there."""
    return {name: config | {"metadata": None} for name, config in configs.items()}


def assert_scores_are_results(scores, results):
    """scores.parquet holds every number of results.json."""
    expected = {
        (name, *key.split(",")): value
        for name, metrics in results.items()
        for key, value in metrics.items()
        if "," in key and "_stderr," not in key
    }
    assert {(row.task, row.metric, row.filter): row.value for row in scores.itertuples()} == expected
    for row in scores.itertuples():
        if row.metric not in NOT_MEANS and row.n_docs - row.n_unscored > 1:
            assert row.stderr == results[row.task][f"{row.metric}_stderr,{row.filter}"], row


@pytest.mark.slow
def test_answers_from_the_store_give_the_same_results(tiny_model, lm, tmp_path):
    del lm  # for its number of threads
    settings = {"tasks": ("local_riddles", "local_verdicts", "local_next_letter", "local_pages"), "limit": 4}
    _, results, samples = run_ours(tiny_model, tmp_path, **settings)
    again, results_again, samples_again = run_ours(tiny_model, tmp_path, **settings)
    assert again.info.requests.n_answered == 0
    assert samples_again == samples
    assert results_again["results"] == results["results"]


def test_different_answers_to_one_doc_are_filtered_as_by_lm_eval(tmp_path):
    """A sampled answer's seed is ours, so lm-eval is handed our answers."""
    from lm_eval.api.model import LM

    settings = {"tasks": ("local_riddles",), "gen_kwargs": {"do_sample": True, "temperature": 1.0}}
    made = run(our_config(tmp_path / "ours", model="dummy", **settings), quiet=True)
    answers = defaultdict(list)
    for row in made.sample_rows("local_riddles"):
        if row["filter"] == "strict":
            answers[row["prompt"]].append(row["response"])
    assert all(len(set(responses)) > 1 for responses in answers.values())

    class Replay(LM):
        def generate_until(self, requests):
            return [answers[request.args[0]].pop(0) for request in requests]

        loglikelihood = loglikelihood_rolling = generate_until

    theirs, their_samples = run_lm_eval(Replay(), tmp_path / "theirs", **settings)
    assert_same_samples({"local_riddles": read_lines(made.path / "samples_local_riddles.jsonl")}, their_samples)
    assert_scores_are_results(made.scores, theirs["results"])


@pytest.mark.parametrize("limit", [None, 5, 0.1])
def test_prompts_do_not_depend_on_the_limit(tmp_path, limit):
    """Examples come from one random stream a task; a doc's must be those of lm-eval's whole run."""
    names = ("local_towns_shots", "local_verdicts", "local_riddles", "local_prefixed_choices", "local_pronouns")
    names += ("local_wards",)
    planned = plan(our_config(tmp_path, model="dummy", tasks=names, limit=limit)).tasks
    for name, theirs in lm_eval_requests(names).items():
        ours = [(r.doc_id, r.index, str(r.prompt), r.continuation or r.gen_kwargs) for r in planned[name].requests]
        n_total = planned[name].n_docs_total
        n_docs = {None: n_total, 5: 5, 0.1: math.ceil(n_total / 10)}[limit]
        doc_ids = planned[name].doc_ids if name == "local_wards" else range(n_docs)
        assert len(doc_ids) == n_docs
        assert ours == [request for request in theirs if request[0] in doc_ids], name


def lm_eval_requests(names):
    """Return lm-eval's requests of every doc of each task, given by name or task file."""
    requests = {}
    with quiet_libraries():
        for name, task in lm_eval_tasks().load(list(names))["tasks"].items():
            task.set_fewshot_seed(seed=1234)
            task.build_all_requests()
            requests[name] = [(i.doc_id, i.idx, *i.args) for i in task.instances]
    return requests


@pytest.mark.parametrize("limit", [None, 7])
def test_examples_of_a_cluster_are_those_of_a_task_of_its_own(data_folder, tmp_path, limit):
    """With lm-eval it takes a task for each ward."""
    planned = plan(our_config(tmp_path, model="dummy", tasks=("local_wards_apart",), limit=limit))
    ours = {(r.doc_id, r.index): (str(r.prompt), r.continuation) for r in planned.tasks["local_wards_apart"].requests}
    docs, examples = (read_lines(data_folder / f"{name}.jsonl") for name in ("wards", "wards_dev"))
    theirs = {}
    for ward in ("old", "new", "far"):
        doc_ids = [doc_id for doc_id, row in enumerate(docs) if row["ward"] == ward]
        files = {"test": tmp_path / f"{ward}.jsonl", "dev": tmp_path / f"{ward}_dev.jsonl"}
        for path, rows in zip(files.values(), (docs, examples), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["ward"] == ward), encoding="utf-8")
        settings = {"task": ward, "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}}}
        task_file = tmp_path / f"{ward}.yaml"
        task_file.write_text(json.dumps({"include": str(TASK_FILES / "wards.yaml"), **settings}))
        for doc_id, index, *arguments in lm_eval_requests([str(task_file)])[ward]:
            theirs[(doc_ids[doc_id], index)] = tuple(arguments)
    assert len(ours) == 2 * (limit or len(docs))
    assert ours == {key: theirs[key] for key in ours}
