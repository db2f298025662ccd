"""A node with two boards by hand-made definitions: the leaderboard, and one that counts one type of action."""

from uuid import UUID

import trio

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion
from scoreboard.domain.outcomes import Outcome, SubmittedAction
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_queue import Pending, Queue
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.agreement import DetachedWriters
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.commit import Commit
from scoreboard.storage.comparison import Repair
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.writer import Writer
from scoreboard.workers.committer import commit_batches
from scoreboard.workers.projector import Projector

DAILY = Board("daily", period="2026-11-25", segment="de", action_types=frozenset({"task_finish"}))
BOARDS = (LEADERBOARD, DAILY)
OTHER_TYPE = "not_on_the_daily_board"


class TwoBoardNode:
    """What a node does with its boards, without HTTP: a queue, a committer, a projector and a cache for each board."""

    def __init__(self, stores: Stores, name: str = "a") -> None:
        self.stores, self.queue, self.breaker = stores, Queue(), Breaker("redis", interval=0)
        self.limits = UserLimits(stores.redis_direct, per_minute=0, cooldowns=False)
        self.changes: list[tuple[Board, BoardVersion]] = []
        self.detached = DetachedWriters(BOARDS)
        self.projectors = {
            board: Projector(stores, board, name, self.limits, self.on_board_changed, self.detached) for board in BOARDS
        }
        profiles = Profiles(stores)
        self.caches = {
            board: BoardCache(
                board,
                stores,
                profiles,
                self.breaker,
                projector.agreement,
                projector.request_repair,
                lambda: stores.installation,
            )
            for board, projector in self.projectors.items()
        }
        writer = Writer(
            stores,
            self.limits,
            [each.agreement for each in self.projectors.values()],
        )
        boards = [BoardWriter(each.projection, each.agreement) for each in self.projectors.values()]
        self.commit = Commit(writer, self.limits, boards, self.breaker)
        for projector in self.projectors.values():
            projector.repair.writers = lambda: [writer.writer_id]

    def on_board_changed(self, board: Board, version: BoardVersion) -> None:
        self.changes.append((board, version))
        self.caches[board].note_version(version)

    async def check(self) -> list[Repair | None]:
        """One comparison of each board."""
        return [await projector.check_once() for projector in self.projectors.values()]

    async def converge(self) -> set[Repair]:
        """Compares until both boards agree with PostgreSQL; which repairs that took."""
        repairs = set[Repair]()
        with trio.fail_after(20):
            while True:
                done = await self.check()
                repairs.update(each for each in done if each is not None)
                if not any(done) and not any(each.agreement.is_stale for each in self.projectors.values()):
                    return repairs

    async def submit(self, *actions: SubmittedAction) -> list[Outcome]:
        """As one batch, by a committer that runs for that long."""
        async with trio.open_nursery() as nursery:
            pending = []
            self.queue.available = 1
            for action in actions:
                queued = self.queue.submit(action)
                assert isinstance(queued, Pending)
                pending.append(queued)
            self.queue.available = 0
            await nursery.start(commit_batches, self.queue, self.commit, self.on_board_changed)
            outcomes = [await each.wait() for each in pending]
            nursery.cancel_scope.cancel()
        return outcomes

    async def shown(self, board: Board) -> list[tuple[UUID, int]]:
        """User and total by rank, as read from Redis."""
        snapshot = await self.caches[board].read()
        assert not snapshot.stale
        assert snapshot.board == board.id
        return [(UUID(entry.userId), entry.score) for entry in snapshot.rows]

    def close(self) -> None:
        for projector in self.projectors.values():
            projector.close()
        self.commit.writer.close()


async def settle(stores: Stores) -> None:
    """Makes what was committed look older than a committer needs to close its own gap."""
    await stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")
