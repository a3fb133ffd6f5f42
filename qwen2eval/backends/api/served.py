"""What a server says of the model behind it: the part of the store's key that tells two models of one name apart.

Only what stays the same when the same model is started again, so not `created` of /v1/models (vLLM: the time of the
request), ids of permissions, counts of slots or requests; nor `system_fingerprint` of answers, which OpenAI changes
without a change of the model. Sources: vLLM's `ModelCard` and /version, llama.cpp's tools/server/README.md (/props and
`meta`), SGLang's /get_model_info, TGI's /info, Ollama's docs/api.md (/api/tags).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from qwen2eval.backends.api.client import ApiClient, Connection
from qwen2eval.errors import BackendError

_API_PATH = re.compile(r"/(v\d+/)?(chat/)?completions/?$")
_ENTRY_FIELDS = (
    *("id", "root", "parent", "owned_by", "max_model_len", "context_length", "max_context_length"),
    *("quantization", "arch", "digest", "revision", "meta"),
)
"""Of the model's entry in /v1/models."""
_PAGES: Mapping[str, tuple[str, ...]] = {
    "/version": ("version",),
    "/props": ("model_path", "build_info", "chat_template", "bos_token", "eos_token"),
    "/info": ("model_id", "model_sha", "model_dtype", "model_type", "version", "quantize"),
    "/get_model_info": ("model_path", "tokenizer_path", "weight_version"),
    "/api/tags": ("models",),
}
"""Pages of servers beside the API, and what is used of each."""
_LONGEST_VALUE = 200
"""Characters; longer ones, such as a chat template, are kept as a hash."""


def models_entry(base_url: str, model: str, client: ApiClient) -> dict[str, Any]:
    """Return the model's entry in /v1/models; empty where the server has no such page, or several other models.

    Raises:
        BackendError: the server can't be reached.
    """
    place = _replaced(base_url, "models", keeps_version=True)
    if place is None:
        return {}
    with client.connect() as connection:
        listing = connection.get(place)
    entries = listing.get("data") if isinstance(listing, dict) else None
    models = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return next((entry for entry in models if entry.get("id") == model), models[0] if len(models) == 1 else {})


def served_identity(base_url: str, model: str, client: ApiClient) -> str:
    """Return what the server says of the model, as sorted JSON.

    Raises:
        BackendError: the server can't be reached.
    """
    entry = models_entry(base_url, model, client)
    said = {"/v1/models": {key: _short(entry[key]) for key in _ENTRY_FIELDS if entry.get(key) is not None}}
    with client.connect() as connection:
        for page, content in _pages(base_url, connection):
            values = _ollama_digest(content["models"], model) if page == "/api/tags" else content
            said[page] = {key: _short(value) for key, value in values.items() if value is not None}
    return json.dumps({page: values for page, values in said.items() if values}, sort_keys=True)


def _pages(base_url: str, connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    for page, names in _PAGES.items():
        place = _replaced(base_url, page.removeprefix("/"), keeps_version=False)
        if place is None:
            return
        try:
            content = connection.get(place)
        except BackendError:
            # Pages that a server need not have; that it can't be reached shows elsewhere
            continue
        if isinstance(content, dict):
            yield page, {name: content.get(name) for name in names}


def _ollama_digest(models: object, model: str) -> dict[str, Any]:
    """Return the digest of the model's files."""
    entries = [entry for entry in models if isinstance(entry, dict)] if isinstance(models, list) else []
    wanted = (model, f"{model}:latest")
    return next(({"digest": entry.get("digest")} for entry in entries if entry.get("name") in wanted), {})


def _replaced(base_url: str, page: str, *, keeps_version: bool) -> str | None:
    """Return the address of another page of the server; None where base_url has another form."""
    parts = urlsplit(base_url)
    found = _API_PATH.search(parts.path)
    if found is None:
        return None
    version = found[1] or "" if keeps_version else ""
    path = f"{parts.path[: found.start()]}/{version}{page}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _short(value: object) -> object:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return value if len(text) <= _LONGEST_VALUE else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
