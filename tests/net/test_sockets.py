"""The Socket's contract: closed and broken, reading, writing at once."""

import errno
import os
from collections.abc import Awaitable, Callable
from math import inf

import pytest
import structlog
import trio
import trio.lowlevel
import trio.testing

from scoreboard.net import reading
from scoreboard.net.sockets import Socket
from tests.net.pairs import FILL, Write, fill, paired, read, until

# ---- closed, broken --------------------------------------------------------------------------------------------------


async def test_closed_is_known_before_trio_is_asked() -> None:
    """After closing, every call that could wait raises ClosedResourceError each time, and send_now returns False."""
    async with paired() as (socket, _):
        socket.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            socket.receive_some,
            lambda: socket.send_all(b""),
            socket.wait_send_all_might_not_block,
        ]
        for _ in range(2):
            for call in calls:
                with pytest.raises(trio.ClosedResourceError):
                    await call()
        assert not socket.send_now(b"x")
        assert socket.fd == -1
        socket.close()
        await socket.aclose()


async def test_closing_ends_the_waiting() -> None:
    """A reader and a writer that wait when it is closed raise ClosedResourceError."""
    async with paired() as (socket, _), trio.open_nursery() as nursery:

        async def closed(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call()

        nursery.start_soon(closed, socket.receive_some)
        nursery.start_soon(closed, lambda: socket.send_all(FILL))
        await trio.testing.wait_all_tasks_blocked()
        socket.close()


async def test_closed_between_the_wake_up_and_our_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose socket is closed after the wake-up reads nothing: the descriptor may be another connection's."""
    async with paired() as (socket, _):

        async def woken(_: int) -> None:
            socket.close()

        monkeypatch.setattr(trio.lowlevel, "wait_readable", woken)
        with pytest.raises(trio.ClosedResourceError):
            await socket.receive_some()


async def test_a_reset_is_a_broken_resource() -> None:
    """OSErrors of reading and writing become BrokenResourceError; send_now returns False, and the reader raises."""
    async with paired() as (socket, peer):
        await peer.aclose()
        assert not socket.send_now(b"x")
        assert socket.fd >= 0
        with pytest.raises(trio.BrokenResourceError):
            await socket.send_all(b"x")


async def test_a_reset_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would-block is waited out, anything else is BrokenResourceError."""
    failures = [BlockingIOError(), ConnectionResetError(errno.ECONNRESET, "reset")]

    def fail(_fd: int, _size: int) -> bytes:
        raise failures.pop(0)

    async with paired() as (socket, peer):
        monkeypatch.setattr(reading, "_read", fail)
        await peer.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await socket.receive_some()
    assert not failures


async def test_an_end_of_file_while_writing(writes: Callable[[Write], None]) -> None:
    """A write that takes nothing is not tried for ever."""
    writes(lambda _fd, _data: 0)
    async with paired() as (socket, _):
        with pytest.raises(trio.BrokenResourceError):
            await socket.send_all(b"x")


# ---- reading ---------------------------------------------------------------------------------------------------------


async def test_reading() -> None:
    """Bytes, then b"" at the end; what came from the descriptor is counted."""
    async with paired() as (socket, peer):
        await peer.send_all(b"abc")
        assert await socket.receive_some(2) == b"ab"
        assert await socket.receive_some() == b"c"
        await peer.send_eof()
        assert await socket.receive_some() == b""
        assert socket.received == 3
        with pytest.raises(ValueError, match="max_bytes"):
            await socket.receive_some(0)


async def test_the_unread_buffer_comes_first() -> None:
    """`unread_buffer` is read first, in pieces of the size that is asked for, and not counted as received."""
    async with paired() as (socket, peer):
        socket.unread_buffer = b"abc"
        await peer.send_all(b"d")
        assert [await socket.receive_some(2), await socket.receive_some(), await socket.receive_some()] == [
            b"ab",
            b"c",
            b"d",
        ]
        assert socket.received == 1


# ---- send_now and its rest -------------------------------------------------------------------------------------------


async def test_send_now() -> None:
    """What fits goes out at once, without a task, and the socket is not behind."""
    async with paired() as (socket, peer):
        assert socket.send_now(b"one")
        assert socket.send_now(b"two")
        assert await read(peer, 6) == b"onetwo"
        assert socket.behind_since == inf
        assert socket.pop_has_written()
        assert not socket.pop_has_written()


async def test_a_rest_is_finished() -> None:
    """A task writes what did not fit, and nothing comes between. Then `on_writable` is called, and the socket is no
    longer behind."""
    called: list[Socket] = []
    async with paired() as (socket, peer):
        socket.on_writable = called.append
        assert socket.send_now(FILL)
        assert socket.behind_since < inf
        await trio.testing.wait_all_tasks_blocked()
        assert not socket.send_now(b"no")
        assert await read(peer, len(FILL)) == FILL
        await until(lambda: called)
        assert called == [socket]
        assert socket.behind_since == inf
        assert socket.send_now(b"next")
        assert await read(peer, 4) == b"next"


async def test_a_full_socket() -> None:
    """A message of which the kernel takes nothing is not sent later either; `on_writable` is called when there is
    room."""
    called: list[Socket] = []
    async with paired() as (socket, peer):
        socket.on_writable = called.append
        fill(socket)
        assert not socket.send_now(b"lost")
        assert socket.behind_since < inf
        await trio.testing.wait_all_tasks_blocked()
        assert not called
        received = await peer.receive_some(4_000_000)
        await until(lambda: called)
        assert b"lost" not in received
        assert socket.behind_since == inf


async def test_one_task_finishes() -> None:
    """However often send_now is tried while it is behind, one task is started."""
    called: list[Socket] = []
    async with paired() as (socket, peer):
        socket.on_writable = called.append
        assert socket.send_now(FILL)
        assert not any(socket.send_now(b"no") for _ in range(10))
        assert await read(peer, len(FILL)) == FILL
        await until(lambda: called)
        await trio.testing.wait_all_tasks_blocked()
        assert called == [socket]


async def test_send_all_between_a_short_write_and_its_rest() -> None:
    """A send_all that gets the lock before the finishing task writes the rest first."""
    async with paired() as (socket, peer), trio.open_nursery() as nursery:
        assert socket.send_now(FILL)
        nursery.start_soon(socket.send_all, b"after")
        assert await read(peer, len(FILL) + 5) == FILL + b"after"


async def test_refused_while_somebody_writes(writes: Callable[[Write], None]) -> None:
    """After a send_now was refused because of the lock, the task that releases the lock calls `on_writable`, on a
    writable socket too."""
    called: list[Socket] = []

    def write(fd: int, data: bytes) -> int:
        assert not socket.send_now(b"tick")  # as another task does while send_all waits for the lock
        assert socket.behind_since < inf
        return os.write(fd, data)

    async with paired() as (socket, peer):
        socket.on_writable = called.append
        writes(write)
        await socket.send_all(b"pong")
        assert called == [socket]
        assert socket.behind_since == inf
        assert await read(peer, 4) == b"pong"


async def test_refused_before_somebody_waits_for_room() -> None:
    """A task that waits for room gets the lock from the last writer, and calls `on_writable` in its place."""
    called: list[Socket] = []
    async with paired() as (socket, peer), trio.open_nursery() as nursery:
        socket.on_writable = called.append
        nursery.start_soon(socket.send_all, b"x" * 1_000_000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(socket.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert not socket.send_now(b"tick")
        while not called:
            await peer.receive_some()
            await trio.lowlevel.checkpoint()
        assert socket.send_now(b"tock")
    assert called == [socket]


async def test_refused_while_somebody_waits_for_room() -> None:
    """The same of wait_send_all_might_not_block, also when it is cancelled: there is room when the peer has made
    some."""
    called: list[Socket] = []
    async with paired() as (socket, peer):
        async with trio.open_nursery() as nursery:
            fill(socket)
            socket.on_writable = called.append
            nursery.start_soon(socket.wait_send_all_might_not_block)
            await trio.testing.wait_all_tasks_blocked()
            assert not socket.send_now(b"tick")
            nursery.cancel_scope.cancel()
        assert not called
        while not called:
            await peer.receive_some()
            await trio.sleep(0.001)
    assert called == [socket]


async def test_on_writable_is_not_called_without_a_refusal() -> None:
    """A send_all during which no send_now was refused calls no callback."""
    called: list[Socket] = []
    async with paired() as (socket, _):
        socket.on_writable = called.append
        await socket.send_all(b"pong")
        assert not called


async def test_a_callback_that_fails() -> None:
    """A `on_writable` that raises ends this connection and never reaches the nursery of the server."""

    def fail(_: Socket) -> None:
        raise ValueError("a bug in the hub")

    with structlog.testing.capture_logs() as logs:
        async with paired() as (socket, peer):
            socket.on_writable = fail
            assert socket.send_now(FILL)
            assert await read(peer, len(FILL)) == FILL
            await until(lambda: socket.fd < 0)
    assert [entry["event"] for entry in logs] == ["on_writable_failed"]


async def test_the_peer_leaves_before_the_rest() -> None:
    """The finishing task ends, the socket is closed, its reader raises; nothing reaches the nursery."""
    with structlog.testing.capture_logs() as logs:
        async with paired() as (socket, peer):
            assert socket.send_now(FILL)
            await trio.testing.wait_all_tasks_blocked()
            await peer.aclose()
            await until(lambda: socket.fd < 0)
            with pytest.raises(trio.ClosedResourceError):
                await socket.receive_some()
    assert not logs
