"""How many watch, on all nodes, and who is told."""

import trio
import trio.testing

from scoreboard.domain.protocol import event_stream
from scoreboard.live.hub import Hub
from scoreboard.live.viewer import Poll
from scoreboard.live.viewer_count import HEARD, TELL, ViewerCount
from tests.live.viewers import BOARD, FakeViewer


def counts(viewer: FakeViewer) -> list[int]:
    return [event["data"]["count"] for event in viewer.events if event["event"] == "viewers"]


async def test_subscribers_are_told_at_most_every_five_seconds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever does not know the number yet, on every transport; nobody twice the same, nobody who watches nothing."""
    hub = Hub((BOARD,))
    audience = ViewerCount(hub, "here")
    await nursery.start(audience.run)
    one, other, idle = FakeViewer(hub), FakeViewer(hub, wrap=event_stream), FakeViewer(hub, subscribed=False)
    for _ in range(27):
        audience.hear("there", 40)
        await trio.sleep(1)
    assert (counts(one), counts(other), counts(idle)) == ([42], [42], [])
    assert other.fake.taken[0].startswith(b"event: viewers\ndata: {")
    late = FakeViewer(hub)
    hub.wait(Poll(lambda: None), BOARD)
    await trio.sleep(TELL)
    assert (counts(one), counts(late)) == ([42, 4], [4])  # the other node was not heard of any more


async def test_nodes_that_fall_silent_count_no_more(autojump_clock: trio.testing.MockClock) -> None:
    """Three beats missed: gone. This node's own beats are not counted twice."""
    audience = ViewerCount(Hub((BOARD,)), "here")
    audience.hear("here", 7)
    audience.hear("a", 10)
    await trio.sleep(HEARD - 1)
    audience.hear("b", 5)
    assert audience.everywhere() == 15
    await trio.sleep(2)
    assert audience.everywhere() == 5
    await trio.sleep(HEARD)
    assert audience.everywhere() == 0


async def test_who_is_behind_is_told_another_time() -> None:
    """The number is no event to wait for."""
    hub = Hub((BOARD,))
    slow = FakeViewer(hub)
    slow.fake.stuck = True
    await hub.count_viewers(3)
    assert slow.pending is None
    slow.fake.release()
    await hub.count_viewers(3)
    await hub.count_viewers(3)
    assert counts(slow) == [3]


async def test_a_viewer_of_anything_counts_once() -> None:
    """Whatever it subscribes to, however often."""
    hub = Hub((BOARD, "daily"))
    viewer = FakeViewer(hub)
    hub.subscribe(viewer, "daily", delta=True)
    hub.subscribe(viewer, BOARD, delta=True)
    assert (hub.audience(), hub.watched()) == (1, [BOARD, "daily"])
    hub.unsubscribe(viewer, BOARD)
    assert (hub.audience(), hub.watched()) == (1, ["daily"])
