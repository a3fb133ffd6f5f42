"""`--model qwen2`: the bundled architecture on our engine, behind the store."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

import torch

from qwen2eval.backends.answer_end import AnswerEnd
from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.fingerprint import (
    fingerprint_checkpoint,
    fingerprint_files,
    stable_args,
    thoughts_identity,
)
from qwen2eval.backends.model_spec import ModelSpec, generation_defaults
from qwen2eval.backends.qwen2.args import RESOLVED_ARGS, Qwen2Args
from qwen2eval.backends.qwen2.lm import Qwen2LM
from qwen2eval.config import RunConfig
from qwen2eval.engine import Engine, EngineOptions
from qwen2eval.engine.generate import Generated, GenerateRequest
from qwen2eval.engine.score import Failure, ScoreRequest
from qwen2eval.model import Qwen2Config, load_model
from qwen2eval.requests import Answer, Request

ENGINE_VERSION = 1
"""Part of the store key: raised when the same request gets other bits."""


class Qwen2Backend(Backend):
    """A Qwen2 checkpoint on our engine; requests that share prefixes are computed together."""

    name = "qwen2"
    window_requests = None

    def __init__(self, config: RunConfig, spec: ModelSpec) -> None:
        assert spec.path is not None, "load_hf_spec sets the path"
        args = Qwen2Args.read(config.model_args)
        self.device = config.device or args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        checkpoint = args.find(spec.path)
        self.dtype = args.dtype or ("float32" if self.device.startswith("cpu") else "bfloat16")
        model = load_model(
            checkpoint,
            dtype=self.dtype,
            device=self.device,
            yarn_factor=args.yarn_factor,
            dual_chunk=args.dual_chunk_of(Qwen2Config.from_hf(checkpoint)),
        )
        assert spec.max_length is not None, "a checkpoint declares its length"
        self.tokenizer, self.max_length, self.n_parameters = (
            spec.tokenizer,
            spec.max_length,
            model.config.n_parameters,
        )
        self._defaults = generation_defaults(str(checkpoint))
        self._lm = Qwen2LM(
            Engine(model, _engine_options(config, args)),
            spec.tokenizer,
            max_length=spec.max_length,
            max_gen_toks=spec.max_gen_toks,
            defaults=self._defaults,
            add_bos_token=args.add_bos_token,
            thinking=spec.thinking,
        )
        self._thinking = spec.thinking
        self._weights = fingerprint_checkpoint(spec.path, revision=args.revision)
        self._context = repr((model.config.yarn, model.config.dual_chunk))
        self._args = {k: v for k, v in config.model_args.items() if k not in RESOLVED_ARGS}

    def identity(self) -> Identity:
        """Return weights, versions, dtype and the arguments that can change an answer."""
        return {
            "backend": self.name,
            "engine": ENGINE_VERSION,
            "lm_eval": version("lm_eval"),
            "torch": torch.__version__,
            "weights": self._weights,
            "dtype": self.dtype,
            "context": self._context,
            "ends": str(sorted(self._lm.end_ids)),
            "args": stable_args(self._args),
            **fingerprint_files(self._args),
            "generation_config": stable_args(self._defaults),
            **thoughts_identity(self._thinking),
        }

    def usage(self) -> Mapping[str, int]:
        """Return the tokens that were asked for and those that went through the layers."""
        stats = self._lm.engine.stats
        return {"n_tokens_asked": stats.n_tokens_asked, "n_tokens_computed": stats.n_tokens_computed}

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer all requests."""
        return self.answer_some(requests, range(len(requests)))

    def answer_some(self, requests: Sequence[Request], wanted: Sequence[int]) -> Iterator[AnswerBatch]:
        """Answer the wanted requests; all of them show where prefixes are shared."""
        if not wanted:
            return iter(())
        kinds = {"generate_until": self._generate, "loglikelihood": self._score, "loglikelihood_rolling": self._roll}
        return kinds[requests[0].kind](requests, wanted)

    def _score(self, requests: Sequence[Request], wanted: Sequence[int]) -> Iterator[AnswerBatch]:
        asked: list[ScoreRequest] = []
        sources: list[int] = []
        refused: AnswerBatch = []
        for index, request in enumerate(requests):
            try:
                asked.append(self._lm.scoring(request.context, request.continuation))
                sources.append(index)
            except ValueError as err:
                refused.append((index, Answer(error=str(err))))
        chosen = set(wanted)
        if refused := [pair for pair in refused if pair[0] in chosen]:
            yield refused
        for batch in self._lm.engine.score(asked, wanted=[i for i, source in enumerate(sources) if source in chosen]):
            yield [
                (
                    sources[i],
                    Answer(error=got.reason) if isinstance(got, Failure) else Answer(got.logprob, got.is_greedy),
                )
                for i, got in batch
            ]

    def _roll(self, requests: Sequence[Request], wanted: Sequence[int]) -> Iterator[AnswerBatch]:
        """Score texts in windows; a text is done when its last window is."""
        windows: list[ScoreRequest] = []
        sources: list[int] = []
        chosen = set(wanted)
        for index, request in enumerate(requests):
            own = self._lm.rolling_windows(request.context)
            windows += own
            sources += [index] * len(own)
            if not own and index in chosen:
                yield [(index, Answer(logprob=0.0))]
        left = Counter(sources)
        sums: dict[int, float] = defaultdict(float)
        errors: dict[int, str] = {}
        for batch in self._lm.engine.score(windows, wanted=[i for i, index in enumerate(sources) if index in chosen]):
            done: AnswerBatch = []
            for i, got in batch:
                index = sources[i]
                left[index] -= 1
                if isinstance(got, Failure):
                    errors[index] = got.reason
                else:
                    sums[index] += got.logprob
                if not left[index]:
                    failed = errors.get(index)
                    done.append((index, Answer(error=failed) if failed else Answer(logprob=sums[index])))
            if done:
                yield done

    def _generate(self, requests: Sequence[Request], wanted: Sequence[int]) -> Iterator[AnswerBatch]:
        asked: list[tuple[GenerateRequest, AnswerEnd]] = []
        sources: list[int] = []
        chosen = set(wanted)
        for index, request in enumerate(requests):
            try:
                asked.append(self._lm.generation(request.context, request.gen_kwargs or {}, seed=request.seed))
                sources.append(index)
            except ValueError as err:
                if index in chosen:
                    yield [(index, Answer(error=str(err)))]
        generations, places = [g for g, _ in asked], [i for i, index in enumerate(sources) if index in chosen]
        for batch in self._lm.engine.generate(generations, wanted=places):
            yield [(sources[i], self._text_answer(got, asked[i][1])) for i, got in batch]

    def _text_answer(self, got: Generated | Failure, end: AnswerEnd) -> Answer:
        if isinstance(got, Failure):
            return Answer(error=got.reason)
        text, reason = end.read(got.tokens, has_ended=got.finish_reason == "stop")
        n_tokens = len(self.tokenizer.encode(text, add_special_tokens=False))
        return Answer(response=text, finish_reason=reason, n_response_tokens=n_tokens)


def _engine_options(config: RunConfig, args: Qwen2Args) -> EngineOptions:
    return EngineOptions(
        kv_bytes=None if args.kv_memory_gb is None else int(args.kv_memory_gb * 1e9),
        pass_tokens=args.pass_tokens,
        max_running=None if config.batch_size == "auto" else int(config.batch_size),
    )
