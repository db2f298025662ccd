"""Batches of viewers, which are written to by descriptor, on real sockets: when a viewer leaves its batch, and what it
is sent."""

import errno
import os
import socket as stdlib_socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from scoreboard.domain import framing
from scoreboard.domain.boards import Board
from scoreboard.domain.framing import Encoding, event_stream, websocket
from scoreboard.domain.protocol import Event
from scoreboard.live import fan_out
from scoreboard.live import hub as hub_module
from scoreboard.live.hub import Hub
from scoreboard.live.viewer import Viewer
from scoreboard.net import sockets
from tests.live.boards import BOARD, OTHER, snapshot
from tests.live.messages import kinds, names
from tests.live.viewers import RealViewer, subscribers, turns
from tests.net.pairs import CLOSE, FILL

COUNT = 5  # viewers, which is more than one batch of the tests


@asynccontextmanager
async def watching(*, encode: Encoding = websocket, delta: bool = False) -> AsyncIterator[tuple[Hub, list[RealViewer]]]:
    """A hub with viewers who were sent the board "a", in batches of two."""
    with pytest.MonkeyPatch.context() as patch, trio.fail_after(10):
        patch.setattr(fan_out, "BATCH_SIZE", 2)
        async with trio.open_nursery() as nursery:
            hub = Hub((BOARD, OTHER))
            viewers = [RealViewer(hub, nursery, BOARD, encode=encode, delta=delta) for _ in range(COUNT)]
            await hub.publish(BOARD, snapshot("a", 1))
            assert [viewer.read() for viewer in viewers] == [["a"]] * COUNT
            try:
                yield hub, viewers
            finally:
                for viewer in viewers:
                    viewer.socket.close()
                    viewer.peer.close()


def batched(hub: Hub, board: Board = BOARD) -> list[Viewer]:
    return [viewer for batch in subscribers(hub, board)._batches for viewer in batch.members.values()]


def singles(hub: Hub) -> list[Viewer]:
    return list(subscribers(hub)._singles)


async def abandon(hub: Hub, users: str, top: int) -> None:
    """A fan-out that is cancelled at its first pause."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await hub.publish(BOARD, snapshot(users, top))


@pytest.fixture
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_CHECKPOINT", 1)


async def test_who_was_sent_the_newest_is_in_a_batch() -> None:
    """As many batches as are needed, and each viewer in one; they get every board once."""
    async with watching() as (hub, viewers):
        assert batched(hub) == viewers
        assert [len(batch.members) for batch in subscribers(hub)._batches] == [2, 2, 1]
        for top, users in enumerate("bc", 2):
            await hub.publish(BOARD, snapshot(users, top))
        assert [viewer.read() for viewer in viewers] == [["b", "c"]] * COUNT
        assert set(subscribers(hub)) == set(viewers)
        assert len(subscribers(hub)) == COUNT


async def test_a_place_in_a_batch_is_used_again() -> None:
    """Viewers come and go without leaving batches behind."""
    async with watching() as (hub, viewers):
        for top in range(2, 12):
            hub.unsubscribe(viewers[top % COUNT], BOARD)
            await hub.publish(BOARD, snapshot("ab", top))
            hub.subscribe(viewers[top % COUNT], BOARD)
            await hub.publish(BOARD, snapshot("ba", top))
        assert sorted(map(id, batched(hub))) == sorted(map(id, viewers))
        assert len(subscribers(hub)._batches) == 3


async def test_who_leaves_is_not_written_to() -> None:
    """Neither after `unsubscribe` nor after `remove`."""
    async with watching() as (hub, viewers):
        hub.unsubscribe(viewers[0], BOARD)
        hub.remove(viewers[1])
        await hub.publish(BOARD, snapshot("b", 2))
        assert [viewer.read() for viewer in viewers] == [[], [], ["b"], ["b"], ["b"]]
        assert hub.viewer_count() == 3


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_descriptor_that_is_used_again_is_nobody_elses() -> None:
    """A viewer's socket closes in the middle of a fan-out, and its descriptor number becomes another connection's: that
    one gets nothing."""
    async with watching() as (hub, viewers):
        last, stranger = viewers[-1], stdlib_socket.socketpair()

        async def swap() -> None:
            number = last.socket.fd
            last.socket.close()
            os.dup2(stranger[0].fileno(), number)
            stranger[0].close()
            stranger[0].__init__(fileno=number)  # type: ignore[misc]  # closed with the pair

        async with trio.open_nursery() as nursery:
            nursery.start_soon(swap)
            await hub.publish(BOARD, snapshot("b", 2))
        await hub.publish(BOARD, snapshot("c", 3))
        stranger[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger[1].recv(1)
        assert last.read() == []
        assert [viewer.read() for viewer in viewers[:-1]] == [["b", "c"]] * (COUNT - 1)
        for end in stranger:
            end.close()


async def test_a_viewer_with_another_writer_gets_the_board_later() -> None:
    """While another task writes to its socket, a member is skipped. After that it gets the newest board, and later
    updates like the others."""
    async with watching() as (hub, viewers), trio.open_nursery() as nursery:
        viewer = viewers[0]
        nursery.start_soon(viewer.socket.send_all, FILL)
        await turns()
        assert singles(hub) == [viewer]
        await hub.publish(BOARD, snapshot("b", 2))
        await hub.publish(BOARD, snapshot("c", 3))
        assert (await viewer.skip(FILL)) == ["c"]
        await hub.publish(BOARD, snapshot("d", 4))
        assert viewer.read() == ["d"]
        assert set(batched(hub)) == set(viewers)


async def test_a_part_of_a_board_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a partial write a viewer gets the rest, not the board again. After a write of nothing it gets the board
    when there is room. Others are not affected."""
    async with watching() as (hub, viewers):
        whims = {viewers[0].socket.fd: 7, viewers[1].socket.fd: 0}

        def write(fd: int, data: bytes) -> int:
            room = whims.pop(fd, len(data))
            if not room:
                raise BlockingIOError
            return os.write(fd, data[:room])

        monkeypatch.setattr(sockets, "_write", write)
        await hub.publish(BOARD, snapshot("b", 2))
        assert not whims
        assert singles(hub) == viewers[:2]
        await turns(10)
        assert [viewer.read() for viewer in viewers] == [["b"]] * COUNT
        await hub.publish(BOARD, snapshot("c", 3))
        assert [viewer.read() for viewer in viewers] == [["c"]] * COUNT
        assert set(batched(hub)) == set(viewers)


async def test_a_peer_that_has_left_affects_no_other() -> None:
    """When the write fails, the viewer leaves the batch; the task that reads its socket ends the connection."""
    async with watching() as (hub, viewers):
        viewers[0].peer.close()
        for top, users in enumerate("bc", 2):
            await hub.publish(BOARD, snapshot(users, top))
        assert singles(hub) == viewers[:1]
        assert viewers[0].socket.fd >= 0
        assert [viewer.read() for viewer in viewers[1:]] == [["b", "c"]] * (COUNT - 1)


async def test_a_viewer_of_two_boards_gets_both() -> None:
    """Its descriptor is borrowed for one board; frames of the other are written by `send_now`."""
    async with watching() as (hub, viewers):
        hub.subscribe(viewers[0], OTHER)
        for top, users in enumerate("xy", 1):
            await hub.publish(OTHER, snapshot(users, top, board=OTHER))
            await hub.publish(BOARD, snapshot(users, top + 1))
        assert viewers[0].read() == ["x", "x", "y", "y"]
        assert [viewers[0] in batched(hub, board) for board in (BOARD, OTHER)].count(True) == 1
        hub.unsubscribe(viewers[0], BOARD)
        await hub.publish(OTHER, snapshot("z", 3, board=OTHER))
        await hub.publish(BOARD, snapshot("z", 4))
        assert viewers[0].read() == ["z"]
        assert batched(hub, OTHER) == viewers[:1]


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_batch_that_was_not_reached_gets_the_whole_board_next_time() -> None:
    """The fan-out was cancelled between two batches; changed positions go only to viewers with the previous board."""
    async with watching() as (hub, viewers):
        await abandon(hub, "b", 2)
        await hub.publish(BOARD, snapshot("c", 3))
        events = [viewer.read_events() for viewer in viewers]
        assert [[names(event) for event in one] for one in events] == [["b", "c"]] * 2 + [["c"]] * 3
        assert [len(one[-1]["data"]["changedPositions"]) for one in events] == [2, 2, 0, 0, 0]
        assert set(batched(hub)) == set(viewers)


@pytest.mark.usefixtures("_one_at_a_time")
@pytest.mark.parametrize("encode", [websocket, event_stream])
async def test_batches_of_deltas(encode: Encoding) -> None:
    """A viewer with the previous board gets the difference, one that was not reached the whole board; on every
    transport."""
    async with watching(encode=encode, delta=True) as (hub, viewers):
        await hub.publish(BOARD, snapshot("ab", 2))
        assert [kinds(viewer.read_events()) for viewer in viewers] == [[Event.DELTA]] * COUNT
        await abandon(hub, "ba", 3)
        await hub.publish(BOARD, snapshot("bc", 4))
        got = [kinds(viewer.read_events()) for viewer in viewers]
        assert got == [[Event.DELTA, Event.DELTA]] * 2 + [[Event.UPDATE]] * 3


async def test_a_fan_out_that_nobody_can_take_gives_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause comes after so many tries, even if they all failed."""

    def refuse(_fd: int, _data: bytes) -> int:
        raise BlockingIOError

    async with watching() as (hub, viewers):
        monkeypatch.setattr(hub_module, "WRITES_PER_CHECKPOINT", 2)
        monkeypatch.setattr(sockets, "_write", refuse)
        seen = list[int]()

        async def observe() -> None:
            seen.append(len(batched(hub)))
            monkeypatch.setattr(sockets, "_write", os.write)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(observe)
            await hub.publish(BOARD, snapshot("b", 2))
        assert seen[0] in (3, 1)  # after the first batch or the second, as Trio likes
        await turns(10)
        assert [viewer.read() for viewer in viewers] == [["b"]] * COUNT


async def test_after_a_close_frame_there_is_nothing() -> None:
    """A viewer that was closed is out of its batch before the next board."""
    async with watching() as (hub, viewers):
        assert viewers[0].socket.send_now(CLOSE)
        await hub.publish(BOARD, snapshot("b", 2))
        viewers[0].collect()
        assert viewers[0].received == CLOSE
        assert batched(hub) == viewers[1:]


async def test_an_event_that_could_not_be_sent_is_not_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the write of an event was refused for a while, the viewer has left its batch, and boards wait until the
    event is out."""

    def fail(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOBUFS, "no buffer space")

    async with watching() as (hub, viewers):
        with monkeypatch.context() as patch:
            patch.setattr(sockets, "_write", fail)
            hub.send(viewers[0], framing.PONG_FRAME)
        await hub.publish(BOARD, snapshot("b", 2))
        assert viewers[0].read() == []
        assert viewers[1].read() == ["b"]
