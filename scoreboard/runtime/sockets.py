"""One kind of socket for everything: a `trio.abc.Stream` over a non-blocking descriptor that can also be written to at once.

HTTP/1.1, trio-websocket, streams and the hub all write to the same `Socket`. Writers that may wait (`send_all`) hold a lock; `send_now`
never waits: one system call, only when nobody writes and nothing is left over. What it leaves over is finished by one task of its own;
whoever ends a time in which a `send_now` was refused calls `drained`, so that the hub can hand over what is newest.

It keeps no clock and starts no time-out: `deadline` and `patience` are plain numbers that the server's sweeper compares (`sweep`).
"""

import os
import socket as stdlib_socket
from collections.abc import Callable
from contextlib import suppress
from math import inf

import structlog
import trio

from scoreboard.runtime.poller import Source

READ_BYTES = 16_384  # a read takes no more; http1 relies on it: a head that came in one read is within its limit of 16 KiB
CLOSING_SECONDS = 2.0  # `aclose` waits this long for a rest to go out: longer than a bad line's retransmission, shorter than a shutdown
CLOSE_FRAME = b"\x88"  # first byte of an unmasked WebSocket Close frame, RFC 6455 section 5.5.1

# The module's seam: tests put a descriptor here that takes one byte at a time, or blocks when it likes.
_read, _write = os.read, os.write

log = structlog.get_logger()


class Socket(trio.abc.Stream):
    """A connected socket. Whoever accepted it closes it; closing is idempotent and makes every waiter raise `trio.ClosedResourceError`.

    `drained(socket)` is called when bytes that a `send_now` left over have gone out, and when a refused `send_now` may be tried again.
    `on_deadline()` and `on_behind()` are called by the sweeper; None closes. All three are forgotten when the socket closes.
    """

    __slots__ = (  # CPython lays them out by name: what `send_now` needs comes first, in one cache line
        "_clear",
        "_finishing",
        "_has_written",
        "_lock",
        "_nursery",
        "_quiet",
        "_refused",
        "_rest",
        "_sock",
        "behind_since",
        "deadline",
        "drained",
        "fd",
        "frames",
        "on_behind",
        "on_deadline",
        "patience",
        "peer",
        "played_back",
        "received",
        "source",
    )

    def __init__(self, sock: stdlib_socket.socket, nursery: trio.Nursery, peer: tuple[str, int] = ("", 0)) -> None:
        """`sock` is connected and non-blocking; `nursery` outlives it and runs the tasks that finish rests; `peer` as accept() told it."""
        self._clear = sock.fileno()  # the descriptor while nobody is writing and nothing is left over or forbidden, else -1
        self._has_written = False
        self._sock = sock
        self._nursery = nursery
        self._lock = trio.Lock()  # held by every writer that may wait
        self._rest = b""  # owed: what a short send_now left over (less than one message, no other is taken meanwhile), what send_all writes
        self._finishing = False  # a task is on its way that writes the rest
        self._refused = False  # a send_now was turned away: somebody waits for `drained`
        self._quiet = False  # a Close frame has gone out
        self.fd = sock.fileno()  # -1 once closed
        self.source: Source | None = None  # tells when there is something to read; without one Trio is asked
        self.peer = peer
        self.played_back = b""  # read before anything from the descriptor: the rebuilt head of an upgrade and what followed it
        self.received = 0  # bytes read from the descriptor; inbound limits count here, pings and empty fragments never become messages
        self.frames = True  # what is written are WebSocket frames, so a first byte of 0x88 is a Close; HTTP/1.1 says False
        self.deadline = inf  # trio's clock, seconds
        self.behind_since = inf  # since when it has not taken what it was sent; inf = it has
        self.patience = inf  # seconds behind before `on_behind`
        self.drained: Callable[[Socket], None] | None = None
        self.on_deadline: Callable[[], None] | None = None
        self.on_behind: Callable[[], None] | None = None

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, b"" at the end. Cancelling loses nothing. Raises ClosedResourceError (we closed) or BrokenResourceError."""
        size = READ_BYTES if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        if self.played_back:
            await trio.lowlevel.checkpoint()
            played, self.played_back = self.played_back[:size], self.played_back[size:]
            return played
        await self.wait_readable()
        while (data := self.read_now(size)) is None:
            await self.wait_readable()
        return data

    async def wait_readable(self) -> None:
        """Returns when a read is worth trying, or is no longer all there is to do. Raises ClosedResourceError. Cancelling loses nothing."""
        if self.fd < 0:  # before Trio is asked: wait_readable(-1) is a ValueError and leaves a registration that nobody removes
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
        """Whether bytes wait in the kernel, or in what is played back. A connection that has ended or broken has none."""
        if self.fd >= 0 and not self.played_back:
            with suppress(OSError):
                return bool(self._sock.recv(1, stdlib_socket.MSG_PEEK))
        return bool(self.played_back)

    # ---- writing without waiting ------------------------------------------------------------------------------------

    def send_now(self, data: bytes) -> bool:
        """True: the bytes are on their way, all of them in the end. False: not one was taken; if that was because it is behind or somebody
        else is writing, `drained` is called later."""
        fd = self._clear
        if fd < 0:
            return self._refuse()
        try:
            written = _write(fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            return False  # it has left; its reader finds out
        if written != len(data):
            return self._leave(data, written)
        self._has_written = True
        if data[:1] == CLOSE_FRAME and self.frames:
            self._quiet, self._clear = True, -1
        return True

    def _refuse(self) -> bool:
        if self._quiet or self.fd < 0:
            return False
        self._refused = True
        if self.behind_since == inf:
            self.behind_since = trio.current_time()
        return False

    def _leave(self, data: bytes, written: int) -> bool:
        """The kernel took `written` bytes of `data`, not all: a task finishes the rest, or waits until there is room again."""
        if written:
            self._rest, self._has_written = data[written:], True
            self._quiet = self.frames and data[:1] == CLOSE_FRAME
        self._finishing, self._clear = True, -1
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

    def _settle(self) -> None:
        """Called by whoever has just let go of the lock: the last of them tells that there is room again."""
        if self._finishing or self._lock.locked() or self.fd < 0:
            return
        if not self._quiet:
            self._clear = self.fd
        if self._refused:
            self._refused = False
            self.behind_since = inf
            if self.drained is not None:
                self.drained(self)

    # ---- writing and waiting ----------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when the kernel has all of it and whatever was left over before. `send_all(b"")` waits for the rest alone.

        Cancelling it, or a failure, while it writes closes the socket: what has gone out can't be taken back. After a Close frame nothing
        more is written: a reply that trio-websocket still makes then is dropped. Raises ClosedResourceError, BrokenResourceError.
        """
        async with self._lock:
            if self.fd < 0:
                raise trio.ClosedResourceError
            self._clear = -1
            if self._quiet:
                data = b""
            elif self.frames and bytes(data[:1]) == CLOSE_FRAME:
                self._quiet = True
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
        """Runs the hook of a deadline or a patience that has passed, once."""
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
        fd, self.fd, self._clear = self.fd, -1, -1
        if self.source is not None:
            self.source.close()
        trio.lowlevel.notify_closing(fd)  # one step with the -1 above: nobody can wait on the number of a descriptor that is gone
        self._sock.close()
        self._rest = self.played_back = b""
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
