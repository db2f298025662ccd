"""Heartbeats on quiet boards: which viewers get them, how often, on which transport."""

import trio
import trio.testing

from scoreboard.domain import framing, protocol
from scoreboard.live.heartbeat import run_heartbeat
from scoreboard.live.hub import Hub
from tests.live.boards import BOARD, snapshot
from tests.live.viewers import FakeViewer

SECONDS = 60


def heartbeats(viewer: FakeViewer) -> int:
    return sum(frame in {framing.HEARTBEAT_COMMENT, framing.HEARTBEAT_FRAME} for frame in viewer.fake.accepted)


async def test_a_viewer_that_wants_heartbeats_gets_them_in_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A viewer of a quiet board that wants heartbeats gets one within HEARTBEAT_SECONDS; another viewer gets none."""
    hub = Hub((BOARD,))
    await nursery.start(run_heartbeat, hub)
    asked, stream, other = FakeViewer(hub), FakeViewer(hub, encode=framing.event_stream), FakeViewer(hub)
    asked.wants_heartbeat = stream.wants_heartbeat = True
    await trio.sleep(SECONDS)
    assert heartbeats(asked) >= SECONDS / protocol.HEARTBEAT_SECONDS - 1
    assert (heartbeats(stream), heartbeats(other)) == (heartbeats(asked), 0)
    assert stream.fake.accepted[0].startswith(b":")  # a comment, which is no event


async def test_a_busy_board_needs_no_heartbeat(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Where boards are sent more often there is no heartbeat."""
    hub = Hub((BOARD,))
    await nursery.start(run_heartbeat, hub)
    viewer = FakeViewer(hub)
    viewer.wants_heartbeat = True
    for step in range(1, SECONDS):
        await hub.publish(BOARD, snapshot("ab" if step % 2 else "ba", step))
        await trio.sleep(1)
    assert heartbeats(viewer) == 0


async def test_a_viewer_that_is_behind_gets_none(autojump_clock: trio.testing.MockClock) -> None:
    """It is skipped, and no heartbeat is kept for later."""
    hub = Hub((BOARD,))
    slow = FakeViewer(hub)
    slow.wants_heartbeat = slow.fake.stuck = True
    await hub.send_heartbeats(0)
    slow.fake.release()
    assert heartbeats(slow) == 0
