"""A small real OpenAI-compatible server around a tiny random Qwen2, which can be told to misbehave.

    folder = save_tiny_model(tmp_path / "model")
    with serve_openai(folder) as server:
        server.misbehave(500, at={3, 7})              # the 3rd and 7th POST, counted from 1, retries included
        server.misbehave("null_content", prompt_contains="Q17")
        ... server.completions_url, server.chat_url, server.model ...

Served: POST /v1/completions (text or token ids; echo and logprobs as vLLM gives them), POST /v1/chat/completions,
GET /v1/models. Answers depend on nothing but the request.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

Fault = (
    int
    | Literal["timeout", "closed_connection", "bad_json", "no_choices", "empty_text", "null_content", "content_filter"]
    | Literal["cut_thought", "cut_thought_alone", "thought_part", "text_parts", "refusal", "no_text"]
    | Literal["no_echo", "zeros", "nan", "one_missing"]
)
"""An int is an HTTP status (429 comes with Retry-After: 0); "timeout" holds the answer back until the server closes.
The last line concerns log-probabilities; "one_missing" leaves out the generated token's."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Rule:
    """When to misbehave, and how."""

    fault: Fault
    at: Collection[int] | None
    prompt_contains: str | None

    def applies_to(self, number: int, prompt: str) -> bool:
        """Tell whether the `number`-th POST is meant; a rule without conditions means every one."""
        return (self.at is None or number in self.at) and (
            self.prompt_contains is None or self.prompt_contains in prompt
        )


@dataclass
class TinyServer:
    """The running server: its addresses, what was asked of it, and its faults."""

    model: str
    origin: str
    loaded: Any
    tokenizer: Any
    api_key: str | None
    max_model_len: int | None
    delay_seconds: float
    script: Callable[[str], str] | None = None
    """Prompt -> answer; None: the model answers."""
    about: dict[str, Any] = field(default_factory=dict)
    """Further keys of its entry in /v1/models; `created` is another number each time, as vLLM gives it."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The JSON bodies of all POSTs, in order of arrival."""
    n_most_at_once: int = 0
    _n_at_once: int = 0
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _model_lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def completions_url(self) -> str:
        """The base_url for local-completions."""
        return f"{self.origin}/v1/completions"

    @property
    def chat_url(self) -> str:
        """The base_url for local-chat-completions."""
        return f"{self.origin}/v1/chat/completions"

    def misbehave(self, fault: Fault, *, at: Collection[int] | None = None, prompt_contains: str | None = None) -> None:
        """Add a fault for POSTs by number (from 1, counted since the last `reset`) or by a text in the prompt."""
        self._rules.append(Rule(fault, at, prompt_contains))

    def reset(self) -> None:
        """Forget all faults and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
            self.n_most_at_once = 0

    def start_request(self, body: dict[str, Any]) -> Fault | None:
        """Record a POST and return the fault that it meets."""
        with self._lock:
            self.requests.append(body)
            self._n_at_once += 1
            self.n_most_at_once = max(self.n_most_at_once, self._n_at_once)
            number, prompt = len(self.requests), self.prompt_text(body)
            fault = next((rule.fault for rule in self._rules if rule.applies_to(number, prompt)), None)
        if fault == "timeout":
            self._closing.wait()
        time.sleep(self.delay_seconds)
        return fault

    def end_request(self) -> None:
        """Count a POST as answered."""
        with self._lock:
            self._n_at_once -= 1

    def prompt_text(self, body: Mapping[str, Any]) -> str:
        """Return the prompt of a completion or the messages of a chat as text."""
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return prompt
        if prompt:
            return str(self.tokenizer.decode(prompt[0]))
        return "\n".join(message["content"] for message in body.get("messages", []))

    def complete(self, body: Mapping[str, Any], *, is_chat: bool) -> dict[str, Any]:
        """Answer one request with the model."""
        prompt_ids = self._prompt_ids(body)
        with self._model_lock, torch.inference_mode():
            if self.script is None:
                token_ids, text, finish_reason = self._generate(prompt_ids, body)
            else:
                token_ids, text, finish_reason = [], self.script(self.prompt_text(body)), "stop"
            choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
            if is_chat:
                choice["message"] = {"role": "assistant", "content": text}
            else:
                choice["text"] = self.tokenizer.decode(prompt_ids) + text if body.get("echo") else text
                choice["logprobs"] = self._logprobs(prompt_ids, token_ids, body)
        n_prompt, n_generated = len(prompt_ids), len(token_ids)
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_generated, "total_tokens": n_prompt + n_generated}
        return {"id": "tiny", "object": "completion", "model": self.model, "choices": [choice], "usage": usage}

    def _prompt_ids(self, body: Mapping[str, Any]) -> list[int]:
        prompt = body.get("prompt")
        if prompt is None:
            prompt = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt, add_special_tokens=False).input_ids)
        assert len(prompt) == 1, "one prompt a request"
        return list(prompt[0])

    def _generate(self, prompt_ids: list[int], body: Mapping[str, Any]) -> tuple[list[int], str, str]:
        """Return the new tokens, their text before any stop string, and why it ended."""
        temperature = float(body.get("temperature") or 0)
        rng = torch.Generator().manual_seed(int(body.get("seed") or 0))
        token_ids: list[int] = []
        text = ""
        while len(token_ids) < int(body.get("max_tokens", 16)):
            logits = self.loaded(torch.tensor([prompt_ids + token_ids])).logits[0, -1]
            if temperature > 0:
                token = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=rng))
            else:
                token = int(logits.argmax())
            token_ids.append(token)
            if token == self.tokenizer.eos_token_id:
                return token_ids, text, "stop"
            text = self.tokenizer.decode(token_ids)
            for stop in body.get("stop") or []:
                if stop in text:
                    return token_ids, text.split(stop)[0], "stop"
        return token_ids, text, "length"

    def _logprobs(
        self, prompt_ids: list[int], token_ids: list[int], body: Mapping[str, Any]
    ) -> dict[str, list[Any]] | None:
        if body.get("logprobs") is None:
            return None
        all_ids = prompt_ids + token_ids
        log_probs = torch.log_softmax(self.loaded(torch.tensor([all_ids])).logits[0], -1)
        names = self.tokenizer.convert_ids_to_tokens(all_ids)
        chosen: list[float | None] = [None]
        top: list[dict[str, float] | None] = [None]
        for position, token in enumerate(all_ids[1:]):
            value, best = log_probs[position].max(-1)
            chosen.append(float(log_probs[position, token]))
            top.append({self.tokenizer.convert_ids_to_tokens(int(best)): float(value), names[position + 1]: chosen[-1]})  # type: ignore[dict-item]
        start = 0 if body.get("echo") else len(prompt_ids)
        return {"tokens": names[start:], "token_logprobs": chosen[start:], "top_logprobs": top[start:]}


@contextmanager
def serve_openai(
    folder: Path,
    *,
    api_key: str | None = None,
    max_model_len: int | None = None,
    delay_seconds: float = 0.0,
    model: str | None = None,
    script: Callable[[str], str] | None = None,
) -> Iterator[TinyServer]:
    """Serve the checkpoint in `folder` on a free loopback port while the block runs.

    Args:
        folder: as `save_tiny_model` makes it.
        api_key: other keys, or none, get 401.
        max_model_len: what /v1/models tells; None leaves it out, as servers other than vLLM do.
        delay_seconds: added to each answer.
        model: the served name; the folder's path if None, so that it also names the tokenizer.
        script: prompt -> answer, instead of the model.
    """
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), _RequestHandler)
    http_server.daemon_threads = True
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    server = TinyServer(
        model=model or str(folder),
        origin=f"http://127.0.0.1:{http_server.server_port}",
        loaded=loaded.eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        api_key=api_key,
        max_model_len=max_model_len,
        delay_seconds=delay_seconds,
        script=script,
    )
    http_server.tiny = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    # Otherwise each connection's thread makes a pool of its own for matrices of 32 columns: 50 times slower.
    n_torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    thread.start()
    try:
        yield server
    finally:
        torch.set_num_threads(n_torch_threads)
        server._closing.set()
        http_server.shutdown()
        http_server.server_close()
        thread.join()


class _RequestHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Head and body are two packets, and Nagle would hold the second back for 40 ms.
    disable_nagle_algorithm = True

    @property
    def _tiny(self) -> TinyServer:
        return self.server.tiny  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        """Answer /v1/models and refuse the rest."""
        if self.path != "/v1/models":
            return self._send(404, {"error": {"message": f"no page {self.path}"}})
        entry: dict[str, Any] = {"id": self._tiny.model, "object": "model"}
        entry |= {"created": time.time_ns(), **self._tiny.about}
        if self._tiny.max_model_len is not None:
            entry["max_model_len"] = self._tiny.max_model_len
        return self._send(200, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:
        """Answer a completion or chat, well or badly."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self._send(404, {"error": {"message": f"no page {self.path}"}})
        key = self._tiny.api_key
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            return self._send(401, {"error": {"message": f"wrong key: {self.headers['Authorization']}"}})
        try:
            return self._answer(body, self._tiny.start_request(body))
        except (BrokenPipeError, ConnectionResetError):
            # The client gave up on a late answer.
            self.close_connection = True
            return None
        finally:
            self._tiny.end_request()

    def _answer(self, body: dict[str, Any], fault: Fault | None) -> None:
        if isinstance(fault, int):
            return self._send(fault, {"error": {"message": f"told to answer {fault}"}})
        if fault in ("closed_connection", "timeout"):
            self.close_connection = True
            return None
        is_chat = self.path == "/v1/chat/completions"
        if fault == "no_echo":
            body = {key: value for key, value in body.items() if key not in ("echo", "logprobs")}
        content = self._tiny.complete(body, is_chat=is_chat)
        _spoil(content["choices"][0], fault)
        if fault == "no_choices":
            del content["choices"]
        return self._send(200, content, is_cut=fault == "bad_json")

    def _send(self, status: int, content: Mapping[str, Any], *, is_cut: bool = False) -> None:
        data = json.dumps(content).encode()
        if is_cut:
            data = data[: len(data) // 2]
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


_MESSAGES: dict[Any, tuple[str, dict[str, Any]]] = {
    "cut_thought_alone": ("length", {"role": "assistant", "reasoning_content": "Hm, is it"}),
    "thought_part": (
        "stop",
        {"content": [{"type": "thinking", "thinking": "Is it 7?"}, {"type": "text", "text": "7"}]},
    ),
    "text_parts": ("stop", {"content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "7"}]}),
    "refusal": ("stop", {"content": None, "refusal": "I can't say that."}),
    "no_text": ("stop", {"role": "assistant"}),
}
"""Messages as servers send them, and why they stopped."""


def _spoil(choice: dict[str, Any], fault: Fault | None) -> None:
    """Change a good answer into the one that `fault` names."""
    if fault in ("empty_text", "null_content"):
        text = "" if fault == "empty_text" else None
        choice.update({"message": {"role": "assistant", "content": text}} if "message" in choice else {"text": text})
        if fault == "null_content":
            choice["finish_reason"] = "stop"
    elif fault == "cut_thought":
        choice["finish_reason"] = "length"
        choice["message"] = {"role": "assistant", "content": None, "reasoning_content": "Hm, is it"}
    elif fault in _MESSAGES:
        choice["finish_reason"], choice["message"] = _MESSAGES[fault]
    elif fault == "content_filter":
        choice["finish_reason"] = "content_filter"
    elif fault in ("zeros", "nan"):
        n_tokens = len(choice["logprobs"]["token_logprobs"])
        choice["logprobs"]["token_logprobs"] = [0.0 if fault == "zeros" else float("nan")] * n_tokens
    elif fault == "one_missing":
        for values in choice["logprobs"].values():
            values.pop()


def save_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Save a random two-layer Qwen2 and a byte-level tokenizer with a chat template, and return `folder`.

    Greedy answers are readable and never end by themselves: `max_tokens` or a stop string ends them.
    """
    tokenizer = _byte_tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # Large enough that no two tokens tie and that greedy text varies.
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = Qwen2ForCausalLM(config)
    is_readable = [token.isascii() or token in ("Ġ", "Ċ") for token in tokenizer.convert_ids_to_tokens(range(256))]
    with torch.no_grad():
        # A logit of 0 is far from the largest: greedy text is of readable characters, one to four a token.
        model.lm_head.weight[:256][~torch.tensor(is_readable)] = 0
        model.lm_head.weight[-len(tokenizer.all_special_ids) :] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    """Return a tokenizer with a token for each byte and a few merges, so that text has several encodings."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n")]
    vocab = {token: number for number, token in enumerate([*alphabet, *(left + right for left, right in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
