"""Messages over a pipe: four bytes of length, then the message. Both ends of the value channel speak it."""

import os
import struct
from typing import Any

Message = dict[str, Any]
"""A JSON object that the host and a process in the sandbox send each other: a request, a job, how a process ended."""

# A little more than the codec's limit
MAX_MESSAGE_BYTES = 17 << 20

_LENGTH = struct.Struct("<I")


class ChannelError(Exception):
    """The other side closed the channel, or wrote an invalid message."""


class Channel:
    """Whole messages, read from one descriptor and written to another.

    >>> near, far = os.pipe()
    >>> Channel(near, far).send(b"L", b"")
    >>> Channel(near, far).receive()
    (b'L', b'')
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    def send(self, kind: bytes, body: bytes) -> None:
        """Write one message; `kind` is one byte.

        Raises:
            ChannelError: nobody reads any more.
        """
        data = memoryview(_LENGTH.pack(len(body) + 1) + kind + body)
        try:
            while data:
                data = data[os.write(self.write_fd, data) :]
        except OSError as err:
            raise ChannelError(str(err)) from None

    def receive(self) -> tuple[bytes, bytes]:
        """Return kind and body of the next message.

        Raises:
            ChannelError: the other side is gone, or writes no messages.
        """
        n_bytes = int(_LENGTH.unpack(self._read(4))[0])
        if not 1 <= n_bytes <= MAX_MESSAGE_BYTES:
            raise ChannelError("the channel carried an invalid message")
        message = self._read(n_bytes)
        return message[:1], message[1:]

    def _read(self, n_bytes: int) -> bytes:
        parts = []
        while n_bytes:
            try:
                part = os.read(self.read_fd, min(n_bytes, 1 << 16))
            except OSError as err:
                raise ChannelError(str(err)) from None
            if not part:
                raise ChannelError("closed")
            parts.append(part)
            n_bytes -= len(part)
        return b"".join(parts)


def read_all(fd: int) -> bytes:
    """Return all bytes of a file from its start, and close it."""
    parts = []
    at = 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    os.close(fd)
    return b"".join(parts)
