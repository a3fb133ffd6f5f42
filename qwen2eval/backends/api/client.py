"""HTTP to an OpenAI-compatible server: one request at a time, retried where that can help, from a few threads.

lm-eval retries every error, a wrong key included, and ends the whole run after the third. Here a failure is one of
three: it may pass (connection lost, time-out, 408, 409, 425, 429, 5xx: tried again, longer apart each time), it
concerns this request alone (`FailedRequestError`: other requests continue), or nothing more can be answered
(`BackendError`).
"""

import email.utils
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3.exceptions

from qwen2eval.backends.base import AnswerBatch
from qwen2eval.errors import BackendError
from qwen2eval.redact import public_url
from qwen2eval.requests import Answer

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 300.0
FAILURES_BEFORE_GIVING_UP = 20
"""Requests in a row, each with its retries used up, after which a server that has answered before counts as gone."""
FAILURES_BEFORE_FIRST_ANSWER = 3
"""The same for a server that has never answered."""

_EXCERPT_LENGTH = 300
_REFUSED_STATUSES = frozenset({401, 403, 404, 405})
_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
# 500 is not here: some servers answer it to one prompt, and still answer the next.
_UNAVAILABLE_STATUSES = frozenset({429, 502, 503, 504})
_CONNECTION_ERRORS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_ADVICE = {
    401: "Set OPENAI_API_KEY (or auth_token in --model_args) to a key that the server accepts.",
    403: "Set OPENAI_API_KEY (or auth_token in --model_args) to a key that may use this model.",
    404: "Check that base_url ends in /v1/completions or /v1/chat/completions, and that the server has this model.",
    405: "Check that base_url ends in /v1/completions or /v1/chat/completions.",
}


class FailedRequestError(Exception):
    """One request that gets no answer; the message becomes `Answer.error`."""


class _StoppedError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """One failed attempt."""

    reason: str
    can_pass: bool = False
    """Worth another attempt."""
    is_unavailable: bool = False
    """Says something about the server, not about the request."""
    retry_after_seconds: float | None = None


@dataclass(eq=False)
class ApiClient:
    """What is known of one server, shared by all threads that talk to it."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    verify: bool | str = True
    """As in `requests`: check the certificate, or the path of a CA file."""
    timeout_seconds: float = 300
    max_retries: int = 3
    """Attempts after the first."""
    n_threads: int = 1
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that never appear in a message."""
    _has_answered: bool = field(default=False, init=False)
    _n_failures_in_a_row: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def connect(self, stop: threading.Event | None = None) -> "Connection":
        """Open a connection for one thread; `stop` ends its waiting between attempts."""
        return Connection(self, stop or threading.Event())

    def note_answer(self) -> None:
        """Remember that the server works."""
        with self._lock:
            self._has_answered = True
            self._n_failures_in_a_row = 0

    def note_failure(self, failure: _Failure) -> None:
        """Count a request that failed for good.

        Raises:
            BackendError: too many in a row failed for the server's sake.
        """
        with self._lock:
            # A refused prompt proves that the server runs
            if not failure.is_unavailable:
                self._n_failures_in_a_row = 0
                return
            self._n_failures_in_a_row += 1
            # When a server restarts, the requests of all threads fail together: twice their number is no end yet
            patience = max(FAILURES_BEFORE_GIVING_UP, 2 * self.n_threads)
            if self._n_failures_in_a_row >= (patience if self._has_answered else FAILURES_BEFORE_FIRST_ANSWER):
                raise BackendError(
                    f"{self._n_failures_in_a_row} requests in a row to {public_url(self.url)} failed, the last one "
                    f"with: {failure.reason}. Check that the server still runs, then run the same command again: what "
                    "was answered is kept."
                )

    def fail_at_the_door(self, failure: _Failure, *, status: int | None = None) -> None:
        """Raise BackendError if the server has never answered: such a failure then concerns every request."""
        with self._lock:
            if self._has_answered:
                return
        advice = _ADVICE.get(status or 0, "Check that the server runs and that base_url is right.")
        raise BackendError(f"No answer from the server at {public_url(self.url)}: {failure.reason}. {advice}")

    def redact(self, text: str) -> str:
        """Blank out keys that a server repeats in its messages."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


class Connection:
    """One thread's connection to the server; a context manager."""

    def __init__(self, client: ApiClient, stop: threading.Event) -> None:
        self._client = client
        self._stop = stop
        self._session = requests.Session()
        self._session.headers.update(client.headers)
        # Proxies and CA file of the environment are looked up here, not again for each request, which is slow.
        # Without trust_env, ~/.netrc does not replace our key either.
        settings = self._session.merge_environment_settings(client.url, {}, None, client.verify, None)
        self._session.proxies, self._session.verify = settings["proxies"], settings["verify"]
        self._session.trust_env = False

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def post(self, payload: Mapping[str, object]) -> dict[str, Any]:
        """Send one request, again where that can help, and return the server's JSON object.

        Raises:
            FailedRequestError: this request gets no answer.
            BackendError: no request would.
        """
        n_attempts = 0
        while not self._stop.is_set():
            n_attempts += 1
            outcome = self._attempt(payload)
            if not isinstance(outcome, _Failure):
                self._client.note_answer()
                return outcome
            # `max_retries` counts the attempts after the first
            if not outcome.can_pass or n_attempts > self._client.max_retries:
                self._client.note_failure(outcome)
                raise FailedRequestError(outcome.reason + (f" (tried {n_attempts} times)" if n_attempts > 1 else ""))
            self._stop.wait(_delay_seconds(outcome, n_attempts))
        raise _StoppedError

    def get(self, url: str) -> Any:
        """Return the JSON that a GET gives, None if it is anything but a good answer.

        Raises:
            BackendError: the server can't be reached.
        """
        try:
            response = self._session.get(url, timeout=self._client.timeout_seconds)
        except _CONNECTION_ERRORS as err:
            self._client.fail_at_the_door(_connection_failure(err, self._client.timeout_seconds))
            return None
        except requests.RequestException as err:
            raise BackendError(f"No request can be sent to {public_url(url)}: {type(err).__name__}.") from err
        try:
            # The models page is optional in this API: a server without it is not broken
            return response.json() if response.ok else None
        except ValueError:
            return None

    def _attempt(self, payload: Mapping[str, object]) -> dict[str, Any] | _Failure:
        client = self._client
        try:
            response = self._session.post(client.url, json=payload, timeout=client.timeout_seconds)
        except _CONNECTION_ERRORS as err:
            failure = _connection_failure(err, client.timeout_seconds)
            if not failure.can_pass or _never_connected(err):
                client.fail_at_the_door(failure)
            return failure
        except requests.RequestException as err:
            raise BackendError(
                f"No request can be sent to {public_url(client.url)}: {type(err).__name__}. Check base_url and the key."
            ) from err
        if not response.ok:
            failure = _status_failure(response, client.redact(_excerpt(response)))
            if response.status_code in _REFUSED_STATUSES:
                client.fail_at_the_door(failure, status=response.status_code)
            return failure
        return _read_object(response, client)


def answer_in_threads(
    answer_one: Callable[[int, Connection], Answer], n_requests: int, *, client: ApiClient
) -> Iterator[AnswerBatch]:
    """Answer requests 0 … n_requests-1 with `client.n_threads` threads, yielding what is ready.

    No thread takes more than one request at a time, and none runs ahead of a caller who has stopped listening: closing
    the generator ends the threads at their next step. They are daemons, so that Ctrl-C never waits for a slow server.
    """
    stop = threading.Event()
    indices = iter(range(n_requests))
    take = threading.Lock()
    # No more threads than requests: the rest would start for nothing
    n_threads = min(client.n_threads, n_requests)
    # Twice the threads: after a stop there is room for the last word of each, so that none waits here for ever.
    ready: queue.Queue[tuple[int, Answer] | BaseException] = queue.Queue(maxsize=max(1, 2 * n_threads))

    def work() -> None:
        with client.connect(stop) as connection:
            while not stop.is_set():
                with take:
                    index = next(indices, None)
                if index is None:
                    return
                try:
                    ready.put((index, _answer_or_error(answer_one, index, connection)))
                except _StoppedError:
                    return
                except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
                    ready.put(err)
                    return

    for number in range(n_threads):
        threading.Thread(target=work, name=f"qwen2eval-api-{number}", daemon=True).start()
    try:
        n_answered = 0
        while n_answered < n_requests:
            batch, failure = _take_ready(ready)
            n_answered += len(batch)
            if batch:
                yield batch
            if failure is not None:
                raise failure
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()


def _answer_or_error(answer_one: Callable[[int, Connection], Answer], index: int, connection: Connection) -> Answer:
    try:
        return answer_one(index, connection)
    except FailedRequestError as err:
        return Answer(error=str(err))


def _take_ready(ready: "queue.Queue[tuple[int, Answer] | BaseException]") -> tuple[AnswerBatch, BaseException | None]:
    """Wait for one result, then take all that are there, up to the first failure."""
    batch: AnswerBatch = []
    result = ready.get()
    while True:
        if isinstance(result, BaseException):
            return batch, result
        batch.append(result)
        try:
            result = ready.get_nowait()
        except queue.Empty:
            return batch, None


def _delay_seconds(failure: _Failure, n_attempts: int) -> float:
    if failure.retry_after_seconds is not None:
        # What a server asks for is obeyed, but never for hours
        return min(failure.retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS)
    return min(FIRST_DELAY_SECONDS * 2.0 ** (n_attempts - 1), LONGEST_DELAY_SECONDS)


def _connection_failure(err: Exception, timeout_seconds: float) -> _Failure:
    if isinstance(err, requests.exceptions.SSLError):
        reason = "its certificate can't be checked (ca_cert_path=FILE or verify_certificate=False in --model_args)"
        return _Failure(reason, is_unavailable=True)
    if isinstance(err, requests.Timeout):
        return _Failure(f"no answer within {timeout_seconds:g} seconds", can_pass=True, is_unavailable=True)
    return _Failure(f"connection failed: {_root_cause(err)}", can_pass=True, is_unavailable=True)


def _never_connected(err: Exception) -> bool:
    """Distinguish a server that isn't there from one that hung up; `requests` has one exception for both."""
    return isinstance(err, requests.ConnectionError) and any(
        isinstance(arg, urllib3.exceptions.MaxRetryError) for arg in err.args
    )


def _root_cause(err: BaseException) -> str:
    """Return the system's own words for a failed connection, without the URL around them."""
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        err, cause = cause, cause.__cause__ or cause.__context__
    return str(err) or type(err).__name__


def _status_failure(response: requests.Response, excerpt: str) -> _Failure:
    status = response.status_code
    return _Failure(
        f"HTTP {status} {response.reason or ''}".rstrip() + (f": {excerpt}" if excerpt else ""),
        can_pass=status in _RETRIED_STATUSES or status >= 500,
        is_unavailable=status in _UNAVAILABLE_STATUSES or status in _REFUSED_STATUSES,
        retry_after_seconds=_retry_after_seconds(response.headers.get("Retry-After")),
    )


def _excerpt(response: requests.Response) -> str:
    """Return the start of the server's message, from its JSON where it has some."""
    text = response.text
    try:
        content = response.json()
    except ValueError:
        content = None
    if isinstance(content, dict):
        error = content.get("error", content.get("detail", content.get("message")))
        text = str(error.get("message", error) if isinstance(error, dict) else error or text)
    return " ".join(text.split())[:_EXCERPT_LENGTH]


def _retry_after_seconds(header: str | None) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _read_object(response: requests.Response, client: ApiClient) -> dict[str, Any] | _Failure:
    try:
        content = response.json()
    except ValueError:
        return _Failure(f"the server's answer is not JSON: {client.redact(_excerpt(response))!r}")
    if not isinstance(content, dict):
        return _Failure(f"the server's answer is not a JSON object but {type(content).__name__}")
    if "choices" not in content and "error" in content:
        return _Failure(f"the server answered with an error: {client.redact(_excerpt(response))}")
    return content
