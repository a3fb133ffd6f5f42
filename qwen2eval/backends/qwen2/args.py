"""What `--model_args` of `--model qwen2` may hold, where a checkpoint's files are found, and its outside."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from qwen2eval.backends.model_spec import ModelSpec, check_checkpoint_path, check_fits, load_hf_spec
from qwen2eval.backends.rope import rope_label
from qwen2eval.config import RunConfig
from qwen2eval.data.hub_files import hub_or_cache
from qwen2eval.errors import ModelError
from qwen2eval.model import DualChunk, Qwen2Config
from qwen2eval.model.config import N_BYTES
from qwen2eval.model.gguf_header import find_gguf

RESOLVED_ARGS = (
    # Speed and memory, not answers
    *("kv_memory_gb", "pass_tokens"),
    *("dtype", "device", "revision", "max_length", "yarn_factor", "dual_chunk", "chunk_size", "local_size"),
)
"""Arguments that the identity of a model leaves out, or holds as they were resolved."""
_FRONT_ARGS = (
    *("pretrained", "tokenizer", "max_length", "max_gen_toks"),
    *("chat_template_args", "enable_thinking", "think_end_token"),
)
"""Arguments that `load_hf_spec` reads."""
_SIZES = ("chunk_size", "local_size")


@dataclass(frozen=True, kw_only=True)
class Qwen2Args:
    """Arguments of the backend itself."""

    dtype: str | None = None
    """float32, bfloat16 or float16; None: float32 on a CPU, bfloat16 elsewhere."""
    device: str | None = None
    """As --device."""
    revision: str = "main"
    """Of a hub repository."""
    yarn_factor: float | None = None
    """How many times longer the context becomes; None: as config.json says."""
    dual_chunk: bool | None = None
    """Whether attention is dual chunk; None: as config.json says, or if a size is given."""
    chunk_size: int | None = None
    """Of dual chunk attention; None: as config.json says, or as fits the released models."""
    local_size: int | None = None
    """As chunk_size."""
    kv_memory_gb: float | None = None
    """Memory for keys and values, 10^9 bytes; None: a share of what is free."""
    pass_tokens: int | None = None
    """Tokens of one forward pass; None: what suits the device."""
    add_bos_token: bool | None = None
    """Begin each text with the tokenizer's special tokens; None: as the tokenizer does."""

    @classmethod
    def read(cls, model_args: Mapping[str, Any]) -> Self:
        """Check the arguments that a user gave.

        Raises:
            ModelError: an unknown one, or one of the wrong kind.
        """
        own = [field.name for field in fields(cls)]
        if unknown := sorted(set(model_args) - set(own) - set(_FRONT_ARGS)):
            raise ModelError(
                f"--model qwen2 has no argument {unknown[0]!r}; --model_args takes pretrained, "
                f"{', '.join((*own, *_FRONT_ARGS[1:]))}"
            )
        _check("max_length", model_args, int, above=0)
        values = {name: model_args[name] for name in own if model_args.get(name) is not None}
        if values.get("dtype") == "auto":
            del values["dtype"]
        _check("dtype", values, str, choices=tuple(N_BYTES))
        for name in ("device", "revision"):
            _check(name, values, str)
        for name in ("yarn_factor", "kv_memory_gb"):
            _check(name, values, float | int, above=0)
        for name in ("pass_tokens", *_SIZES):
            _check(name, values, int, above=0)
        for name in ("dual_chunk", "add_bos_token"):
            _check(name, values, bool)
        return cls(**values)

    def dual_chunk_of(self, config: Qwen2Config) -> DualChunk | bool | None:
        """Return the dual chunk attention of a model with this config, for `Qwen2Config.with_context`.

        Raises:
            ModelError: sizes that leave no chunk.
        """
        sizes = {name: getattr(self, name) for name in _SIZES if getattr(self, name) is not None}
        if not sizes or self.dual_chunk is False:
            return self.dual_chunk
        known = config.dual_chunk or DualChunk()
        return DualChunk(
            chunk_size=sizes.get("chunk_size", known.chunk_size),
            local_size=sizes.get("local_size", min(known.local_size, sizes.get("chunk_size", known.chunk_size) // 2)),
            original_max_position_embeddings=known.original_max_position_embeddings,
        )

    def find(self, path: str) -> Path:
        """Return the checkpoint's folder or GGUF file: a local one, or a hub repository's in the hub's cache.

        Raises:
            ModelError: it can't be had.
        """
        local = Path(path).expanduser()
        if local.exists():
            return local
        from huggingface_hub import snapshot_download

        try:
            with hub_or_cache(offline=False):
                folder = snapshot_download(
                    path, revision=self.revision, allow_patterns=["*.json", "*.safetensors", "*.txt"]
                )
        # the hub client raises OSError, ValueError and errors of requests and its own errors
        except Exception as err:
            raise ModelError(f"Model {path!r} can't be downloaded: {str(err).strip().splitlines()[0]}") from err
        if not any(Path(folder).glob("*.safetensors")):
            raise ModelError(
                f"Model {path!r} has no safetensors on the hub. Give the path of a GGUF file of it, or "
                "run it with --model hf"
            )
        return Path(folder)


def load_qwen2_spec(config: RunConfig, *, path: str) -> ModelSpec:
    """Return a checkpoint's outside; its length is that of the context as YARN and DCA stretch it.

    Args:
        path: a folder, a GGUF file, or a hub repository.

    Raises:
        ModelError: no such checkpoint, one of another architecture, or a `max_length` over what it can do.
    """
    args = Qwen2Args.read(config.model_args)
    if path.lower().endswith(".gguf") and not Path(path).is_file():
        raise ModelError(f"There is no file {path!r}: check `pretrained=` in --model_args")
    gguf = find_gguf(Path(path))
    check_checkpoint_path(path)
    # ours first: it names the file, the key and what to do, where transformers guesses
    model_config = Qwen2Config.from_hf(path) if Path(path).exists() else None
    if gguf is None:
        spec = load_hf_spec(config, backend="qwen2", path=path)
    else:
        with_file = replace(config, model_args={**config.model_args, "gguf_file": gguf.name})
        spec = replace(load_hf_spec(with_file, backend="qwen2", path=str(gguf.parent)), path=str(gguf), name=gguf.stem)
    model_config = model_config or Qwen2Config.from_hf(_hub_config(path, args.revision))
    check_fits(spec.tokenizer, model_config.vocab_size, path=path, added=True)
    stretched = model_config.with_context(yarn_factor=args.yarn_factor, dual_chunk=args.dual_chunk_of(model_config))
    length = config.model_args.get("max_length")
    if length is None and (stretched.yarn or stretched.dual_chunk):
        length = stretched.max_length
    spec = replace(spec, max_length=length or spec.max_length, original_max_length=model_config.original_max_length)
    spec = replace(spec, rope=rope_label(stretched))
    assert spec.max_length is not None, "load_hf_spec finds a length"
    stretched.check_length(spec.max_length)
    return spec


def _hub_config(repository: str, revision: str) -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(repository, "config.json", revision=revision))


def _check(
    name: str, values: Mapping[str, object], kind: Any, *, above: float | None = None, choices: tuple[str, ...] = ()
) -> None:
    if name not in values:
        return
    value = values[name]
    is_number_by_accident = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or is_number_by_accident or (above is not None and value <= above):
        wanted = "true or false" if kind is bool else "text" if kind is str else f"a number over {above}"
        raise ModelError(f"--model qwen2: {name} is {value!r}; give {wanted}")
    if choices and value not in choices:
        raise ModelError(f"--model qwen2: unknown {name} {value!r}; give one of {', '.join(choices)}")
