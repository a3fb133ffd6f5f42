"""A stand-in for the demo model: a tiny Qwen2 with random weights, made on first use.

It shows the whole path at work and answers at chance level; its note says so on every report.
"""

import os
import shutil
from pathlib import Path

from qwen2eval.content import cache_dir, content_dir

STAND_IN_VERSION = 1
STAND_IN_NOTE = (
    "This is an untrained stand-in: a two-layer Qwen2 with random weights, made on this machine. Its scores show that "
    "the path works, and say nothing about any model. Name a real one with --model hf --model_args pretrained=…"
)
VOCABULARY = 1_000
SEED = 20240715


def stand_in_model() -> Path:
    """Return the folder of the stand-in checkpoint, making it if it isn't there."""
    folder = cache_dir() / f"qwen2-stand-in-{STAND_IN_VERSION}"
    if not (folder / "model.safetensors").is_file():
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _write_tokenizer(draft)
        _write_weights(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    """Train a small byte-level BPE on the shipped sample texts and save it with a ChatML template."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

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
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [p.read_text(encoding="utf-8") for p in sorted((content_dir("demo") / "data").rglob("*.*"))]
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=specials[2],
        pad_token=specials[0],
        additional_special_tokens=specials,
        chat_template=(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
            "{% if not loop.last or add_generation_prompt or m.role != 'assistant' %}<|im_end|>\n{% endif %}"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
    )
    wrapped.save_pretrained(folder)


def _write_weights(folder: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    end_of_text, end_of_turn = 0, 2  # ids of the special tokens, in the order of _write_tokenizer
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_turn,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [end_of_turn, end_of_text]
    model.generation_config.pad_token_id = end_of_text
    model.save_pretrained(folder)
