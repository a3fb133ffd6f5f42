"""What a request is known by, in a plan and in the response store: the one place where its digest is made."""

import hashlib
import json
from dataclasses import dataclass

from qwen2eval.prompts import PromptText, TokenCounter, digest_ids
from qwen2eval.requests import GenKwargs, RequestKind


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text for the model, in token ids where its tokenizer is known."""

    digest: bytes
    """sha256 of the exact token ids; of the text, where no tokenizer is known."""
    n_tokens: int | None
    """None where no tokenizer is known."""


def context_tokens(prompt: PromptText, counter: TokenCounter | None) -> Tokens:
    """Return what a prompt is known by.

    A BOS that the tokenizer adds and the model doesn't get is part of the digest, so that stores of before are right.

    Args:
        prompt: its text.
        counter: of the model's tokens; None where no tokenizer is known.
    """
    if counter is None:
        return Tokens(hashlib.sha256(str(prompt).encode()).digest(), None)
    return Tokens(digest_ids(counter.pieces(prompt)), counter.count(prompt))


def request_digest(
    kind: RequestKind, context: Tokens, *, continuation: bytes = b"", gen_kwargs: GenKwargs | None = None
) -> bytes:
    """Return the sha256 of a request's kind, exact token ids and normalised generation arguments.

    Args:
        kind: of the request.
        context: its prompt.
        continuation: its token ids as bytes, or its text where no tokenizer is known; empty for generation.
        gen_kwargs: None for log-likelihoods.
    """
    options = json.dumps(gen_kwargs, sort_keys=True, default=str).encode()
    return hashlib.sha256(b"\0".join((kind.encode(), context.digest, continuation, options))).digest()
