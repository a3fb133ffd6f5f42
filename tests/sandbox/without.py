"""Runs a command on a kernel that lacks something, by a seccomp filter like those of container engines.

`without.py namespaces,landlock COMMAND…`
"""

import ctypes
import os
import struct
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NAMESPACE_FLAGS = 0x7E020000
UNSHARE, CLONE, CLONE3, CREATE_RULESET = 272, 56, 435, 444  # x86-64


def build(missing):
    code = [(0x20, 0, 0, 0)]
    if "landlock" in missing:
        code += [(0x15, 0, 1, CREATE_RULESET), (0x06, 0, 0, ERRNO | 38)]
    if "namespaces" in missing:
        code += [(0x15, 0, 1, UNSHARE), (0x06, 0, 0, ERRNO | 1), (0x15, 0, 1, CLONE3), (0x06, 0, 0, ERRNO | 38)]
        code += [(0x15, 0, 4, CLONE), (0x20, 0, 0, 16), (0x45, 0, 1, NAMESPACE_FLAGS), (0x06, 0, 0, ERRNO | 1)]
        code += [(0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *line) for line in [*code, (0x06, 0, 0, ALLOW)])


def main():
    program = build(sys.argv[1].split(","))
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.c_char_p(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, filter_, 0, 0) == 0
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # a command of the tests


if __name__ == "__main__":
    main()
