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
from qwen2eval.model.config_json import NOT_CAUSAL, load_config_json, rope_conflict
from qwen2eval.model.not_a_model import check_no_adapter, check_not_pointer
from qwen2eval.requests import GenKwargs
from qwen2eval.thoughts import Thinking
from qwen2eval.tokenizer import Tokenizer

DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's default where neither the task nor the user says how long an answer may get."""
TOKENIZER_ARGS = ("revision", "trust_remote_code", "subfolder")
_PLAIN_TEXT = "The word 7 is here: a b c d e 0 1 2"
_READ_FILES = ("*.json", "*.safetensors", "*.txt", "tokenizer.model")


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
    add_bos_token: bool | None = None
    """Whether prompts get the tokenizer's special tokens; None: as the tokenizer does."""
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
        """Whether the model expects its chat template: it ends its answers with a mark of the template.

        A base model may bring the template of its sibling, but ends its texts with another token.
        """
        if self.tokenizer is None:  # a server's: the name is all that is known
            return any(mark in self.name.lower() for mark in ("instruct", "chat", "-it"))
        template = self.chat_template_text or ""
        return "eos_token" in template or any(end in template for end in self._end_tokens)

    @property
    def _end_tokens(self) -> list[str]:
        """Tokens that end an answer: the tokenizer's, and those of the checkpoint's generation_config.json."""
        found = [str(self.tokenizer.eos_token)] if self.tokenizer.eos_token else []
        file = Path(self.path or "") / "generation_config.json"
        try:
            ids = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        except (OSError, ValueError, AttributeError):
            ids = None
        ids = ids if isinstance(ids, list) else [ids]
        return found + [str(self.tokenizer.convert_ids_to_tokens(one)) for one in ids if isinstance(one, int)]


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
    if getattr(hf_config, "is_causal", None) is False and not getattr(hf_config, "is_encoder_decoder", False):
        raise ModelError(f"Model {path!r} can't be scored as a language model: {NOT_CAUSAL}")
    check_tokenizer(tokenizer, where=str(tokenizer_path))
    if isinstance(n_rows := getattr(hf_config, "vocab_size", None), int):
        check_fits(tokenizer, n_rows, path=path)
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
        add_bos_token=args.get("add_bos_token"),
        note=_rope_note(path),
    )


def check_tokenizer(tokenizer: Tokenizer, *, where: str) -> None:
    """Refuse a tokenizer without a vocabulary, as transformers makes of a folder without a tokenizer's files.

    Raises:
        ModelError: it gives no token for plain words.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not set(tokenizer.encode(_PLAIN_TEXT, add_special_tokens=False)) - {unknown}:
        raise ModelError(
            f"There is no tokenizer in {where!r}: it gives no tokens for plain words. Copy tokenizer.json and "
            "tokenizer_config.json from the base model, or name one with tokenizer=NAME_OR_FOLDER in --model_args"
        )


def check_fits(tokenizer: Any, n_rows: int, *, path: str, added: bool = False) -> None:
    """Refuse a tokenizer of another model, whose tokens have no row of the embedding.

    Args:
        n_rows: of the embedding.
        added: also look at added tokens, which some models have and never see.

    Raises:
        ModelError: it has more tokens than rows.
    """
    n_tokens = len(tokenizer) if added else int(getattr(tokenizer, "vocab_size", 0))
    if n_tokens > n_rows:
        raise ModelError(
            f"The tokenizer of {path!r} has {n_tokens:,} tokens, and the model's embedding has {n_rows:,} rows "
            "(vocab_size in config.json): they are not of one model. Name the right one with tokenizer=NAME_OR_FOLDER"
        )


def _rope_note(path: str) -> str | None:
    """Return a warning about a local config.json that says twice, and differently, how positions are turned."""
    file = Path(path) / "config.json"
    conflict = rope_conflict(load_config_json(file)[0]) if file.is_file() else None
    return None if conflict is None else f"config.json {conflict}"


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
    if Path(path).is_dir() and not any(file.suffix.lower() in (".json", ".gguf") for file in Path(path).iterdir()):
        raise ModelError(f"Model folder {path!r} holds no config.json: is it the checkpoint's folder?")
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            check_no_adapter(folder)
        for file in sorted(file for name in _READ_FILES for file in folder.glob(name)):
            check_not_pointer(file)


def hash_tokenizer(tokenizer: Tokenizer) -> str:
    """Return a sha256 of everything that decides how `tokenizer` cuts text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n", 1)[0]
