"""Tasks with turns: what is asked next depends on what the model has said."""

import json

import pytest
import yaml

from qwen2eval import RunConfig, run
from qwen2eval.errors import TaskFileError
from qwen2eval.rescore import rescore
from tests.local_tasks import write_tasks


@pytest.fixture
def config(tmp_path):
    folder = write_tasks(tmp_path / "tasks", n_docs=12)
    plain = yaml.safe_load((folder / "say.yaml").read_text())
    own = {key: plain[key] for key in ("dataset_path", "dataset_kwargs", "test_split")}
    own |= {"task": "haggle", "class": "TURNS", "output_type": "generate_until", "num_fewshot": 0}
    own |= {"doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    own |= {"generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}}
    text = yaml.safe_dump(own).replace("class: TURNS", "class: !function tests.answers.turns.Haggling")
    (folder / "haggle.yaml").write_text(text)
    return RunConfig(
        model="dummy", tasks=("haggle",), include_path=(str(folder),), output_path=str(tmp_path / "runs"), offline=True
    )


def conversations(made):
    """Return each doc's prompts and responses, turn by turn, as lm-eval's own format has them."""
    lines = (made.path / "samples_haggle.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        (
            [arguments["arg_0"] for arguments in line["arguments"].values()],
            [responses[0] for responses in line["resps"]],
        )
        for line in map(json.loads, lines)
    ]


def test_turns_are_asked_until_the_task_says_that_they_are_over(config):
    made = run(config, quiet=True)
    talked = conversations(made)
    assert {len(prompts) for prompts, _ in talked} == {1, 2, 3}
    for prompts, responses in talked:
        numbers = [int(response.split("is ")[1].split(".")[0]) for response in responses]
        # by hand: on after an odd number, and never more than three times
        assert all(number % 2 for number in numbers[:-1])
        assert numbers[-1] % 2 == 0 or len(numbers) == 3
        for turn in range(1, len(prompts)):
            assert prompts[turn].startswith(prompts[0] + responses[0])
            assert prompts[turn].endswith(f"\n\nNot {numbers[turn - 1]} for {prompts[turn].split(' for ')[-1]}")
    samples = made.samples("haggle")
    assert samples["n_turns"].tolist() == [len(prompts) for prompts, _ in talked]
    assert made.info.requests.n_total == sum(len(prompts) for prompts, _ in talked)


def test_nothing_is_asked_twice_and_a_new_scoring_has_the_same_turns(config):
    first = run(config, quiet=True)
    again = run(config, quiet=True)
    assert again.info.requests.n_answered == 0
    assert conversations(again) == conversations(first)
    scored = rescore(first.path, quiet=True)
    columns = ["doc_id", "response", "n_turns", "is_even"]
    assert scored.samples("haggle")[columns].equals(again.samples("haggle")[columns])


def test_a_turn_that_is_not_answered_leaves_its_doc_unscored(config):
    from dataclasses import replace

    made = run(replace(config, model_args={"fail_every": 5}), quiet=True)
    samples = made.samples("haggle")
    failed = samples[samples["error"].notna()]
    assert 0 < len(failed) < len(samples)
    assert failed["n_turns"].isna().all()
    assert made.exit_code == 70


def test_with_a_chat_template_turns_are_its_messages(config):
    from qwen2eval.tasks.lm_eval_task import PromptForm
    from qwen2eval.tasks.registry import load_tasks

    task = load_tasks(config).tasks["haggle"]
    form = PromptForm("Be brief.", apply_chat_template=True, chat_template=lambda messages, **_: json.dumps(messages))
    doc = task.docs[0]
    messages = json.loads(task.next_prompt(doc, "unused", ["It is 3."], form))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in messages[:3]] == ["Be brief.", doc["question"], "It is 3."]
    assert task.next_prompt(doc, "unused", ["It is 4."], form) is None


def test_repeats_and_examples_are_refused(config):
    file = next(iter(config.include_path)) + "/haggle.yaml"
    with open(file, "a", encoding="utf-8") as written:  # noqa: PTH123
        written.write("repeats: 2\n")
    with pytest.raises(TaskFileError, match="has turns, so its output_type must be generate_until"):
        run(config, quiet=True)
