"""Manners that the libraries we stand on don't have by themselves: silence, and no network when it is forbidden."""

import contextlib
import ipaddress
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log lines, warnings and bars of the libraries off stderr; `LMEVAL_LOG_LEVEL` brings the log lines back."""
    if os.environ.get("LMEVAL_LOG_LEVEL"):
        yield
        return
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def forbid_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine, and tell the hub libraries not to try.

    Connections to loopback stay possible for model servers on this machine; `connect` and name look-ups of anything
    else raise `ConfigError`.
    """
    before = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    _switch_loaded_libraries(offline=True)
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
        yield
    finally:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex  # type: ignore[method-assign]
        socket.getaddrinfo = lookup
        _switch_loaded_libraries(offline=False)
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


def _switch_loaded_libraries(*, offline: bool) -> None:
    """Libraries read the offline variables once, at import; set the copies of those that are imported already."""
    import sys

    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    if config := sys.modules.get("datasets.config"):
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = offline  # type: ignore[attr-defined]
