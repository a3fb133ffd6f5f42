"""What is known of a model before its weights are loaded: tokenizer, chat template, context length.

A plan needs only this, so prompts are built, counted and checked before anything heavy starts.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen2eval.backends.base import Backend
from qwen2eval.backends.chat_template import template_of, template_text
from qwen2eval.config import RunConfig
from qwen2eval.data.hub_files import hub_or_cache
from qwen2eval.errors import ModelError
from qwen2eval.generation import ALIASES, CHECKPOINT_ARGS
from qwen2eval.requests import GenKwargs
from qwen2eval.thoughts import Thinking
from qwen2eval.tokenizer import Tokenizer

DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's default where neither the task nor the user says how long an answer may get."""
TOKENIZER_ARGS = ("revision", "trust_remote_code", "subfolder")


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before its weights are loaded."""

    backend: str
    """The name given to `--model`."""
    name: str
    """Short, for folder names and tables."""
    path: str | None = None
    """Checkpoint folder or hub name; None for servers and the dummy."""
    tokenizer: Any = None
    """A Hugging Face tokenizer; None where only the server knows it."""
    max_length: int | None = None
    """Prompt plus answer, tokens; None where unknown."""
    max_gen_toks: int = DEFAULT_MAX_GEN_TOKS
    """Tokens of an answer where neither the task nor the run says how many."""
    generation_defaults: GenKwargs = field(default_factory=dict)
    """What the checkpoint's generation_config.json adds, `CHECKPOINT_ARGS` and `eos_token_id`."""
    original_max_length: int | None = None
    """Tokens of context that YARN stretches; None where the backend can't stretch it."""
    rope: str | None = None
    """How positions beyond that are handled: "none", "yarn x4", "yarn+dca x4"; None where the backend doesn't say."""
    chat_template: Callable[..., str] | None = None
    """(history, add_generation_prompt=True) -> prompt; None where the model has no template."""
    chat_template_text: str | None = None
    has_system_role: bool = True
    """Whether the template takes system messages; if not, their text is at the head of the first user turn."""
    thinking: Thinking = field(default_factory=Thinking)
    """How the thoughts in its answers are recognised."""
    tokenizer_hash: str | None = None
    opened: Backend | None = None
    """The backend itself, where there are no weights to wait for (a server)."""
    note: str | None = None
    """A warning that belongs on every report, e.g. that the model is untrained."""

    @property
    def chat_template_hash(self) -> str | None:
        """sha256 of the template's text."""
        text = self.chat_template_text
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()

    def answer_tokens(self, gen_kwargs: GenKwargs | None) -> int:
        """Return how many tokens an answer may have, under any of the names that lm-eval takes."""
        names = ("max_gen_toks", *(name for name, own in ALIASES.items() if own == "max_gen_toks"))
        given = gen_kwargs or {}
        return int(next((given[name] for name in names if given.get(name) is not None), self.max_gen_toks))

    @property
    def count_tokens(self) -> Callable[[str], int] | None:
        """Counts the tokens of a text by itself; None where no tokenizer is known."""
        tokenizer = self.tokenizer
        return None if tokenizer is None else lambda text: len(tokenizer.encode(text, add_special_tokens=False))

    @property
    def is_instruct(self) -> bool:
        """Whether the name says that the model expects its chat template."""
        return any(mark in self.name.lower() for mark in ("instruct", "chat", "-it"))


def load_hf_spec(config: RunConfig, *, backend: str, path: str) -> ModelSpec:
    """Load the tokenizer and config.json of a checkpoint folder or hub name.

    Raises:
        ModelError: no such folder or repository, or one without a readable tokenizer or config.
    """
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig, AutoTokenizer

    args = config.model_args
    check_checkpoint_path(path)
    options = {key: args[key] for key in TOKENIZER_ARGS if key in args}
    try:
        gguf = {"gguf_file": args["gguf_file"]} if "gguf_file" in args else {}
        tokenizer_path, own_tokenizer = args.get("tokenizer", path), {} if "tokenizer" in args else gguf
        is_local = Path(path).exists() and Path(tokenizer_path).exists()
        with hub_or_cache(offline=config.offline or is_local):
            hf_config = AutoConfig.from_pretrained(path, **options, **gguf)
            tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_path, **options, **own_tokenizer)
            defaults = generation_defaults(path, revision=args.get("revision"))
    except ModelError:
        raise
    # transformers raises OSError, ValueError, KeyError and more for a checkpoint that it can't read
    except Exception as err:
        raise ModelError(
            f"Model {path!r} can't be opened ({type(err).__name__}: {_first_line(err)}). Give a folder with "
            "config.json, tokenizer and weights, or a hub name such as Qwen/Qwen2-0.5B"
        ) from err
    length = args.get("max_length") or args.get("max_model_len") or resolve_max_length(hf_config, tokenizer)
    template, text = template_of(tokenizer, args, config.apply_chat_template), None
    if config.apply_chat_template:
        text = template_text(tokenizer, config.apply_chat_template)
    return ModelSpec(
        backend=backend,
        name=Path(path).name,
        path=path,
        tokenizer=tokenizer,
        max_length=int(length),
        max_gen_toks=int(args.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)),
        generation_defaults=defaults,
        chat_template=template,
        chat_template_text=template_text(tokenizer, config.apply_chat_template),
        thinking=Thinking.read(args, template=text, decode=tokenizer.decode),
        has_system_role=template is None or template.has_system_role,
        tokenizer_hash=hash_tokenizer(tokenizer),
    )


def generation_defaults(path: str, *, revision: str | None = None) -> dict[str, Any]:
    """Return what a checkpoint's generation_config.json says of how text is generated; {} where it has none.

    Args:
        path: a folder, a file in it, or a hub name.

    Raises:
        ModelError: the file can't be read.
    """
    from transformers import GenerationConfig

    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    is_local = Path(path).exists()
    if is_local and not (folder / "generation_config.json").is_file():
        return {}
    try:
        options: dict[str, Any] = {} if is_local or revision is None else {"revision": revision}
        found = GenerationConfig.from_pretrained(str(folder) if is_local else path, **options).to_dict()
    except (OSError, ValueError) as err:
        if not is_local:
            return {}
        raise ModelError(f"{str(folder / 'generation_config.json')!r} can't be read: {err}") from err
    return {key: found[key] for key in (*CHECKPOINT_ARGS, "eos_token_id") if found.get(key) is not None}


def check_checkpoint_path(path: str) -> None:
    """Refuse a path that looks local but isn't there, before it is taken for a hub name."""
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).expanduser().exists():
        raise ModelError(f"Model folder {path!r} does not exist: check `pretrained=` in --model_args")
    if Path(path).is_dir() and not any(Path(path).glob("*.json")) and not any(Path(path).glob("*.gguf")):
        raise ModelError(f"Model folder {path!r} holds no config.json: is it the checkpoint's folder?")


def hash_tokenizer(tokenizer: Tokenizer) -> str:
    """Return a sha256 of everything that decides how `tokenizer` cuts text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n", 1)[0]
