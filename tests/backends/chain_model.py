"""A checkpoint whose greedy answers are known texts: each token has one successor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

EOS = "<|end|>"


def save_chain_model(folder: Path, chains: Mapping[str, Sequence[str]], *, template: str | None = None) -> Path:
    """Save a Qwen2 that answers a prompt by its last character, and return `folder`.

    Args:
        chains: last character of a prompt -> the tokens of the answer, after which the text ends. No token may be in
            two places. One that is spelled `special:…` is a special token.
        template: a chat template.
    """
    tokenizer = _tokenizer([token for chain in chains.values() for token in chain])
    tokenizer.chat_template = template
    size = (len(tokenizer) + 7) // 8 * 8
    config = Qwen2Config(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = Qwen2ForCausalLM(config)
    with torch.no_grad():
        # Nothing is added to the embedding of the last token, and the head looks its successor up
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for first, chain in chains.items():
            ids = [tokenizer.encode(first)[-1], *(tokenizer.convert_tokens_to_ids(_text(t)) for t in chain)]
            for before, after in zip(ids, [*ids[1:], tokenizer.eos_token_id], strict=True):
                model.lm_head.weight[after, before] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(tokens: Sequence[str]) -> Any:
    vocab = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [_text(token) for token in tokens if token != _text(token)]
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token=EOS, pad_token="<|pad|>", additional_special_tokens=special
    )
    tokenizer.add_tokens([AddedToken(token, special=False) for token in tokens if token == _text(token)])
    return tokenizer


def _text(token: str) -> str:
    return token.removeprefix("special:")
