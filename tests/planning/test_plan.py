"""The plan: which docs, which prompts, what does not fit, and what a scorer is asked before the model is."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.errors import ConfigError
from qwen2eval.planning.plan import make_plan
from qwen2eval.planning.requests import pick_docs
from tests.backends.openai_server import save_tiny_model

TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 16}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def sums(tmp_path):
    """Return a function that writes a task with extra YAML lines and plans it."""

    def plan(extra="", *, spec=None, **settings):
        rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i), "kind": "ab"[i % 2]} for i in range(20)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "sums.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl") + extra)
        config = RunConfig(model="dummy", tasks=("sums",), include_path=(str(tmp_path),), **settings)
        return make_plan(config, spec or load_spec(config))

    return plan


@given(clusters=st.lists(st.integers(0, 5), min_size=1, max_size=50), limit=st.integers(1, 60))
def test_a_limit_spreads_docs_over_clusters_as_evenly_as_they_allow(clusters, limit):
    picked = pick_docs(len(clusters), limit=limit, clusters=clusters)
    assert picked == sorted(set(picked))
    assert len(picked) == min(limit, len(clusters))
    taken, there = Counter(clusters[i] for i in picked), Counter(clusters)
    fewest = min((taken[c] for c in there if taken[c] < there[c]), default=None)
    if fewest is not None:  # a cluster that could still give: no other has given two more
        assert max(taken.values()) <= fewest + 1


@given(n_docs=st.integers(1, 100), limit=st.floats(0.01, 0.99))
def test_a_fraction_is_rounded_up_as_in_lm_eval(n_docs, limit):
    import math

    assert pick_docs(n_docs, limit=limit) == list(range(math.ceil(n_docs * limit)))


def test_a_limit_changes_no_prompt(sums):
    extra = "num_fewshot: 3\nfewshot_split: test\n"
    prompts = [str(r.prompt) for r in sums(extra).tasks["sums"].requests]
    assert [str(r.prompt) for r in sums(extra, limit=7).tasks["sums"].requests] == prompts[:7]
    assert len(set(prompts)) == 20


def test_the_scorer_is_tried_on_a_right_and_a_wrong_answer(sums):
    assert sums().tasks["sums"].preflight == "ok"


@pytest.mark.parametrize(
    "filters",
    [
        "filter_list: [{name: never, filter: [{function: regex, regex_pattern: 'xyz'}, {function: take_first}]}]",
        "filter_list: [{name: all, filter: [{function: regex, regex_pattern: '()'}, {function: take_first}]}]",
    ],
)
def test_a_scorer_that_cannot_tell_right_from_wrong_is_reported_before_the_model_loads(sums, filters):
    assert "does not rate the target itself above a wrong answer" in sums(filters + "\n").tasks["sums"].preflight


def test_a_scorer_without_a_target_is_not_called_broken(sums, tmp_path):
    """As IFEval's, which looks at the answer alone and has 0 as the target of every doc."""
    (tmp_path / "form.py").write_text("def score(doc, results):\n    return {'exact_match': results[0].isupper()}\n")
    assert sums("process_results: !function form.score\ndoc_to_target: 0\n").tasks["sums"].preflight == "ok"


def test_a_scorer_that_fails_is_the_tasks_error(sums, tmp_path):
    (tmp_path / "broken_scorer.py").write_text("def score(doc, results):\n    raise KeyError('no such field')\n")
    with pytest.raises(Exception, match="no such field"):
        sums("process_results: !function broken_scorer.score\n")


def test_answers_as_long_as_the_context_are_refused(sums):
    """lm-eval would cut the whole prompt away (trap T9)."""
    with pytest.raises(ConfigError, match="max_gen_toks"):
        sums(spec=ModelSpec(backend="dummy", name="small", max_length=16))


def test_prompts_that_do_not_fit_are_counted_per_doc(sums, tokenizer):
    plan = sums(spec=ModelSpec(backend="dummy", name="small", tokenizer=tokenizer, max_length=26))
    lengths = {r.doc_id: r.n_context_tokens for r in plan.tasks["sums"].requests}
    too_long = [doc_id for doc_id, length in lengths.items() if length > 26 - 16]
    assert 0 < len(too_long) <= 20
    assert plan.tasks["sums"].n_truncated == len(too_long)


def test_tokens_are_those_of_the_tokenizer(sums, tokenizer):
    plan = sums(spec=ModelSpec(backend="dummy", name="x", tokenizer=tokenizer))
    for request in plan.tasks["sums"].requests:
        assert request.n_context_tokens == len(tokenizer.encode(str(request.prompt)))


def test_equal_requests_have_equal_digests_and_different_ones_differ(sums):
    first, second = sums().tasks["sums"].requests, sums(gen_kwargs={"max_gen_toks": 17}).tasks["sums"].requests
    assert [r.digest for r in first] == [r.digest for r in sums().tasks["sums"].requests]
    assert len({r.digest for r in first} | {r.digest for r in second}) == 40


def test_an_instruct_model_without_its_template_is_warned_about(sums):
    assert "instruct" in sums(spec=ModelSpec(backend="dummy", name="Qwen2-7B-Instruct")).warnings[0]


@pytest.mark.parametrize(
    ("template", "end", "is_warned"),
    [
        ("<|im_start|>{{ m }}<|im_end|>", "<|im_end|>", True),
        ("{{ m }}{{ eos_token }}", "<|endoftext|>", True),
        ("<|im_start|>{{ m }}<|im_end|>", "<|endoftext|>", False),
        (None, "<|im_end|>", False),
    ],
    ids=["ends with the mark", "ends with eos_token", "a base model", "no template"],
)
def test_an_instruct_model_is_known_by_its_template_and_its_end(sums, tokenizer, template, end, is_warned):
    """Not by its name: a folder may be called anything."""
    import copy

    own = copy.copy(tokenizer)
    own.eos_token = end
    spec = ModelSpec(backend="dummy", name="chat-notes", tokenizer=own, chat_template_text=template)
    assert any("instruct model" in warning for warning in sums(spec=spec).warnings) == is_warned


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ("", "3 of the 4 answers to each request are not scored: the filters keep only the first"),
        ("[{function: take_first_k, k: 3}, {function: majority_vote}, {function: take_first}]", "1 of the 4 answers"),
        ("[{function: regex, regex_pattern: '([0-9]+)'}, {function: take_first}]", "3 of the 4 answers"),
        ("[{function: majority_vote}, {function: take_first}]", None),
    ],
    ids=["no filter", "take_first_k", "regex", "vote"],
)
def test_answers_that_are_paid_for_and_not_scored_are_said(sums, filters, said):
    lines = "repeats: 4\n" + (f"filter_list: [{{name: own, filter: {filters}}}]\n" if filters else "")
    warnings = sums(lines).warnings
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_a_chat_template_that_is_not_there_is_refused(sums):
    with pytest.raises(ConfigError, match="no chat template"):
        sums(apply_chat_template=True)


def test_the_time_is_that_of_an_earlier_run_of_the_same_model(tmp_path):
    from dataclasses import replace

    from qwen2eval import run
    from qwen2eval.demo.shipped import MODEL
    from qwen2eval.planning.estimate import estimate_time
    from qwen2eval.run_folder.folder import find_runs

    def of_runs_here(plan):
        return estimate_time(plan, find_runs(tmp_path).runs)

    small = RunConfig(
        model="dummy",
        model_args={"tokenizer": str(MODEL), "delay": 0.2, "batch": 4},
        tasks=("demo_mmlu",),
        limit=5,
        output_path=str(tmp_path),
    )
    whole = make_plan(replace(small, limit=None), load_spec(small))
    assert of_runs_here(whole) is None
    first = run(small, quiet=True)
    assert first.info.timings.answer_seconds >= 1.0  # 20 requests, 4 a batch, 0.2 s each
    times = of_runs_here(whole)
    assert times.run_id == first.info.run_id
    # 336 docs for 5: some 67 times as long
    assert 50 < times.seconds / first.info.timings.answer_seconds < 90
    run(small, quiet=True)  # answered by the store: says nothing of the speed
    assert of_runs_here(whole).run_id == first.info.run_id


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from qwen2eval.demo.shipped import MODEL

    return AutoTokenizer.from_pretrained(MODEL)


def test_the_cost_of_prompts_is_counted_with_and_without_sharing(tmp_path):
    from qwen2eval.model import Qwen2Config
    from qwen2eval.planning.estimate import estimate_time, prompt_flops, task_costs

    folder = save_tiny_model(tmp_path / "model")
    config = Qwen2Config.from_hf(folder)
    asked = RunConfig(
        model="qwen2", model_args={"pretrained": str(folder)}, tasks=("demo_mmlu",), output_path=str(tmp_path / "runs")
    )
    plan = make_plan(asked, load_spec(asked))
    task, cost = plan.tasks["demo_mmlu"], task_costs(plan)["demo_mmlu"]
    assert cost.n_tokens == task.n_prompt_tokens
    assert cost.n_computed == round((1 - task.shared_prefix_ratio) * cost.n_tokens)
    longest = max(r.n_context_tokens + r.n_continuation_tokens for r in task.requests)
    width = config.num_key_value_heads * config.head_size
    assert cost.kv_bytes == longest * 2 * config.num_hidden_layers * width * 4  # keys and values, float32
    # by hand: twice the weights that a token meets; each token looks at all before it, two products of 2 operations
    weights = 2 * config.n_non_embedding_parameters
    looks = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_size
    assert prompt_flops(config, [3, 5]) == pytest.approx(8 * weights + looks * (3 * 3 + 5 * 5) / 2)
    estimate = estimate_time(plan)
    assert estimate.run_id is None
    assert estimate.seconds > 0


def test_other_models_cost_tokens_only(sums):
    from qwen2eval.planning.estimate import estimate_time, task_costs

    plan = sums()
    assert task_costs(plan)["sums"] == (None, None, None, None)
    assert estimate_time(plan) is None


@pytest.mark.parametrize("extra", ["", 'description: "Say a number."\n'], ids=["no description", "description"])
def test_a_system_instruction_is_not_glued_to_the_question(sums, extra):
    first = sums(extra, system_instruction="Be brief.").tasks["sums"].first_prompt
    wanted = "Be brief.\n\nSay a number.What is 0 plus 0?" if extra else "Be brief.\n\nWhat is 0 plus 0?"
    assert first == wanted


def test_a_template_without_a_system_role_is_said(sums):
    spec = ModelSpec("dummy", "gemma", chat_template=lambda messages, **_: str(messages), has_system_role=False)
    plan = sums('description: "Say a number."\n', spec=spec, apply_chat_template=True)
    assert [w for w in plan.warnings if "no system role: the description of sums is at the head" in w]
