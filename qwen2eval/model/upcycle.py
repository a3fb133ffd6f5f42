"""Upcycles a dense model into a mixture of experts, as Qwen2-57B-A14B was made from Qwen2-7B (report, section 2.2.2).

For n experts of width h the MLP, of width h_FFN, is copied ceil(n h / h_FFN) times; each copy is shuffled along the
intermediate dimension (gate rows, up rows and down columns alike), and the copies, one behind the other, are cut into
experts, what is left being dropped. Then half of each expert's parameters is drawn anew.

What the report leaves open is chosen here:
- "half of the parameters": single elements, each with probability 1/2, so a half to within 0.02 % in the 7B's experts;
- new values are normal with the released models' initializer_range, 0.02, as is the router;
- the shared expert is cut from shuffled copies in the same way and nothing of it is drawn anew; the width is that of 8
  experts, as released; its gate starts at 0, which lets half of its output through for every token;
- nothing is scaled, so the model's output is no longer that of the dense one: it initialises further training.

Each layer and expert has its own random generator: results don't depend on the order of writing. They do depend,
in the last bit of new values, on the processor's vector instructions.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qwen2eval.errors import ModelError
from qwen2eval.model.checkpoint import Checkpoint
from qwen2eval.model.config import N_BYTES, Qwen2Config
from qwen2eval.model.config_json import load_config_json
from qwen2eval.model.convert import by_layer, write_other_files
from qwen2eval.model.load import choose_dtype, empty_model, with_own_head
from qwen2eval.model.open_checkpoint import open_checkpoint
from qwen2eval.model.save import MAX_SHARD_GB, ShardWriter, Written, new_folder, write_config

N_SHARED = 8
"""Shared experts of the released model, fused to one (report, table 1)."""
_PARTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Upcycling:
    """What to make of a dense model; names as in config.json."""

    num_experts: int
    """Routed experts of each layer."""
    moe_intermediate_size: int
    """Width of a routed expert."""
    num_experts_per_tok: int = 8
    """Routed experts that each token visits."""
    shared_expert_intermediate_size: int | None = None
    """Width of the shared expert, a multiple of a routed one's; None: eight times."""
    reinit_ratio: float = 0.5
    """Share of a routed expert's parameters that are drawn anew, 0 to 1."""
    initializer_range: float = 0.02
    """Standard deviation of new values."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse what makes no experts.

        Raises:
            ModelError: a size under 1, a shared expert of broken experts, or a ratio outside 0 to 1.
        """
        if min(self.num_experts, self.moe_intermediate_size, self.num_experts_per_tok, self.shared_size) < 1:
            raise ModelError(f"The number of experts and their widths must be 1 or more; this is {self}")
        if self.num_experts_per_tok > self.num_experts:
            raise ModelError(
                f"Each token visits {self.num_experts_per_tok} experts, but there are {self.num_experts}: give more "
                "experts, or fewer for each token"
            )
        if self.shared_size % self.moe_intermediate_size:
            raise ModelError(
                f"The shared expert's width ({self.shared_size}) is not a multiple of a routed one's "
                f"({self.moe_intermediate_size}): it replaces a whole number of experts"
            )
        if not 0 <= self.reinit_ratio <= 1 or self.initializer_range < 0:
            raise ModelError(f"reinit_ratio must be from 0 to 1, and initializer_range 0 or more; this is {self}")

    @property
    def shared_size(self) -> int:
        """Width of the shared expert."""
        size = self.shared_expert_intermediate_size
        return N_SHARED * self.moe_intermediate_size if size is None else size

    def n_copies(self, intermediate_size: int) -> int:
        """Return how often a dense MLP of this width is copied.

        >>> Upcycling(num_experts=64, moe_intermediate_size=2560).n_copies(18944)
        9
        """
        return math.ceil(self.num_experts * self.moe_intermediate_size / intermediate_size)

    def n_dropped_columns(self, intermediate_size: int) -> int:
        """Return how many columns of the copies are in no expert.

        >>> Upcycling(num_experts=64, moe_intermediate_size=2560).n_dropped_columns(18944)
        6656
        """
        return self.n_copies(intermediate_size) * intermediate_size - self.num_experts * self.moe_intermediate_size


def upcycle(
    source: str | Path,
    out: str | Path,
    plan: Upcycling,
    *,
    dtype: str = "bfloat16",
    max_shard_gb: float = MAX_SHARD_GB,
    on_layer: Callable[[int, int], None] | None = None,
) -> Written:
    """Write the mixture of experts that is made of a dense checkpoint, with a layer and two files' worth in memory.

    Args:
        source: a dense checkpoint, as for `load_model`.
        out: the folder to make; transformers loads it as Qwen2MoeForCausalLM.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        max_shard_gb: size of a file, in units of 1e9 bytes.
        on_layer: called with the number of finished layers and of all.

    Raises:
        ModelError: the source can't be loaded or is not a dense model, or `out` can't be written; nothing is left of it
            then.
    """
    wanted, checkpoint = choose_dtype(dtype), open_checkpoint(source)
    raw, where = load_config_json(checkpoint.path)
    dense = with_own_head(checkpoint, Qwen2Config.from_hf(raw))
    if dense.num_experts:
        raise ModelError(f"{where} is of a mixture of experts already: only a dense model can be upcycled")
    empty_model(checkpoint, dense)
    moe_json = moe_config({**raw, "tie_word_embeddings": dense.tie_word_embeddings}, plan)
    n_bytes = Qwen2Config.from_hf(moe_json).n_parameters * N_BYTES[dtype]
    with new_folder(Path(out), n_bytes=n_bytes) as folder:
        writer = ShardWriter(folder, max_shard_gb=max_shard_gb)
        has_tokenizer = write_other_files(source, checkpoint, folder)
        write_config(folder, moe_json, dtype=dtype)
        for layer, keys in by_layer(checkpoint.keys, tied=dense.tie_word_embeddings).items():
            for key in (key for key in keys if ".mlp." not in key):
                writer.add(key, checkpoint.read(key, wanted))
            if layer is not None:
                for key, tensor in expert_tensors(_read_mlp(checkpoint, layer, dense), plan, layer=layer):
                    writer.add(f"model.layers.{layer}.mlp.{key}", tensor.to(wanted))
            checkpoint.release()
            if layer is not None and on_layer is not None:
                on_layer(layer + 1, dense.num_hidden_layers)
        writer.finish()
    return Written(Path(out), writer.n_tensors, writer.n_bytes, writer.n_files, has_tokenizer)


def moe_config(raw: Any, plan: Upcycling) -> dict[str, Any]:
    """Return config.json of the mixture of experts, from that of the dense model."""
    return dict(raw) | {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "num_experts": plan.num_experts,
        "num_experts_per_tok": plan.num_experts_per_tok,
        "moe_intermediate_size": plan.moe_intermediate_size,
        "shared_expert_intermediate_size": plan.shared_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": False,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
    }


class MLP(NamedTuple):
    """The three matrices of a dense MLP or an expert, float32: I its width, C the hidden size."""

    gate_IC: Tensor
    up_IC: Tensor
    down_CI: Tensor


def expert_tensors(mlp: MLP, plan: Upcycling, *, layer: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a sparse layer, expert by expert, by their keys behind `mlp.`."""
    (width, hidden), size = mlp.gate_IC.shape, plan.moe_intermediate_size
    columns = shuffled_columns(plan.num_experts * size, width, _generator(plan, layer, "columns"))
    for expert, chosen in enumerate(torch.split(columns, size)):
        generator = _generator(plan, layer, "expert", expert)
        for part, matrix in zip(_PARTS, cut(mlp, chosen), strict=True):
            renewed = reinitialise(matrix, plan.reinit_ratio, plan.initializer_range, generator)
            yield f"experts.{expert}.{part}.weight", renewed
    chosen = shuffled_columns(plan.shared_size, width, _generator(plan, layer, "shared"))
    for part, matrix in zip(_PARTS, cut(mlp, chosen), strict=True):
        yield f"shared_expert.{part}.weight", matrix
    router_EC = torch.randn(plan.num_experts, hidden, generator=_generator(plan, layer, "router"))
    yield "gate.weight", router_EC * plan.initializer_range
    yield "shared_expert_gate.weight", torch.zeros(1, hidden)


def shuffled_columns(n_wanted: int, width: int, generator: torch.Generator) -> Tensor:
    """Return which columns of as many shuffled copies as it takes come first, (n_wanted,), int64."""
    copies = [torch.randperm(width, generator=generator) for _ in range(math.ceil(n_wanted / width))]
    return torch.cat(copies)[:n_wanted]


def cut(mlp: MLP, columns: Tensor) -> MLP:
    """Return the part of an MLP that has these intermediate columns, in their order."""
    return MLP(mlp.gate_IC[columns], mlp.up_IC[columns], mlp.down_CI[:, columns])


def reinitialise(matrix: Tensor, ratio: float, std: float, generator: torch.Generator) -> Tensor:
    """Return a matrix of which this share of elements, each drawn independently, is normal with this deviation."""
    is_new = torch.rand(matrix.shape, generator=generator) < ratio
    return torch.where(is_new, torch.randn(matrix.shape, generator=generator) * std, matrix)


def _read_mlp(checkpoint: Checkpoint, layer: int, config: Qwen2Config) -> MLP:
    hidden, width = config.hidden_size, config.intermediate_size
    shapes = ((width, hidden), (width, hidden), (hidden, width))
    keys = [f"model.layers.{layer}.mlp.{part}.weight" for part in _PARTS]
    return MLP(*(checkpoint.read(key, torch.float32, shape) for key, shape in zip(keys, shapes, strict=True)))


def _generator(plan: Upcycling, layer: int, *purpose: str | int) -> torch.Generator:
    """Return random numbers of this layer and purpose alone."""
    digest = hashlib.sha256(repr((plan.seed, layer, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
