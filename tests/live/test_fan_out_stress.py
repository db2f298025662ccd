"""A broadcast while its viewers and their sockets do anything else, under any interleaving."""

import os
import random
from collections import Counter
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.domain import framing
from scoreboard.domain.boards import Board
from scoreboard.live import fan_out
from scoreboard.live import hub as hub_module
from scoreboard.live.hub import Hub
from scoreboard.net import sockets
from scoreboard.net.sockets import Socket
from tests.live.boards import BOARD, OTHER, snapshot
from tests.live.messages import names, read_frames
from tests.live.viewers import RealViewer, subscribers

USERS = {BOARD: ("ab", "ba"), OTHER: ("xy", "yx")}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), blocks=st.sampled_from([0.0, 0.1, 0.5]), portion=st.sampled_from([1, 2, 5]))
def test_any_coming_and_going(seed: int, blocks: float, portion: int) -> None:
    """Viewers join, leave, close, change boards, are sent events and written to by others, at any moment of a
    broadcast, on descriptors that take what they like and whose numbers come back: each gets whole frames of its
    boards, ever newer ones, and the newest in the end."""
    chance = random.Random(seed)

    def write(fd: int, data: bytes) -> int:
        if chance.random() < blocks:
            raise BlockingIOError
        return os.write(fd, bytes(data[: chance.randint(1, 400)] if chance.random() < blocks else data))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sockets, "_write", write)
        patch.setattr(fan_out, "BATCH_SIZE", portion)
        patch.setattr(hub_module, "WRITES_PER_CHECKPOINT", 1)
        trio.run(come_and_go, chance)


async def come_and_go(chance: random.Random) -> None:
    hub, everyone, tops = Hub((BOARD, OTHER)), list[RealViewer](), Counter[Board]()
    enough: dict[tuple[RealViewer, Board], int] = {}  # the newest board at the time of `unsubscribe`

    async def publish(board: Board) -> None:
        tops[board] += 1
        await hub.publish(board, snapshot(USERS[board][tops[board] % 2], tops[board], board=board))

    async def publish_often(board: Board) -> None:
        for _ in range(40):
            await publish(board)
            for _ in range(chance.randint(0, 3)):
                await trio.lowlevel.checkpoint()

    async def write_to(socket: Socket) -> None:
        with suppress(trio.ClosedResourceError):
            await socket.send_all(framing.PONG_FRAME)

    async def interfere(nursery: trio.Nursery) -> None:
        for _ in range(150):
            viewer, board = chance.choice(everyone), chance.choice((BOARD, OTHER))
            match chance.randint(0, 6):
                case 0:
                    everyone.append(RealViewer(hub, nursery, board))
                case 1 if viewer.socket.fd >= 0:
                    viewer.subscribe(hub, board)
                    enough.pop((viewer, board), None)
                case 2:
                    hub.unsubscribe(viewer, board)
                    enough[viewer, board] = tops[board]
                case 3:
                    viewer.socket.close()
                    if chance.random() < 0.5:  # else its transport learns of it later
                        hub.remove(viewer)
                case 4:
                    hub.send(viewer, framing.PONG_FRAME)
                case 5:
                    nursery.start_soon(write_to, viewer.socket)
                case _:
                    viewer.collect()
            for _ in range(chance.randint(0, 2)):
                await trio.lowlevel.checkpoint()

    async def settled() -> None:
        while any(
            viewer.socket._flushing or viewer.socket._lock.locked() for viewer in everyone if viewer.socket.fd >= 0
        ):
            for viewer in everyone:
                viewer.collect()
            await trio.lowlevel.checkpoint()

    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                everyone += [RealViewer(hub, nursery, BOARD) for _ in range(6)]
                async with trio.open_nursery() as movers:
                    movers.start_soon(publish_often, BOARD)
                    movers.start_soon(publish_often, OTHER)
                    movers.start_soon(interfere, nursery)
                await settled()
                for board in (BOARD, OTHER):
                    await publish(board)
                await settled()
        for viewer in everyone:
            newest = {board: enough.get((viewer, board), tops[board]) for board in (BOARD, OTHER)}
            check(
                viewer,
                newest,
                {board for board in (BOARD, OTHER) if viewer in subscribers(hub, board) and viewer.socket.fd >= 0},
            )
    finally:
        for viewer in everyone:
            viewer.socket.close()
            viewer.peer.close()


def check(viewer: RealViewer, newest: dict[Board, int], subscribed: set[Board]) -> None:
    viewer.collect()
    got: dict[Board, list[int]] = {BOARD: [], OTHER: []}
    for event in read_frames(viewer.received, cut=viewer.socket.fd < 0):
        if event["event"] == "leaderboard:update":
            board = BOARD if names(event) in USERS[BOARD] else OTHER
            assert names(event) in USERS[board]
            got[board].append(int(event["data"]["position"].split("-")[1]))
    for board, positions in got.items():
        assert positions == sorted(positions)
        assert len(positions) - len(set(positions)) <= max(0, viewer.asked[board] - 1)  # again only when it asked again
        assert not positions or viewer.asked[board]
        assert not positions or positions[-1] <= newest[board]
        assert board not in subscribed or positions[-1] == newest[board]
