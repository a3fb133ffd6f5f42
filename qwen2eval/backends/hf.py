"""lm-eval's `hf` backend behind the store: lm-eval loads, tokenizes and scores; batches and endings are ours.

Each batch is one call, so its answers can be committed together. Batches are formed from the requests in a fixed
order (longest first), and a finished batch is a prefix of that order: a resumed run forms the remaining batches exactly
as the interrupted one would have, and its answers are equal to the last bit.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.fingerprint import fingerprint_checkpoint, stable_args
from qwen2eval.backends.lm_eval_calls import EndingRecorder, generate, score
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.backends.pairs import encode_pair
from qwen2eval.config import RunConfig
from qwen2eval.errors import ModelError
from qwen2eval.requests import Answer, FinishReason, Request, is_sampled

NOTHING_TO_SCORE = "the continuation has no token of its own"
CPU_BATCH_TOKENS = 2_048
"""Prompt tokens of one forward pass on CPU: 10-20 s for a 0.5B model on two cores, so little is lost by a kill."""
GPU_BATCH_TOKENS = 32_768
CPU_GENERATION_ROWS = 4
GPU_GENERATION_ROWS = 64


class HfBackend(Backend):
    """A transformers model run by lm-eval's HFLM."""

    name = "hf"

    def __init__(self, config: RunConfig, spec: ModelSpec) -> None:
        assert spec.path is not None, "load_hf_spec sets the path"
        args = dict(config.model_args)
        args.pop("pretrained", None)
        device = config.device or args.pop("device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            _check_device(device)
            self._lm = _EndingHFLM(pretrained=spec.path, device=device, batch_size=1, **args)
        except ModelError:
            raise
        # transformers and torch raise OSError, ValueError, RuntimeError, SafetensorError … for what they can't load
        except Exception as err:
            raise ModelError(f"Model {spec.path!r} can't be loaded: {type(err).__name__}: {err}") from err
        self.tokenizer = self._lm.tokenizer
        self.max_length = self._lm.max_length
        self.n_parameters = sum(p.numel() for p in self._lm.model.parameters())
        self.dtype = str(getattr(self._lm.model, "dtype", "")).removeprefix("torch.")
        self.device = str(self._lm.device)
        self._args, self._path = args, spec.path
        self._batch_size = config.batch_size

    def identity(self) -> Identity:
        """Return weights, adapters, versions, dtype and the arguments that can change an answer."""
        adapters = {
            key: fingerprint_checkpoint(str(self._args[key])) for key in ("peft", "delta") if self._args.get(key)
        }
        return {
            "backend": self.name,
            "lm_eval": version("lm_eval"),
            "transformers": version("transformers"),
            "torch": torch.__version__,
            "weights": fingerprint_checkpoint(self._path, revision=str(self._args.get("revision", "main"))),
            **adapters,
            "dtype": self.dtype,
            "args": stable_args(self._args),
        }

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer in batches of a token budget, or of `--batch_size` rows."""
        if not requests:
            return
        if requests[0].kind == "generate_until":
            batches = self._generation_batches(requests)
            call: Callable[[list[Request]], list[Answer]] = self._generate
        else:
            batches = self._scoring_batches(requests)
            call = self._loglikelihood if requests[0].kind == "loglikelihood" else self._rolling
        for batch in batches:
            answers = self._halving(call, [requests[i] for i in batch])
            yield list(zip(batch, answers, strict=True))

    def _scoring_batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Yield index lists; requests of one context stay together, since one forward pass can answer them all."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[request.context].append(i)
        budget = CPU_BATCH_TOKENS if self.device == "cpu" else GPU_BATCH_TOKENS
        batch: list[int] = []
        rows = longest = 0
        for group in sorted(groups.values(), key=lambda g: -max(_length(requests[i]) for i in g)):
            group_rows = 1 if all(requests[i].n_continuation_tokens == 1 for i in group) else len(group)
            length = min(max(_length(requests[i]) for i in group), self.max_length or 1 << 30)
            too_big = (rows + group_rows) * max(longest, length) > budget
            if batch and (too_big if self._batch_size == "auto" else rows + group_rows > int(self._batch_size)):
                yield batch
                batch, rows, longest = [], 0, 0
            batch, rows, longest = batch + group, rows + group_rows, max(longest, length)
        if batch:
            yield batch

    def _generation_batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Yield index lists of equal generation arguments; sampled requests come alone, each under its own seed."""
        auto = CPU_GENERATION_ROWS if self.device == "cpu" else GPU_GENERATION_ROWS
        size = auto if self._batch_size == "auto" else int(self._batch_size)
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[repr(sorted((request.gen_kwargs or {}).items(), key=str))].append(i)
        for group in groups.values():
            rows = 1 if is_sampled(requests[group[0]].gen_kwargs or {}) else size
            group.sort(key=lambda i: -_length(requests[i]))
            yield from (group[at : at + rows] for at in range(0, len(group), rows))

    def _halving(self, call: Callable[[list[Request]], list[Answer]], batch: list[Request]) -> list[Answer]:
        """Run one batch; out of memory halves it and retries, down to one request, which then stays unanswered."""
        try:
            return call(batch)
        except (torch.OutOfMemoryError, MemoryError) as err:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(batch) == 1:
                return [Answer(error=f"out of memory: {err}")]
        middle = len(batch) // 2
        return self._halving(call, batch[:middle]) + self._halving(call, batch[middle:])

    def _loglikelihood(self, batch: list[Request]) -> list[Answer]:
        self._lm.batch_size_per_gpu = self._scoring_rows(batch)
        # lm-eval stops at a continuation without tokens; mostly there is none, and all are one call
        empty = {i for i, r in enumerate(batch) if not r.continuation.strip() and not self._n_tokens(r.continuation)}
        asked = [request for i, request in enumerate(batch) if i not in empty]
        scored = iter(score(self._lm, asked) if asked else ())
        return [Answer(error=NOTHING_TO_SCORE) if i in empty else next(scored) for i in range(len(batch))]

    def _n_tokens(self, text: str) -> int:
        return len(self._lm.tok_encode(text, add_special_tokens=False))

    def _scoring_rows(self, batch: list[Request]) -> int:
        """Return the rows of one forward pass: a batch of one context's many continuations may take several."""
        if self._batch_size != "auto":
            return int(self._batch_size)
        budget = CPU_BATCH_TOKENS if self.device == "cpu" else GPU_BATCH_TOKENS
        return max(1, budget // max(1, min(max(map(_length, batch)), self.max_length or 1 << 30)))

    def _rolling(self, batch: list[Request]) -> list[Answer]:
        # Windows are as long as the model: one at a time
        self._lm.batch_size_per_gpu = 1
        return score(self._lm, batch)

    def _generate(self, batch: list[Request]) -> list[Answer]:
        self._lm.batch_size_per_gpu = len(batch)
        if is_sampled(batch[0].gen_kwargs or {}):
            torch.manual_seed(batch[0].seed)
        return generate(self._lm, batch)


def _check_device(device: str) -> None:
    """lm-eval takes a device that is not there for a wish, and runs on the CPU."""
    wanted = torch.device(device)
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"--device {device} does not exist: this machine has {torch.cuda.device_count()} CUDA devices")


class _EndingHFLM(HFLM):
    """HFLM that also reports how each generation ended: by a stop, or cut off."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self.backend == "causal":
            return encode_pair(self, context, continuation)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def _loglikelihood_tokens(self, requests: object, **kwargs: object) -> Any:
        # lm-eval passes no `disable_tqdm` from rolling windows: a bar for each text
        return super()._loglikelihood_tokens(requests, **{**kwargs, "disable_tqdm": True})

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: object
    ) -> torch.Tensor:
        output: torch.Tensor = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
        room = max_length - context.shape[1]
        if isinstance(self.cache_hook, EndingRecorder):
            self.cache_hook.expect(self._ending(row[context.shape[1] :], stop, room) for row in output)
        return output

    def _ending(self, row: torch.Tensor, stop: list[str], room: int) -> FinishReason:
        eos = self.model.generation_config.eos_token_id
        ends = {*(eos if isinstance(eos, list) else [eos]), self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        ids = row.tolist()
        if len(ids) < room or any(token in ends for token in ids):
            return "stop"
        text = self.tok_decode(ids, skip_special_tokens=False)
        return "stop" if any(mark and mark in text for mark in stop) else "length"


def _length(request: Request) -> int:
    """Tokens, or a guess from the text where they were not counted."""
    return request.n_tokens if request.n_tokens is not None else 1 + len(request.context) // 3
