"""Generation with a transformers model: lm-eval tokenizes, and each row of a batch ends by itself.

lm-eval lets a batch go on until its last row has met a stop string, and cuts thoughts later: what is left of an answer
then depends on its neighbours.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from qwen2eval.backends.answer_end import AnswerEnd
from qwen2eval.generation import applied
from qwen2eval.requests import Answer, GenKwargs, Request
from qwen2eval.thoughts import Thinking

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM


RESET = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "num_beams", "length_penalty"),
    *("min_length", "min_new_tokens", "max_length", "max_new_tokens", "penalty_alpha", "stop_strings"),
)
"""What a generation_config.json may set of the way in which text is made."""


class _RowEnds(StoppingCriteria):
    """Ends each row when its own stop string is written, and notes its length."""

    def __init__(self, ends: Sequence[AnswerEnd], n_context: int) -> None:
        self._ends, self._n_context = ends, n_context
        self.lengths: list[int | None] = [None] * len(ends)

    def __call__(self, input_ids: torch.Tensor, _scores: torch.Tensor, **_options: object) -> torch.Tensor:
        # Beams are not rows: their texts are cut when they are done
        if len(input_ids) == len(self._ends):
            for row, end in enumerate(self._ends):
                tokens = input_ids[row, self._n_context :].tolist()
                if self.lengths[row] is None and end.is_complete(tokens):
                    self.lengths[row] = len(tokens)
        is_done = [length is not None for length in self.lengths]
        done = is_done if len(input_ids) == len(is_done) else [False] * len(input_ids)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def generate_batch(lm: "HFLM", batch: Sequence[Request], *, thinking: Thinking, defaults: GenKwargs) -> list[Answer]:
    """Return the answers to requests of equal generation arguments.

    Args:
        lm: lm-eval's model; tokenizer, truncation on the left and padding are its own.
        thinking: how thoughts are recognised.
        defaults: what the checkpoint's generation_config.json adds.
    """
    try:
        acts = applied(batch[0].gen_kwargs or {}, defaults)
    except ValueError as err:
        return [Answer(error=str(err))] * len(batch)
    kwargs: dict[str, Any] = dict(normalize_gen_kwargs(acts, lm.max_gen_toks))
    until, n_most = kwargs.pop("until"), int(kwargs.pop("max_gen_toks"))
    is_causal = lm.backend == "causal"
    room = lm.max_length - n_most if is_causal else lm.max_length
    if room <= 0:
        error = f"an answer of {n_most:,} tokens leaves no room in {lm.max_length:,}"
        return [Answer(error=error)] * len(batch)
    contexts = [request.context for request in batch]
    ids, mask = lm.tok_batch_encode(contexts, left_truncate_len=room, truncation=bool(lm.truncation))
    n_context = ids.shape[1] if is_causal else 1
    ends = [AnswerEnd(lm.tokenizer, until, prompt=context, thinking=thinking) for context in contexts]
    stopping = _RowEnds(ends, n_context)
    rows = _output(lm, ids.to(lm.device), mask.to(lm.device), n_context + n_most, stopping, kwargs)
    answers = []
    for row, end, length in zip(rows, ends, stopping.lengths, strict=True):
        tokens = row[n_context:].tolist()[:length]
        tokens, has_eos = _up_to_eos(lm, tokens)
        has_ended = has_eos or length is not None or len(tokens) < n_most
        text, reason = end.read(tokens, has_ended=has_ended)
        n_tokens = len(lm.tokenizer.encode(text, add_special_tokens=False))
        answers.append(Answer(response=text, finish_reason=reason, n_response_tokens=n_tokens))
    return answers


def _output(
    lm: "HFLM",
    ids: torch.Tensor,
    mask: torch.Tensor,
    max_length: int,
    stopping: _RowEnds,
    kwargs: Mapping[str, Any],
) -> torch.Tensor:
    """Return the token ids that the model generates, (rows, time)."""
    options = dict(kwargs)
    # A temperature of 0 is greedy decoding, which has none
    if not options["do_sample"]:
        options.pop("temperature", None)
    else:
        # transformers' own default of 50 is no part of a protocol
        options.setdefault("top_k", 0)
    is_mixed = lm.mixed_precision_dtype is not None
    with torch.autocast(device_type=lm.device.type, dtype=lm.mixed_precision_dtype, enabled=is_mixed):
        output: torch.Tensor = lm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_length=options.pop("max_length", max_length),
            stopping_criteria=StoppingCriteriaList([stopping]),
            pad_token_id=lm.tokenizer.pad_token_id,
            use_cache=options.pop("use_cache", True),
            **options,
        )
    return output


def forget_generation_config(model: Any) -> None:
    """Take back what a checkpoint's generation_config.json sets: what counts of it comes with each request."""
    plain: Any = GenerationConfig()  # type: ignore[no-untyped-call]
    for name in RESET:
        if hasattr(plain, name):
            setattr(model.generation_config, name, getattr(plain, name))


def _up_to_eos(lm: "HFLM", tokens: list[int]) -> tuple[list[int], bool]:
    """Return tokens up to the first that ends a text, and whether there is one; padding comes after it."""
    declared = lm.model.generation_config.eos_token_id
    ends = {*(declared if isinstance(declared, list) else [declared]), lm.tokenizer.eos_token_id}
    at = next((i for i, token in enumerate(tokens) if token in ends), None)
    return (tokens, False) if at is None else (tokens[: at + 1], True)
