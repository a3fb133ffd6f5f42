"""Chat templates: a system message reaches the model also where the template has no role for it."""

import pytest
from transformers import AutoTokenizer

from qwen2eval.backends.chat_template import template_of
from qwen2eval.errors import ConfigError
from tests.backends.openai_server import CHAT_TEMPLATE

REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = (
    "{% for message in messages if message.role != 'system' %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tea?"}]


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("text", [REFUSES + CHAT_TEMPLATE, DROPS], ids=["refuses", "leaves out"])
def test_without_a_system_role_its_text_is_at_the_head_of_the_first_user_turn(tokenizer, text):
    tokenizer.chat_template = text
    template = template_of(tokenizer, {})
    assert not template.has_system_role
    assert template(CHAT) == "<|im_start|>user\nBe brief.\n\nTea?<|im_end|>\n<|im_start|>assistant\n"


def test_a_system_role_is_used_where_there_is_one(tokenizer):
    template = template_of(tokenizer, {})
    assert template.has_system_role
    assert template(CHAT).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nTea?")


def test_a_template_that_refuses_everything_says_so(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('closed on Sundays') }}"
    with pytest.raises(ConfigError, match="closed on Sundays"):
        template_of(tokenizer, {})(CHAT)


def test_the_template_that_the_run_names_is_the_one_that_is_used(tokenizer):
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "rag": "RAG: {{ messages[-1].content }}"}
    assert template_of(tokenizer, {}, "rag")(CHAT[1:]) == "RAG: Tea?"
    assert template_of(tokenizer, {})(CHAT).startswith("<|im_start|>system")
