"""What the hub sends: broadcasts, boards for viewers that lag, personal events, closes at shutdown."""

from time import monotonic
from uuid import UUID

import pytest
import trio
import trio.testing

from scoreboard.domain import protocol
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.framing import PONG_FRAME, event_stream
from scoreboard.domain.protocol import Event
from scoreboard.live import fan_out
from scoreboard.live import hub as module
from scoreboard.live.hub import MAX_PENDING_EVENTS, Hub
from scoreboard.storage.bus import Rejected
from scoreboard.telemetry import metrics
from tests.live.boards import BOARD, OTHER, snapshot, update_for
from tests.live.messages import kinds, names, read_stream
from tests.live.viewers import FakePoll, FakeViewer

ANN, BOB = UUID(int=1), UUID(int=2)


@pytest.fixture
def hub() -> Hub:
    return Hub((BOARD,))


def yield_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fan-out lets others run after every viewer."""
    monkeypatch.setattr(module, "WRITES_PER_CHECKPOINT", 1)
    monkeypatch.setattr(fan_out, "BATCH_SIZE", 1)


async def test_every_subscriber_gets_the_same_bytes_and_nobody_else(hub: Hub) -> None:
    """One shared frame a tick; viewers without a subscription, or that have ended it, get none."""
    viewers = [FakeViewer(hub) for _ in range(3)]
    idle, gone = FakeViewer(hub, subscribed=False), FakeViewer(hub)
    hub.unsubscribe(gone, BOARD)
    assert await hub.publish(BOARD, snapshot("ab", 1))
    assert not await hub.publish(BOARD, snapshot("ab", 1))
    assert viewers[0].fake.accepted[0] is viewers[1].fake.accepted[0] is viewers[2].fake.accepted[0]
    assert [len(viewer.fake.accepted) for viewer in viewers] == [1, 1, 1]
    assert (idle.fake.accepted, gone.fake.accepted) == ([], [])
    assert hub.watched_boards() == [BOARD]


async def test_a_new_subscriber_gets_what_is_published(hub: Hub) -> None:
    """At once, without changed positions; then it gets updates like the others."""
    FakeViewer(hub)
    await hub.publish(BOARD, snapshot("ab", 1))
    await hub.publish(BOARD, snapshot("ba", 2))
    late = FakeViewer(hub)
    hub.send_latest(late, BOARD)
    hub.send_latest(late, BOARD)
    await hub.publish(BOARD, snapshot("bc", 3))
    assert [names(event) for event in late.events] == ["ba", "bc"]
    assert [len(event["data"]["changedPositions"]) for event in late.events] == [0, 2]


async def test_subscribing_again_gives_the_whole_board_again(hub: Hub) -> None:
    """A client that noticed a gap subscribes again and gets what a new one gets."""
    viewer = FakeViewer(hub)
    await hub.publish(BOARD, snapshot("ab", 1))
    hub.subscribe(viewer, BOARD)
    hub.send_latest(viewer, BOARD)
    assert [names(event) for event in viewer.events] == ["ab", "ab"]


async def test_a_lagging_viewer_gets_the_newest_and_no_queue(hub: Hub) -> None:
    """Boards that a stuck socket missed are never sent. When it is writable it gets the newest, once, and then updates
    like the others."""
    slow, other = FakeViewer(hub), FakeViewer(hub)
    await hub.publish(BOARD, snapshot("a", 1))
    slow.fake.stuck = True
    for top, users in enumerate(("b", "c", "d"), 2):
        await hub.publish(BOARD, snapshot(users, top))
    assert slow.pending is None
    slow.fake.release()
    slow.fake.release()
    await hub.publish(BOARD, snapshot("e", 5))
    assert [names(event) for event in slow.events] == ["a", "d", "e"]
    assert [names(event) for event in other.events] == ["a", "b", "c", "d", "e"]
    assert slow.fake.accepted[-1] is other.fake.accepted[-1]


async def test_one_refused_tick_is_made_up_with_the_update_itself(hub: Hub) -> None:
    """When another task holds the socket during a tick, the viewer gets that tick's frame as soon as the socket is
    free."""
    viewer, other = FakeViewer(hub), FakeViewer(hub)
    await hub.publish(BOARD, snapshot("ab", 1))
    viewer.fake.stuck = True
    await hub.publish(BOARD, snapshot("ba", 2))
    viewer.fake.release()
    assert viewer.fake.accepted == other.fake.accepted


async def test_events_wait_in_order_before_the_board(hub: Hub) -> None:
    """Events that a stuck socket refused go out in order when it is writable, then the newest board; ticks meanwhile do
    not overtake them."""
    viewer = FakeViewer(hub, user=ANN)
    viewer.fake.stuck = True
    hub.send(viewer, PONG_FRAME)
    hub.send_personal(BOARD, update_for(ANN))
    viewer.fake.stuck = False  # there is room, but `on_writable` was not called yet
    await hub.publish(BOARD, snapshot("a", 1))
    hub.send(viewer, PONG_FRAME)
    assert viewer.fake.accepted == []
    viewer.fake.release()
    assert kinds(viewer.events) == ["pong", "score:personal", "pong", "leaderboard:update"]
    assert viewer.pending is None


async def test_what_waits_is_bounded(hub: Hub) -> None:
    """More events than MAX_PENDING_EVENTS: the oldest go, the newest stay."""
    viewer = FakeViewer(hub, user=ANN, subscribed=False)
    viewer.fake.stuck = True
    for points in range(MAX_PENDING_EVENTS + 5):
        hub.send(viewer, bytes([0x81, 2]) + b"%02d" % (points + 10))
    viewer.fake.release()
    assert viewer.events == list(range(15, MAX_PENDING_EVENTS + 15))  # type: ignore[comparison-overlap]


async def test_a_refusal_goes_to_that_user_s_connections_only(hub: Hub) -> None:
    """All of them, subscribed or not; nobody else's."""
    first, second, other = (
        FakeViewer(hub, user=ANN),
        FakeViewer(hub, user=ANN, subscribed=False),
        FakeViewer(hub, user=BOB),
    )
    hub.send_rejected(Rejected(ANN, "a", "race", "too fast"))
    assert first.events == second.events
    assert [(event["event"], event["data"]) for event in first.events] == [
        ("score:rejected", {"actionId": "a", "actionType": "race", "reason": "too fast"})
    ]
    assert other.events == []


async def test_personal_events_go_to_that_user_s_connections_only(hub: Hub) -> None:
    """All of them, subscribed or not, each of the user's actions; nobody else's."""
    first, second, other, nobody = (
        FakeViewer(hub, user=ANN),
        FakeViewer(hub, user=ANN, subscribed=False),
        FakeViewer(hub, user=BOB),
        FakeViewer(hub),
    )
    hub.send_personal(BOARD, update_for(ANN, ANN))
    assert [event["data"]["rank"] for event in first.events] == [1, 2]
    assert first.events == second.events
    assert (other.events, nobody.events) == ([], [])
    hub.remove(first)
    hub.remove(second)
    hub.send_personal(BOARD, update_for(ANN))
    assert len(first.events) == 2
    assert not hub._users.get(ANN)


async def test_a_removed_viewer_is_nowhere(hub: Hub) -> None:
    """A removed viewer is in no list, and a second removal changes nothing."""
    viewer = FakeViewer(hub, user=ANN)
    hub.remove(viewer)
    hub.remove(viewer)
    await hub.publish(BOARD, snapshot("a", 1))
    assert (len(hub), hub.watched_boards(), hub._users, viewer.fake.accepted) == (0, [], {}, [])


async def test_viewers_may_come_and_go_during_a_fan_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between portions other tasks run. A viewer that leaves is not written to; one that joins or is writable again
    gets the new board once."""
    yield_after_each(monkeypatch)
    first, _, _ = (FakeViewer(hub) for _ in range(3))  # three portions: by then all other tasks have run
    leaving, draining = FakeViewer(hub), FakeViewer(hub)
    await hub.publish(BOARD, snapshot("a", 1))
    joined = []

    async def interfere() -> None:
        hub.remove(leaving)
        draining.fake.release()
        joined.append(FakeViewer(hub))
        hub.send_latest(joined[0], BOARD)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interfere)
        await hub.publish(BOARD, snapshot("b", 2))
    assert [names(event) for event in first.events] == ["a", "b"]
    assert [names(event) for event in leaving.events] == ["a"]
    assert [names(event) for event in draining.events] == ["a", "b"]
    assert [names(event) for event in joined[0].events] == ["b"]


async def test_after_a_cancelled_fan_out_the_next_one_reaches_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Viewers that were not reached get the whole newest board."""
    yield_after_each(monkeypatch)
    viewers = [FakeViewer(hub) for _ in range(3)]
    await hub.publish(BOARD, snapshot("a", 1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await hub.publish(BOARD, snapshot("b", 2))
    await hub.publish(BOARD, snapshot("c", 3))
    assert [[names(event) for event in viewer.events] for viewer in viewers] == [
        ["a", "b", "c"],
        ["a", "c"],
        ["a", "c"],
    ]
    changed = [len(viewer.events[-1]["data"]["changedPositions"]) for viewer in viewers]
    assert changed == [2, 0, 0]  # changed positions go only to viewers with the previous board


async def test_lag_is_measured_only_where_it_is_known(hub: Hub) -> None:
    """A board that is published for another reason than a change counts as no push."""

    def pushes() -> float:
        return next(
            sample.value
            for metric in metrics.PUSH_LAG.collect()
            for sample in metric.samples
            if sample.name.endswith("_count")
        )

    FakeViewer(hub)
    before = pushes()
    await hub.publish(BOARD, snapshot("a", 1))
    assert pushes() == before
    await hub.publish(BOARD, snapshot("b", 2), changed_at=monotonic())
    assert pushes() == before + 1


def test_a_revoked_session_ends_its_connections(hub: Hub) -> None:
    """All of that session, none of the same user's others."""
    ended, kept = FakeViewer(hub, user=ANN, sid=UUID(int=8)), FakeViewer(hub, user=ANN, sid=UUID(int=9))
    hub.close_session(UUID(int=8))
    assert (ended.ends, kept.ends) == ([CloseCode.TOKEN], [])


async def test_shutdown_closes_everyone_within_a_second(hub: Hub, autojump_clock: trio.testing.MockClock) -> None:
    """Each viewer is closed with 1012 once, spread over the second; `is_shutting_down` is set."""
    viewers = [FakeViewer(hub) for _ in range(100)]
    began, closed = trio.current_time(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.shut_down)
        while trio.current_time() < began + 2:
            closed.append(sum(bool(viewer.ends) for viewer in viewers))
            await trio.sleep(0.1)
    assert all(viewer.ends == [CloseCode.RESTART] for viewer in viewers)
    assert hub.is_shutting_down
    assert 20 <= closed[5] <= 80
    assert closed[11] == 100


async def test_shutdown_without_viewers_takes_no_time(hub: Hub, autojump_clock: trio.testing.MockClock) -> None:
    """A node without viewers need not wait for them."""
    await hub.shut_down()
    assert trio.current_time() == 0


async def test_a_stream_gets_the_same_events_in_its_own_format(hub: Hub) -> None:
    """Boards with the position as id, personal events without one; a WebSocket beside it gets frames."""
    stream, socket = FakeViewer(hub, user=ANN, encode=event_stream), FakeViewer(hub, user=ANN)
    await hub.publish(BOARD, snapshot("ab", 1))
    hub.send_personal(BOARD, update_for(ANN))
    events = read_stream(b"".join(stream.fake.accepted))
    assert [(kind, id_) for kind, id_, _ in events] == [("leaderboard:update", "1-1"), ("score:personal", "")]
    assert [event for _, _, event in events] == socket.events


async def test_a_format_without_subscribers_is_not_encoded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each format that has subscribers is encoded once, whatever their number."""
    made: list[str] = []

    def count(name: str) -> None:
        encode = getattr(protocol, name)

        def counted(*given: object) -> object:
            made.append(name)
            return encode(*given)

        monkeypatch.setattr(protocol, name, counted)

    for name in ("update", "delta", "polled"):
        count(name)
    for _ in range(3):
        FakeViewer(hub)
    await hub.publish(BOARD, snapshot("ab", 1))
    await hub.publish(BOARD, snapshot("ba", 2))
    assert made == ["update", "update"]
    for _ in range(3):
        hub.send_latest(FakeViewer(hub, delta=True), BOARD)
    await hub.publish(BOARD, snapshot("ab", 3))
    assert made[2:] == ["update", "update", "delta"]  # the whole board for new viewers, then each format once


async def test_a_board_without_viewers_is_not_current(hub: Hub) -> None:
    """For the first viewer it must be read; not for those that come while it is watched; again after all have left."""
    poll = FakePoll()
    assert hub.add_poll(poll, BOARD)
    await hub.publish(BOARD, snapshot("ab", 1))
    viewer = FakeViewer(hub, subscribed=False)
    assert not hub.subscribe(viewer, BOARD)
    hub.remove_poll(poll, BOARD)
    assert not hub.add_poll(poll, BOARD)
    hub.remove_poll(poll, BOARD)
    hub.remove(viewer)
    await hub.publish(BOARD, snapshot("ba", 2))
    assert hub.subscribe(viewer, BOARD)


async def test_boards_are_independent_of_each_other() -> None:
    """Each viewer gets the boards that it subscribed to, each in its own order and format; so do polls."""
    hub = Hub((BOARD, OTHER))
    first, second = FakeViewer(hub), FakeViewer(hub, subscribed=False)
    both = FakeViewer(hub)
    hub.subscribe(second, OTHER)
    hub.subscribe(both, OTHER, delta=True)
    await hub.publish(BOARD, snapshot("ab", 1))
    await hub.publish(OTHER, snapshot("xy", 7, board=OTHER))
    await hub.publish(OTHER, snapshot("yx", 8, board=OTHER))
    await hub.publish(BOARD, snapshot("ba", 2))
    assert [names(event) for event in first.events] == ["ab", "ba"]
    assert [names(event) for event in second.events] == ["xy", "yx"]
    assert kinds(both.events) == [Event.UPDATE, Event.UPDATE, Event.DELTA, Event.UPDATE]
    assert [event["data"]["position"] for event in both.events] == ["1-1", "1-7", "1-8", "1-2"]
    published = [hub.published(board) for board in (BOARD, OTHER)]
    assert [shown.board for shown in published if shown] == [BOARD.id, OTHER.id]


async def test_a_board_is_current_whatever_the_others_are() -> None:
    """For a viewer that subscribes to a second board that board is read first, though the first one is watched."""
    hub = Hub((BOARD, OTHER))
    viewer = FakeViewer(hub)
    await hub.publish(BOARD, snapshot("ab", 1))
    assert hub.is_current(BOARD)
    assert hub.subscribe(viewer, OTHER)
    assert hub.watched_boards() == [BOARD, OTHER]
    hub.unsubscribe(viewer, BOARD)
    assert (hub.watched_boards(), hub.is_current(BOARD)) == ([OTHER], False)


async def test_a_viewer_that_was_behind_gets_the_newest_of_each_of_its_boards() -> None:
    """Not of the others."""
    hub = Hub((BOARD, OTHER))
    slow, other = FakeViewer(hub), FakeViewer(hub)
    hub.subscribe(slow, OTHER)
    slow.fake.stuck = other.fake.stuck = True
    for top, (users, others) in enumerate((("ab", "xy"), ("ba", "yx")), 1):
        await hub.publish(BOARD, snapshot(users, top))
        await hub.publish(OTHER, snapshot(others, top, board=OTHER))
    slow.fake.release()
    other.fake.release()
    assert [names(event) for event in slow.events] == ["ba", "yx"]
    assert [names(event) for event in other.events] == ["ba"]


def test_only_boards_that_there_are_have_a_channel() -> None:
    """A channel's name leads to its board."""
    hub = Hub((BOARD, OTHER))
    assert [hub.find_board(name) for name in (BOARD.id, OTHER.id, "nothing", "")] == [BOARD, OTHER, None, None]
