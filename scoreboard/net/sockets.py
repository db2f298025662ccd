"""One kind of socket for everything: a `trio.abc.Stream` over a non-blocking descriptor with a write that never waits.

HTTP/1.1, trio-websocket, event streams and the hub all write to the same `Socket`. There are three ways to write:

| way | waits | when the kernel takes only a part |
|---|---|---|
| `send_all` | for a lock and for the kernel | it waits until all is out |
| `send_now` | never; one system call | a task finishes the rest |
| `write_to_all`, by a borrowed descriptor | never; one system call a socket | the caller calls `finish_partial_write` |

How a descriptor is lent. The hub writes the same bytes to thousands of viewers; a loop over bare descriptors is faster
than one over objects.

1. `acquire_fd(on_fd_lost)` lends `fd` to one borrower at a time. It returns False while the socket is busy (`send_all`
   writes, a rest is left over), after a Close frame, after closing, or while the descriptor is lent already.
2. The borrower may write whole messages to `fd`, but no Close frame. `pop_has_written` does not see these writes.
3. If a write was short or would block, the borrower calls `finish_partial_write` in the same step, before any await.
4. `on_fd_lost(fd)` is called once, in the step in which the socket becomes busy, breaks or closes. From then on the
   borrower must not write: in the next step the number may be another connection's.
5. `release_fd` gives the descriptor back. It calls `on_fd_lost` too, and is idempotent.
6. When the socket is free again, `on_writable` is called if a write was refused or left a rest. The borrower acquires
   the descriptor again there.

A Socket has no clock and starts no time-out: the server's sweeper compares `deadline` and `slow_reader_timeout`.
"""

import os
import socket as stdlib_socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf

import structlog
import trio

from scoreboard.net.reading import Readable

# `aclose` waits so long until a rest is out: longer than a retransmission on a bad line, shorter than a shutdown.
CLOSE_FLUSH_SECONDS = 2.0
CLOSE_FRAME = b"\x88"  # first byte of an unmasked WebSocket Close frame, RFC 6455 section 5.5.1

# Tests replace it by a function that takes one byte at a time, or that blocks.
_write = os.write

log = structlog.get_logger()


def write_to_all(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
    """Writes one message to descriptors that sockets have lent.

    Returns those that did not take all of it, with the number of bytes that they took. -1: the peer has left, and its
    reader finds out.
    """
    write, size, short = _write, len(data), []
    for fd in fds:
        try:
            written = write(fd, data)
        except OSError as exc:
            written = 0 if isinstance(exc, BlockingIOError) else -1
        if written != size:
            short.append((fd, written))
    return short


class Socket(Readable, trio.abc.Stream):
    """A connected socket.

    1. The caller that made it closes it. Closing is idempotent. Every waiter, and every later call that could wait,
       raises `trio.ClosedResourceError`. Other errors of the system are `trio.BrokenResourceError`.
    2. `send_now` takes a message as a whole or not at all, never waits, and never comes between the parts of another
       message.
    3. `send_all` that fails or is cancelled half-way closes the socket, because the peer has a part of the message.
    4. After a WebSocket Close frame (`is_websocket` and a first byte of 0x88) nothing more is written.
    5. `on_writable(socket)` is called when what `send_now` or a borrower left over is out, and when a `send_now` that
       was refused may be tried again.
    6. `sweep` calls `on_deadline()` once `deadline` has passed, and `on_behind()` once the peer has been behind for
       `slow_reader_timeout` seconds. If the callback is None it closes the socket.
    7. Closing drops all three callbacks.
    """

    __slots__ = (
        "_close_sent",
        "_flushing",
        "_has_written",
        "_lock",
        "_nursery",
        "_on_fd_lost",
        "_writable_fd",
        "_write_buffer",
        "_write_refused",
        "behind_since",
        "deadline",
        "is_websocket",
        "on_behind",
        "on_deadline",
        "on_writable",
        "peer",
        "peer_group",
        "slow_reader_timeout",
    )

    def __init__(
        self, sock: stdlib_socket.socket, nursery: trio.Nursery, peer: tuple[str, int] = ("", 0), peer_group: str = ""
    ) -> None:
        """`sock` is connected and non-blocking. `nursery` outlives it and runs the tasks that finish partial writes.

        `peer`: as accept() named it. `peer_group`: the key under which connections of that address are counted.
        """
        super().__init__(sock)
        # The descriptor while `send_now` may write: nobody writes, nothing is left over, no Close was sent. Else -1.
        self._writable_fd = self.fd
        self._on_fd_lost: Callable[[int], None] | None = None  # set while the descriptor is lent
        self._has_written = False
        self._nursery = nursery
        self._lock = trio.Lock()  # held by every writer that may wait
        # What must go out first: the rest of a partial write, or what `send_all` writes. At most one message.
        self._write_buffer = b""
        self._flushing = False  # a task that writes the rest has been started
        self._write_refused = False  # a send_now was refused, so `on_writable` is due
        self._close_sent = False  # a Close frame has gone out
        self.peer, self.peer_group = peer, peer_group
        self.is_websocket = True  # False while it speaks HTTP/1.1, where a first byte of 0x88 is no Close frame
        self.deadline = inf  # trio's clock, seconds
        self.behind_since = inf  # trio's clock, since when bytes wait to go out; inf: none wait
        self.slow_reader_timeout = inf  # seconds
        self.on_writable: Callable[[Socket], None] | None = None
        self.on_deadline: Callable[[], None] | None = None
        self.on_behind: Callable[[], None] | None = None

    # ---- writing without waiting ------------------------------------------------------------------------------------

    def send_now(self, data: bytes) -> bool:
        """True: all of the bytes are written, now or by a task. False: none was.

        When False is because the peer is behind or another task writes, `on_writable` is called later.
        """
        fd = self._writable_fd
        if fd < 0:
            return self._refuse()
        try:
            written = _write(fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.release_fd()
            return False  # the peer has left, and its reader finds out
        if written != len(data):
            return self.finish_partial_write(data, written)
        self._has_written = True
        if data[:1] == CLOSE_FRAME and self.is_websocket:
            self._close_sent = True
            self._stop_direct_writes()
        return True

    def _refuse(self) -> bool:
        if self._close_sent or self.fd < 0:
            return False
        self._write_refused = True
        if self.behind_since == inf:
            self.behind_since = trio.current_time()
        return False

    def finish_partial_write(self, data: bytes, written: int) -> bool:
        """The kernel took `written` bytes of `data`, not all. Starts a task that writes the rest; after 0 bytes it only
        waits for room, and `data` is dropped. True when `written` is more than 0."""
        if written:
            self._write_buffer, self._has_written = data[written:], True
            self._close_sent = self.is_websocket and data[:1] == CLOSE_FRAME
        self._flushing = True
        self._stop_direct_writes()
        if self.behind_since == inf:
            self.behind_since = trio.current_time()
        self._nursery.start_soon(self._flush)
        return written > 0

    async def _flush(self) -> None:
        """Writes the rest, then calls `on_writable`. Never raises into the nursery, whatever `on_writable` does."""
        try:
            async with self._lock:
                if not self._write_buffer and self.fd >= 0:
                    await trio.lowlevel.wait_writable(self.fd)
                await self._write_locked(b"")
            self._flushing = False
            self._write_refused = True
            self._resume_direct_writes()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is closed now, and its reader finds out
        except Exception:
            log.exception("on_writable_failed", peer=self.peer[0])
            self.close()

    # ---- writing by the descriptor, see the module's contract -------------------------------------------------------

    def acquire_fd(self, on_fd_lost: Callable[[int], None]) -> bool:
        """Lends `fd` until `on_fd_lost(fd)` is called. False: the socket is busy or closed, or `fd` is lent already."""
        if self._writable_fd < 0 or self._on_fd_lost is not None:
            return False
        self._on_fd_lost = on_fd_lost
        return True

    def release_fd(self) -> None:
        """Ends the loan. Idempotent."""
        on_fd_lost, self._on_fd_lost = self._on_fd_lost, None
        if on_fd_lost is not None:
            on_fd_lost(self.fd)

    def _stop_direct_writes(self) -> None:
        """From now on neither `send_now` nor a borrower writes."""
        self._writable_fd = -1
        self.release_fd()

    def _resume_direct_writes(self) -> None:
        """Called by each writer after it has released the lock. The last one lets `send_now` write again."""
        if self._flushing or self._lock.locked() or self.fd < 0:
            return
        if not self._close_sent:
            self._writable_fd = self.fd
        if self._write_refused:
            self._write_refused = False
            self.behind_since = inf
            if self.on_writable is not None:
                self.on_writable(self)

    # ---- writing and waiting ----------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when the kernel has all of it and the rest of earlier writes. `send_all(b"")` waits for that rest.

        Cancelling it while it writes closes the socket, and so does a failure. After a Close frame `data` is dropped:
        trio-websocket may still make a reply then. Raises ClosedResourceError, BrokenResourceError.
        """
        async with self._lock:
            if self.fd < 0:
                raise trio.ClosedResourceError
            self._stop_direct_writes()
            if self._close_sent:
                data = b""
            elif self.is_websocket and bytes(data[:1]) == CLOSE_FRAME:
                self._close_sent = True
            await self._write_locked(bytes(data))
        self._resume_direct_writes()

    async def _write_locked(self, data: bytes) -> None:
        """Writes the rest, then `data`. The caller holds the lock."""
        self._write_buffer += data  # until all of it is out: `aclose` waits for it
        left = memoryview(self._write_buffer)
        try:
            while left:
                if self.fd < 0:
                    raise trio.ClosedResourceError
                try:
                    written = _write(self.fd, left)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.fd)
                    continue
                if not written:  # no stream socket returns 0; one that does would be asked for ever
                    raise trio.BrokenResourceError
                self._has_written = True
                left = left[written:]
            self._write_buffer = b""
        except OSError as exc:
            self.close()
            raise trio.BrokenResourceError from exc
        except BaseException:
            self.close()  # cancelled half-way, or closed by another task meanwhile
            raise

    def pop_has_written(self) -> bool:
        """Whether the kernel has taken anything since the last call."""
        wrote, self._has_written = self._has_written, False
        return wrote

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when the kernel has room and nobody writes. Cancelling loses nothing. Raises ClosedResourceError."""
        try:
            async with self._lock:
                if self.fd < 0:
                    raise trio.ClosedResourceError
                await trio.lowlevel.wait_writable(self.fd)
        finally:
            self._resume_direct_writes()  # cancelled or not: a send_now may have been refused meanwhile

    # ---- the end ----------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Calls `on_deadline` or `on_behind` once its time has passed. The server compares first, to save the call."""
        if now > self.deadline:
            self.deadline = inf
            (self.on_deadline or self.close)()
        elif now - self.behind_since > self.slow_reader_timeout:
            self.slow_reader_timeout = inf
            (self.on_behind or self.close)()

    def shut_writing(self) -> None:
        """Ends the writing side: the peer reads an end of file. Reading goes on."""
        with suppress(OSError):  # the peer has left or we have closed, so the end is known
            self._sock.shutdown(stdlib_socket.SHUT_WR)

    def close(self) -> None:
        """Closes at once: waiters raise ClosedResourceError, a rest is lost. Idempotent."""
        if self.fd < 0:
            return
        self._stop_direct_writes()
        fd, self.fd = self.fd, -1
        if self.watcher is not None:
            self.watcher.close()
        # In one step with the -1 above: nobody can wait on the number of a closed descriptor.
        trio.lowlevel.notify_closing(fd)
        self._sock.close()
        self._write_buffer = self.unread_buffer = b""
        self.deadline = self.behind_since = inf
        self.on_writable = self.on_deadline = self.on_behind = None

    async def aclose(self) -> None:
        """Closes once the rest is out, or after CLOSE_FLUSH_SECONDS; at once when cancelled."""
        try:
            if self._write_buffer:
                with (
                    suppress(trio.BrokenResourceError, trio.ClosedResourceError),
                    trio.move_on_after(CLOSE_FLUSH_SECONDS),
                ):
                    await self.send_all(b"")  # the peer may leave before us
        finally:
            self.close()
        await trio.lowlevel.checkpoint()
