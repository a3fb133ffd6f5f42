"""Keeping secrets out of every file that a run leaves: keys, tokens, passwords in model arguments and addresses."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from qwen2eval.errors import ConfigError
from qwen2eval.key_values import parse_key_values

HIDDEN = "***"
_SECRET_NAME = re.compile(r"(?:^|_)(?:token|api_?key|key|password|secret|header|headers|authorization)$", re.IGNORECASE)
_SECRET = re.compile(
    r"""((?:^|[\s,;'"{?&])-{0,2}(?:(?:hf|api|access|auth|use_auth)_)?(?:token|(?:\w+[_-])?api[_-]?key|password|secret)"""
    r"""['"]?(?:\s*[=:]\s*|\s+)['"]?)[^\s,;'"}&]+""",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a model argument of this name holds a secret.

    >>> [name for name in ("auth_token", "eos_token", "header", "model", "hf_token") if is_secret(name)]
    ['auth_token', 'header', 'hf_token']
    """
    return bool(_SECRET_NAME.search(name)) and not re.match(r"(?:eos|bos|pad|think_end|add_bos|prefix)_", name)


def redacted(value: object) -> Any:
    """Return `value` with secrets replaced by ***, at any depth, and addresses without passwords.

    >>> redacted({"model": "m", "header": {"Authorization": "Bearer x"}, "base_url": "http://me:pw@h/v1?key=1"})
    {'model': 'm', 'header': '***', 'base_url': 'http://h/v1'}
    """
    if isinstance(value, Mapping):
        return {key: HIDDEN if is_secret(str(key)) else redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return public_url(value) if isinstance(value, str) and re.match(r"\w+://", value) else value


def public_url(url: str) -> str:
    """Return `url` without user, password and query, which may hold keys.

    >>> public_url("http://me:secret@host:8000/v1/completions?key=1")
    'http://host:8000/v1/completions'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redacted_command(words: Sequence[str]) -> list[str]:
    """Return a command line whose key=value and JSON arguments hold no secrets.

    >>> redacted_command(["run", "--model_args", "model=m,auth_token=x", "--limit", "3"])
    ['run', '--model_args', 'model=m,auth_token=***', '--limit', '3']
    """
    shown = []
    for word in words:
        flag, equals, text = word.partition("=") if word.startswith("--") else ("", "", word)
        try:
            values = parse_key_values(text, flag="") if text.startswith("{") or "=" in text else None
        except ConfigError:
            values = None
        # Other arguments are kept as they were typed, so that the command can be copied
        if values is not None and redacted(values) != values:
            hidden = redacted(values)
            text = json.dumps(hidden) if text.startswith("{") else ",".join(f"{k}={v}" for k, v in hidden.items())
        shown.append(flag + equals + text)
    return shown


def hide_secrets(text: str) -> str:
    """Replace what follows `token=`, `api_key=` and the like in free text: a report is passed on.

    >>> hide_secrets("--model_args pretrained=m,token=hf_abc,tokenizer=t")
    '--model_args pretrained=m,token=***,tokenizer=t'
    """
    return _SECRET.sub(rf"\1{HIDDEN}", text)
