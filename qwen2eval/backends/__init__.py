"""Opening a model: first its spec (tokenizer, template, length), later the backend with the weights.

The dictionary at the end is the list of what `--model` takes; a backend's packages are imported only when it is opened.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwen2eval.backends.base import Backend
from qwen2eval.backends.chat_template import template_text
from qwen2eval.backends.model_spec import (
    DEFAULT_MAX_GEN_TOKS,
    ModelSpec,
    check_tokenizer,
    hash_tokenizer,
    load_hf_spec,
)
from qwen2eval.backends.rope import with_rope
from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError, ModelError
from qwen2eval.thoughts import Thinking

__all__ = ["BACKENDS", "Backend", "ModelSpec", "load_spec", "open_model"]


@dataclass(frozen=True)
class BackendSpec:
    """How one kind of model is opened."""

    load_spec: Callable[[RunConfig], ModelSpec]
    open_model: Callable[[RunConfig, ModelSpec], Backend]


def load_spec(config: RunConfig) -> ModelSpec:
    """Return what a plan needs of the model, without its weights.

    Raises:
        ModelError: unknown kind of model, a missing package, or a checkpoint that isn't there.
    """
    return _spec(config).load_spec(with_rope(config))


def open_model(config: RunConfig, spec: ModelSpec) -> Backend:
    """Load the weights or connect to the server.

    Raises:
        ModelError: it can't be opened.
    """
    return _spec(config).open_model(with_rope(config), spec)


def _spec(config: RunConfig) -> BackendSpec:
    name = config.model or "demo"
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"Unknown model {name!r}.{hint} --model takes: {', '.join(BACKENDS)}")
    return BACKENDS[name]


def _pretrained(config: RunConfig) -> str:
    path = config.model_args.get("pretrained")
    if not path:
        raise ModelError(
            f"--model {config.model} needs a checkpoint: --model_args pretrained=FOLDER_OR_HUB_NAME "
            "(e.g. pretrained=Qwen/Qwen2-0.5B)"
        )
    return str(Path(str(path)).expanduser()) if str(path).startswith("~") else str(path)


def _hf_spec(config: RunConfig) -> ModelSpec:
    return load_hf_spec(config, backend=str(config.model), path=_pretrained(config))


def _hf_model(config: RunConfig, spec: ModelSpec) -> Backend:
    from qwen2eval.backends.hf import HfBackend

    return HfBackend(config, spec)


def _qwen2_spec(config: RunConfig) -> ModelSpec:
    from qwen2eval.backends.qwen2.args import load_qwen2_spec

    return load_qwen2_spec(config, path=_pretrained(config))


def _qwen2_model(config: RunConfig, spec: ModelSpec) -> Backend:
    from qwen2eval.backends.qwen2.backend import Qwen2Backend

    return Qwen2Backend(config, spec)


def _demo_spec(config: RunConfig) -> ModelSpec:
    from qwen2eval.backends.qwen2.args import load_qwen2_spec
    from qwen2eval.demo.shipped import MODEL, MODEL_NOTE

    if "pretrained" in config.model_args:
        raise ConfigError("The demo model takes no pretrained=…: name the backend too (--model qwen2, --model hf)")
    return replace(load_qwen2_spec(config, path=str(MODEL)), note=MODEL_NOTE)


def _vllm_spec(config: RunConfig) -> ModelSpec:
    _require("vllm", extra="vllm")
    from qwen2eval.backends.vllm.context import stretch, stretchable_length

    args, path = config.model_args, _pretrained(config)
    spec, stretched = load_hf_spec(config, backend="vllm", path=path), stretch(config.model_args, path)
    spec = replace(spec, original_max_length=stretchable_length(path, args))
    if stretched is None:
        return spec
    spec = replace(spec, rope=stretched.rope)
    # A length that the user sets wins over the stretched one
    if args.get("max_length") or args.get("max_model_len"):
        return spec
    return replace(spec, max_length=stretched.max_length)


def _vllm_model(config: RunConfig, spec: ModelSpec) -> Backend:
    from qwen2eval.backends.vllm.backend import VllmBackend

    return VllmBackend(config, spec)


def _dummy_spec(config: RunConfig) -> ModelSpec:
    length = config.model_args.get("max_length")
    thinking = Thinking.read(config.model_args)
    spec = ModelSpec("dummy", "dummy", max_length=None if length is None else int(length), thinking=thinking)
    if path := config.model_args.get("tokenizer"):
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError) as err:
            raise ModelError(f"--model dummy: tokenizer {path!r} can't be opened: {err}") from err
        check_tokenizer(tokenizer, where=str(path))
        spec = replace(spec, tokenizer=tokenizer, tokenizer_hash=hash_tokenizer(tokenizer))
    return spec


def _dummy_model(config: RunConfig, _spec: ModelSpec) -> Backend:
    from qwen2eval.backends.dummy import DummyBackend

    return DummyBackend(config)


def _api_spec(config: RunConfig) -> ModelSpec:
    _require("aiohttp", "tenacity", extra="api")
    from qwen2eval.backends.api.backend import ApiBackend

    if not config.model_args.get("base_url"):
        raise ModelError(f"--model {config.model} needs base_url=http://HOST:PORT/v1/… and model=NAME in --model_args")
    backend = ApiBackend(str(config.model), config.model_args, batch_size=_concurrency(config))
    tokenizer = backend.tokenizer
    if tokenizer is not None:
        check_tokenizer(tokenizer, where=str(config.model_args.get("tokenizer") or config.model_args.get("model")))
    text = None if tokenizer is None else template_text(tokenizer, config.apply_chat_template)
    backend.thinking = Thinking.read(config.model_args, template=text if config.apply_chat_template else None)
    return ModelSpec(
        backend=str(config.model),
        name=str(config.model_args.get("model") or config.model_args.get("pretrained")).rsplit("/", 1)[-1],
        path=str(config.model_args.get("model") or config.model_args.get("pretrained")),
        tokenizer=tokenizer,
        max_length=backend.max_length,
        max_gen_toks=int(config.model_args.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)),
        chat_template=backend.apply_chat_template,
        chat_template_text=text,
        thinking=backend.thinking,
        has_system_role=backend.has_system_role,
        tokenizer_hash=None if tokenizer is None else hash_tokenizer(tokenizer),
        opened=backend,
    )


def _api_model(_config: RunConfig, spec: ModelSpec) -> Backend:
    assert spec.opened is not None, "a server has no weights to wait for: its spec is the backend"
    return spec.opened


def _concurrency(config: RunConfig) -> int:
    return 1 if config.batch_size == "auto" else int(config.batch_size)


def _require(*packages: str, extra: str) -> None:
    from importlib.util import find_spec

    if missing := [package for package in packages if find_spec(package) is None]:
        raise ModelError(f"This --model needs the package {missing[0]!r}: pip install 'qwen2eval[{extra}]'")


BACKENDS: dict[str, BackendSpec] = {
    "demo": BackendSpec(_demo_spec, _qwen2_model),
    "qwen2": BackendSpec(_qwen2_spec, _qwen2_model),
    "hf": BackendSpec(_hf_spec, _hf_model),
    "vllm": BackendSpec(_vllm_spec, _vllm_model),
    "local-completions": BackendSpec(_api_spec, _api_model),
    "local-chat-completions": BackendSpec(_api_spec, _api_model),
    "dummy": BackendSpec(_dummy_spec, _dummy_model),
}
