"""What `--model_args` of `--model qwen2` may hold, where a checkpoint's files are found, and its outside."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from qwen2eval.backends.front import ModelFront, open_hf_front
from qwen2eval.config import RunConfig
from qwen2eval.errors import ModelError
from qwen2eval.model import DualChunk, Qwen2Config
from qwen2eval.model.config import N_BYTES
from qwen2eval.model.gguf_header import find_gguf

ENGINE_ARGS = ("kv_memory_gb", "pass_tokens")
"""Arguments that change speed and memory, not answers."""
_FRONT_ARGS = (
    "pretrained",
    "tokenizer",
    "max_length",
    "max_gen_toks",
    "chat_template_args",
    "enable_thinking",
    "subfolder",
)
"""Arguments that `open_hf_front` reads."""


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
    dual_chunk: DualChunk | bool | None = None
    """Dual chunk attention; `chunk_size=` and `local_size=` set its sizes. None: as config.json says."""
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
        own = {field.name for field in fields(cls)}
        sizes = {name: model_args[name] for name in ("chunk_size", "local_size") if name in model_args}
        if unknown := sorted(set(model_args) - own - set(_FRONT_ARGS) - set(sizes)):
            raise ModelError(
                f"--model qwen2 has no argument {unknown[0]!r}; --model_args takes pretrained, "
                f"{', '.join(sorted(own))}, chunk_size, local_size, {', '.join(_FRONT_ARGS[1:])}"
            )
        values = {name: model_args[name] for name in own if model_args.get(name) is not None}
        if values.get("dtype") == "auto":
            del values["dtype"]
        _check("dtype", values, str, choices=tuple(N_BYTES))
        _check("revision", values, str)
        for name in ("yarn_factor", "kv_memory_gb"):
            _check(name, values, float | int, above=0)
        _check("pass_tokens", values, int, above=0)
        for name in ("dual_chunk", "add_bos_token"):
            _check(name, values, bool)
        if sizes:
            for name in sizes:
                _check(name, sizes, int, above=0)
            if values.get("dual_chunk", True):
                values["dual_chunk"] = DualChunk(**sizes)
        return cls(**values)

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
            folder = snapshot_download(
                path, revision=self.revision, allow_patterns=["*.json", "*.safetensors", "*.txt"]
            )
        # the hub client raises OSError, ValueError and errors of requests and of its own
        except Exception as err:
            raise ModelError(f"Model {path!r} can't be downloaded: {str(err).strip().splitlines()[0]}") from err
        return Path(folder)


def open_qwen2_front(config: RunConfig, *, path: str) -> ModelFront:
    """Return a checkpoint's outside; its length is that of the context as YARN and DCA stretch it.

    Args:
        path: a folder, a GGUF file, or a hub repository.

    Raises:
        ModelError: no such checkpoint, one of another architecture, or a `max_length` over what it can do.
    """
    args = Qwen2Args.read(config.model_args)
    gguf = find_gguf(Path(path))
    if gguf is None:
        front = open_hf_front(config, backend="qwen2", path=path)
        source: Any = path if Path(path).exists() else _hub_config(path, args.revision)
    else:
        with_file = replace(config, model_args={**config.model_args, "gguf_file": gguf.name})
        front = replace(
            open_hf_front(with_file, backend="qwen2", path=str(gguf.parent)), path=str(gguf), name=gguf.stem
        )
        source = gguf
    model_config = Qwen2Config.from_hf(source).with_context(yarn_factor=args.yarn_factor, dual_chunk=args.dual_chunk)
    assert front.max_length is not None, "open_hf_front finds a length"
    if model_config.yarn or model_config.dual_chunk:
        front = replace(front, max_length=int(config.model_args.get("max_length") or model_config.max_length))
    assert front.max_length is not None, "as above"
    model_config.check_length(front.max_length)
    return front


def _hub_config(repository: str, revision: str) -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(repository, "config.json", revision=revision))


def _check(
    name: str, values: Mapping[str, Any], kind: Any, *, above: float | None = None, choices: tuple[str, ...] = ()
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
