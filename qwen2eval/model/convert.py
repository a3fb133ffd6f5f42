"""Rewrites a checkpoint as a Hugging Face folder of safetensors in another dtype: from such a folder, or from GGUF.

Values pass tensor by tensor; no more than twice one file's worth of them is in memory.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qwen2eval.errors import ModelError
from qwen2eval.model.checkpoint import Checkpoint
from qwen2eval.model.config import N_BYTES, Qwen2Config
from qwen2eval.model.config_json import load_config_json
from qwen2eval.model.gguf_header import read_header
from qwen2eval.model.load import HEAD, choose_dtype, empty_model, with_own_head
from qwen2eval.model.open_checkpoint import open_checkpoint
from qwen2eval.model.save import MAX_SHARD_GB, ShardWriter, Written, copy_other_files, new_folder, write_config


def convert(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str = "bfloat16",
    max_shard_gb: float = MAX_SHARD_GB,
    on_layer: Callable[[int, int], None] | None = None,
) -> Written:
    """Write a checkpoint as safetensors, with config.json, tokenizer and generation config.

    Args:
        source: as for `load_model`.
        out: the folder to make.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        max_shard_gb: size of a file, in units of 1e9 bytes.
        on_layer: called with the number of finished layers and of all.

    Raises:
        ModelError: the source can't be loaded, or `out` can't be written; nothing is left of it then.
    """
    wanted, checkpoint = choose_dtype(dtype), open_checkpoint(source)
    config = with_own_head(checkpoint, Qwen2Config.from_hf(checkpoint.path))
    empty_model(checkpoint, config)
    with new_folder(Path(out), n_bytes=config.n_parameters * N_BYTES[dtype]) as folder:
        writer = ShardWriter(folder, max_shard_gb=max_shard_gb)
        has_tokenizer = write_other_files(source, checkpoint, folder)
        raw = load_config_json(checkpoint.path)[0]
        write_config(folder, {**raw, "tie_word_embeddings": config.tie_word_embeddings}, dtype=dtype)
        for layer, keys in by_layer(checkpoint.keys, tied=config.tie_word_embeddings).items():
            for key in keys:
                writer.add(key, checkpoint.read(key, wanted))
            checkpoint.release()
            if layer is not None and on_layer is not None:
                on_layer(layer + 1, config.num_hidden_layers)
        writer.finish()
    return Written(Path(out), writer.n_tensors, writer.n_bytes, writer.n_files, has_tokenizer)


def by_layer(keys: Iterable[str], *, tied: bool) -> dict[int | None, list[str]]:
    """Return a checkpoint's keys by layer, what is in none under None, first; without what a model computes or ties.

    >>> by_layer(["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"], tied=True)
    {None: ['model.norm.weight'], 1: ['model.layers.1.mlp.up_proj.weight']}
    """
    found: dict[int | None, list[str]] = {None: []}
    for key in sorted(keys, key=_natural):
        match = re.match(r"model\.layers\.(\d+)\.", key)
        if not key.endswith("rotary_emb.inv_freq") and not (tied and key == HEAD):
            found.setdefault(int(match[1]) if match else None, []).append(key)
    return found


def write_other_files(source: str | Path, checkpoint: Checkpoint, folder: Path) -> bool:
    """Write what a checkpoint has beside weights; return whether there is a tokenizer.

    A GGUF file holds its tokenizer, which transformers unpacks; one that lies in the folder named wins.

    Raises:
        ModelError: the GGUF file's tokenizer can't be read by transformers.
    """
    if copy_other_files(Path(source), folder):
        return True
    if checkpoint.path.is_dir() or "tokenizer.ggml.tokens" not in read_header(checkpoint.path).metadata:
        return False
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    try:
        auto.from_pretrained(str(checkpoint.path.parent), gguf_file=checkpoint.path.name).save_pretrained(str(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as err:
        raise ModelError(
            f"The tokenizer in {str(checkpoint.path)!r} can't be read by transformers ({err}): put the model's own "
            "tokenizer.json beside the file, and name the folder"
        ) from err
    return True


def _natural(key: str) -> list[tuple[int, str]]:
    """Sort numbers within a key as numbers, so that layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in key.split(".")]
