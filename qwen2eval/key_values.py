"""Reading `k=v,k=v`, as lm-eval's `--model_args` and `--gen_kwargs` are given."""

import ast
import json
from collections.abc import Iterator
from typing import Any

from qwen2eval.errors import ConfigError


def parse_key_values(text: str, *, flag: str) -> dict[str, Any]:
    """Read `k=v,k=v` or a JSON object, as lm-eval's `--model_args` and `--gen_kwargs`.

    >>> parse_key_values("pretrained=a/b,dtype=float32,until=['x','y'],add_bos_token=true", flag="--model_args")
    {'pretrained': 'a/b', 'dtype': 'float32', 'until': ['x', 'y'], 'add_bos_token': True}
    """
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as err:
            raise ConfigError(f"{flag} {text!r} starts like JSON but is not valid: {err}") from err
        return dict(values)
    result: dict[str, Any] = {}
    # Commas inside lists and quotes belong to the value, as in until=['x','y']
    for part in _split_outside_brackets(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {text!r}: {part!r} is not key=value")
        result[key.strip()] = _literal(value.strip())
    return result


def _split_outside_brackets(text: str) -> Iterator[str]:
    depth, quote, start = 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[({":
            depth += 1
        elif char in "])}":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    if text[start:].strip():
        yield text[start:]


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
