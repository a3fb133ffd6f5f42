"""Small byte-level BPE tokenizers that part words as released models do."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qwen2eval.prompts import CUTTING_PATTERNS


def small_bpe(
    texts: Iterable[str],
    *,
    n_tokens: int,
    pattern: str = CUTTING_PATTERNS[0],
    normalizer: Any = None,
    **options: Any,
) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on texts.

    Args:
        n_tokens: vocabulary; 256 and less: bytes only.
        pattern: by which it parts words; that of Qwen2 by default.
        normalizer: of `tokenizers`.
        options: of `PreTrainedTokenizerFast`.
    """
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)
