"""What `qwen2eval model` prints: one model's figures, all released models, and what was written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.reporting.markup import visible
from qwen2eval.reporting.numbers import format_count

if TYPE_CHECKING:
    from qwen2eval.model.config import Qwen2Config
    from qwen2eval.model.info import ContextMemory, ModelInfo
    from qwen2eval.model.save import Written

_COUNTS = ("n_parameters", "n_active_parameters", "n_non_embedding_parameters", "max_length")


def model_as_dict(info: "ModelInfo", memory: "Sequence[ContextMemory]") -> dict[str, Any]:
    """Return a model's figures as plain JSON values, for `--json`."""
    config = info.config
    return {
        "name": info.name,
        **{name: getattr(config, name) for name in _COUNTS},
        "dtype": info.dtype,
        "batch_size": info.batch_size,
        "kv_bytes_per_token": config.kv_bytes_per_token(dtype=info.dtype),
        "memory": [row._asdict() for row in memory],
        "config": asdict(config),
    }


def print_model(info: "ModelInfo", memory: "Sequence[ContextMemory]", *, file: TextIO) -> None:
    """Print the figures of one model, and its memory at each context length."""
    console = Console(file=file, highlight=False, emoji=False)
    console.print(Text(visible(info.name), style="bold"), soft_wrap=True)
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(info).items():
        facts.add_row(name, value)
    console.print(facts)
    console.print()
    rows = f"{info.batch_size} rows of " if info.batch_size > 1 else ""
    table = _table(f"{rows}context", "KV cache", "with weights", left=0)
    table.add_column("")
    for row in memory:
        sizes = (format_gb(row.kv_bytes), format_gb(row.total_bytes))
        table.add_row(format_count(row.context_length), *sizes, "" if row.fits else "over the model's length")
    console.print(table)
    console.print(Text("GB are 1e9 bytes; activations need additional memory", style="dim"))


def print_models(infos: "Sequence[ModelInfo]", *, file: TextIO) -> None:
    """Print a line for each model."""
    console = Console(file=file, highlight=False, emoji=False)
    table = _table("model", "params", "active", "layers", "heads", "context", "KV/token", "memory")
    for info in infos:
        config = info.config
        table.add_row(
            Text(visible(info.name)),
            format_billions(config.n_parameters),
            format_billions(config.n_active_parameters),
            str(config.num_hidden_layers),
            f"{config.num_attention_heads}/{config.num_key_value_heads}",
            format_count(config.max_length),
            f"{config.kv_bytes_per_token(dtype=info.dtype) / 1e3:.1f} kB",
            format_gb(info.memory_at(config.max_length).total_bytes),
        )
    console.print(table)
    rows = f", {infos[0].batch_size} rows" if infos[0].batch_size > 1 else ""
    note = f"heads: query/key-value; memory: weights and cache at full context in {infos[0].dtype}{rows}"
    console.print(Text(note, style="dim"))


def print_written(written: "Written", *, dtype: str, notes: Mapping[str, str], file: TextIO) -> None:
    """Print what a checkpoint folder holds that was just written."""
    console = Console(file=file, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    files = "1 file" if written.n_files == 1 else f"{format_count(written.n_files)} files"
    weights = f"{format_count(written.n_tensors)} tensors, {format_gb(written.n_bytes)} in {files}, {dtype}"
    tokenizer = "written" if written.has_tokenizer else "none: the source has none"
    for name, value in {"weights": weights, **notes, "tokenizer": tokenizer}.items():
        table.add_row(name, value)
    console.print(Text(visible(str(written.path)), style="bold"), soft_wrap=True)
    console.print(table)


def format_billions(count: int) -> str:
    """Write a number of parameters in units of 1e9, or 1e6 where it has fewer.

    >>> [format_billions(count) for count in (7_615_616_512, 14_250_000_000, 494_000_000, 61_234)]
    ['7.62 B', '14.25 B', '0.49 B', '0.06 M']
    """
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def format_gb(n_bytes: int) -> str:
    """Write a size in units of 1e9 bytes, or 1e6 where it is smaller.

    >>> [format_gb(n_bytes) for n_bytes in (15_231_233_024, 50_331_648, 12_288)]
    ['15.23 GB', '50.3 MB', '<0.1 MB']
    """
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.2f} GB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else "<0.1 MB"


def _table(*columns: str, left: int = 1) -> Table:
    """Return a table whose first `left` columns are text, all other columns numbers."""
    # In 80 columns, with names of 23
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    return table


def _facts(info: "ModelInfo") -> dict[str, str]:
    config = info.config
    head = "the embedding" if config.tie_word_embeddings else "its own"
    facts = {
        "parameters": f"{format_billions(config.n_parameters)} ({format_count(config.n_parameters)})",
        "without embedding": format_billions(config.n_non_embedding_parameters),
        "active for a token": format_billions(config.n_active_parameters),
        "layers": f"{config.num_hidden_layers} of width {format_count(config.hidden_size)}",
        "heads": f"{config.num_attention_heads} query, {config.num_key_value_heads} key-value, of {config.head_size}",
        "MLP": _mlp(config),
        "vocabulary": f"{format_count(config.vocab_size)}; output head: {head}",
        "context": f"{format_count(config.max_length)} tokens{_stretching(config)}",
        "KV cache": f"{format_count(config.kv_bytes_per_token(dtype=info.dtype))} bytes a token in {info.dtype}",
    }
    if not config.num_experts:
        del facts["active for a token"]
    return facts


def _mlp(config: "Qwen2Config") -> str:
    dense = f"width {format_count(config.intermediate_size)}"
    if not config.num_experts:
        return dense
    experts = (
        f"{config.num_experts} experts of {format_count(config.moe_intermediate_size)}, "
        f"{config.num_experts_per_tok} for a token, and a shared one of "
        f"{format_count(config.shared_expert_intermediate_size)}"
    )
    n_dense = config.num_hidden_layers - config.n_sparse_layers
    return f"{experts}; in {n_dense} layers {dense}" if n_dense else experts


def _stretching(config: "Qwen2Config") -> str:
    parts = []
    if config.yarn is not None:
        trained = format_count(config.yarn.original_max_position_embeddings)
        parts.append(f"YARN x{config.yarn.factor:g} from {trained}")
    if config.dual_chunk is not None:
        parts.append(f"dual chunk attention, chunks of {format_count(config.dual_chunk.chunk_size)}")
    return f" ({'; '.join(parts)})" if parts else ""
