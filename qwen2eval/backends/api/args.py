"""`--model_args` of the API backends: checked at the door, then turned into lm-eval's model object."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from qwen2eval.backends.api.client import ApiClient
from qwen2eval.backends.api.served import models_entry
from qwen2eval.errors import ModelError
from qwen2eval.redact import public_url
from qwen2eval.tokenizer import Tokenizer

_EXAMPLES = {
    "local-completions": "base_url=http://localhost:8000/v1/completions,model=Qwen/Qwen2-0.5B",
    "local-chat-completions": "base_url=http://localhost:8000/v1/chat/completions,model=Qwen/Qwen2-0.5B-Instruct",
}
_INT_ARGS = ("max_length", "max_gen_toks")


def check_model_args(name: str, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return `model_args` with `pretrained` renamed to `model` and whole numbers as int.

    Raises:
        ModelError: an argument is missing, unknown or of the wrong kind.
    """
    known = _known_args(name)
    for key in model_args:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
            raise ModelError(f"Unknown model argument {key!r} for --model {name}. {hint}")
    # tokenizer_backend=None is a choice, and not the default.
    args = {key: value for key, value in model_args.items() if value is not None or key == "tokenizer_backend"}
    args.setdefault("model", args.pop("pretrained", None))
    for key in ("base_url", "model"):
        if not args.get(key):
            raise ModelError(f"--model {name} needs {key}: --model_args {_EXAMPLES[name]}")
    args["base_url"], args["model"] = str(args["base_url"]), str(args["model"])
    _check_base_url(name, args["base_url"])
    for key in _INT_ARGS:
        if key in args:
            args[key] = positive_int(key, args[key])
    if name == "local-chat-completions" and args.get("tokenized_requests"):
        raise ModelError("Chat completions take messages, not tokens: leave out tokenized_requests=True.")
    return args


def positive_int(key: str, value: object, *, lowest: int = 1) -> int:
    """Return a model argument as a whole number of at least `lowest`.

    Raises:
        ModelError: it is not one.
    """
    try:
        number = int(str(value))
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise ModelError(f"Model argument {key}={value!r} must be a whole number of at least {lowest}.")
    return number


def headers_and_secrets(args: Mapping[str, object]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the headers of each request and the texts in them that must not be shown.

    As in lm-eval, `header` goes before OPENAI_API_KEY; `auth_token` is used where neither is given.
    """
    key = os.environ.get("OPENAI_API_KEY") or args.get("auth_token")
    header = args.get("header") or {}
    if not isinstance(header, Mapping):
        raise ModelError('Model argument header must be a mapping such as {"Authorization": "Bearer …"}.')
    headers = {str(name): str(value) for name, value in header.items()}
    if key and not headers:
        headers["Authorization"] = f"Bearer {key}"
    # "Bearer KEY" is blanked out by its last word; shorter values would blank out ordinary text.
    words = [str(value or "").rpartition(" ")[2] for value in (*headers.values(), key, args.get("auth_token"))]
    return headers, tuple(word for word in words if len(word) >= 8)


def open_lm(name: str, args: Mapping[str, Any], client: ApiClient) -> tuple[Any, int | None]:
    """Return lm-eval's model object, which makes the payloads, and the longest context in tokens.

    The longest context is the first that is known of: `max_length` in `args`, the server's, the model config's, the
    tokenizer's. None: nothing is cut. As in lm-eval one token of it is kept for the answer (`lm.max_length`).

    Raises:
        ModelError: the tokenizer can't be loaded, or a package is missing.
        BackendError: the server was asked and can't be reached.
    """
    max_length: int | None = args.get("max_length")
    if max_length is None:
        max_length = _served_max_length(args["base_url"], args["model"], client)
    try:
        lm = _lm_class(name)(**_lm_args(name, args))
    except ModuleNotFoundError as err:
        raise ModelError(f"--model {name} needs a package that is missing: {err}. Install qwen2eval[api].") from err
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise ModelError(
            f"The tokenizer {args.get('tokenizer') or args['model']!r} can't be loaded: {str(err).splitlines()[0]} "
            "Name one with tokenizer=FOLDER_OR_HUB_NAME in --model_args, or, for tasks that only generate, use "
            "tokenizer_backend=None."
        ) from err
    if max_length is None and lm.tokenizer_backend == "huggingface":
        max_length = _tokenizer_max_length(args, lm.tokenizer)
    lm.max_length = (max_length or sys.maxsize) - 1
    if lm.tokenizer is None and not args.get("eos_string"):
        # As lm-eval would find, with a warning.
        lm.eos_string = None
    # Both are computed once, and for a remote tokenizer by asking it: not later, in several threads.
    _ = lm.eos_string, lm.prefix_token_id
    return lm, max_length


def _lm_class(name: str) -> Any:
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    return LocalChatCompletion if name == "local-chat-completions" else LocalCompletionsAPI


def _lm_args(name: str, args: Mapping[str, object]) -> dict[str, Any]:
    """Return what lm-eval's constructor gets: our dispatch has the rest."""
    ours = ("num_concurrent", "max_retries", "header", "max_length", "timeout", "think_end_token")
    lm_args = {key: value for key, value in args.items() if key not in ours}
    if name == "local-completions" and "tokenizer" in args:
        # lm-eval would look for the server's tokenizer first, and then mix the two up.
        lm_args.setdefault("tokenizer_backend", "huggingface")
    if token := args.get("auth_token") or os.environ.get("OPENAI_API_KEY"):
        lm_args["auth_token"] = token
    return lm_args


def _known_args(name: str) -> list[str]:
    """Return the names of all arguments that lm-eval's class and its parents take."""
    signatures = [inspect.signature(cls.__init__) for cls in _lm_class(name).__mro__ if "__init__" in vars(cls)]
    names = {
        parameter.name
        for signature in signatures
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.kind is not parameter.VAR_POSITIONAL
    }
    return sorted((names | {"think_end_token"}) - {"self", "batch_size"})


def _check_base_url(name: str, base_url: str) -> None:
    if not re.match(r"https?://[^/]", base_url):
        raise ModelError(f"base_url {public_url(base_url)!r} is not a web address: --model_args {_EXAMPLES[name]}")
    path = urlsplit(base_url).path.rstrip("/")
    is_chat_path = path.endswith("/chat/completions")
    if name == "local-completions" and is_chat_path:
        raise ModelError(
            f"base_url {public_url(base_url)} is for chats: use --model local-chat-completions, or a base_url that "
            "ends in /v1/completions."
        )
    if name == "local-chat-completions" and path.endswith("/completions") and not is_chat_path:
        raise ModelError(
            f"base_url {public_url(base_url)} is not for chats: use --model local-completions, or a base_url that "
            "ends in /v1/chat/completions."
        )


def _served_max_length(base_url: str, model: str, client: ApiClient) -> int | None:
    """Ask the server for `max_model_len`, an extension of vLLM that others took over."""
    length = models_entry(base_url, model, client).get("max_model_len")
    return length if isinstance(length, int) and length > 1 else None


def _tokenizer_max_length(args: Mapping[str, Any], tokenizer: Tokenizer) -> int | None:
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            args.get("tokenizer") or args["model"],
            trust_remote_code=args.get("trust_remote_code", False),
            revision=args.get("revision", "main"),
        )
    except (OSError, ValueError):
        # A folder with a tokenizer alone.
        config = None
    return resolve_max_length(config, tokenizer, default=0) or None
