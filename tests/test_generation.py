"""Generation arguments: a flag wins under any name, what would not act is refused, all backends apply the same."""

import json

import pytest

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec, open_model
from qwen2eval.errors import ConfigError
from qwen2eval.generation import applied, described, read_flags, with_flags
from qwen2eval.planning.plan import make_plan
from qwen2eval.requests import Request, is_sampled
from tests.backends.openai_server import save_tiny_model
from tests.local_tasks import write_task, write_tasks

GREEDY = {"until": ["\n"], "max_gen_toks": 20, "do_sample": False, "temperature": 0.0}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@pytest.mark.parametrize("flag", LENGTHS)
@pytest.mark.parametrize("own", LENGTHS)
def test_a_flag_replaces_the_tasks_own_length_under_any_name(flag, own):
    merged = with_flags({own: 20, "until": ["\n"]}, {flag: 3})
    assert applied(merged, {}) == {"until": ["\n"], "max_gen_toks": 3, "do_sample": False}


@pytest.mark.parametrize("name", ["until", "stop", "stop_strings", "stop_sequences"])
def test_a_flag_replaces_the_tasks_stop_strings_under_any_name(name):
    assert applied(with_flags(GREEDY, {name: ["Q:"]}), {})["until"] == ["Q:"]


@pytest.mark.parametrize(
    ("task", "flags", "sampled"),
    [
        (GREEDY, {"temperature": 0.9}, 0.9),
        ({}, {"temperature": 0.9}, 0.9),
        (GREEDY, {"do_sample": True}, 1.0),
        (GREEDY, {"do_sample": True, "temperature": 0.5}, 0.5),
        ({"do_sample": True, "temperature": 0.7}, {"temperature": 0}, None),
        ({"do_sample": True, "temperature": 0.7}, {"do_sample": False}, None),
        ({"do_sample": False, "temperature": 0.7}, {}, None),
        ({"temperature": 0.7}, {}, 0.7),
        ({"do_sample": True}, {}, 1.0),
        (GREEDY, {"max_gen_toks": 3}, None),
    ],
)
def test_who_samples_and_how_hot(task, flags, sampled):
    merged = with_flags(task, flags)
    assert is_sampled(merged) == (sampled is not None)
    assert applied(merged, {}).get("temperature") == sampled


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_length": 3}, "give max_gen_toks"),
        ({"max_gen_toks": 3, "max_tokens": 4}, "gives max_gen_toks twice"),
        ({"do_sample": False, "temperature": 0.9}, "contradict each other"),
        ({"do_sample": True, "temperature": 0}, "contradict each other"),
        ({"temperature": "hot"}, "not a number"),
        ({"temperature": -1}, "temperature=-1 is not a number of at least 0"),
        ({"temperature": float("nan")}, "temperature=nan is not"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 is not a whole number of at least 1"),
        ({"max_tokens": -5}, "max_gen_toks=-5 is not"),
        ({"max_gen_toks": 3.5}, "max_gen_toks=3.5 is not"),
        ({"max_gen_toks": True}, "max_gen_toks=True is not"),
        ({"do_sample": True, "top_p": 0}, "top_p=0 is not a number over 0 and at most 1"),
        ({"do_sample": True, "top_p": 1.5}, "top_p=1.5 is not"),
        ({"do_sample": True, "min_p": -0.1}, "min_p=-0.1 is not a number of at least 0 and at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 is not a number over 0"),
        ({"do_sample": "false"}, "do_sample='false' is not true or false"),
    ],
)
def test_what_would_not_act_is_refused_at_the_door(flags, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(gen_kwargs=flags)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"max_gen_toks": 0}, "max_gen_toks=0 is not a whole number of at least 1"),
        ({"do_sample": "false"}, "do_sample='false' is not true or false"),
        ({"do_sample": True, "top_p": 0}, "top_p=0 is not a number over 0"),
        ({"do_sample": False, "top_p": 0}, None),
    ],
)
def test_a_tasks_own_value_that_cannot_be_fails_that_task(tmp_path, own, said):
    folder = write_tasks(tmp_path / "tasks")
    write_task(folder, "own", like="say", generation_kwargs={"until": ["\n"], **own})
    config = RunConfig(model="dummy", tasks=("own", "say"), include_path=(str(folder),))
    plan = make_plan(config, load_spec(config))
    assert "say" in plan.tasks
    assert ("own" in plan.tasks) if said is None else said in str(plan.failures["own"])


@pytest.mark.parametrize("name", ["top_p", "top_k", "min_p"])
def test_arguments_of_sampling_need_sampling(name):
    with pytest.raises(ConfigError, match=f"{name}=1 acts only where answers are sampled"):
        with_flags(GREEDY, {name: 1})
    assert with_flags({"do_sample": True}, {name: 1})[name] == 1


def test_nothing_changes_where_nothing_is_given():
    """The key of a stored answer is made of these arguments."""
    task = {"max_tokens": 20, "temperature": 0.7, "do_sample": False, "until": ["\n"]}
    assert json.dumps(with_flags(task, {})) == json.dumps(task)
    assert read_flags({}) == {}


def test_each_argument_has_its_source():
    checkpoint = {"repetition_penalty": 1.1, "top_p": 0.8, "top_k": 20, "eos_token_id": [1, 2]}
    flags = {"temperature": 0.9, "max_new_tokens": 3}
    task = {"until": ["\n"], "top_k": 5, "max_gen_toks": 20}
    found = described(with_flags(task, flags), checkpoint, flags=flags, max_gen_toks=256)
    assert {name: tuple(one) for name, one in found.items()} == {
        "until": (["\n"], "task"),
        "max_gen_toks": (3, "--gen_kwargs"),
        "do_sample": (True, "--gen_kwargs"),
        "temperature": (0.9, "--gen_kwargs"),
        "top_k": (5, "task"),
        "top_p": (0.8, "generation_config.json"),
        "repetition_penalty": (1.1, "generation_config.json"),
    }
    greedy = described({}, checkpoint, flags={}, max_gen_toks=256)
    assert {name: one.source for name, one in greedy.items()} == {
        "max_gen_toks": "default",
        "do_sample": "default",
        "repetition_penalty": "generation_config.json",
    }


@pytest.fixture(scope="module")
def declaring(tmp_path_factory):
    """Return a tiny model whose generation_config.json asks for much."""
    folder = save_tiny_model(tmp_path_factory.mktemp("declaring") / "model")
    file = folder / "generation_config.json"
    asked = {"do_sample": True, "temperature": 0.6, "top_k": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | asked))
    return folder


@pytest.mark.parametrize("gen_kwargs", [{}, {"temperature": 1.2}, {"do_sample": True, "top_k": 2}], ids=str)
def test_the_checkpoints_own_arguments_act_alike_on_hf_and_qwen2(declaring, gen_kwargs):
    """Sampled texts are equal too: both draw with the request's seed from the same distribution."""
    responses = []
    for model in ("qwen2", "hf"):
        args = {"pretrained": str(declaring), "dtype": "float32"}
        config = RunConfig(model=model, model_args=args, device="cpu", batch_size=1)
        request = Request("generate_until", "A cup of tea", gen_kwargs={"max_gen_toks": 20, **gen_kwargs}, seed=5)
        ((_, answer),) = next(iter(open_model(config, load_spec(config)).answer([request])))
        responses.append(answer.response)
    assert responses[0] == responses[1]


def test_the_plan_says_what_the_checkpoint_adds_and_that_a_flag_samples(declaring, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "Tea?", "a": "yes"}\n')
    (tmp_path / "tea.yaml").write_text(
        f"task: tea\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\n'
        'generation_kwargs: {until: ["\\n"], max_tokens: 16, do_sample: false}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    config = RunConfig(
        model="qwen2",
        model_args={"pretrained": str(declaring)},
        tasks=("tea",),
        include_path=(str(tmp_path),),
        gen_kwargs={"max_new_tokens": 3, "temperature": 0.9},
    )
    plan = make_plan(config, load_spec(config))
    assert plan.tasks["tea"].requests[0].gen_kwargs == {
        "until": ["\n"],
        "do_sample": True,
        "max_gen_toks": 3,
        "temperature": 0.9,
    }
    assert plan.tasks["tea"].generation["top_k"] == (3, "generation_config.json")
    assert any("adds top_k=3, repetition_penalty=1.3" in warning for warning in plan.warnings)
    assert any("answers are sampled" in warning for warning in plan.warnings)
