"""`local-completions` and `local-chat-completions`: a model behind an OpenAI-compatible server.

Payloads, token encoding and stop strings are lm-eval's own (`lm_eval.models.openai_completions`), so a server is asked
the same questions. Where we differ from it:

- every answer is handed over as it arrives, and one bad request does not affect other requests (see `client.py`);
- an answer without text is an error, not "", unless `max_gen_toks` cut it; so is a prompt that `max_gen_toks` would
  push out of `max_length`;
- before the first log-likelihoods a short prompt checks that the server scores prompts at all: many ignore `echo`, and
  lm-eval then sums nothing and reports 0.0 for each choice, which is chance;
- `max_length` is not 2048 but what the server or the tokenizer says (`open_lm`);
- stop strings are cut here too: some servers leave them in the text, and lm-eval sends only the first four to a chat;
  a model that thinks is sent none, because they would end its thought;
- `max_retries` counts the attempts after the first, and the model's EOS string is a stop string at any `num_concurrent`
  (lm-eval drops it above 1).
"""

import copy
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from qwen2eval.backends.api.args import check_model_args, headers_and_secrets, open_lm, positive_int
from qwen2eval.backends.api.client import ApiClient, Connection, FailedRequestError, answer_in_threads
from qwen2eval.backends.api.served import served_identity
from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.backends.chat_template import template_of, without_system_role
from qwen2eval.backends.fingerprint import thoughts_identity
from qwen2eval.backends.lm_eval_calls import rolling_tokens
from qwen2eval.backends.pairs import encode_pair
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.generation import applied
from qwen2eval.redact import public_url
from qwen2eval.requests import Answer, FinishReason, GenKwargs, Request, is_sampled
from qwen2eval.thoughts import Thinking

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
}
_PROBE = Request("loglikelihood", "Three apples and two apples", " are five apples.")


class ApiBackend(Backend):
    """A model behind the HTTP API of OpenAI: completions or chat completions."""

    may_change = True

    def __init__(self, name: str, model_args: Mapping[str, object], *, batch_size: int | str = 1) -> None:
        """Check the arguments and load the tokenizer.

        The server is asked for its longest context (GET …/v1/models, `max_model_len` as vLLM gives it) unless
        `max_length` is in `model_args`; otherwise the model's config and tokenizer are asked. If none declares it,
        `max_length` is None: prompts are sent whole and the server decides.

        Args:
            name: "local-completions" or "local-chat-completions".
            model_args: as lm-eval's: `base_url`, `model`, `tokenizer`, `num_concurrent`, `max_retries`, `timeout` …
            batch_size: requests always go one by one; above 1 it is the default of `num_concurrent`.

        Raises:
            ModelError: an argument is missing, unknown or wrong, or the tokenizer can't be loaded.
            BackendError: the server was asked for its longest context and can't be reached.
        """
        args = check_model_args(name, model_args)
        n_batch = batch_size if isinstance(batch_size, int) else 1
        n_threads = positive_int("num_concurrent", args.get("num_concurrent", max(1, n_batch)))
        headers, secrets = headers_and_secrets(args)
        is_verified = args.get("verify_certificate", True)
        self.name = name
        self._args = args
        self._client = ApiClient(
            url=args["base_url"],
            headers=headers,
            verify=args.get("ca_cert_path") or True if is_verified else False,
            timeout_seconds=positive_int("timeout", args.get("timeout", 300)),
            max_retries=positive_int("max_retries", args.get("max_retries", 3), lowest=0),
            n_threads=n_threads,
            secrets=secrets,
        )
        self._lm, self.max_length = open_lm(name, args, self._client)
        self._is_chat = name == "local-chat-completions"
        self.tokenizer = self._lm.tokenizer if self._lm.tokenizer_backend == "huggingface" else None
        template = None if self.tokenizer is None or self._is_chat else template_of(self.tokenizer, {})
        self.has_system_role = template is None or template.has_system_role
        self.thinking = Thinking.read(args)
        """How thoughts are recognised; opening the model's spec adds what its template says."""
        self._knows_thinking: bool | None = None
        self._encode_lock = threading.Lock()
        self._is_probed = False

    def identity(self) -> Identity:
        """Return the served model's name and address, what the server says of it, and all that shapes the requests.

        No key, header or query is in it.

        Raises:
            BackendError: the server can't be reached.
        """
        lm = self._lm
        return {
            "backend": self.name,
            "model": lm.model,
            "server": public_url(self._client.url),
            "tokenizer": (self._args.get("tokenizer") or lm.model) if self.tokenizer is not None else None,
            "tokenizer_backend": lm.tokenizer_backend,
            "revision": self._args.get("revision"),
            "tokenized_requests": bool(lm.tokenized_requests),
            "add_bos_token": bool(lm.add_bos_token),
            "custom_prefix_token_id": lm.custom_prefix_token_id,
            # Without a tokenizer nothing is cut, and what the server says on one day must not decide the key.
            "max_length": self.max_length if lm.tokenizer is not None else None,
            "max_gen_toks": lm._max_gen_toks,
            "eos_string": lm.eos_string,
            "seed": lm._seed,
            "think_end_token": self.thinking.end,
            "lm_eval_version": version("lm-eval"),
            **thoughts_identity(self.thinking),
            "served": self._served,
        }

    @cached_property
    def _served(self) -> str:
        return served_identity(self._args["base_url"], self._lm.model, self._client)

    def apply_chat_template(self, history: Sequence[Mapping[str, object]], add_generation_prompt: bool = True) -> str:
        """Render `history` as a context: the tokenizer's template for completions, the messages as JSON for a chat.

        Raises:
            ModelError: completions without a tokenizer or with one that has no chat template.
        """
        import jinja2

        messages: list[dict[str, Any]] = [dict(message) for message in history]
        if self._is_chat:
            return json.dumps(messages, ensure_ascii=False)
        if not self.has_system_role:
            messages = without_system_role(messages)
        tokenizer = self._lm.tokenizer
        advice = "Use --model local-chat-completions, where the server applies it, or leave out --apply_chat_template."
        if not hasattr(tokenizer, "apply_chat_template"):
            raise ModelError(f"{self.name} has no tokenizer to apply a chat template with. {advice}")
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt}
        if self.tokenizer is not None:
            options |= {"tokenize": False, "continue_final_message": not add_generation_prompt}
        try:
            return str(tokenizer.apply_chat_template(messages, **options))
        except (ValueError, jinja2.TemplateError) as err:
            raise ModelError(f"The tokenizer of {self._lm.model!r} can't render this chat: {err}. {advice}") from err

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer `requests` with `num_concurrent` threads, one HTTP request each (rolling: one each window)."""
        if not requests:
            return
        kind = requests[0].kind
        if any(request.kind != kind for request in requests):
            raise ValueError("requests of one call must be of one kind")
        if kind == "generate_until":
            ask = self._generate
        else:
            self._probe()
            ask = self._loglikelihood if kind == "loglikelihood" else self._loglikelihood_rolling
        yield from answer_in_threads(
            lambda index, connection: ask(requests[index], connection), len(requests), client=self._client
        )

    # generation

    @property
    def _thinks(self) -> bool | None:
        """Whether the model thinks, so that stop strings can't be sent; None: no answer has shown it yet.

        The template of a chat is the server's: until an answer has ended by itself, no stop strings are sent to one.
        """
        if self.thinking.is_off or not self._is_chat:
            return self.thinking.is_expected or bool(self._knows_thinking)
        return self.thinking.is_expected or self._knows_thinking

    @_thinks.setter
    def _thinks(self, value: bool) -> None:
        self._knows_thinking = value

    def _generate(self, request: Request, connection: Connection) -> Answer:
        """Ask for one answer; stop strings go along only where they can't end a thought."""
        sends_stops = self._thinks is False and not self.thinking.is_inside(request.context)
        answer, has_ended = self._generate_once(request, connection, sends_stops=sends_stops)
        found = self.thinking.split(answer.response or "", prompt=request.context)
        if sends_stops and found.is_open and answer.finish_reason != "length":
            # It thinks after all, and a stop string may have ended the thought
            answer, _ = self._generate_once(request, connection, sends_stops=False)
        if found.thought:
            self._thinks = True
        elif self._thinks is None and has_ended:
            self._thinks = False
        return answer

    def _generate_once(self, request: Request, connection: Connection, *, sends_stops: bool) -> tuple[Answer, bool]:
        """Return an answer, and whether the server says that it ended by itself."""
        # A copy: lm-eval's `_create_payload` takes keys out of it
        try:
            gen_kwargs = copy.deepcopy(applied(request.gen_kwargs or {}, {}))
        except ValueError as err:
            raise FailedRequestError(str(err)) from err
        until = gen_kwargs.pop("until", None) or []
        # Before the payload is made, which drops all but the first four stop strings of a chat
        until = [until] if isinstance(until, str) else list(until)
        payload = self._lm._create_payload(
            self._generation_prompt(request.context, gen_kwargs),
            generate=True,
            gen_kwargs={**gen_kwargs, "until": list(until) if sends_stops else []},
            seed=request.seed if is_sampled(request.gen_kwargs or {}) else self._lm._seed,
            eos=self._lm.eos_string,
        )
        if not payload.get("stop"):
            # An empty list means the same, but `transformers serve` answers it with 500.
            payload.pop("stop", None)
        outputs = connection.post(payload)
        choice = _first_choice(outputs)
        finish_reason = _read_finish_reason(choice)
        text = self._read_text(choice, finish_reason)
        ends = [self._lm.eos_string] if self._lm.eos_string else []
        found = self.thinking.split(
            text, prompt=request.context, until=until, ends=ends, may_begin_inside=self._is_chat and not sends_stops
        )
        usage = outputs.get("usage")
        n_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        answer = Answer(
            response=found.thought + found.answer,
            finish_reason="stop" if found.is_stopped else finish_reason,
            n_response_tokens=n_tokens if isinstance(n_tokens, int) else None,
        )
        return answer, finish_reason == "stop"

    def _generation_prompt(self, context: str, gen_kwargs: GenKwargs) -> Any:
        lm = self._lm
        if self._is_chat:
            return _read_messages(context)
        if not lm.tokenized_requests:
            return context
        with self._encode_lock:
            token_ids = lm.tok_encode(context, add_special_tokens=lm.add_bos_token)
        n_generated = int(gen_kwargs.get("max_tokens", gen_kwargs.get("max_gen_toks", lm._max_gen_toks)))
        n_left = lm.max_length - n_generated
        if n_left < 1:
            raise FailedRequestError(
                f"max_gen_toks {n_generated} leaves no room for the prompt in max_length {self.max_length}: lower "
                "max_gen_toks with --gen_kwargs"
            )
        return [token_ids[-n_left:]]

    def _read_text(self, choice: Mapping[str, object], finish_reason: FinishReason | None) -> str:
        """Return a choice's text, its reasoning before it where the server gives that apart.

        A text that is not there because max_gen_toks ended the reasoning is an answer that was cut.
        """
        message = choice.get("message") if self._is_chat else choice
        field = "content" if self._is_chat else "text"
        if not isinstance(message, dict):
            raise FailedRequestError(f"the server's answer has no {field!r}")
        # Servers that leave out what is null have no field where there is no text
        reasoning, said = message.get("reasoning_content") or message.get("reasoning"), message.get(field)
        if isinstance(said, list):
            said, thought = _join_parts(said)
            reasoning = reasoning or thought
        if said is None and isinstance(message.get("refusal"), str):
            said = message["refusal"]
        if said is not None and not isinstance(said, str):
            raise FailedRequestError(f"the server's {field!r} is not text but {type(said).__name__}")
        if field not in message and said is None and not reasoning and finish_reason != "length":
            raise FailedRequestError(f"the server's answer has no {field!r}")
        if isinstance(reasoning, str) and reasoning:
            is_open = said is None or (not said and finish_reason == "length")
            return f"<think>{reasoning}" + ("" if is_open else f"{self.thinking.end or '</think>'}{said}")
        if said is None and finish_reason != "length":
            raise FailedRequestError(f"the server returned no text (finish_reason {choice.get('finish_reason')!r})")
        return said or ""

    # log-likelihoods

    def _loglikelihood(self, request: Request, connection: Connection) -> Answer:
        with self._encode_lock:
            context_ids, continuation_ids = self._encode(request)
        logprob, is_greedy = self._score(context_ids, continuation_ids, connection)
        return Answer(logprob=logprob, is_greedy=is_greedy)

    def _loglikelihood_rolling(self, request: Request, connection: Connection) -> Answer:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        lm = self._lm
        with self._encode_lock:
            token_ids, prefix_id = rolling_tokens(lm, request.context), lm.prefix_token_id
        windows = get_rolling_token_windows(
            token_list=token_ids, prefix_token=prefix_id, max_seq_len=lm.max_length - 1, context_len=1
        )
        logprob = 0.0
        for window in windows:
            context_ids, continuation_ids = make_disjoint_window(window)
            logprob += self._score(context_ids, continuation_ids, connection)[0]
        return Answer(logprob=logprob)

    def _encode(self, request: Request) -> tuple[list[int], list[int]]:
        """Split a request into context and continuation tokens, as `TemplateLM.loglikelihood` does."""
        lm = self._lm
        if request.context:
            context_ids, continuation_ids = encode_pair(lm, request.context, request.continuation)
        else:
            continuation_ids = lm.tok_encode(request.continuation, add_special_tokens=False)
            context_ids = [lm.prefix_token_id]
            if continuation_ids[:1] == context_ids:
                context_ids, continuation_ids = continuation_ids[:1], continuation_ids[1:]
        if not continuation_ids:
            raise FailedRequestError(f"the continuation {request.continuation!r} has no separate token to score")
        return context_ids, continuation_ids

    def _score(
        self, context_ids: list[int], continuation_ids: list[int], connection: Connection
    ) -> tuple[float, bool | None]:
        """Return the continuation's log-probability and whether it is greedy (None: the server doesn't say)."""
        lm = self._lm
        # Cut at the beginning: the end of the context is what the continuation follows
        n_cut = max(0, len(context_ids) + len(continuation_ids) - lm.max_length)
        n_context = len(context_ids) - n_cut
        if n_context < 1:
            raise FailedRequestError(
                f"the continuation's {len(continuation_ids)} tokens leave no room for a prompt in max_length "
                f"{self.max_length}"
            )
        token_ids = (context_ids + continuation_ids)[n_cut:]
        payload = lm._create_payload(lm.create_message([token_ids]), generate=False, seed=lm._seed)
        logprobs = _first_choice(connection.post(payload)).get("logprobs") or {}
        token_logprobs = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        n_returned = len(token_logprobs) if isinstance(token_logprobs, list) else 0
        # Servers add the one token that they must generate, unless it is the end of the text.
        if n_returned not in (len(token_ids), len(token_ids) + 1):
            raise FailedRequestError(
                f"the server returned {n_returned} log-probabilities for a prompt of {len(token_ids)} tokens"
                + ("" if n_returned <= 1 else "; it splits the text into other tokens than our tokenizer")
            )
        return self._sum_logprobs(logprobs, n_context, len(token_ids))

    def _sum_logprobs(self, logprobs: Mapping[str, Any], n_context: int, n_tokens: int) -> tuple[float, bool | None]:
        token_logprobs = logprobs["token_logprobs"][:n_tokens]
        if not all(_is_number(logprob) for logprob in token_logprobs[n_context:]):
            return math.nan, None
        top_logprobs = logprobs.get("top_logprobs") or []
        # Without the top tokens the sum is known, but not whether decoding would have chosen them
        if len(top_logprobs) < n_tokens or not all(top_logprobs[n_context:n_tokens]):
            return float(sum(token_logprobs[n_context:])), None
        # lm-eval drops the last entry as the generated token.
        trimmed = {"token_logprobs": [*token_logprobs, None], "top_logprobs": [*top_logprobs[:n_tokens], None]}
        outputs = {"choices": [{"index": 0, "logprobs": trimmed}]}
        logprob, is_greedy = self._lm.parse_logprobs(outputs, ctxlens=[n_context])[0]
        return float(logprob), bool(is_greedy)

    def _probe(self) -> None:
        """Check once, on a short prompt, that this server scores prompts.

        Raises:
            BackendError: it doesn't, or there is no tokenizer to cut the prompt with.
        """
        if self._is_chat:
            raise BackendError(
                "Chat completions have no log-probabilities of a prompt, which multiple-choice and perplexity tasks "
                "need. Use --model local-completions with a base_url ending in /v1/completions, or --model hf or vllm."
            )
        if self._lm.tokenizer is None:
            raise BackendError(
                f"{self.name} needs a tokenizer for log-likelihoods: add tokenizer=FOLDER_OR_HUB_NAME to --model_args "
                "and leave out tokenizer_backend=None."
            )
        if self._is_probed:
            return
        try:
            with self._client.connect() as connection:
                logprob = self._loglikelihood(_PROBE, connection).logprob
        except FailedRequestError as err:
            raise self._no_prompt_logprobs(str(err)) from err
        if logprob == 0:
            raise self._no_prompt_logprobs("every log-probability is 0")
        self._is_probed = True

    def _no_prompt_logprobs(self, reason: str) -> BackendError:
        advice = " If it takes no token ids, add tokenized_requests=False." if self._lm.tokenized_requests else ""
        return BackendError(
            f"The server at {public_url(self._client.url)} did not score a short test prompt: {reason}. Log-likelihood "
            "tasks need a server that returns the log-probabilities of the prompt for echo=true, logprobs=1 on "
            "/v1/completions: vLLM does; llama.cpp's llama-server and `transformers serve` ignore echo. Use such a "
            f"server, --model hf or vllm, or a task that generates.{advice}"
        )


def _read_messages(context: str) -> list[dict[str, Any]]:
    """Return the chat that `apply_chat_template` put in `context`; plain text becomes one user message.

    >>> _read_messages("What is 2 + 3?")
    [{'role': 'user', 'content': 'What is 2 + 3?'}]
    """
    try:
        messages = json.loads(context)
    except ValueError:
        messages = None
    if isinstance(messages, list) and messages and all(isinstance(item, dict) and "role" in item for item in messages):
        return messages
    return [{"role": "user", "content": context}]


def _join_parts(parts: list[Any]) -> tuple[str | None, str]:
    """Return the text and the thought of a `content` in parts; the text is None if no part has one.

    >>> _join_parts([{"type": "thinking", "thinking": "Is it 7?"}, {"type": "text", "text": "7"}])
    ('7', 'Is it 7?')
    """
    texts, thoughts = list[str](), list[str]()
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise FailedRequestError(f"a part of the server's 'content' is not text but {type(part).__name__}")
        kind = str(part.get("type", "text"))
        is_thought = "think" in kind or "reason" in kind
        said = next((part[name] for name in ("text", "thinking", "reasoning", "refusal", kind) if part.get(name)), "")
        # Mistral's thoughts have parts of their own
        said = "".join(filter(None, _join_parts(said))) if isinstance(said, list) else said
        if isinstance(said, str):
            (thoughts if is_thought else texts).append(said)
    return "".join(texts) if texts else None, "".join(thoughts)


def _first_choice(outputs: Mapping[str, object]) -> dict[str, Any]:
    choices = outputs.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise FailedRequestError("the server's answer has no 'choices'")
    return next((choice for choice in choices if choice.get("index") == 0), choices[0])


def _read_finish_reason(choice: Mapping[str, Any]) -> FinishReason | None:
    reason = choice.get("finish_reason")
    if reason is not None and reason not in _FINISH_REASONS:
        raise FailedRequestError(f"the server stopped for another reason than stop or length: {reason!r}")
    return None if reason is None else _FINISH_REASONS[reason]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)
