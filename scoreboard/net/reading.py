"""How a Socket is read: one half of `trio.abc.Stream`.

Bytes come from what is played back first, then from the descriptor; a ReadinessWatcher tells when there are some, or Trio does.

Tested in tests/net/test_sockets.py.
"""

import os
import socket as stdlib_socket
from contextlib import suppress

import trio

from scoreboard.net.poller import ReadinessWatcher

# a read takes no more; http1 relies on it: a head that came in one read is within its limit of 16 KiB
READ_BYTES = 8_192

_read = os.read  # the module's seam


class Readable(trio.abc.ReceiveStream):
    """What a Socket is to whoever reads it. A base class only because the two halves need not know each other; closing
    is the Socket's."""

    __slots__ = ("_sock", "fd", "received", "source", "unread_buffer")

    def __init__(self, sock: stdlib_socket.socket) -> None:
        self._sock = sock
        self.fd = sock.fileno()  # -1 once closed
        self.source: ReadinessWatcher | None = None  # tells when there is something to read; without one Trio is asked
        # read before anything from the descriptor: the rebuilt head of an upgrade and what followed it
        self.unread_buffer = b""
        # bytes read from the descriptor; inbound limits count here, pings and empty fragments never become messages
        self.received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, b"" at the end. Cancelling loses nothing. Raises ClosedResourceError (we closed) or
        BrokenResourceError."""
        size = READ_BYTES if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        if self.unread_buffer:
            await trio.lowlevel.checkpoint()
            played, self.unread_buffer = self.unread_buffer[:size], self.unread_buffer[size:]
            return played
        await self.wait_readable()
        while (data := self.read_now(size)) is None:
            await self.wait_readable()
        return data

    async def wait_readable(self) -> None:
        """Returns when a read is worth trying, or is no longer all there is to do. Raises ClosedResourceError.
        Cancelling loses nothing."""
        # before Trio is asked: wait_readable(-1) is a ValueError and leaves a registration that nobody removes
        if self.fd < 0:
            raise trio.ClosedResourceError
        if self.source is None:
            await trio.lowlevel.wait_readable(self.fd)
        else:
            await self.source.wait()
        if self.fd < 0:  # closed after the wake-up and before our turn
            raise trio.ClosedResourceError

    def read_now(self, size: int = READ_BYTES) -> bytes | None:
        """What the descriptor has, b"" at the end, None when it has nothing now. Raises BrokenResourceError."""
        source = self.source
        try:
            data = _read(self.fd, size)
        except BlockingIOError:  # woken for nothing
            if source is not None:
                source.drained()
            return None
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        if source is not None and len(data) < size:
            source.drained()
        self.received += len(data)
        return data

    def has_unread(self) -> bool:
        """Whether bytes wait in the kernel, or in what is played back. A connection that has ended or broken has
        none."""
        if self.fd >= 0 and not self.unread_buffer:
            with suppress(OSError):
                return bool(self._sock.recv(1, stdlib_socket.MSG_PEEK))
        return bool(self.unread_buffer)
