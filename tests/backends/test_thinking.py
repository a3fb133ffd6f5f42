"""Models that think: stop strings act after the thought, on every backend and at every batch size."""

import pytest

from qwen2eval.backends import load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.requests import Request
from qwen2eval.thoughts import read_thought
from tests.backends.chain_model import save_chain_model

CHAINS = {
    "A": ["<think>Is it 9?", "\n\nNo, it is 7.", "</think>\n7", "\n\nNext: 8"],
    "B": ["<think>Hm.\n\nEight.</think>", "\n8"],
    "C": ["<think>Is it 3?", " Or 4?", " Or 5?", " Or 6?", " Or 2?", "</think>2"],
    "D": ["Four", "\n\nFive"],
    "E": ["<think>One or two?", " Or three?", " Or four", " Or", " five", " six", " seven"],
    "F": ["special:[THINK]", "a\n\nb", "special:[/THINK]", "6"],
    "\n": ["c\n\nd", "e</think>5"],
}
ANSWERS = {"A": "7", "B": "8", "C": "2", "D": "Four", "E": "", "F": "6"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_chain_model(tmp_path_factory.mktemp("chain") / "model", CHAINS)


def answers(folder, model, batch_size, prompts, **args):
    args = {"pretrained": str(folder), "dtype": "float32", **args}
    config = RunConfig(model=model, model_args=args, device="cpu", batch_size=batch_size)
    spec = load_spec(config)
    kwargs = {"until": ["\n\n"], "max_gen_toks": 7}
    requests = [
        Request("generate_until", prompt, gen_kwargs=kwargs, n_context_tokens=len(prompt)) for prompt in prompts
    ]
    got = dict(pair for batch in open_model(config, spec).answer(requests) for pair in batch)
    return [read_thought(got[i], prompt=prompts[i], thinking=spec.thinking) for i in range(len(prompts))]


@pytest.mark.parametrize("model", ["qwen2", "hf"])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_stop_strings_act_after_the_thought_whatever_the_batch(folder, model, batch_size):
    """A batch went on while any of its rows did, so that an answer's neighbours decided what was left of it."""
    got = answers(folder, model, batch_size, list(ANSWERS))
    assert dict(zip(ANSWERS, [answer.response for answer in got], strict=True)) == ANSWERS
    assert [a.finish_reason for a in got] == ["stop"] * 4 + ["length", "stop"]
    assert [a.thought is not None for a in got] == [True] * 3 + [False, True, True]
    assert [a.is_thought_open for a in got] == [False] * 4 + [True, False]
    assert got[0].thought == "<think>Is it 9?\n\nNo, it is 7.</think>\n"


@pytest.mark.parametrize("model", ["qwen2", "hf"])
@pytest.mark.parametrize(
    ("prompt", "args"),
    [("Why?<think>\n", {}), ("Why?\n", {"think_end_token": "</think>"})],
    ids=["the prompt opens it", "think_end_token"],
)
def test_an_answer_may_begin_inside_its_thought(folder, model, prompt, args):
    (answer,) = answers(folder, model, 1, [prompt], **args)
    assert (answer.response, answer.thought) == ("5", "c\n\nde</think>")


@pytest.mark.parametrize("model", ["qwen2", "hf"])
def test_think_end_token_that_does_not_come_leaves_no_answer(folder, model):
    (answer,) = answers(folder, model, 1, ["D"], think_end_token="</think>")
    assert (answer.response, answer.is_thought_open) == ("", True)
    (kept,) = answers(folder, model, 1, ["B"], think_end_token=False)
    assert kept.response == "<think>Hm."
