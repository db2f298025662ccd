"""What is heard reaches the boards, the hub and the sessions; a subscription that dies, however quietly, is made
again."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from scoreboard.domain.boards import BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.protocol import CloseCode
from scoreboard.live import subscription as module
from scoreboard.live.hub import Hub
from scoreboard.live.subscription import MISSED_HEARTBEATS, Reader
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.storage import bus
from scoreboard.storage.bus import Bus
from scoreboard.storage.connections.stores import open_stores
from scoreboard.telemetry import observe
from tests.conftest import OwnValkey
from tests.live.viewers import BOARD, FakeViewer, kinds
from tests.storage.boards import World

ANN = UUID(int=1)


class FakeBoard:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[BoardVersion, int]] = []
        self.distrusted = 0
        self.is_stale = False

    def note_hint(self, version: BoardVersion, top: int = 0) -> bool:
        is_news = all(top > before for _, before in self.heard)
        self.heard.append((version, top))
        return is_news

    def invalidate(self) -> None:
        self.distrusted += 1


class FakeBatcher:
    """Remembers which boards it was told of."""

    def __init__(self) -> None:
        self.notified: list[str] = []

    def notify(self, board: str) -> None:
        self.notified.append(board)


class FakeBus:
    """A bus at a test's command: each subscription stands at once and lives until it is `cut`, heard or not."""

    def __init__(self) -> None:
        self.subscriptions, self.beats, self.echoes, self.refuses = 0, 0, True, False
        self.viewers = 0  # as the last beat told
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


class Scene:
    def __init__(self) -> None:
        self.bus, self.board, self.hub, self.revoked = FakeBus(), FakeBoard(), Hub((BOARD,)), list[UUID]()
        self.audience, self.batcher = ViewerCount(self.hub, "here"), FakeBatcher()
        self.reader = Reader(
            self.bus,  # type: ignore[arg-type]
            {BOARD: self.board},  # type: ignore[dict-item]
            self.batcher,  # type: ignore[arg-type]
            self.hub,
            self.audience,
            node="here",
            revoked=self.revoked.append,
        )


@pytest.fixture
async def scene(nursery: trio.Nursery) -> Scene:
    made = Scene()
    await nursery.start(made.reader.run)
    return made


async def test_hints_go_where_they_belong(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """A board hears its mark and top, its user the score, a session's end closes its connections; the rest is
    ignored."""
    await trio.sleep(0.1)
    viewer = FakeViewer(scene.hub, user=ANN, sid=UUID(int=9))
    for payload in (
        f'board\n\n{BOARD}\n1\n7\n6\n3\n[["{ANN}",0,10,10,1,"r",0]]'.encode(),
        b"board\n\nof another node\n1\n7\n6\n\n[]",
        b"nonsense",
        f"revoked\n\n{UUID(int=9)}".encode(),
    ):
        scene.bus.deliver(payload)
    await trio.sleep(0.1)
    assert scene.board.heard == [(BoardVersion(1, 7), 6)]
    assert kinds(viewer.events) == ["score:personal"]
    assert (scene.revoked, viewer.ends) == ([UUID(int=9)], [CloseCode.TOKEN])


async def test_a_change_of_the_top_is_told_to_the_batcher(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """Once for each; a change further down is none that viewers see."""
    await trio.sleep(0.1)
    for version, top in ((7, 6), (8, 6), (9, 9)):
        scene.bus.deliver(f"board\n\n{BOARD}\n1\n{version}\n{top}\n\n[]".encode())
    await trio.sleep(0.1)
    assert scene.batcher.notified == [BOARD, BOARD]


async def test_no_rank_is_passed_on_while_the_board_is_stale(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """The message may come of a call that its sender had given up: the score counts, the rank may be none that ever
    was."""
    await trio.sleep(0.1)
    viewer = FakeViewer(scene.hub, user=ANN, sid=UUID(int=9))
    scene.board.is_stale = True
    scene.bus.deliver(f'board\n\n{BOARD}\n1\n7\n6\n3\n[["{ANN}",0,10,10,1,"r",0]]'.encode())
    await trio.sleep(0.1)
    (event,) = viewer.events
    assert (event["data"]["newScore"], event["data"]["rank"]) == (10, None)


async def test_beats_carry_who_watches(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """This node's number goes out with its beat; those of others are added up, that of an older version counts as
    none."""
    viewers = [FakeViewer(scene.hub) for _ in range(3)]
    await trio.sleep(1.5)
    assert scene.bus.viewers == len(viewers)
    for payload in (b"beat\n\nthere\n40", b"beat\n\nelsewhere", b"beat\n\nhere\n3"):
        scene.bus.deliver(payload)
    await trio.sleep(0.1)
    assert scene.audience.everywhere() == 43


async def test_a_lost_subscription_is_made_again_and_every_board_read_anew(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """What was published meanwhile is lost: the boards are distrusted, each time."""
    await trio.sleep(0.1)
    for times in (1, 2, 3):
        assert (scene.bus.subscriptions, scene.board.distrusted) == (times, times)
        scene.bus.cut.set()
        await trio.sleep(2)


async def test_a_silent_subscription_is_made_again(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """While beats come back it stays; when three have not, it is dead, though no error says so."""
    await trio.sleep(60)
    assert scene.bus.subscriptions == 1
    scene.bus.echoes = False
    await trio.sleep(MISSED_HEARTBEATS + 3)
    assert scene.bus.subscriptions == 2
    scene.bus.echoes = True
    await trio.sleep(60)
    again = scene.bus.subscriptions
    assert again in {2, 3}
    await trio.sleep(60)
    assert scene.bus.subscriptions == again


async def test_redis_away_for_long_costs_nothing_but_attempts(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """It tries again and again, and listens when Redis is back."""
    await trio.sleep(0.1)
    scene.bus.refuses = True
    scene.bus.cut.set()
    await trio.sleep(600)
    assert scene.bus.subscriptions == 1
    scene.bus.refuses = False
    await trio.sleep(2)
    assert scene.bus.subscriptions == 2


async def test_more_than_can_be_handed_on_is_dropped(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """A burst beyond the channel's bound is counted and lost; nothing grows, and what comes later is heard."""
    await trio.sleep(0.1)
    before = observe.HINTS_DROPPED._value.get()
    for version in range(module.UNREAD + 50):
        scene.bus.deliver(f"board\n\n{BOARD}\n1\n{version}\n0\n\n[]".encode())
    assert observe.HINTS_DROPPED._value.get() - before in {49, 50}  # one may be on its way already
    await trio.sleep(0.1)
    scene.bus.deliver(f"board\n\n{BOARD}\n1\n9999\n0\n\n[]".encode())
    await trio.sleep(0.1)
    assert scene.board.heard[-1] == (BoardVersion(1, 9999), 0)


@pytest.fixture
async def world(database_url: str, fresh_valkey: OwnValkey) -> AsyncIterator[World]:
    async with open_stores(database_url, fresh_valkey.url) as stores:
        yield World(stores)


async def test_it_hears_through_a_restart_of_redis(
    world: World, fresh_valkey: OwnValkey, nursery: trio.Nursery
) -> None:
    """On a real Valkey that is killed and comes back: messages are heard before and after."""
    board, hub, revoked = FakeBoard(), Hub((BOARD,)), list[UUID]()
    bus = Bus(world.stores)
    with trio.fail_after(20):
        boards: Any = {BOARD: board}
        batcher: Any = FakeBatcher()
        reader = Reader(bus, boards, batcher, hub, ViewerCount(hub, "here"), node="here", revoked=revoked.append)
        await nursery.start(reader.run)

        async def until_heard() -> None:
            sid = uuid4()
            while sid not in revoked:
                try:
                    await bus.publish_revoked(sid)
                except StorageUnavailable:
                    pass  # not back yet
                await trio.sleep(0.02)

        await until_heard()
        await world.open_board()
        await world.score(await world.user("ann"), 10)
        while not board.heard:
            await trio.sleep(0.01)
        assert board.heard == [(BoardVersion(1, 1), 1)]
        fresh_valkey.kill()
        fresh_valkey.start()
        await until_heard()
        assert board.distrusted >= 2
    nursery.cancel_scope.cancel()
