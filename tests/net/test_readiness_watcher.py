"""`on_readable` of a watcher: when the waiter is woken, and what happens when the callback raises."""

import socket as stdlib_socket
from collections.abc import Callable
from functools import partial

import trio
import trio.testing

from scoreboard.net.poller import ReadinessWatcher
from scoreboard.net.sockets import Socket
from tests.net.pairs import Pair, pair, polling


class Waiter:
    """A task that waits for the watcher, and how it ended."""

    def __init__(self) -> None:
        self.woken = 0
        self.raised: Exception | None = None

    async def run(self, watcher: ReadinessWatcher) -> None:
        try:
            await watcher.wait()
        except Exception as exc:  # noqa: BLE001
            self.raised = exc
        self.woken += 1


async def notified(both: Pair, on_readable: Callable[[], bool] | None, data: bytes = b"x") -> Waiter:
    """The waiter after `data` has come and `on_readable` was called."""
    waiter = Waiter()
    both.watcher.on_readable = on_readable
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.run, both.watcher)
        await trio.testing.wait_all_tasks_blocked()
        both.peer.sendall(data)
        await trio.testing.wait_all_tasks_blocked(0.005)
        nursery.cancel_scope.cancel()
    return waiter


async def test_a_callback_that_has_done_it() -> None:
    """A callback that returns True leaves the waiter asleep; one that returns False wakes it."""
    read: list[bytes | None] = []
    async with pair() as both:
        assert (await notified(both, lambda: read.append(both.socket.read_now()) or True)).woken == 0
        assert (await notified(both, lambda: False, b"y")).woken == 1
        assert read == [b"x"]
        assert await both.socket.receive_some() == b"y"


async def test_a_callback_with_nobody_waiting() -> None:
    """It is not called: the task is at work on this socket."""
    async with pair() as both:
        called: list[bool] = []
        both.watcher.on_readable = lambda: called.append(True) or True
        both.peer.sendall(b"x")
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert not called
        assert await both.socket.receive_some() == b"x"


async def test_a_callback_that_leaves_something() -> None:
    """When a read filled its buffer, or the peer has ended the connection, the waiter is woken: no edge comes for the
    rest."""
    async with pair() as both:
        waiter = await notified(both, lambda: both.socket.read_now(3) is not None, b"abcd")
        assert waiter.woken == 1
        assert await both.socket.receive_some() == b"d"

        both.watcher.on_readable = lambda: both.socket.read_now() is not None
        both.peer.sendall(b"last words")
        both.peer.shutdown(stdlib_socket.SHUT_WR)
        await both.watcher.wait()
        assert await both.socket.receive_some() in {b"last words", b""}
        assert await both.socket.receive_some() == b""


async def test_a_callback_that_closes() -> None:
    """The waiter is woken once, whatever the callback returns."""

    def close(socket: Socket, says: bool) -> bool:
        socket.close()
        return says

    for says in (True, False):
        async with pair() as both:
            waiter = await notified(both, partial(close, both.socket, says))
            assert (waiter.woken, waiter.raised) == (1, None)


async def test_no_callback_is_asked_about_a_close() -> None:
    """The waiter is woken, and `on_readable` is not called."""
    async with pair() as both, trio.open_nursery() as nursery:
        waiter, called = Waiter(), list[None]()
        both.watcher.on_readable = lambda: called.append(both.watcher.mark_drained()) or True
        nursery.start_soon(waiter.run, both.watcher)
        await trio.testing.wait_all_tasks_blocked()
        both.socket.close()
    assert (waiter.woken, called) == (1, [])


async def test_a_callback_that_raises() -> None:
    """What it raises the waiter raises, once; the poller goes on, for this watcher too."""
    async with polling() as (poller, nursery):
        with Pair(poller, nursery) as both, Pair(poller, nursery) as other:

            def fail() -> bool:
                raise ValueError("a bug in a callback")

            waiter = await notified(both, fail)
            assert isinstance(waiter.raised, ValueError)
            assert await both.socket.receive_some() == b"x"
            other.peer.sendall(b"y")
            assert await other.socket.receive_some() == b"y"
            both.watcher.on_readable = None
            assert (await notified(both, None)).raised is None
