"""A model whose answers follow a rule on the prompt that it gets, run through the whole of qwen2eval; and tokenizers.

The rule sees what a model sees: it looks for the needle in the document, and never into the docs.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from qwen2eval.backends import BackendSpec, ModelSpec
from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.long_context.prose import write_prose
from qwen2eval.requests import Answer, Request
from tests.small_bpe import small_bpe

DOCUMENT = re.compile(r"(?:Document|文档).\n\n(.*)\n\n(?:Question|问题).", re.DOTALL)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def depth_percent(document: str, line: str) -> float:
    """Return how much of a document is before a line, percent of characters."""
    return 100 * document.index(line) / len(document)


Rule = Callable[[str, str], str]
"""(document, the needle in it) -> the answer."""


class ScriptedBackend(Backend):
    """Answers by a rule."""

    name = "scripted"

    def __init__(self, rule: Rule, needles: Sequence[str]) -> None:
        self._rule, self._needles = rule, needles

    def identity(self) -> Identity:
        return {"backend": self.name, "rule": self._rule.__name__}

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        for i, request in enumerate(requests):
            found = DOCUMENT.search(request.context)
            assert found is not None, request.context[-300:]
            lines = found[1].split("\n")
            needle = next(needle for needle in self._needles if needle in lines)
            yield [(i, Answer(response=self._rule(found[1], needle), finish_reason="stop", n_response_tokens=9))]


@dataclass(frozen=True)
class Scripted:
    """A kind of model for `--model`: register it in `BACKENDS`."""

    tokenizer: Any
    rule: Rule
    needles: Sequence[str]
    max_length: int | None = None

    def spec(self) -> BackendSpec:
        return BackendSpec(
            lambda _: spec_of(self.tokenizer, max_length=self.max_length),
            lambda *_: ScriptedBackend(self.rule, self.needles),
        )


def always(_document: str, needle: str) -> str:
    return f"It says: {needle}"


def never(_document: str, _needle: str) -> str:
    return "The document does not say."


def in_first_half(document: str, needle: str) -> str:
    return needle if depth_percent(document, needle) < 50 else "I don't know."


def spec_of(tokenizer: Any, *, max_length: int | None = None, **known: Any) -> ModelSpec:
    """Return the spec of a model with a tokenizer, as `load_hf_spec` would."""
    from qwen2eval.backends.model_spec import hash_tokenizer

    def template(history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=add_generation_prompt)

    return ModelSpec(
        backend="scripted",
        name="scripted",
        tokenizer=tokenizer,
        max_length=max_length,
        chat_template=template,
        chat_template_text=CHATML,
        tokenizer_hash=hash_tokenizer(tokenizer),
        **known,
    )


@cache
def qwen_like_tokenizer() -> PreTrainedTokenizerFast:
    """Return a small byte-level BPE that cuts words as Qwen2's does; characters that it hasn't seen are 2-4 tokens."""
    tokenizer = small_bpe(_prose(), n_tokens=1500, normalizer=normalizers.NFC(), chat_template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


@cache
def llama_like_tokenizer() -> PreTrainedTokenizerFast:
    """Return a small BPE over words with their spaces, which adds BOS: no part of a prompt counts by itself."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=2500, special_tokens=["<unk>", "<s>", *bytes_], show_progress=False, max_token_length=16
    )
    inner.train_from_iterator((line for text in _prose() for line in text.split(".")), trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", chat_template=CHATML)


def _prose() -> list[str]:
    return write_prose("en", n_chars=60_000, seed=7) + write_prose("zh", n_chars=30_000, seed=7)
