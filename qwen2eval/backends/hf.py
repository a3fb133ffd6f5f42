"""lm-eval's `hf` backend behind the store: lm-eval loads, tokenizes and scores; batches and endings are ours.

Each batch is one call, so its answers can be committed together. Batches are formed from the requests in a fixed
order (longest first), and a finished batch is a prefix of that order: a resumed run forms the remaining batches exactly
as the interrupted one would have, and its answers are equal to the last bit.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.fingerprint import (
    fingerprint_checkpoint,
    fingerprint_files,
    stable_args,
    thoughts_identity,
)
from qwen2eval.backends.hf_generation import forget_generation_config, generate_batch
from qwen2eval.backends.lm_eval_calls import score
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.backends.pairs import encode_pair
from qwen2eval.config import RunConfig
from qwen2eval.errors import ModelError
from qwen2eval.requests import Answer, Request, is_sampled

NOTHING_TO_SCORE = "the continuation has no token of its own"
CPU_BATCH_TOKENS = 2_048
"""Prompt tokens of one forward pass on CPU: 10-20 s for a 0.5B model on two cores, so little is lost by a kill."""
GPU_BATCH_TOKENS = 32_768
CPU_BATCH_PARAMETERS = 600_000_000
"""Of a model with more, a batch on CPU has fewer tokens, so that it takes no longer."""
CPU_GENERATED_TOKENS = 1_024
"""Tokens that the texts of one batch may get on CPU: a batch is lost at a kill, so long answers come one by one."""
CPU_GENERATION_ROWS = 4
GPU_GENERATION_ROWS = 64


class HfBackend(Backend):
    """A transformers model run by lm-eval's HFLM."""

    name = "hf"

    def __init__(self, config: RunConfig, spec: ModelSpec) -> None:
        assert spec.path is not None, "load_hf_spec sets the path"
        args = dict(config.model_args)
        args.pop("pretrained", None)
        self._args, self._thinking = dict(args), spec.thinking
        # Thoughts are cut when answers are scored, not by lm-eval, which wants to know of a mark all the same
        args["think_end_token"] = spec.thinking.end or "</think>"
        device = config.device or args.pop("device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            _check_device(device)
            self._lm = _AdaptedHFLM(pretrained=spec.path, device=device, batch_size=1, **args)
        except ModelError:
            raise
        # transformers and torch raise OSError, ValueError, RuntimeError, SafetensorError … for what they can't load
        except Exception as err:
            raise ModelError(f"Model {spec.path!r} can't be loaded: {type(err).__name__}: {err}") from err
        forget_generation_config(self._lm.model)
        self._defaults = spec.generation_defaults
        self.tokenizer = self._lm.tokenizer
        self.max_length = self._lm.max_length
        self.n_parameters = sum(p.numel() for p in self._lm.model.parameters())
        self.dtype = str(getattr(self._lm.model, "dtype", "")).removeprefix("torch.")
        self.device = str(self._lm.device)
        self._path = spec.path
        self._batch_size, self._answer_tokens = config.batch_size, spec.answer_tokens

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
            **fingerprint_files(self._args),
            **thoughts_identity(self._thinking),
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
        budget = self._batch_tokens()
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
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[repr(sorted((request.gen_kwargs or {}).items(), key=str))].append(i)
        for group in groups.values():
            first = requests[group[0]]
            rows = 1 if is_sampled(first.gen_kwargs or {}) else self._generation_rows(first)
            # On a GPU prompts take little of the time
            is_limited = self._batch_size == "auto" and self.device == "cpu"
            most = self._batch_tokens() if is_limited else math.inf
            group.sort(key=lambda i: -_length(requests[i]))
            batch: list[int] = []
            for i in group:
                if batch and (len(batch) == rows or (len(batch) + 1) * _length(requests[batch[0]]) > most):
                    yield batch
                    batch = []
                batch.append(i)
            yield batch

    def _generation_rows(self, request: Request) -> int:
        """Return how many requests like this one are answered together."""
        if self._batch_size != "auto":
            return int(self._batch_size)
        if self.device != "cpu":
            return GPU_GENERATION_ROWS
        n_tokens = self._answer_tokens(request.gen_kwargs)
        return max(1, min(CPU_GENERATION_ROWS, int(CPU_GENERATED_TOKENS * self._cpu_share()) // max(1, n_tokens)))

    def _batch_tokens(self) -> int:
        """Return the tokens of a batch of prompts."""
        return int(CPU_BATCH_TOKENS * self._cpu_share()) if self.device == "cpu" else GPU_BATCH_TOKENS

    def _cpu_share(self) -> float:
        return min(1.0, CPU_BATCH_PARAMETERS / self.n_parameters) if self.n_parameters else 1.0

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
        budget = self._batch_tokens()
        return max(1, budget // max(1, min(max(map(_length, batch)), self.max_length or 1 << 30)))

    def _rolling(self, batch: list[Request]) -> list[Answer]:
        # Windows are as long as the model: one at a time
        self._lm.batch_size_per_gpu = 1
        return score(self._lm, batch)

    def _generate(self, batch: list[Request]) -> list[Answer]:
        self._lm.batch_size_per_gpu = len(batch)
        if is_sampled(batch[0].gen_kwargs or {}):
            torch.manual_seed(batch[0].seed)
        return generate_batch(self._lm, batch, thinking=self._thinking, defaults=self._defaults)


def with_adapter(model: Any, path: str, *, n_tokens: int, revision: str = "main") -> Any:
    """Return `model` under a PEFT adapter; embeddings get longer where the tokenizer is, and are never cut for it.

    An adapter that saved embeddings of its own decides their length: it was trained with it.

    Args:
        n_tokens: of the tokenizer.
    """
    from peft import PeftModel, load_peft_weights

    options: dict[str, Any] = {} if Path(path).exists() else {"revision": revision}
    n_rows = max(n_tokens, model.get_input_embeddings().weight.shape[0])
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    for key, weight in load_peft_weights(path, device="cpu", **options).items():
        if any(key.endswith(f"{name}.weight") for name in names):
            n_rows = weight.shape[0]
    if n_rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(n_rows)
    adapted: Any = PeftModel.from_pretrained(model, path, revision=revision)
    # lm-eval ties weights when all is loaded: the base's are tied by now, and the adapter's own must stay apart
    adapted.tie_weights = lambda *_args, **_options: None
    return adapted


def _check_device(device: str) -> None:
    """lm-eval takes a device that is not there for a wish, and runs on the CPU."""
    wanted = torch.device(device)
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"--device {device} does not exist: this machine has {torch.cuda.device_count()} CUDA devices")


class _AdaptedHFLM(HFLM):
    """HFLM without bars, and with adapters whose embeddings are not cut."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self.backend == "causal":
            return encode_pair(self, context, continuation)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def _loglikelihood_tokens(self, requests: object, **kwargs: object) -> Any:
        # lm-eval passes no `disable_tqdm` from rolling windows: a bar for each text
        return super()._loglikelihood_tokens(requests, **{**kwargs, "disable_tqdm": True})

    def _create_model(self, pretrained: str, *args: object, peft: str | None = None, **options: object) -> None:
        """Load the model, and its adapter by rules of our own: lm-eval cuts embeddings to the tokenizer's length."""
        if peft is not None and options.get("delta"):
            raise ValueError("peft and delta were both given: give one of them")
        super()._create_model(pretrained, *args, **options)
        if peft is not None:
            self._model: Any = with_adapter(
                self._model, peft, n_tokens=len(self.tokenizer), revision=str(options.get("revision") or "main")
            )


def _length(request: Request) -> int:
    """Tokens, or a guess from the text where they were not counted."""
    return request.n_tokens if request.n_tokens is not None else 1 + len(request.context) // 3
