"""How a Socket is read: one half of `trio.abc.Stream`.

Bytes come from `unread_buffer` first, then from the descriptor. A ReadinessWatcher waits until the descriptor is
readable; a Socket without one waits by Trio.

Tested in tests/net/test_sockets.py.
"""

import os
import socket as stdlib_socket
from contextlib import suppress

import trio

from scoreboard.net.poller import ReadinessWatcher

# The most that one read returns. http.parser relies on it: a head that came in one read is within its limit of 16 KiB.
READ_BYTES = 8_192

_read = os.read  # tests replace it


class Readable(trio.abc.ReceiveStream):
    """The reading half of a Socket, a base class because the two halves need not know each other. `Socket` closes."""

    __slots__ = ("_sock", "fd", "received", "unread_buffer", "watcher")

    def __init__(self, sock: stdlib_socket.socket) -> None:
        self._sock = sock
        self.fd = sock.fileno()  # -1 once closed
        self.watcher: ReadinessWatcher | None = None  # None: Trio waits for the descriptor
        # Read before anything from the descriptor: the rebuilt head of an upgrade and what followed it.
        self.unread_buffer = b""
        # Bytes read from the descriptor. Inbound limits count these, as pings and empty fragments make no messages.
        self.received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, b"" at the end. Cancelling loses nothing.

        Raises ClosedResourceError when we have closed, BrokenResourceError when the connection broke.
        """
        size = READ_BYTES if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        if self.unread_buffer:
            await trio.lowlevel.checkpoint()
            unread, self.unread_buffer = self.unread_buffer[:size], self.unread_buffer[size:]
            return unread
        await self.wait_readable()
        while (data := self.read_now(size)) is None:
            await self.wait_readable()
        return data

    async def wait_readable(self) -> None:
        """Returns when a read is worth trying, or when the watcher's waiter was woken for another reason.

        Cancelling loses nothing. Raises ClosedResourceError.
        """
        # Checked first: trio's wait_readable(-1) raises ValueError and leaves a registration that nobody removes.
        if self.fd < 0:
            raise trio.ClosedResourceError
        if self.watcher is None:
            await trio.lowlevel.wait_readable(self.fd)
        else:
            await self.watcher.wait()
        if self.fd < 0:  # closed between the wake-up and this task's turn
            raise trio.ClosedResourceError

    def read_now(self, size: int = READ_BYTES) -> bytes | None:
        """What the descriptor has, b"" at the end, None when it has nothing now. Raises BrokenResourceError."""
        watcher = self.watcher
        try:
            data = _read(self.fd, size)
        except BlockingIOError:  # a spurious wake-up
            if watcher is not None:
                watcher.mark_drained()
            return None
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        if watcher is not None and len(data) < size:
            watcher.mark_drained()
        self.received += len(data)
        return data

    def has_unread(self) -> bool:
        """Whether bytes wait in the kernel or in `unread_buffer`. A connection that has ended or broken has none."""
        if self.fd >= 0 and not self.unread_buffer:
            with suppress(OSError):
                return bool(self._sock.recv(1, stdlib_socket.MSG_PEEK))
        return bool(self.unread_buffer)
