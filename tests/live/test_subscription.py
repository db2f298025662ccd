"""Messages reach the boards, the hub and the sessions; a subscription that ends, even without an error, is renewed."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import open_stores
from scoreboard.live import subscription as module
from scoreboard.live.hub import Hub
from scoreboard.live.subscription import HEARTBEAT_TIMEOUT_SECONDS, Subscription
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.storage import bus
from scoreboard.storage.bus import Bus
from scoreboard.telemetry import metrics
from tests.conftest import OwnValkey
from tests.live.boards import BOARD, OTHER
from tests.live.dependencies import FakeAuthenticator
from tests.live.messages import kinds
from tests.live.viewers import FakeViewer
from tests.storage.scored_board import ScoredBoard

ANN = UUID(int=1)


class FakeBoard:
    """Records the versions of the hints."""

    def __init__(self, board: Board = BOARD) -> None:
        self.board = board
        self.versions: list[tuple[BoardVersion, int]] = []
        self.invalidations = 0
        self.is_stale = False

    def note_hint(self, version: BoardVersion, shown_version: int = 0) -> bool:
        is_news = all(shown_version > before for _, before in self.versions)
        self.versions.append((version, shown_version))
        return is_news

    def invalidate(self) -> None:
        self.invalidations += 1


class FakeBatcher:
    """Records the boards that it was notified of."""

    def __init__(self) -> None:
        self.notified: list[Board] = []

    def notify(self, board: Board) -> None:
        self.notified.append(board)


class FakeBus:
    """A bus that a test controls: each subscription stands at once and lasts until it is `cut`."""

    def __init__(self) -> None:
        self.subscriptions, self.beats, self.echoes, self.refuses = 0, 0, True, False
        self.viewers = 0  # as the last heartbeat said
        self.deliver: Callable[[bytes], None] = lambda _: None
        self.cut = trio.Event()

    def decode(self, payload: bytes) -> bus.BusMessage | None:
        return bus.decode(payload, "")

    async def listen(self, subscribed: Callable[[], None], deliver: Callable[[bytes], None]) -> None:
        if self.refuses:
            raise StorageUnavailable("redis", "refused")
        self.subscriptions, self.deliver, self.cut = self.subscriptions + 1, deliver, trio.Event()
        subscribed()
        await self.cut.wait()
        raise StorageUnavailable("redis", "cut")

    async def publish_beat(self, node: str, viewers: int = 0) -> None:
        self.beats += 1
        self.viewers = viewers
        if self.refuses:
            raise StorageUnavailable("redis", "refused")
        if self.echoes:
            self.deliver(f"beat\n\n{node}".encode())


class ListeningNode:
    """A subscription and all that it calls."""

    def __init__(self) -> None:
        self.bus, self.board, self.other = FakeBus(), FakeBoard(BOARD), FakeBoard(OTHER)
        self.hub, self.authenticator = Hub((BOARD, OTHER)), FakeAuthenticator()
        self.viewers, self.batcher = ViewerCount(self.hub, "here"), FakeBatcher()
        self.subscription = Subscription(
            self.bus,  # type: ignore[arg-type]
            {BOARD.id: self.board, OTHER.id: self.other},  # type: ignore[dict-item]
            self.batcher,  # type: ignore[arg-type]
            self.hub,
            self.viewers,
            node="here",
            authenticator=self.authenticator,
        )


@pytest.fixture
async def listening(nursery: trio.Nursery) -> ListeningNode:
    made = ListeningNode()
    await nursery.start(made.subscription.run)
    return made


async def test_hints_go_where_they_belong(listening: ListeningNode, autojump_clock: trio.testing.MockClock) -> None:
    """A board gets its version and top, its user the score, a session's end closes its connections; the rest is
    ignored."""
    await trio.sleep(0.1)
    viewer = FakeViewer(listening.hub, user=ANN, sid=UUID(int=9))
    for payload in (
        f'board\n\n{BOARD.id}\n1\n7\n6\n3\n[["{ANN}",0,10,10,1,"r",0]]'.encode(),
        b"board\n\nof another node\n1\n7\n6\n\n[]",
        b"nonsense",
        f"revoked\n\n{UUID(int=9)}".encode(),
    ):
        listening.bus.deliver(payload)
    await trio.sleep(0.1)
    assert listening.board.versions == [(BoardVersion(1, 7), 6)]
    assert kinds(viewer.events) == ["score:personal"]
    assert (listening.authenticator.revoked, viewer.ends) == ([UUID(int=9)], [CloseCode.TOKEN])


async def test_a_change_of_the_top_reaches_the_batcher(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """Once for each; a change below the shown rows does not count."""
    await trio.sleep(0.1)
    for version, shown_version in ((7, 6), (8, 6), (9, 9)):
        listening.bus.deliver(f"board\n\n{BOARD.id}\n1\n{version}\n{shown_version}\n\n[]".encode())
    await trio.sleep(0.1)
    assert listening.batcher.notified == [BOARD, BOARD]


async def test_each_message_goes_to_the_board_that_it_names(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """Two boards have versions of their own; a user gets the personal events of both, each as stale as its board is."""
    await trio.sleep(0.1)
    viewer = FakeViewer(listening.hub, user=ANN, sid=UUID(int=9), subscribed=False)
    listening.other.is_stale = True
    for board, version in ((BOARD, 7), (OTHER, 3)):
        listening.bus.deliver(f'board\n\n{board.id}\n1\n{version}\n{version}\n3\n[["{ANN}",0,10,10,1,"r",0]]'.encode())
    await trio.sleep(0.1)
    assert listening.board.versions == [(BoardVersion(1, 7), 7)]
    assert listening.other.versions == [(BoardVersion(1, 3), 3)]
    assert listening.batcher.notified == [BOARD, OTHER]
    assert [(event["data"]["position"], event["data"]["rank"]) for event in viewer.events] == [
        ("1-7", 3),
        ("1-3", None),
    ]


async def test_no_rank_is_passed_on_while_the_board_is_stale(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """The message may come from a call that its sender had abandoned: the score counts, the rank may be wrong."""
    await trio.sleep(0.1)
    viewer = FakeViewer(listening.hub, user=ANN, sid=UUID(int=9))
    listening.board.is_stale = True
    listening.bus.deliver(f'board\n\n{BOARD.id}\n1\n7\n6\n3\n[["{ANN}",0,10,10,1,"r",0]]'.encode())
    await trio.sleep(0.1)
    (event,) = viewer.events
    assert (event["data"]["newScore"], event["data"]["rank"]) == (10, None)


async def test_heartbeats_carry_who_watches(listening: ListeningNode, autojump_clock: trio.testing.MockClock) -> None:
    """This node's number goes out with its heartbeat; those of other nodes are added. A heartbeat of an older version
    without a number counts as 0."""
    viewers = [FakeViewer(listening.hub) for _ in range(3)]
    await trio.sleep(1.5)
    assert listening.bus.viewers == len(viewers)
    for payload in (b"beat\n\nthere\n40", b"beat\n\nelsewhere", b"beat\n\nhere\n3"):
        listening.bus.deliver(payload)
    await trio.sleep(0.1)
    assert listening.viewers.total() == 43


async def test_a_lost_subscription_is_made_again_and_every_board_read_anew(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """What was published meanwhile is lost, so each board is read again, each time."""
    await trio.sleep(0.1)
    for times in (1, 2, 3):
        assert (listening.bus.subscriptions, listening.board.invalidations) == (times, times)
        listening.bus.cut.set()
        await trio.sleep(2)


async def test_a_silent_subscription_is_made_again(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """It stays while heartbeats come back. When three are missing it is renewed, though no error was raised."""
    await trio.sleep(60)
    assert listening.bus.subscriptions == 1
    listening.bus.echoes = False
    await trio.sleep(HEARTBEAT_TIMEOUT_SECONDS + 3)
    assert listening.bus.subscriptions == 2
    listening.bus.echoes = True
    await trio.sleep(60)
    again = listening.bus.subscriptions
    assert again in {2, 3}
    await trio.sleep(60)
    assert listening.bus.subscriptions == again


async def test_redis_away_for_long_costs_nothing_but_attempts(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """It tries again and again, and listens when Redis is back."""
    await trio.sleep(0.1)
    listening.bus.refuses = True
    listening.bus.cut.set()
    await trio.sleep(600)
    assert listening.bus.subscriptions == 1
    listening.bus.refuses = False
    await trio.sleep(2)
    assert listening.bus.subscriptions == 2


async def test_more_than_can_be_dispatched_is_dropped(
    listening: ListeningNode, autojump_clock: trio.testing.MockClock
) -> None:
    """A burst beyond the channel's bound is counted and lost; nothing grows, and what comes later is received."""
    await trio.sleep(0.1)
    before = metrics.HINTS_DROPPED._value.get()
    for version in range(module.MAX_UNREAD_MESSAGES + 50):
        listening.bus.deliver(f"board\n\n{BOARD.id}\n1\n{version}\n0\n\n[]".encode())
    assert metrics.HINTS_DROPPED._value.get() - before in {49, 50}  # one may be on its way already
    await trio.sleep(0.1)
    listening.bus.deliver(f"board\n\n{BOARD.id}\n1\n9999\n0\n\n[]".encode())
    await trio.sleep(0.1)
    assert listening.board.versions[-1] == (BoardVersion(1, 9999), 0)


@pytest.fixture
async def scored(database_url: str, fresh_valkey: OwnValkey) -> AsyncIterator[ScoredBoard]:
    async with open_stores(database_url, fresh_valkey.url) as stores:
        yield ScoredBoard(stores)


async def test_it_receives_through_a_restart_of_redis(
    scored: ScoredBoard, fresh_valkey: OwnValkey, nursery: trio.Nursery
) -> None:
    """On a real Valkey that is killed and comes back: messages are received before and after."""
    board, hub, authenticator = FakeBoard(), Hub((BOARD,)), FakeAuthenticator()
    bus = Bus(scored.stores)
    with trio.fail_after(20):
        boards: Any = {BOARD.id: board}
        batcher: Any = FakeBatcher()
        subscription = Subscription(
            bus, boards, batcher, hub, ViewerCount(hub, "here"), node="here", authenticator=authenticator
        )
        await nursery.start(subscription.run)

        async def until_received() -> None:
            sid = uuid4()
            while sid not in authenticator.revoked:
                try:
                    await bus.publish_revoked(sid)
                except StorageUnavailable:
                    pass  # not back yet
                await trio.sleep(0.02)

        await until_received()
        await scored.open_board()
        await scored.score(await scored.user("ann"), 10)
        while not board.versions:
            await trio.sleep(0.01)
        assert board.versions == [(BoardVersion(1, 1), 1)]
        fresh_valkey.kill()
        fresh_valkey.start()
        await until_received()
        assert board.invalidations >= 2
    nursery.cancel_scope.cancel()
