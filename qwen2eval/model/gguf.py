"""A GGUF file as a checkpoint: Hugging Face keys, shapes and values for llama.cpp's names and quantised blocks.

Values are those of the gguf package's `dequantize`, computed block of rows by block of rows, so that no more than the
tensor asked for and one block exist beside the file. The experts of a layer, stacked in the file, are handed out one by
one. Files in several parts are refused.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from qwen2eval.errors import ModelError
from qwen2eval.model.checkpoint import check_shape
from qwen2eval.model.gguf_header import Header, TensorInfo, read_header

if TYPE_CHECKING:
    import numpy as np

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_OF_EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
_BLOCK_VALUES = 1 << 22
"""Values that are dequantised at once."""


class _Place(NamedTuple):
    """Where the values of a key lie."""

    tensor: TensorInfo
    shape: tuple[int, ...]
    """Of the key: an expert's share of a stacked tensor."""
    part: int = 0
    """Which share, counted from 0."""


class GgufCheckpoint:
    """An open GGUF file."""

    declared_by = "metadata"

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        _check_whole(header)
        self._types = _tensor_types(header)
        self._places = {key: place for tensor in header.tensors for key, place in _places(tensor)}
        self._map: np.ndarray[Any, Any] | None = None

    @property
    def keys(self) -> Iterable[str]:
        return self._places.keys()

    def name_of(self, key: str) -> str:
        return self._places[key].tensor.name if key in self._places else gguf_name(key)

    def path_of(self, key: str) -> str:  # noqa: ARG002
        return str(self.path)

    def read(self, key: str, dtype: torch.dtype, shape: Sequence[int] | None = None) -> Tensor:
        place = self._places[key]
        if shape is not None:
            check_shape(self, key, place.shape, shape)
        kind = self._types[place.tensor.name]
        n_bytes = kind.n_bytes(place.shape)
        start = place.tensor.offset + place.part * n_bytes
        rows = self._bytes()[start : start + n_bytes].reshape(math.prod(place.shape[:-1]), -1)
        try:
            return _dequantise(rows, kind.type, dtype).reshape(place.shape)
        except NotImplementedError as err:
            raise ModelError(
                f"{place.tensor.name} in {str(self.path)!r} is of type {kind.type.name}, which the gguf package "
                "can't dequantise: use the model in another type, such as Q8_0"
            ) from err

    def release(self) -> None:
        self._map = None

    def _bytes(self) -> "np.ndarray[Any, Any]":
        """Return the file's bytes, mapped: private, so that torch may have them without a copy."""
        if self._map is None:
            import numpy as np

            self._map = np.asarray(np.memmap(self.path, mode="c"))
        return self._map


def gguf_name(key: str) -> str:
    """Return the tensor of a Hugging Face key, for messages.

    >>> gguf_name("model.layers.1.mlp.experts.4.up_proj.weight")
    'blk.1.ffn_up_exps.weight (expert 4)'
    """
    stem, _, kind = key.rpartition(".")
    if not (match := re.fullmatch(r"model\.layers\.(\d+)\.(.*)", stem)):
        return f"{_name(_TOP, stem)}.{kind}"
    layer, rest = match.groups()
    if of_expert := re.fullmatch(r"mlp\.experts\.(\d+)\.(\w+)", rest):
        return f"blk.{layer}.{_name(_OF_EXPERTS, of_expert[2])}.{kind} (expert {of_expert[1]})"
    return f"blk.{layer}.{_name(_IN_LAYER, rest)}.{kind}"


def _name(table: Mapping[str, str], module: str) -> str:
    return next((name for name, hf in table.items() if hf == module), module)


class _StoredType(NamedTuple):
    """How a tensor is stored."""

    type: Any
    """gguf.GGMLQuantizationType."""
    block_size: int
    """Values of one block; a row is a whole number of blocks."""
    block_bytes: int

    def n_bytes(self, shape: Sequence[int]) -> int:
        return math.prod(shape) // self.block_size * self.block_bytes


def _tensor_types(header: Header) -> dict[str, _StoredType]:
    """Return how each tensor is stored; the file must hold it all.

    Raises:
        ModelError: a type is unknown, a row no whole number of blocks, or the file ends before a tensor does.
    """
    gguf = _import_gguf()
    size, types = header.path.stat().st_size, {}
    for tensor in header.tensors:
        where = f"{tensor.name} in {str(header.path)!r}"
        try:
            kind = gguf.GGMLQuantizationType(tensor.type_id)
        except ValueError as err:
            raise ModelError(
                f"{where} is of type {tensor.type_id}, which this gguf package doesn't know: update it, or get the "
                "model in another type, such as Q8_0"
            ) from err
        stored = _StoredType(kind, *gguf.GGML_QUANT_SIZES[kind])
        if not tensor.shape or 0 in tensor.shape or tensor.shape[-1] % stored.block_size:
            raise ModelError(f"{where} has shape {tensor.shape}, which {kind.name} does not allow: download it again")
        if (end := tensor.offset + stored.n_bytes(tensor.shape)) > size:
            raise ModelError(
                f"{where} ends at byte {end:,}, but the file at {size:,}: it is truncated, download it again"
            )
        types[tensor.name] = stored
    return types


def _check_whole(header: Header) -> None:
    if (count := header.metadata.get("split.count", 1)) not in (0, 1):
        raise ModelError(
            f"{str(header.path)!r} is one of {count} parts of a model: join them with "
            "`llama-gguf-split --merge FIRST_PART WHOLE.gguf`"
        )


def _places(tensor: TensorInfo) -> Iterator[tuple[str, _Place]]:
    """Yield the keys that a tensor has values for; an unknown one keeps its name, and will be left over."""
    stem, _, kind = tensor.name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    layer, name = match.groups() if match else ("", "")
    shape = tensor.shape
    if name in _OF_EXPERTS and len(shape) == 3:
        for expert in range(shape[0]):
            key = f"model.layers.{layer}.mlp.experts.{expert}.{_OF_EXPERTS[name]}.{kind}"
            yield key, _Place(tensor, shape[1:], expert)
        return
    # A matrix of one row, which some writers squeeze
    if name == "ffn_gate_inp_shexp" and len(shape) == 1:
        shape = (1, *shape)
    if name in _IN_LAYER:
        yield f"model.layers.{layer}.{_IN_LAYER[name]}.{kind}", _Place(tensor, shape)
    else:
        yield f"{_TOP[stem]}.{kind}" if stem in _TOP else tensor.name, _Place(tensor, shape)


def _dequantise(rows: "np.ndarray[Any, Any]", kind: object, dtype: torch.dtype) -> Tensor:
    """Return the values of rows of bytes, (rows, columns); float32 as float32 stays in the map."""
    gguf = _import_gguf()
    if kind == gguf.GGMLQuantizationType.F32:
        return torch.from_numpy(gguf.quants.dequantize(rows, kind)).to(dtype)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_columns = rows.shape[1] // block_bytes * block_size
    target = torch.empty(rows.shape[0], n_columns, dtype=dtype)
    n_rows = max(1, _BLOCK_VALUES // n_columns)
    for begin in range(0, rows.shape[0], n_rows):
        values = gguf.quants.dequantize(rows[begin : begin + n_rows], kind)
        target[begin : begin + n_rows] = torch.from_numpy(values)
    return target


def _import_gguf() -> Any:
    try:
        import gguf
        import gguf.quants
    except ImportError as err:
        raise ModelError("Reading GGUF needs the gguf package: pip install 'qwen2eval[gguf]'") from err
    return gguf
