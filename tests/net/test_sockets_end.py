"""The Socket's contract: writers that wait, nothing after a Close, closing, deadlines, slow readers, lending."""

import errno
import os
from collections.abc import Awaitable, Callable
from math import inf

import pytest
import trio
import trio.testing

from scoreboard.net import sockets
from scoreboard.net.sockets import Socket
from tests.net.pairs import CLOSE, FILL, Write, fill, paired, read, until

# ---- send_all --------------------------------------------------------------------------------------------------------


async def test_writers_take_turns() -> None:
    """Messages of writers that wait never mix."""
    async with paired() as (socket, peer), trio.open_nursery() as nursery:
        for letter in (b"a", b"b", b"c"):
            nursery.start_soon(socket.send_all, letter * 100_000)
        data = await read(peer, 300_000)
        assert all(len(set(data[at : at + 100_000])) == 1 for at in range(0, 300_000, 100_000))


async def test_a_cancelled_send_all_closes() -> None:
    """The peer has a part of the message, so nothing may follow it."""
    async with paired() as (socket, peer):
        with trio.move_on_after(0.01):
            await socket.send_all(FILL)
        assert socket.fd == -1
        received = b""
        while more := await peer.receive_some():
            received += more
        assert len(received) < len(FILL)


async def test_a_failed_send_all_closes(writes: Callable[[Write], None]) -> None:
    """The same when the write fails half-way."""

    def fail(fd: int, data: bytes) -> int:
        if len(data) == 10:
            return os.write(fd, data[:3])
        raise OSError(errno.EIO, "broken")

    writes(fail)
    async with paired() as (socket, _):
        with pytest.raises(trio.BrokenResourceError):
            await socket.send_all(b"0123456789")
        assert socket.fd == -1


async def test_cancelled_before_its_turn() -> None:
    """A send_all that is cancelled while another writes has written nothing, and closes nothing."""
    async with paired() as (socket, peer), trio.open_nursery() as nursery:
        nursery.start_soon(socket.send_all, FILL)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01):
            await socket.send_all(b"never")
        assert await read(peer, len(FILL)) == FILL
        await socket.send_all(b"more")
        assert await read(peer, 4) == b"more"


# ---- Close -----------------------------------------------------------------------------------------------------------


async def by_send_all(socket: Socket) -> None:
    await socket.send_all(CLOSE)


async def by_send_now(socket: Socket) -> None:
    assert socket.send_now(CLOSE)


@pytest.mark.parametrize("close", [by_send_all, by_send_now])
async def test_nothing_after_a_close(close: Callable[[Socket], Awaitable[None]]) -> None:
    """Once a Close frame has gone out no tick follows it, and no reply of trio-websocket's either."""
    async with paired() as (socket, peer):
        await close(socket)
        assert not socket.send_now(b"tick")
        await socket.send_all(b"pong")
        await socket.send_all(CLOSE)
        socket.close()
        assert await peer.receive_some(100) == CLOSE
        assert await peer.receive_some(100) == b""


async def test_a_close_that_is_written_in_parts(writes: Callable[[Write], None]) -> None:
    """A Close of which the kernel took a byte is finished, and is the last."""
    writes(lambda fd, data: os.write(fd, data[:1]))
    async with paired() as (socket, peer):
        assert socket.send_now(CLOSE)
        assert not socket.send_now(b"tick")
        await socket.send_all(b"pong")
        await socket.aclose()
        assert await read(peer, 4) == CLOSE
        assert await peer.receive_some(1) == b""


async def test_a_close_that_was_refused_is_none() -> None:
    """After a Close that did not go out, writes go on."""
    async with paired() as (socket, peer):
        assert socket.send_now(FILL)
        assert not socket.send_now(CLOSE)
        assert await read(peer, len(FILL)) == FILL
        await until(lambda: socket.behind_since == inf)
        assert socket.send_now(b"tick")


async def test_bytes_of_http_are_no_frames() -> None:
    """A body that begins with the byte of a Close frame is a body."""
    async with paired() as (socket, peer):
        socket.is_websocket = False
        await socket.send_all(b"\x88body")
        assert socket.send_now(b"\x88body")
        assert socket.send_now(b"next")
        assert await read(peer, 14) == b"\x88body\x88bodynext"


async def test_closing_waits_for_the_rest() -> None:
    """`aclose` lets a rest go out first."""
    async with paired() as (socket, peer), trio.open_nursery() as nursery:
        assert socket.send_now(FILL)
        nursery.start_soon(socket.aclose)
        assert await read(peer, len(FILL)) == FILL
        assert await peer.receive_some(1) == b""


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aclose` gives a peer that does not read a little time."""
    monkeypatch.setattr(sockets, "CLOSE_FLUSH_SECONDS", 0.01)
    async with paired() as (socket, _):
        assert socket.send_now(FILL)
        await socket.aclose()
        assert socket.fd == -1


# ---- the sweeper -----------------------------------------------------------------------------------------------------


async def test_deadline() -> None:
    """A deadline that has passed runs its callback once; without one it closes, and the reader raises."""
    called: list[str] = []
    async with paired() as (socket, _), trio.open_nursery() as nursery:
        socket.on_deadline = lambda: called.append("deadline")
        socket.sweep(1e9)
        assert not called
        socket.deadline = 100.0
        for now in (99.0, 101.0, 102.0):
            socket.sweep(now)
        assert called == ["deadline"]

        async def reader() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await socket.receive_some()

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        socket.on_deadline, socket.deadline = None, 100.0
        socket.sweep(101.0)
        assert socket.fd == -1
        socket.sweep(102.0)


async def test_behind() -> None:
    """A peer that is behind for longer than `slow_reader_timeout` has the callback run once; one that has caught up
    does not."""
    called: list[str] = []
    async with paired() as (socket, peer):
        socket.on_behind, socket.slow_reader_timeout = lambda: called.append("behind"), 4.0
        socket.sweep(trio.current_time() + 1e9)
        assert socket.send_now(FILL)
        since = socket.behind_since
        assert await read(peer, len(FILL)) == FILL
        await until(lambda: socket.behind_since == inf)
        socket.sweep(since + 5)
        assert not called
        assert socket.send_now(FILL)
        for after in (3.9, 4.1, 5):
            socket.sweep(socket.behind_since + after)
        assert called == ["behind"]
        socket.on_behind, socket.slow_reader_timeout = None, 4.0
        socket.sweep(socket.behind_since + 5)
        assert socket.fd == -1


# ---- lending the descriptor ------------------------------------------------------------------------------------------


async def test_a_lent_descriptor_is_written_to_directly() -> None:
    """One borrower at a time, until `release_fd`; writes that do not wait change nothing."""
    returned: list[int] = []
    async with paired() as (socket, peer):
        assert socket.acquire_fd(returned.append)
        assert not socket.acquire_fd(returned.append)
        assert sockets.write_to_all([socket.fd], b"abc") == []
        assert socket.send_now(b"def")
        assert await read(peer, 6) == b"abcdef"
        assert returned == []
        socket.release_fd()
        socket.release_fd()
        assert returned == [socket.fd]
        assert socket.acquire_fd(returned.append)


@pytest.mark.parametrize("way", ["send_all", "close", "a Close frame", "a short write", "a full buffer"])
async def test_a_busy_socket_takes_its_descriptor_back(way: str) -> None:
    """`on_fd_lost` is called in the same step, while the number is still the socket's; it lends again once it is
    free."""
    returned: list[int] = []
    async with paired() as (socket, _), trio.open_nursery() as nursery:
        number = socket.fd
        if way == "a full buffer":
            fill(socket)
        assert socket.acquire_fd(lambda fd: returned.append(fd if os.fstat(fd) else -1))
        match way:
            case "send_all":
                nursery.start_soon(socket.send_all, FILL)
                await trio.testing.wait_all_tasks_blocked()
            case "close":
                socket.close()
            case "a Close frame":
                assert socket.send_now(CLOSE)
            case "a short write":
                ((_, written),) = sockets.write_to_all([number], FILL)
                assert 0 < written < len(FILL)
                assert socket.finish_partial_write(FILL, written)
            case "a full buffer":
                assert sockets.write_to_all([number], b"x") == [(number, 0)]
                assert not socket.finish_partial_write(b"x", 0)
        assert returned == [number]
        assert not socket.acquire_fd(returned.append)
        nursery.cancel_scope.cancel()


async def test_the_rest_of_a_borrowers_write_follows() -> None:
    """What the kernel did not take goes out before anything else; `on_writable` is called when the socket may be lent
    again."""
    writable = trio.Event()
    async with paired() as (socket, peer):
        socket.on_writable = lambda _: writable.set()
        assert socket.acquire_fd(lambda _: None)
        ((_, written),) = sockets.write_to_all([socket.fd], FILL)
        socket.finish_partial_write(FILL, written)
        assert await read(peer, len(FILL)) == FILL
        await writable.wait()
        assert socket.acquire_fd(lambda _: None)


async def test_write_to_all_returns_short_writes(writes: Callable[[Write], None]) -> None:
    """The other sockets get the message whole, whatever happens to one."""
    async with (
        paired() as (one, one_peer),
        paired() as (blocked, _),
        paired() as (gone, _),
        paired() as (last, last_peer),
    ):

        def write(fd: int, data: bytes) -> int:
            if fd == blocked.fd:
                raise BlockingIOError
            if fd == gone.fd:
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            return os.write(fd, data)

        writes(write)
        short = sockets.write_to_all([one.fd, blocked.fd, gone.fd, last.fd], b"abc")
        assert short == [(blocked.fd, 0), (gone.fd, -1)]
        assert await read(one_peer, 3) == await read(last_peer, 3) == b"abc"
