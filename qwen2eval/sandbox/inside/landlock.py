"""Landlock: which files a process may open, without privileges (https://docs.kernel.org/userspace-api/landlock.html).

Rights that are not granted are refused for every path, whatever its mode. It also stops TCP (ABI 4) and, towards
processes outside, abstract sockets and signals (ABI 6). It does not cover `stat`, modes and times of files.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
READ = READ_FILE | READ_DIR
_TRUNCATE = 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12, 1 << 13
READ_WRITE = READ | WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
USE_DEVICE = READ_FILE | WRITE_FILE | _TRUNCATE
_OF_FILES = READ_FILE | WRITE_FILE | _TRUNCATE
_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_TCP, _SCOPED = 3, 3  # bind and connect; abstract sockets and signals

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Return the kernel's Landlock version, 0 where it has none or it is switched off."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def make_ruleset(grants: Iterable[tuple[str | int, int]], *, abi: int) -> int:
    """Return the descriptor of a ruleset that allows only `grants`: pairs of path (or descriptor) and rights.

    Paths that do not exist are passed over: nothing is granted by leaving them out.

    Raises:
        OSError: the kernel refused.
    """
    handled = _RIGHTS_OF_ABI[min(abi, 5)]
    attribute = struct.pack("<QQQ", handled, _TCP if abi >= 4 else 0, _SCOPED if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _call(_CREATE, ctypes.c_char_p(attribute), ctypes.c_size_t(size), ctypes.c_uint(0))
    for path, rights in grants:
        try:
            at = path if isinstance(path, int) else os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            allowed = rights & handled if stat.S_ISDIR(os.fstat(at).st_mode) else rights & handled & _OF_FILES
            if allowed:
                rule = struct.pack("<Qi", allowed, at)
                _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.c_char_p(rule), ctypes.c_uint(0))
        finally:
            if not isinstance(path, int):
                os.close(at)
    return ruleset


def restrict_self(ruleset: int) -> None:
    """Put the calling thread, and all that it starts, under the ruleset. Needs PR_SET_NO_NEW_PRIVS.

    Raises:
        OSError: the kernel refused.
    """
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
