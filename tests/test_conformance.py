"""A run of ours against lm-eval's own `simple_evaluate`: the same prompts, the same answers, the same numbers.

Both get the same tiny random Qwen2 and the task files of tests/tasks_local; nothing may differ, down to the last bit.
"""

import json
import random
from pathlib import Path

import pytest

from qwen2eval.config import RunConfig
from qwen2eval.libraries import quiet_libraries
from qwen2eval.run import run

TASK_FILES = Path(__file__).resolve().parent / "tasks_local"
ALL_TASKS = (
    *("local_choices", "local_verdicts", "local_sums", "local_stories", "local_last_word", "local_pages"),
    *("local_overlap", "local_prefixed", "local_prefixed_choices"),
)
WITH_EXAMPLES = ("local_choices", "local_verdicts", "local_sums", "local_prefixed", "local_prefixed_choices")
# what lm-eval's own estimate covers: its bootstrap and its "N/A" for anything but a mean are replaced by ours
NOT_MEANS = ("f1", "mcc", "brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "spread")
RUNS = {
    "as the tasks say": {"tasks": ALL_TASKS},
    "five docs, three examples": {
        "tasks": (*WITH_EXAMPLES, "local_stories"),
        "limit": 5,
        "num_fewshot": 3,
        "gen_kwargs": {"max_gen_toks": 5, "until": ["e"]},
    },
    "a third of the docs": {"tasks": ALL_TASKS, "limit": 0.33},
    "chat, examples as turns": {
        "tasks": WITH_EXAMPLES,
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": "You know every town.",
    },
    "chat, one turn": {"tasks": WITH_EXAMPLES, "apply_chat_template": True, "fewshot_as_multiturn": False},
}


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
    words = [
        "the",
        "old",
        "mill",
        "of",
        "a",
        "town",
        "by",
        "its",
        "river",
        "sells",
        "bread",
        "and",
        "salt",
        "to",
        "those",
        "who",
        "come",
        "in",
        "the",
        "long",
        "winter",
    ]

    def town(i):
        options = rng.sample(names, 1 + i % 3) + [f"{rng.choice(names)} upon {rng.choice(names)}"]
        gold = rng.randrange(len(options))
        question = f"Which town lies {rng.randint(2, 90)} miles from {names[i]}? "
        return {"question": question, "options": options, "gold": gold, "answer": options[gold]}

    def pronoun(i):
        one, two = rng.sample(names, 2)
        ending = rng.choice(["was old", "had no bridge", "lay in ruins", "grew"])
        sentence = f"{one} fell to {two} in {1200 + i} because _ {ending}."
        return {"sentence": sentence, "option1": one, "option2": two, "answer": rng.randint(1, 2)}

    def verdict(i):
        claim = (
            f"{names[i]} is {rng.choice(['older', 'nearer', 'richer'])} than {rng.choice(names)} by {rng.randint(2, 9)}"
        )
        return {
            "claim": claim,
            "holds": rng.randint(0, 1),
            "kind": rng.choice(["surely", "hardly ever", "nobody knows"]),
        }

    def addition(_):
        a, b = rng.randint(1, 900), rng.randint(1, 900)
        return {"question": f"{a} + {b}?", "answer": f"That is {a} and {b}. #### {a + b:,}"}

    def page(i):
        text = " ".join(rng.choices(words, k=rng.choice([8, 20, 130])))
        text += rng.choice(["", "\n\n东边的小镇卖盐和面包。", " — “ça va?”"])
        return {"text": text, "title": names[i]}

    counts = {"towns_train": (town, 12), "towns_test": (town, 26), "towns_few": (town, 7), "pages": (page, 20)}
    counts |= {"pronouns_train": (pronoun, 8), "pronouns": (pronoun, 17), "verdicts": (verdict, 24)}
    counts |= {"sums_train": (addition, 9), "sums": (addition, 12)}
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


def run_lm_eval(lm, folder, *, tasks, **settings):
    """Run and save as lm-eval's own command does; return results.json and the lines of each task's samples."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "tiny"
    with quiet_libraries(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_MULTIPROC", "1")
        manager = TaskManager(include_path=str(TASK_FILES), include_defaults=False)
        # two draws of the bootstrap: its values are not compared
        settings |= {"bootstrap_iters": 2, "task_manager": manager}
        results = simple_evaluate(model=lm, tasks=list(tasks), **settings)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for name, lines in samples.items():
            tracker.save_results_samples(task_name=name, samples=lines)
    (aggregated,) = (folder / "tiny").glob("results_*.json")
    files = {name: next((folder / "tiny").glob(f"samples_{name}_2*.jsonl")) for name in samples}
    return json.loads(aggregated.read_text()), {name: read_lines(path) for name, path in files.items()}


def run_ours(tiny_model, folder, **settings):
    """Run and return the run, its results.json and the lines of each task's samples."""
    made = run(
        RunConfig(
            model="hf",
            model_args={"pretrained": str(tiny_model), "dtype": "float32"},
            device="cpu",
            batch_size=1,
            include_path=(str(TASK_FILES),),
            output_path=str(folder),
            **settings,
        ),
        quiet=True,
    )
    assert not made.failed_tasks
    files = {name: made.path / f"samples_{name}.jsonl" for name in made.info["tasks"]}
    results = json.loads((made.path / "results.json").read_text())
    return made, results, {name: read_lines(path) for name, path in files.items()}


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
            assert without_own_errors(ours[part][name]) == without_own_errors(metrics), f"{part}: {name}"
            assert list(ours[part][name]) == list(metrics)
    assert without_metadata(ours["configs"]) == without_metadata(theirs["configs"])


def without_own_errors(metrics):
    return {key: value for key, value in metrics.items() if key.split("_stderr,")[0] not in NOT_MEANS}


def without_metadata(configs):
    """lm-eval puts the model's arguments and the task file's path into every task's metadata; ours are others."""
    return {name: {**config, "metadata": None} for name, config in configs.items()}


def assert_scores_are_results(scores, results):
    """Tell that scores.parquet holds the numbers of results.json."""
    assert len(scores) > 0
    for row in scores.itertuples():
        metrics = results[row.task]
        assert row.value == metrics[f"{row.metric},{row.filter}"]
        if row.metric not in NOT_MEANS and row.n_docs - row.n_unscored > 1:
            assert row.stderr == metrics[f"{row.metric}_stderr,{row.filter}"]
