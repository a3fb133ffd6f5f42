"""Reads the head of a GGUF file: its metadata, and where each tensor lies. Needs neither torch nor the gguf package.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. The gguf package has
a reader, too; it takes seconds for the vocabulary of a Qwen2, and in a truncated file it reads on behind the end, where
it finds empty arrays. Here everything is checked against the file's size.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qwen2eval.errors import ModelError
from qwen2eval.model.not_a_model import check_not_pointer

_VERSIONS = (2, 3)
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
"""struct's letter of each value type."""
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_ALIGNMENT, _MOST_DIMS = 32, 4
_MODEL_TYPES = {"qwen2": ("qwen2", "Qwen2ForCausalLM"), "qwen2moe": ("qwen2_moe", "Qwen2MoeForCausalLM")}
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "norm_topk_prob": "expert_weights_norm",
}
"""Metadata behind the architecture's name, by the name in config.json."""
_YARN_FIELDS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}
_NEUTRAL = {
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "expert_weights_scale": (0, 1),
    # 1 is softmax
    "expert_gating_func": (0, 1),
}
"""Metadata that would change logits, and the values with which it doesn't."""


class Array(NamedTuple):
    """An array in the metadata, of which only the length is kept; nothing here needs a vocabulary."""

    length: int


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file."""

    name: str
    """As in the file, such as blk.0.attn_q.weight."""
    shape: tuple[int, ...]
    """As torch has it: rows first. The file has the columns first."""
    type_id: int
    """GGML's number of the type it is stored in."""
    offset: int
    """Where its bytes begin, from the file's first."""


@dataclass(frozen=True)
class Header:
    """What comes before the weights."""

    path: Path
    metadata: Mapping[str, Any]
    """Values by key; an array is its length."""
    tensors: tuple[TensorInfo, ...]
    """In the order of the file."""


def find_gguf(path: Path) -> Path | None:
    """Return the GGUF file that a path means: itself, or the only one of a folder without safetensors.

    Raises:
        ModelError: the folder holds several.
    """
    if not path.is_dir():
        return path if path.suffix.lower() == ".gguf" else None
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if any(path.glob("*.safetensors")) or not found:
        return None
    if len(found) > 1:
        raise ModelError(f"{str(path)!r} holds {len(found)} GGUF files: name one of them, such as {str(found[0])!r}")
    return found[0]


def read_header(path: Path) -> Header:
    """Return a file's metadata and list of tensors.

    Raises:
        ModelError: the file is missing, not GGUF, of another version, or ends within its header.
    """
    check_not_pointer(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data), path)
    except FileNotFoundError as err:
        raise ModelError(f"There is no file {str(path)!r}: name a GGUF file, or a folder with one") from err
    # mmap refuses an empty file with a ValueError; a text that isn't UTF-8 is one, too
    except (OSError, ValueError, struct.error) as err:
        raise ModelError(f"{str(path)!r} is truncated or corrupt ({err}): download it again") from err


def hf_config(header: Header) -> dict[str, Any]:
    """Return what config.json of the same model says.

    Raises:
        ModelError: the metadata asks for something that has no place there.
    """
    architecture = str(header.metadata.get("general.architecture"))
    model_type, name = _MODEL_TYPES.get(architecture, (architecture, f"GGUF architecture {architecture!r}"))
    known = {key: _get(header, f"{architecture}.{field}") for key, field in _FIELDS.items()}
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    _check_neutral(header, architecture)
    config: dict[str, Any] = {"architectures": [name], "model_type": model_type, "hidden_act": "silu"}
    config |= {key: value for key, value in known.items() if value is not None}
    config |= {
        "vocab_size": shapes.get("token_embd.weight", (None,))[0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_scaling": _rope_scaling(header, architecture),
    }
    for key in ("bos_token_id", "eos_token_id"):
        config[key] = _get(header, f"tokenizer.ggml.{key}")
    return config


def _check_neutral(header: Header, architecture: str) -> None:
    for field, neutral in _NEUTRAL.items():
        value = _get(header, f"{architecture}.{field}")
        if value is not None and value not in neutral:
            raise ModelError(
                f"{str(header.path)!r} sets {architecture}.{field} = {value}, which --model qwen2 does not support; "
                "run it with llama.cpp's server and --model local-completions"
            )


def _rope_scaling(header: Header, architecture: str) -> dict[str, Any] | None:
    stem = f"{architecture}.rope.scaling"
    kind = _get(header, f"{stem}.type")
    # "linear" by a factor of 1 is how llama.cpp says that nothing is scaled
    if kind in (None, "none") or (kind == "linear" and _get(header, f"{stem}.factor") in (None, 0, 1)):
        return None
    values = {key: _get(header, f"{stem}.{field}") for key, field in _YARN_FIELDS.items()}
    return {"type": kind} | {key: value for key, value in values.items() if value is not None}


def _get(header: Header, key: str) -> Any:
    value = header.metadata.get(key)
    if isinstance(value, Array):
        raise ModelError(f"{str(header.path)!r}: {key} is an array, where a Qwen2 has one value for all layers")
    return value


class _Cursor:
    """Reads the file from its beginning on; a number or a text that isn't all there is an error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.offset = data, 0

    def number(self, letter: str) -> Any:
        size = struct.calcsize(f"<{letter}")
        (value,) = struct.unpack_from(f"<{letter}", self.data, self._step(size))
        return value

    def text(self) -> str:
        size = self.number("Q")
        start = self._step(size)
        return self.data[start : start + size].decode("utf-8")

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        value = self.number(_letter(kind))
        return _shortest(value) if kind == _FLOAT32 else value

    def _array(self) -> Array:
        kind, length = self.number("I"), self.number("Q")
        if kind == _STRING:
            for _ in range(length):
                self._step(self.number("Q"))
        else:
            self._step(length * struct.calcsize(f"<{_letter(kind)}"))
        return Array(length)

    def _step(self, size: int) -> int:
        """Go on by so many bytes and return where they begin."""
        start, self.offset = self.offset, self.offset + size
        if self.offset > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data):,}, within its header")
        return start


def _parse(cursor: _Cursor, path: Path) -> Header:
    if cursor.data[:4] != b"GGUF":
        raise ModelError(f"{str(path)!r} is not a GGUF file: it doesn't begin with 'GGUF'; download it again")
    cursor.offset = 4
    version = cursor.number("I")
    if version not in _VERSIONS:
        what = "big-endian" if version & 0xFFFF == 0 else f"of version {version}"
        raise ModelError(f"{str(path)!r} is {what}; little-endian GGUF of version 2 or 3 can be read: convert it again")
    n_tensors, n_values = cursor.number("Q"), cursor.number("Q")
    metadata = {cursor.text(): cursor.value() for _ in range(n_values)}
    tensors = list(_tensors(cursor, n_tensors))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment}")
    start = -(-cursor.offset // alignment) * alignment
    placed = {name: TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in tensors}
    if len(placed) < len(tensors):
        raise ValueError("two tensors have the same name")
    return Header(path, metadata, tuple(placed.values()))


def _tensors(cursor: _Cursor, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Yield name, shape, type and offset from the first tensor's beginning."""
    for _ in range(count):
        name, n_dims = cursor.text(), cursor.number("I")
        if n_dims > _MOST_DIMS:
            raise ValueError(f"its tensor {name[:80]!r} has {n_dims} dimensions")
        columns_first = [cursor.number("Q") for _ in range(n_dims)]
        yield name, tuple(reversed(columns_first)), cursor.number("I"), cursor.number("Q")


def _letter(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"its metadata holds a value of type {kind}, which is unknown")
    return _NUMBERS[kind]


def _shortest(value: float) -> float:
    """Return the number that was meant by a float32: 1e-06, not 9.999999974752427e-07."""
    # Rounded up it would be none; or it is none
    if not abs(value) < 1e38:
        return value
    stored = struct.pack("<f", value)
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next((float(text) for text in texts if struct.pack("<f", float(text)) == stored), value)
