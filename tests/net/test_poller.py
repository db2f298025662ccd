"""The poller and its watchers: an edge-triggered epoll reports an event once. No watcher may miss its own, or get
another's."""

import os
import socket as stdlib_socket
from functools import partial

import pytest
import trio
import trio.testing

from scoreboard.net import poller as module
from scoreboard.net.reading import READ_BYTES
from scoreboard.net.sockets import Socket
from tests.net.pairs import Pair, pair, polling, until


async def everything(socket: Socket, size: int = READ_BYTES) -> bytes:
    """All until the end, read in such pieces."""
    data = b""
    while more := await socket.receive_some(size):
        data += more
    return data


# ---- edges -----------------------------------------------------------------------------------------------------------


async def test_what_was_there_before() -> None:
    """Bytes that came before the descriptor was watched make an event too."""
    async with polling() as (poller, nursery):
        left, right = stdlib_socket.socketpair()
        left.setblocking(False)
        right.send(b"early")
        socket = Socket(left, nursery)
        socket.watcher = poller.watch(left.fileno())
        assert await socket.receive_some() == b"early"
        socket.close()
        right.close()


async def test_data_and_the_end_in_one_edge() -> None:
    """An end that comes with data is found at every read, although it makes no edge of its own."""
    async with pair() as both:
        both.peer.sendall(b"last words")
        both.peer.shutdown(stdlib_socket.SHUT_WR)
        assert await both.socket.receive_some() == b"last words"
        for _ in range(2):
            assert await both.socket.receive_some() == b""


async def test_the_end_alone() -> None:
    """An end after everything was read wakes the reader."""
    async with pair() as both, trio.open_nursery() as nursery:
        both.peer.sendall(b"x")
        assert await both.socket.receive_some() == b"x"
        read: list[bytes] = []

        async def reader() -> None:
            read.append(await both.socket.receive_some())

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        both.peer.close()
        await until(lambda: read)
    assert read == [b""]


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("size", [1, 1000, READ_BYTES])
async def test_reads_of_the_buffers_size(size: int, more: int) -> None:
    """All bytes of one edge are read, whether a read filled its buffer, left room, or found nothing after a full
    one."""
    data = os.urandom(2 * size + more)
    async with pair() as both:
        for _ in range(3):  # each time a new edge is needed
            both.peer.sendall(data)
            received = b""
            while len(received) < len(data):
                received += await both.socket.receive_some(size)
            assert received == data
            with trio.move_on_after(0.001):
                await both.socket.receive_some(size)
                raise AssertionError("there is no more")


async def test_every_byte_makes_an_edge() -> None:
    """A reader that is woken for each byte misses none."""
    async with pair() as both:
        for number in range(100):
            both.peer.sendall(bytes([number]))
            assert await both.socket.receive_some() == bytes([number])


async def test_woken_for_nothing() -> None:
    """A reader that was woken and finds nothing waits again, without a loop of reads."""
    async with pair() as both, trio.open_nursery() as nursery:
        nursery.start_soon(everything, both.socket)
        await trio.testing.wait_all_tasks_blocked()
        both.watcher.notify_readable()
        await trio.testing.wait_all_tasks_blocked()
        both.peer.close()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_reset(waiting: bool) -> None:
    """A reader gets BrokenResourceError for a reset, and the end afterwards."""
    async with pair() as both, trio.open_nursery() as nursery:

        async def broken() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await both.socket.receive_some()
            assert await both.socket.receive_some() == b""

        if waiting:
            nursery.start_soon(broken)
            await trio.testing.wait_all_tasks_blocked()
            both.reset()
        else:
            both.reset()
            await broken()


@pytest.mark.parametrize("how", ["close", "shutdown", "reset"])
async def test_on_eof_is_called_without_a_reader(how: str) -> None:
    """`on_eof` is called once the peer has left, even if no task waits and bytes are unread."""
    async with pair() as both:
        eof_seen = trio.Event()
        assert both.socket.watcher is not None
        both.socket.watcher.on_eof = eof_seen.set
        both.peer.sendall(b"unread")
        await trio.testing.wait_all_tasks_blocked()
        assert not eof_seen.is_set()
        if how == "reset":
            both.reset()
        elif how == "close":
            both.peer.close()
        else:
            both.peer.shutdown(stdlib_socket.SHUT_WR)
        await eof_seen.wait()
        assert both.socket.watcher.at_eof


async def test_what_on_eof_raises_wait_raises() -> None:
    """As with `on_readable`: the poller goes on, and the connection's task gets the exception."""
    async with pair() as both, trio.open_nursery() as nursery:

        def fail() -> None:
            raise KeyError("mine")

        async def read() -> None:
            with pytest.raises(KeyError):
                await both.socket.receive_some()

        assert both.socket.watcher is not None
        both.socket.watcher.on_eof = fail
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        both.peer.close()


# ---- waiting ---------------------------------------------------------------------------------------------------------


async def test_two_readers() -> None:
    """The second gets BusyResourceError, and the first goes on."""
    async with pair() as both, trio.open_nursery() as nursery:
        read: list[bytes] = []

        async def reader() -> None:
            read.append(await both.socket.receive_some())

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await both.socket.receive_some()
        both.peer.sendall(b"x")
        await until(lambda: read)
    assert read == [b"x"]


async def test_cancelled_while_waiting() -> None:
    """It loses nothing, and the next reader may wait."""
    async with pair() as both:
        with trio.move_on_after(0.001) as scope:
            await both.socket.receive_some()
        assert scope.cancelled_caught
        both.peer.sendall(b"x")
        await trio.testing.wait_all_tasks_blocked(0.001)  # the event comes while no task waits
        assert await both.socket.receive_some() == b"x"


async def test_closed_while_waiting() -> None:
    """The reader raises ClosedResourceError, and so does each later call."""
    async with pair() as both, trio.open_nursery() as nursery:

        async def closed() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await both.socket.receive_some()

        nursery.start_soon(closed)
        await trio.testing.wait_all_tasks_blocked()
        both.socket.close()
        await closed()
        await both.watcher.wait()  # returns: a closed watcher makes no task wait


async def test_a_turn_for_others() -> None:
    """A watcher that stays ready lets other tasks run between two reads."""
    async with pair() as both, trio.open_nursery() as nursery:
        both.peer.sendall(b"x" * 100)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await both.socket.receive_some(1)
        nursery.start_soon(other)
        for _ in range(50):
            await both.socket.receive_some(1)
        nursery.cancel_scope.cancel()
    assert turns >= 49


async def test_more_events_than_one_poll_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that one poll leaves out come in the next, and other tasks run in between."""
    monkeypatch.setattr(module, "MAX_EVENTS_A_TURN", 2)
    monkeypatch.setattr(module, "UNSORTED_EVENTS", 0)
    async with polling() as (poller, nursery):
        pairs = [Pair(poller, nursery) for _ in range(7)]
        turns, when = 0, []

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async def reader(both: Pair) -> None:
            assert await both.socket.receive_some() == b"x"
            when.append(turns)

        for both in pairs:
            nursery.start_soon(reader, both)
        await trio.testing.wait_all_tasks_blocked()
        for both in pairs:
            both.peer.sendall(b"x")
        nursery.start_soon(other)
        await until(lambda: len(when) == 7)
        for both in pairs:
            both.socket.close()
            both.peer.close()
    assert len(set(when)) >= 3


def crowd(poller: module.Poller, nursery: trio.Nursery, groups: str) -> list[Pair]:
    """A connection of each of these groups."""
    return [Pair(poller, nursery, group=group) for group in groups]


@pytest.mark.parametrize("groups", ["b" + 30 * "a" + "b", 30 * "a" + "bb", 10 * "a" + 10 * "c" + "bb" + 10 * "a"])
async def test_groups_take_turns(groups: str) -> None:
    """Thirty connections of one group do not delay two of another, whichever came first."""
    dispatched: list[str] = []

    def note(group: str) -> bool:
        dispatched.append(group)
        return True

    async with polling() as (poller, nursery):
        pairs = crowd(poller, nursery, groups)
        for both in pairs:
            both.watcher.on_readable = partial(note, both.watcher.group)
            nursery.start_soon(both.watcher.wait)
        await trio.testing.wait_all_tasks_blocked()
        for both in pairs:
            both.peer.sendall(b"x")
        await until(lambda: len(dispatched) == len(pairs))
        for both in pairs:
            with both:
                pass
    kinds = len(set(groups))
    assert "b" in dispatched[:kinds]
    assert dispatched[: 2 * kinds].count("b") == 2


async def test_turns_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that cost more than a turn's time are dispatched in later turns.

    Other tasks run in between. A second edge of a waiting watcher is merged with the first. A watcher that is closed
    before its turn gets no event.
    """
    monkeypatch.setattr(module, "MAX_TURN_SECONDS", 0.0)
    dispatched: list[int] = []

    def note(number: int) -> bool:
        dispatched.append(number)
        return True

    async with polling() as (poller, nursery):
        pairs = crowd(poller, nursery, 10 * "ab")

        def first() -> bool:
            dispatched.append(0)
            pairs[19].socket.close()
            for both in pairs[1:19]:
                both.peer.sendall(b"y")
            return True

        for number, both in enumerate(pairs):
            both.watcher.on_readable = first if number == 0 else partial(note, number)
            nursery.start_soon(both.watcher.wait)
        await trio.testing.wait_all_tasks_blocked()
        for both in pairs:
            both.peer.sendall(b"x")
        turns = 0
        while len(dispatched) < 19:
            turns += 1
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.005)
        for both in pairs:
            with both:
                pass
        assert not poller._pending
    assert sorted(dispatched) == list(range(19))
    assert turns >= 16


# ---- numbers ---------------------------------------------------------------------------------------------------------


async def test_a_number_that_is_used_again() -> None:
    """A new connection with the descriptor number of a closed one gets its own events only, even while another process
    holds the old one open."""
    async with polling() as (poller, nursery):
        old = Pair(poller, nursery)
        number, held = old.socket.fd, os.dup(old.socket.fd)
        new = Pair(poller, nursery, old)
        assert new.socket.fd == number
        woken: list[bool] = []
        new.watcher.on_readable = lambda: woken.append(True) or True
        async with trio.open_nursery() as inner:
            inner.start_soon(new.watcher.wait)
            await trio.testing.wait_all_tasks_blocked()
            old.peer.sendall(b"to the old one")
            old.peer.close()
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert not woken
            inner.cancel_scope.cancel()
        os.close(held)
        new.socket.close()
        new.peer.close()


async def test_closed_by_another_in_the_same_poll() -> None:
    """A watcher whose socket was closed after the poll is skipped."""
    async with polling() as (poller, nursery):
        pairs = [Pair(poller, nursery) for _ in range(2)]

        def closing() -> bool:
            for both in pairs:
                both.socket.close()
            return True

        left: list[Pair] = []

        async def reader(both: Pair) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await both.socket.receive_some()
            left.append(both)

        for both in pairs:
            both.watcher.on_readable = closing
            nursery.start_soon(reader, both)
        await trio.testing.wait_all_tasks_blocked()
        for both in pairs:
            both.peer.sendall(b"x")
        await until(lambda: len(left) == 2)
        for both in pairs:
            both.peer.close()


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_too_many_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel refuses a descriptor, `watch` raises, and no watcher is left."""
    async with polling() as (poller, nursery):
        with pytest.raises(OSError, match="Bad file descriptor"):
            poller.watch(987_654)
        assert not poller._watchers
        with Pair(poller, nursery):
            assert len(poller._watchers) == 1
        assert not poller._watchers


async def test_closing_it() -> None:
    """Its own descriptor goes with it; sockets that were watched may be closed afterwards."""
    async with polling() as (poller, nursery):
        both = Pair(poller, nursery)
    assert poller._epoll.closed
    both.socket.close()
    both.peer.close()
