"""Manners that the libraries we stand on don't have by themselves: silence, and no network when it is forbidden."""

import contextlib
import ipaddress
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

from qwen2eval.errors import ConfigError

NOISY = (
    "lm_eval",
    "datasets",
    "transformers",
    "huggingface_hub",
    "accelerate",
    "torch",
    "httpx",
    "urllib3",
    "filelock",
)
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")

TRUE_WORDS = ("1", "ON", "YES", "TRUE")
"""What huggingface_hub reads as yes."""


@contextmanager
def prepared_libraries(*, offline: bool) -> Iterator[None]:
    """Run the block with the libraries quiet and, if asked, the network forbidden."""
    with quiet_libraries(), forbid_network() if offline else contextlib.nullcontext():
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log lines, warnings and bars of the libraries off stderr; `LMEVAL_LOG_LEVEL` brings the log lines back."""
    if os.environ.get("LMEVAL_LOG_LEVEL"):
        yield
        return
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        # datasets logs what it raises, too: a broken file would be told twice
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "datasets" else logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(_nowhere()):
            warnings.simplefilter("ignore")
            with _no_bars():
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@cache
def _nowhere() -> TextIO:
    """Return a file that swallows text; never closed, since log handlers made meanwhile keep it."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Switch off the bars of libraries that the caller has imported already; the others read the variables."""
    with contextlib.ExitStack() as back:
        datasets, transformers = sys.modules.get("datasets"), sys.modules.get("transformers.utils.logging")
        if datasets is not None and not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            back.callback(datasets.enable_progress_bars)
        if transformers is not None and transformers.is_progress_bar_enabled():
            transformers.disable_progress_bar()
            back.callback(transformers.enable_progress_bar)
        yield


@contextmanager
def forbid_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine, and tell the hub libraries not to try.

    Connections to loopback stay possible for model servers on this machine; `connect` and name look-ups of anything
    else raise `ConfigError`.
    """
    _import_urllib3_without_socket()
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> Any:
        _refuse_remote(self.family, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> Any:
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_loopback(host):
            raise ConfigError(
                f"--offline: something asked for the address of {host!r}; run without --offline to allow it"
            )
        return lookup(host, *args, **kwargs)

    socket.socket.connect, socket.socket.connect_ex = guarded_connect, guarded_connect_ex  # type: ignore[method-assign,assignment]
    socket.getaddrinfo = guarded_lookup
    try:
        with hub_libraries_offline():
            yield
    finally:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex  # type: ignore[method-assign]
        socket.getaddrinfo = lookup


@contextmanager
def hub_libraries_offline() -> Iterator[None]:
    """Run the block with the hub's libraries told that there is no network: they look into their caches only."""
    before = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    _switch_loaded_libraries(offline=True)
    try:
        yield
    finally:
        # the user's own variables may have said the same
        _switch_loaded_libraries(offline=any((value or "0").upper() in TRUE_WORDS for value in before.values()))
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refuse_remote(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise ConfigError(f"--offline: something tried to connect to {address[0]!r}; run without --offline to allow it")


def _is_loopback(host: Any) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host if isinstance(host, str) else host.decode()).is_loopback
    except ValueError:
        return False


def _import_urllib3_without_socket() -> None:
    """Keep urllib3 from binding a socket on ::1 when it is imported, to see whether there is IPv6: assume that."""
    if "urllib3.util.connection" in sys.modules:
        return
    has_ipv6, socket.has_ipv6 = socket.has_ipv6, False
    try:
        from urllib3.util import connection
    finally:
        socket.has_ipv6 = has_ipv6
    connection.HAS_IPV6 = has_ipv6


def _switch_loaded_libraries(*, offline: bool) -> None:
    """Libraries read the offline variables once, at import; set the copies of those that are imported already."""
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    if config := sys.modules.get("datasets.config"):
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = offline  # type: ignore[attr-defined]
