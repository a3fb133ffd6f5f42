"""A context and its continuation as tokens: what all backends that score choices share."""

from typing import Any


def encode_pair(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a context and of its continuation, as lm-eval's `TemplateLM._encode_pair` does.

    Where a token spans the join ("wor" + "ld"), lm-eval cuts the tokens of both together by the number of the
    context's, and the continuation loses its beginning, or all of it; here it is then encoded by itself, as in
    lm-eval's pull request 4055.

    Args:
        lm: an lm-eval model with a tokenizer.
        context: not empty.
    """
    if getattr(lm, "backend", "causal") != "causal":
        pair: tuple[list[int], list[int]] = lm._encode_pair(context, continuation)
        return pair
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    context_ids, both = list(lm.tok_encode(bare)), list(lm.tok_encode(bare + continuation))
    n_context = len(context_ids)
    if both[:n_context] == context_ids and len(both) > n_context:
        ids = both[n_context:]
    else:
        ids = list(lm.tok_encode(continuation, add_special_tokens=False))
    return context_ids or [lm.prefix_token_id], ids
