"""The number of viewers on all nodes, and which viewers are sent it."""

import trio
import trio.testing

from scoreboard.domain.boards import Board
from scoreboard.domain.framing import event_stream
from scoreboard.live.hub import Hub
from scoreboard.live.viewer_count import NODE_TIMEOUT_SECONDS, SEND_INTERVAL_SECONDS, ViewerCount
from tests.live.boards import BOARD
from tests.live.viewers import FakePoll, FakeViewer

DAILY = Board("daily")


def counts(viewer: FakeViewer) -> list[int]:
    return [event["data"]["count"] for event in viewer.events if event["event"] == "viewers"]


async def test_the_number_is_sent_at_most_every_five_seconds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """To subscribers that were not sent that number, on every transport; to no viewer without a subscription."""
    hub = Hub((BOARD,))
    viewers = ViewerCount(hub, "here")
    await nursery.start(viewers.run)
    one, other, idle = FakeViewer(hub), FakeViewer(hub, encode=event_stream), FakeViewer(hub, subscribed=False)
    for _ in range(27):
        viewers.on_heartbeat("there", 40)
        await trio.sleep(1)
    assert (counts(one), counts(other), counts(idle)) == ([42], [42], [])
    assert other.fake.accepted[0].startswith(b"event: viewers\ndata: {")
    late = FakeViewer(hub)
    hub.add_poll(FakePoll(), BOARD)
    await trio.sleep(SEND_INTERVAL_SECONDS)
    assert (counts(one), counts(late)) == ([42, 4], [4])  # the other node sent no heartbeat any more


async def test_nodes_without_heartbeats_are_not_counted(autojump_clock: trio.testing.MockClock) -> None:
    """A node counts until three heartbeats are missing. This node's own heartbeats are not counted twice."""
    viewers = ViewerCount(Hub((BOARD,)), "here")
    viewers.on_heartbeat("here", 7)
    viewers.on_heartbeat("a", 10)
    await trio.sleep(NODE_TIMEOUT_SECONDS - 1)
    viewers.on_heartbeat("b", 5)
    assert viewers.total() == 15
    await trio.sleep(2)
    assert viewers.total() == 5
    await trio.sleep(NODE_TIMEOUT_SECONDS)
    assert viewers.total() == 0


async def test_a_viewer_that_is_behind_gets_a_later_number() -> None:
    """The number is not kept for it."""
    hub = Hub((BOARD,))
    slow = FakeViewer(hub)
    slow.fake.stuck = True
    await hub.send_viewer_count(3)
    assert slow.pending is None
    slow.fake.release()
    await hub.send_viewer_count(3)
    await hub.send_viewer_count(3)
    assert counts(slow) == [3]


async def test_a_viewer_of_anything_counts_once() -> None:
    """Whatever it subscribes to, however often."""
    hub = Hub((BOARD, DAILY))
    viewer = FakeViewer(hub)
    hub.subscribe(viewer, DAILY, delta=True)
    hub.subscribe(viewer, BOARD, delta=True)
    assert (hub.viewer_count(), hub.watched_boards()) == (1, [BOARD, DAILY])
    hub.unsubscribe(viewer, BOARD)
    assert (hub.viewer_count(), hub.watched_boards()) == (1, [DAILY])
