"""One kind of socket for everything: a `trio.abc.Stream` over a non-blocking descriptor that can also be written to at
once.

HTTP/1.1, trio-websocket, streams and the hub all write to the same `Socket`. Writers that may wait (`send_all`) hold a
lock; `send_now` never waits: one system call, only when nobody writes and nothing is left over. What it leaves over is
finished by one task of its own; whoever ends a time in which a `send_now` was refused calls `drained`, so that the hub
can hand over what is newest. Who writes the same to thousands borrows their descriptors (`acquire_fd`, `write_to_all`).

It keeps no clock and starts no time-out: `deadline` and `patience` are plain numbers that the server's sweeper compares
(`sweep`).
"""

import os
import socket as stdlib_socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf

import structlog
import trio

from scoreboard.net.reading import Readable

# `aclose` waits this long for a rest to go out: longer than a bad line's retransmission, shorter than a shutdown
CLOSING_SECONDS = 2.0
CLOSE_FRAME = b"\x88"  # first byte of an unmasked WebSocket Close frame, RFC 6455 section 5.5.1

# the module's seam: tests put a descriptor here that takes one byte at a time, or blocks when it likes
_write = os.write

log = structlog.get_logger()


def write_to_all(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
    """Writes one message to descriptors that sockets have lent. Returns those that did not take all of it, with how
    many bytes they took; -1: the peer has left, its reader finds out."""
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
    """A connected socket. Whoever accepted it closes it; closing is idempotent and makes every waiter raise
    `trio.ClosedResourceError`.

    `drained(socket)` is called when bytes that a `send_now` or a borrower left over are out, and when a refused
    `send_now` may be tried again. `on_deadline()` and `on_behind()` are called by the sweeper; None closes. All three
    are forgotten when the socket closes.
    """

    __slots__ = (
        "_borrower",
        "_close_sent",
        "_finishing",
        "_has_written",
        "_lock",
        "_nursery",
        "_refused",
        "_rest",
        "_writable_fd",
        "behind_since",
        "deadline",
        "drained",
        "frames",
        "on_behind",
        "on_deadline",
        "patience",
        "peer",
        "peer_group",
    )

    def __init__(
        self, sock: stdlib_socket.socket, nursery: trio.Nursery, peer: tuple[str, int] = ("", 0), peer_group: str = ""
    ) -> None:
        """`sock` is connected and non-blocking; `nursery` outlives it and runs the tasks that finish rests; `peer` as
        accept() told it.

        `peer_group`: the key under which the peer's address is counted.
        """
        super().__init__(sock)
        self._writable_fd = (
            self.fd
        )  # the descriptor while nobody is writing and nothing is left over or forbidden, else -1
        self._borrower: Callable[[int], None] | None = None  # told when it is no longer clear
        self._has_written = False
        self._nursery = nursery
        self._lock = trio.Lock()  # held by every writer that may wait
        # owed: what a short send_now left over (less than one message, no other is taken meanwhile), what send_all
        # writes
        self._rest = b""
        self._finishing = False  # a task is on its way that writes the rest
        self._refused = False  # a send_now was turned away: somebody waits for `drained`
        self._close_sent = False  # a Close frame has gone out
        self.peer, self.peer_group = peer, peer_group
        # what is written are WebSocket frames, so a first byte of 0x88 is a Close; HTTP/1.1 says False
        self.frames = True
        self.deadline = inf  # trio's clock, seconds
        self.behind_since = inf  # since when it has not taken what it was sent; inf = it has
        self.patience = inf  # seconds behind before `on_behind`
        self.drained: Callable[[Socket], None] | None = None
        self.on_deadline: Callable[[], None] | None = None
        self.on_behind: Callable[[], None] | None = None

    # ---- writing without waiting ------------------------------------------------------------------------------------

    def send_now(self, data: bytes) -> bool:
        """True: the bytes are on their way, all of them in the end. False: not one was taken; if that was because it is
        behind or somebody else is writing, `drained` is called later."""
        fd = self._writable_fd
        if fd < 0:
            return self._refuse()
        try:
            written = _write(fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.release_fd()
            return False  # it has left; its reader finds out
        if written != len(data):
            return self.took(data, written)
        self._has_written = True
        if data[:1] == CLOSE_FRAME and self.frames:
            self._close_sent = True
            self._busy()
        return True

    def _refuse(self) -> bool:
        if self._close_sent or self.fd < 0:
            return False
        self._refused = True
        if self.behind_since == inf:
            self.behind_since = trio.current_time()
        return False

    def took(self, data: bytes, written: int) -> bool:
        """The kernel took `written` bytes of `data`, not all: a task finishes the rest, or waits for room. True when
        some were."""
        if written:
            self._rest, self._has_written = data[written:], True
            self._close_sent = self.frames and data[:1] == CLOSE_FRAME
        self._finishing = True
        self._busy()
        if self.behind_since == inf:
            self.behind_since = trio.current_time()
        self._nursery.start_soon(self._finish)
        return written > 0

    async def _finish(self) -> None:
        """Writes the rest, then says so. Never raises into the nursery, whatever `drained` does."""
        try:
            async with self._lock:
                if not self._rest and self.fd >= 0:
                    await trio.lowlevel.wait_writable(self.fd)
                await self._write_out(b"")
            self._finishing = False
            self._refused = True
            self._settle()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is closed now; its reader finds out
        except Exception:
            log.exception("drained failed")
            self.close()

    # ---- writing by the descriptor ----------------------------------------------------------------------------------

    def acquire_fd(self, on_fd_lost: Callable[[int], None]) -> bool:
        """True: whole messages but no Close frame may be written to `fd` directly (and `took` be told of what was left
        over), until `on_fd_lost(fd)` is called, in the step in which the socket gets busy, breaks or closes: the number
        may be another's in the next. `has_written` does not tell of them. False: it is busy, or lent already."""
        if self._writable_fd < 0 or self._borrower is not None:
            return False
        self._borrower = on_fd_lost
        return True

    def release_fd(self) -> None:
        """Ends it. Idempotent."""
        on_fd_lost, self._borrower = self._borrower, None
        if on_fd_lost is not None:
            on_fd_lost(self.fd)

    def _busy(self) -> None:
        """From now on nobody writes without waiting."""
        self._writable_fd = -1
        self.release_fd()

    def _settle(self) -> None:
        """Called by whoever has just let go of the lock: the last of them tells that there is room again."""
        if self._finishing or self._lock.locked() or self.fd < 0:
            return
        if not self._close_sent:
            self._writable_fd = self.fd
        if self._refused:
            self._refused = False
            self.behind_since = inf
            if self.drained is not None:
                self.drained(self)

    # ---- writing and waiting ----------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when the kernel has all of it and whatever was left over before. `send_all(b"")` waits for the rest
        alone.

        Cancelling it, or a failure, while it writes closes the socket: what has gone out can't be taken back. After a
        Close frame nothing more is written: a reply that trio-websocket still makes then is dropped. Raises
        ClosedResourceError, BrokenResourceError.
        """
        async with self._lock:
            if self.fd < 0:
                raise trio.ClosedResourceError
            self._busy()
            if self._close_sent:
                data = b""
            elif self.frames and bytes(data[:1]) == CLOSE_FRAME:
                self._close_sent = True
            await self._write_out(bytes(data))
        self._settle()

    async def _write_out(self, data: bytes) -> None:
        """With the lock held: the rest, then `data`."""
        self._rest += data  # until all of it is out: `aclose` asks
        left = memoryview(self._rest)
        try:
            while left:
                if self.fd < 0:
                    raise trio.ClosedResourceError
                try:
                    written = _write(self.fd, left)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.fd)
                    continue
                if not written:  # no stream socket answers so; a descriptor that does would be asked for ever
                    raise trio.BrokenResourceError
                self._has_written = True
                left = left[written:]
            self._rest = b""
        except OSError as exc:
            self.close()
            raise trio.BrokenResourceError from exc
        except BaseException:
            self.close()  # cancelled half-way, or closed by another meanwhile
            raise

    def has_written(self) -> bool:
        """Whether the kernel has taken anything since this was asked last."""
        wrote, self._has_written = self._has_written, False
        return wrote

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when the kernel has room and nobody writes."""
        try:
            async with self._lock:
                if self.fd < 0:
                    raise trio.ClosedResourceError
                await trio.lowlevel.wait_writable(self.fd)
        finally:
            self._settle()  # cancelled or not: a send_now may have been refused meanwhile

    # ---- the end ----------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Runs the hook of a deadline or a patience that has passed, once. The server asks the same before it calls."""
        if now > self.deadline:
            self.deadline = inf
            (self.on_deadline or self.close)()
        elif now - self.behind_since > self.patience:
            self.patience = inf
            (self.on_behind or self.close)()

    def shut_writing(self) -> None:
        """The peer reads an end of file; we can still read."""
        with suppress(OSError):  # it has left, or we closed: then the end is known already
            self._sock.shutdown(stdlib_socket.SHUT_WR)

    def close(self) -> None:
        """At once: waiters raise ClosedResourceError, a rest is lost. Idempotent."""
        if self.fd < 0:
            return
        self._busy()
        fd, self.fd = self.fd, -1
        if self.source is not None:
            self.source.close()
        # one step with the -1 above: nobody can wait on the number of a descriptor that is gone
        trio.lowlevel.notify_closing(fd)
        self._sock.close()
        self._rest = self.unread_buffer = b""
        self.deadline = self.behind_since = inf
        self.drained = self.on_deadline = self.on_behind = None

    async def aclose(self) -> None:
        """Closes once a rest has gone out, or after two seconds; at once when cancelled."""
        try:
            if self._rest:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(CLOSING_SECONDS):
                    await self.send_all(b"")  # it may leave before us
        finally:
            self.close()
        await trio.lowlevel.checkpoint()
