"""Our engine as an lm-eval `LM`: text to token ids and back, by the conventions of lm-eval's `hf` class.

Splitting a context from its continuation is lm-eval's own code; cutting on the left, windows of rolling scores, stop
strings and what is cut off after them follow `lm_eval.models.huggingface.HFLM`, so that both give the same answers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from qwen2eval.backends.answer_end import AnswerEnd
from qwen2eval.backends.lm_eval_calls import rolling_tokens
from qwen2eval.backends.pairs import encode_pair
from qwen2eval.engine import Engine, GenerationParams
from qwen2eval.engine.generate import GenerateRequest
from qwen2eval.engine.score import Failure, ScoreRequest
from qwen2eval.engine.tree import Tokens
from qwen2eval.errors import BackendError
from qwen2eval.generation import CHECKPOINT_ARGS, applied
from qwen2eval.requests import GenKwargs
from qwen2eval.thoughts import Thinking
from qwen2eval.tokenizer import Tokenizer

GENERATION_ARGS = CHECKPOINT_ARGS
"""Arguments of a generation that pass to the engine."""
_NEUTRAL_ARGS = {"num_beams": 1, "use_cache": True, "truncation": False}
"""Arguments that ask for what happens anyway."""
_RECENT_TEXTS = 8


class Qwen2LM(TemplateLM):
    """An lm-eval model that answers with our engine.

    Args:
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens of prompt and answer together.
        defaults: generation arguments of the checkpoint's generation_config.json, among them `eos_token_id`.
        thinking: how thoughts are recognised; None: by the known marks.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        max_gen_toks: int,
        defaults: GenKwargs,
        add_bos_token: bool | None = None,
        thinking: Thinking | None = None,
    ) -> None:
        super().__init__()
        self.engine, self.tokenizer, self.max_length, self.max_gen_toks = engine, tokenizer, max_length, max_gen_toks
        self._defaults, self._add_bos_token = dict(defaults), add_bos_token
        self._thinking = thinking or Thinking()
        self._recent: dict[tuple[str, bool | None], list[int]] = {}
        self._last_context: tuple[Sequence[int], Tokens] = ([], np.empty(0, np.int32))

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        if self.tokenizer.eos_token_id is None:
            raise BackendError("The tokenizer has no eos_token: set it in the checkpoint's tokenizer_config.json")
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that precedes a text without context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, as lm-eval's files want it."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_kwargs: object) -> list[int]:
        """Return the token ids of a text; the last few are remembered, since a doc's choices share their context."""
        key = (string, add_special_tokens)
        if key not in self._recent:
            if len(self._recent) >= _RECENT_TEXTS:
                self._recent.pop(next(iter(self._recent)))
            chosen = self._add_bos_token if add_special_tokens is None else add_special_tokens
            if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
                chosen = False
            options = {} if chosen is None else {"add_special_tokens": chosen}
            self._recent[key] = self.tokenizer.encode(string, **options)
        return self._recent[key]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages with the tokenizer's template."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def loglikelihood_rolling(self, requests: list[Instance], **_kwargs: object) -> list[float]:
        """Return the log-probability of each whole text, window by window."""
        windows = [self.rolling_windows(request.args[0]) for request in requests]
        scores = self._answers(self.engine.score([window for group in windows for window in group]))
        sums, at = [], 0
        for group in windows:
            sums.append(sum(score.logprob for score in scores[at : at + len(group)]))
            at += len(group)
        return sums

    def generate_until(self, requests: list[Instance], **_kwargs: object) -> list[str]:
        """Return the answers to prompts."""
        # each with its own seed, so that repeats of a prompt differ
        asked = [self.generation(*request.args, seed=seed) for seed, request in enumerate(requests)]
        answers = self._answers(self.engine.generate([generation for generation, _ in asked]))
        return [
            end.read(answer.tokens, has_ended=answer.finish_reason == "stop")[0]
            for answer, (_, end) in zip(answers, asked, strict=True)
        ]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_kwargs: object
    ) -> list[tuple[float, bool]]:
        asked = [self.fitted(context, continuation) for _, context, continuation in requests]
        return [(score.logprob, score.is_greedy) for score in self._answers(self.engine.score(asked))]

    @staticmethod
    def _answers(batches: Iterable[list[tuple[int, Any]]]) -> list[Any]:
        answers = dict(pair for batch in batches for pair in batch)
        if failed := [answer.reason for answer in answers.values() if isinstance(answer, Failure)]:
            raise BackendError(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")
        return [answers[index] for index in range(len(answers))]

    def scoring(self, context: str, continuation: str) -> ScoreRequest:
        """Return the token ids of a context and its continuation, cut on the left to the model's length.

        Raises:
            ValueError: the continuation has no separate token, or is longer than the model.
        """
        if context:
            return self.fitted(*self._encode_pair(context, continuation))
        ids = self.tok_encode(continuation, add_special_tokens=False)
        if ids and ids[0] == self.prefix_token_id:
            return self.fitted(ids[:1], ids[1:])
        return self.fitted([self.prefix_token_id], ids)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self, context, continuation)

    def rolling_windows(self, text: str) -> list[ScoreRequest]:
        """Return disjoint windows over a text, each as long as the model, that together score each token once."""
        windows = get_rolling_token_windows(
            token_list=rolling_tokens(self, text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        asked = [self.fitted(*make_disjoint_window(window)) for window in windows]
        return [r._replace(sequence_length=len(r.context) + len(r.continuation) - 1) for r in asked]

    def fitted(self, context: Sequence[int], continuation: Sequence[int]) -> ScoreRequest:
        """Return both parts as arrays, the context cut on the left so that the whole fits.

        Raises:
            ValueError: the continuation has no separate token, or is longer than the model.
        """
        if not continuation:
            raise ValueError("the continuation has no separate token")
        if len(continuation) > self.max_length:
            raise ValueError(f"a continuation of {len(continuation):,} tokens is over the model's {self.max_length:,}")
        # the last token of the continuation is only predicted: one more than the model's length may be held
        room = self.max_length + 1 - len(continuation)
        # Choices of one doc share theirs
        if context is not self._last_context[0]:
            self._last_context = context, np.array(context, np.int32)
        return ScoreRequest(self._last_context[1][-room:], np.array(continuation, np.int32))

    def generation(self, prompt: str, gen_kwargs: GenKwargs, *, seed: int = 0) -> tuple[GenerateRequest, AnswerEnd]:
        """Return a generation for the engine, and how its answer ends.

        Raises:
            BackendError: an argument that the engine doesn't know.
            ValueError: one that makes no sense.
        """
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(applied(gen_kwargs, self._defaults), self.max_gen_toks))
        end = AnswerEnd(self.tokenizer, kwargs.pop("until"), prompt=prompt, thinking=self._thinking)
        params = self._params(kwargs, seed)
        room = self.max_length - params.max_new_tokens
        if room <= 0:
            raise ValueError(f"an answer of {params.max_new_tokens:,} tokens leaves no room in {self.max_length:,}")
        chosen = {} if self._add_bos_token is None else {"add_special_tokens": self._add_bos_token}
        if has_bos_prefix(prompt, self.tokenizer.bos_token):
            chosen = {"add_special_tokens": False}
        ids = self.tokenizer(prompt, **chosen)["input_ids"][-room:] or [self.prefix_token_id]
        return GenerateRequest(np.array(ids, np.int32), params, end.is_complete), end

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text: the tokenizer's, and those that the checkpoint declares."""
        eos = self._defaults.get("eos_token_id")
        return frozenset({self.eot_token_id, *(eos if isinstance(eos, list) else [] if eos is None else [eos])})

    def _params(self, kwargs: dict[str, Any], seed: int) -> GenerationParams:
        max_new_tokens, do_sample = int(kwargs.pop("max_gen_toks")), bool(kwargs.pop("do_sample", False))
        unknown = [k for k, v in kwargs.items() if k not in GENERATION_ARGS and _NEUTRAL_ARGS.get(k, v) != v]
        unknown += [k for k in kwargs if k not in GENERATION_ARGS and k not in _NEUTRAL_ARGS]
        if unknown:
            raise BackendError(
                f"--model qwen2 does not support the generation argument {unknown[0]!r}. Supported: until, "
                f"max_gen_toks, do_sample, {', '.join(GENERATION_ARGS)}. For others use --model hf"
            )
        merged = {key: kwargs[key] for key in GENERATION_ARGS if key in kwargs}
        if not do_sample:
            merged.pop("temperature", None)
        return GenerationParams(
            max_new_tokens=max_new_tokens, eos_ids=self.end_ids, do_sample=do_sample, seed=seed, **merged
        )
