"""Keeps a board in Redis what PostgreSQL says, and says when it is not: compares the two, fills gaps, builds a board
that is gone.

Runs on every node. Each compares for itself, several times a second; one of them repairs (it has a lease in Redis;
correctness does not rest on it). Committers close their own gaps; what is left after a moment (dead writers, outages,
changes that others made) is filled here. Never talks to clients.
"""

from collections.abc import Callable, Set
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

import structlog
import trio

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.storage.agreement import Agreement, DetachedWriters, Doubt
from scoreboard.storage.connections.bridge import postgres_errors, redis_errors, run_in_asyncio
from scoreboard.storage.connections.deadline import ConnectionDeadline, ended_connection
from scoreboard.storage.connections.stores import Connection, Stores
from scoreboard.storage.postgres import outbox
from scoreboard.storage.postgres.outbox import Missing
from scoreboard.storage.rebuild import BoardState, Rebuilder, StaleEpoch
from scoreboard.storage.redis.limits import Limits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.redis.scripts import load_script
from scoreboard.telemetry import metrics

log = structlog.get_logger()

# between two comparisons, of a millisecond each: two of them show a change within a second
CHECK_INTERVAL_SECONDS = 0.4
MIN_INTERVAL_SECONDS = 0.05  # between two comparisons, however often it is woken
# a committer has this long to bring its own turns to the board: longer than a call to Redis may take
SETTLED_SECONDS = 0.3
# a turn that is missing for longer puts the board in doubt: whoever has the lease had time to bring it
BEHIND_SECONDS = 1.0
SEEN_INTERVAL_SECONDS = 1.0  # how often a node says that it still can't reach Redis
LEASE_MS = 2_000  # a dead node's work is taken over after this
LEASE_INTERVAL_SECONDS = 0.5  # between two renewals during long work
REBUILD_TRIES = 5  # of the command, beside nodes that build the board too
# for a comparison; PostgreSQL's silence must not keep the next one from trying a new connection
CHECK_TIMEOUT_SECONDS = 3.0

SHARED = (
    "Another installation uses the same keys of this Redis: this one's boards come from PostgreSQL, and are stale. "
    "Give each installation a redis.prefix or a database of its own."
)


# ---- pure: decides ------------------------------------------------------------------------------------------------


class Repair(Enum):
    """What a board needs."""

    REPLAY = auto()  # it is sound: fill gaps, if any
    # it came back with an older content: a new epoch, so that everybody forgets the newer marks, and fill
    RENEW = auto()
    COMPLETE = auto()  # whoever put it in place was stopped before it was complete
    REBUILD = auto()  # there is none, a part is missing, or PostgreSQL's history went back


class Comparison(NamedTuple):
    """What both stores say at one time. `lost`: turns that the board has and PostgreSQL does not, by writer."""

    found: BoardState
    lost: dict[int, int]
    missing: list[Missing]
    is_pruned: bool  # what is missing is no longer kept
    detached: dict[int, bool]  # writers without Redis → dead


def needed(seen: Comparison, known: BoardVersion) -> Repair:
    """`known` is the newest mark that this node ever saw of the board."""
    found = seen.found
    if not found.is_whole or seen.lost or seen.is_pruned:
        return Repair.REBUILD
    if found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        return Repair.RENEW
    return Repair.COMPLETE if found.is_incomplete else Repair.REPLAY


def doubts(seen: Comparison, known: BoardVersion, own: Set[int], *, was_behind: bool = False) -> set[Doubt]:
    """Why the board may not agree with PostgreSQL. `own`: writers of this node, whose turns the agreement has.
    `was_behind`: a gap was found before; then a young one is none that a committer is just closing."""
    found, reasons = seen.found, set[Doubt]()
    if not found.is_whole:
        reasons.add(Doubt.MISSING)
    elif found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        reasons.add(Doubt.OLD)
    if seen.lost:
        reasons.add(Doubt.HISTORY)
    if found.is_incomplete:
        reasons.add(Doubt.INCOMPLETE)
    if seen.is_pruned or any(was_behind or lack.age > BEHIND_SECONDS for lack in seen.missing):
        reasons.add(Doubt.BEHIND)
    if any(not dead for writer, dead in seen.detached.items() if writer not in own):
        reasons.add(Doubt.DETACHED)
    return reasons


# ---- I/O: acts ----------------------------------------------------------------------------------------------------


class Projector:
    """`request_repair` may be called from anywhere on the loop: the next comparison comes at once."""

    __slots__ = (
        "_conn",
        "_lease",
        "_lease_until",
        "_refused",
        "_seen_at",
        "_woken",
        "agreement",
        "board",
        "is_shared",
        "limits",
        "node",
        "on_board_changed",
        "projection",
        "stores",
        "writers",
    )

    def __init__(
        self,
        stores: Stores,
        board: Board,
        node: str,
        limits: Limits,
        on_board_changed: Callable[[Board, BoardVersion], None],
        detached: DetachedWriters | None = None,
    ) -> None:
        """`detached` is shared by the projectors of a node, one for each board."""
        self.stores, self.board, self.node, self.limits = stores, board, node, limits
        self.on_board_changed = on_board_changed
        self.agreement = Agreement(board, self.request_repair, detached=detached)
        self.projection = Projection(  # shared with the committers
            stores.redis_direct,
            board,
            self.request_repair,
            namespace=stores.namespace,
            installation=lambda: stores.installation,
        )
        self.writers: Callable[[], list[int]] = list  # the numbers of this node's writers
        self._woken = trio.Event()
        self._conn: Connection | None = None
        self.is_shared = False  # another installation repairs the same keys
        self._lease = stores.redis.register_script(load_script("lease.lua"))
        self._lease_until = self._seen_at = 0.0  # trio's clock
        self._refused = ""  # why the last comparison failed; logged once

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should change, in sentences."""
        return (SHARED,) if self.is_shared else ()

    def request_repair(self) -> None:
        self._woken.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compares and repairs, for ever; started after the first comparison.

        Cancelling leaves a half-built board aside, which goes away by itself.
        """
        started = False
        try:
            while True:
                self._woken = trio.Event()
                await self.check_once()
                if not started:
                    started = True
                    task_status.started()
                await trio.sleep(MIN_INTERVAL_SECONDS)
                with trio.move_on_after(CHECK_INTERVAL_SECONDS - MIN_INTERVAL_SECONDS):
                    await self._woken.wait()
        finally:
            self.close()

    async def check_once(self) -> Repair | None:
        """Compares both stores, and repairs the board if it is this node's turn: what was done, or None. Cancelling is
        harmless."""
        try:
            done = await run_in_asyncio(self._check)
            self._refused = ""
            return done
        except (
            StorageUnavailable,
            StaleEpoch,
            outbox.HistoryGone,
        ) as exc:  # after the last two the next comparison tells
            if isinstance(exc, StorageUnavailable) and exc.store == "postgresql":
                self.close()
            if str(exc) != self._refused:
                self._refused = str(exc)
                log.warning("board_check_failed", board=self.board.id, why=str(exc))
            if isinstance(exc, StorageUnavailable) and exc.store == "redis":
                self.agreement.unchecked()
            self.agreement.report()
            return None

    # ---- asyncio-flavoured ------------------------------------------------------------------------------------------

    async def _check(self) -> Repair | None:
        """One comparison and what follows from it. Raises StorageUnavailable, StaleEpoch, HistoryGone."""
        if self._conn is None or self._conn.is_closed():
            self._conn = await self.stores.connect_aio()
        with ConnectionDeadline(self._conn, CHECK_TIMEOUT_SECONDS) as deadline:
            rebuilder = Rebuilder(self.stores, self.board, partial(self._go_on, deadline))
            known = self.projection.known  # before the comparison: the committers may learn of more during it
            try:
                seen = await self._compare(self._conn, rebuilder)
                own, was_behind = (
                    {*self.writers(), *self.agreement.detached.writers},
                    Doubt.BEHIND in self.agreement.doubts(),
                )
                self.agreement.set_doubts(doubts(seen, known, own, was_behind=was_behind))
                await self._attach(self._conn)
                await self.limits.settle(self._conn)
            except StorageUnavailable as exc:
                if exc.store == "redis":
                    await self._stay_detached(self._conn)
                raise
            repair = needed(seen, known)
            if (
                repair is not Repair.REPLAY or seen.missing or any(seen.detached.values())
            ) and await self._take_lease():
                await self._repair(self._conn, rebuilder, repair, seen)
                return repair
            return None

    async def _compare(self, conn: Connection, rebuilder: Rebuilder) -> Comparison:
        """Redis is asked first: a turn is on the board, and acknowledged, only after its commit."""
        self.agreement.begin_comparison()
        expected = self.agreement.expected()
        found = await rebuilder.state()
        missing, is_pruned = list[Missing](), False
        with postgres_errors():
            committed, detached = await outbox.last_turns_and_detached(conn)
            try:
                if found.is_whole:
                    missing = await outbox.missing(conn, self.board, found.applied, committed, SETTLED_SECONDS)
            except outbox.HistoryGone:
                is_pruned = True
        lost = outbox.lost_turns(found.applied, committed)
        lost_here = outbox.lost_turns(expected, committed)
        if (lost or lost_here) and Doubt.HISTORY not in self.agreement.doubts():
            metrics.LOST_TURNS.inc(sum((lost | lost_here).values()))
            log.error("history_lost", store="postgresql", board=self.board.id, turns=sum((lost | lost_here).values()))
        if found.is_whole:
            held = {writer: turn for writer, turn in expected.items() if writer not in lost_here}
            self.agreement.confirm(held, [found.applied.get(writer, 0) for writer in held])
        self.agreement.forget(lost_here, self.writers())
        return Comparison(found, lost, missing, is_pruned, detached)

    async def _attach(self, conn: Connection) -> None:
        """Redis can be reached. Once all boards have what this node's writers committed, all others may trust them
        again."""
        detached = self.agreement.detached
        if not detached.writers:
            return
        is_projected = Doubt.UNPROJECTED not in self.agreement.doubts()
        if is_projected and (ready := detached.confirm(self.board)):
            await self.limits.begin_anew()
            with postgres_errors():
                await outbox.attach(conn, ready)
            detached.remove(ready)
        else:
            await self._stay_detached(conn)

    async def _stay_detached(self, conn: Connection) -> None:
        """Says that this node's writers live, and still can't reach Redis."""
        writers = self.agreement.detached.writers
        if writers and trio.current_time() >= self._seen_at + SEEN_INTERVAL_SECONDS:
            with postgres_errors():
                await outbox.detach(conn, writers)
            self._seen_at = trio.current_time()

    async def _take_lease(self) -> bool:
        """Takes or keeps the lease. Two holders at the turn of a lease do no harm: the newer epoch wins. Raises
        StorageUnavailable."""
        holder = f"{self.stores.installation}|{self.node}".encode()
        with redis_errors():
            found = await self._lease(keys=[self.stores.namespace.lease(self.board)], args=[holder, LEASE_MS])
        self._lease_until = trio.current_time() + LEASE_MS / 1000
        is_shared = found.rpartition(b"|")[0] != self.stores.installation.encode()
        if is_shared and not self.is_shared:
            log.error("redis_shared", store="redis", board=self.board.id, hint=SHARED)
        self.is_shared = is_shared
        return bool(found == holder)

    async def _go_on(self, deadline: ConnectionDeadline) -> None:
        """Between two parts of long work: keeps the lease, or raises StaleEpoch when another node has it."""
        deadline.extend()
        if (
            trio.current_time() > self._lease_until - LEASE_MS / 1000 + LEASE_INTERVAL_SECONDS
            and not await self._take_lease()
        ):
            raise StaleEpoch

    async def _repair(self, conn: Connection, rebuilder: Rebuilder, repair: Repair, seen: Comparison) -> None:
        known, found = self.projection.known, seen.found
        match repair:
            case Repair.REPLAY:
                await rebuilder.apply(conn, self.projection, found.epoch, seen.missing)
            case Repair.RENEW:
                await self.limits.begin_anew()  # they came back old too
                self.projection.known = await rebuilder.renew(conn, found.epoch)
            case Repair.COMPLETE:
                self.projection.known = await rebuilder.complete(conn, found.epoch)
            case Repair.REBUILD:
                self.projection.known = await rebuilder.rebuild(conn)
        dead = [writer for writer, is_dead in seen.detached.items() if is_dead]
        if dead and not seen.missing:
            await self.limits.begin_anew()  # what they recorded is in no window
            with postgres_errors():
                await outbox.attach(conn, dead)
        if repair is not Repair.REPLAY:
            log.info(
                "board_repaired", board=self.board.id, repair=repair.name.lower(), epoch=self.projection.known.epoch
            )
        if self.projection.known > known:
            self.on_board_changed(self.board, self.projection.known)
        self.request_repair()  # compare again at once: that alone ends the doubt

    def close(self) -> None:
        """Ends the connection; the next comparison makes a new one."""
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


async def rebuild_board(stores: Stores, board: Board) -> BoardVersion:
    """Builds the board anew whatever it looks like, for `scoreboard rebuild-board`. Raises StorageUnavailable."""

    async def run() -> BoardVersion:
        conn = await stores.connect_aio()
        try:
            with ended_connection(conn):
                return await Rebuilder(stores, board).rebuild(conn)
        finally:
            conn.terminate()

    for _ in range(REBUILD_TRIES):
        try:
            return await run_in_asyncio(run)
        except (StaleEpoch, outbox.HistoryGone):  # a running node was faster, or TRUNCATE came in between
            await trio.sleep(MIN_INTERVAL_SECONDS)
    raise StorageUnavailable("redis", "others build the board at the same time", StoreCondition.BUSY)
