"""No connection beyond this machine, where it is forbidden, and the hub's libraries set to offline mode."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qwen2eval.errors import ConfigError

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")

_Address = tuple[Any, ...] | str | bytes
"""As `socket.connect` takes it: (host, port, …), or the path of a Unix socket."""
TRUE_WORDS = ("1", "ON", "YES", "TRUE")
"""What huggingface_hub reads as yes."""


@contextmanager
def forbid_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine, and set the hub's libraries to offline mode.

    Connections to loopback stay possible for model servers on this machine; `connect` and name look-ups of anything
    else raise `ConfigError`.
    """
    _import_urllib3_without_socket()
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: _Address) -> Any:
        _refuse_remote(self.family, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: _Address) -> Any:
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_lookup(host: str | bytes | None, *args: Any, **kwargs: Any) -> Any:
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
    """Run the block with the hub's libraries in offline mode: they use only their caches."""
    before = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    _switch_loaded_libraries(offline=True)
    try:
        yield
    finally:
        # The user's own variables may have said the same
        _switch_loaded_libraries(offline=any((value or "0").upper() in TRUE_WORDS for value in before.values()))
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refuse_remote(family: int, address: _Address) -> None:
    is_internet = family in (socket.AF_INET, socket.AF_INET6)
    if is_internet and isinstance(address, tuple) and not _is_loopback(address[0]):
        raise ConfigError(f"--offline: something tried to connect to {address[0]!r}; run without --offline to allow it")


def _is_loopback(host: str | bytes | None) -> bool:
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
