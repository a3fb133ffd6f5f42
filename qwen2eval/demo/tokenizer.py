"""The demo model's tokenizer: byte-level BPE trained on the corpus, cut as Qwen2 cuts (single digits), with ChatML."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 4_096
MIN_FREQUENCY = 12
"""Pairs of symbols that occur together less often are not joined: that many times in the texts trained on."""
LONGEST_TOKEN = 12
"""Bytes: a long word, or four Chinese characters; without a limit whole Chinese sentences became tokens."""
END_OF_TEXT, BEGIN_OF_TURN, END_OF_TURN = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Their ids are 0, 1 and 2."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> "Tokenizer":
    """Return a tokenizer trained on texts; the same texts give the same one."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    from qwen2eval.prompts import CUTTING_PATTERNS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUTTING_PATTERNS[0]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        min_frequency=MIN_FREQUENCY,
        max_token_length=LONGEST_TOKEN,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: "Tokenizer", folder: Path) -> None:
    """Write it as Hugging Face reads it, with the chat template."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIALS),
        chat_template=CHAT_TEMPLATE,
    )
    wrapped.save_pretrained(folder)
