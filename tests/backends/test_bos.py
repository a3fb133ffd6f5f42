"""A text that begins with BOS: the token stands before it once, whoever writes it, and is never scored."""

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen2eval.backends import load_spec, open_model
from qwen2eval.config import RunConfig
from qwen2eval.planning.request_key import context_tokens
from qwen2eval.prompts import PromptPool, TokenCounter
from qwen2eval.requests import Request
from tests.backends.openai_server import save_tiny_model

BOS = "<|im_start|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a tiny model whose tokenizer begins every text with BOS, as those of Llama, Mistral and Gemma do."""
    made = save_tiny_model(tmp_path_factory.mktemp("bos") / "model")
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.bos_token = BOS
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.convert_tokens_to_ids(BOS))]
    )
    tokenizer.save_pretrained(made)
    assert AutoTokenizer.from_pretrained(made).encode("a")[0] == tokenizer.bos_token_id
    return made


def logprob(folder, ids, n_scored):
    """Return the log-probability of the last tokens of a sequence, from transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(rows[i - 1, ids[i]].item() for i in range(len(ids) - n_scored, len(ids)))


@pytest.mark.parametrize("backend", ["hf", "qwen2"])
@pytest.mark.parametrize("text", ["a cup of tea", f"{BOS}a cup of tea"], ids=["plain", "spelled out"])
def test_a_texts_perplexity_has_bos_before_it_once(folder, backend, text):
    """`log p(BOS x | BOS)` was summed, so that every such model's perplexity was too high."""
    config = RunConfig(model=backend, model_args={"pretrained": str(folder), "dtype": "float32"}, device="cpu")
    ((_, answer),) = next(iter(open_model(config, load_spec(config)).answer([Request("loglikelihood_rolling", text)])))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode("a cup of tea", add_special_tokens=False)
    assert answer.logprob == pytest.approx(logprob(folder, [tokenizer.bos_token_id, *ids], len(ids)), abs=1e-4)


@pytest.mark.parametrize("backend", ["hf", "qwen2"])
def test_a_chat_template_that_writes_bos_gives_one(folder, backend):
    config = RunConfig(model=backend, model_args={"pretrained": str(folder), "dtype": "float32"}, device="cpu")
    prompt = f"{BOS}user\ntea?<|im_end|>\n{BOS}assistant:"
    request = Request("loglikelihood", prompt, "cup")
    ((_, answer),) = next(iter(open_model(config, load_spec(config)).answer([request])))
    ids = AutoTokenizer.from_pretrained(folder).encode(f"{prompt}cup", add_special_tokens=False)
    assert answer.logprob == pytest.approx(logprob(folder, ids, 3), abs=1e-4)


def test_the_plan_counts_a_whole_texts_own_tokens(folder):
    tokenizer, text = AutoTokenizer.from_pretrained(folder), PromptPool().add("a cup of tea")
    n_own = len(tokenizer.encode("a cup of tea", add_special_tokens=False))
    counts = [
        context_tokens(text, TokenCounter(tokenizer, is_whole_text=is_whole)).n_tokens for is_whole in (True, False)
    ]
    assert counts == [n_own, n_own + 1]
