"""A board as everyone on this node reads it: one newest read, shared by GETs, ticks and new viewers.

1. `min_version` is the highest version that an answer of Redis contained. It rises with each commit of this node,
   before the commit's actions are answered. So clients read their own writes.
2. `cached_version` is the version of the newest good read. Only a good read changes it, so no error is cached.
3. A reader gets the cached read when `cached_version` ≥ `min_version` as of its arrival, the read is younger than
   MAX_READ_AGE_SECONDS, and it began after the last hint.
4. Else one reader reads under the lock, and all others share that read.
5. A message from another node is a hint: it makes a read due. A hint that the read does not confirm is dropped.
6. An answer of Redis is used only if it has all batches that this node has seen committed (see agreement), and is not
   older than `min_version` was when the read began. Else a repair is requested.
7. While Redis can't be read, or its board is not known to agree with PostgreSQL, PostgreSQL is read once a second. The
   rows are marked stale and keep the last position.
"""

from collections.abc import Callable
from math import inf
from time import monotonic, time
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import trio

from scoreboard.domain.boards import NEVER, READ_SIZE, TOP_SIZE, Board, BoardVersion, Entry, Snapshot, last_modified
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ranking import MAX_BIGINT, read_member
from scoreboard.drivers.bridge import postgres_errors, redis_errors, run_in_asyncio
from scoreboard.drivers.single_flight import SingleFlight
from scoreboard.drivers.stores import Stores
from scoreboard.runtime.breaker import Breaker, guard
from scoreboard.storage.agreement import Agreement, StaleReason
from scoreboard.storage.postgres.totals import for_board
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.redis.scripts import load_board_script
from scoreboard.telemetry import metrics

# A cached read older than this is replaced even without a hint, so a lost hint delays a change by a second at most.
MAX_READ_AGE_SECONDS = 1.0
# between two tries at Redis while it has no readable board: about a tick
REDIS_RETRY_INTERVAL_SECONDS = 0.1
# for the read of PostgreSQL that replaces Redis; after it, readers get the board that was read last
FALLBACK_TIMEOUT_SECONDS = 0.5

ROWS_SQL = f"""
SELECT s.user_id, s.total_score, u.username, u.avatar_url,
       (extract(epoch FROM s.updated_at) * 1000)::bigint AS updated_ms
FROM {{shown}} JOIN users u ON u.id = s.user_id ORDER BY s.total_score DESC, s.reached LIMIT {READ_SIZE}"""  # noqa: S608 – a constant

# The highest rank that PostgreSQL counts, in about a millisecond. A lower place has rank None until Redis can be read.
MAX_COUNTED_RANK = 10_000

# Counts the users who rank higher. That is an index scan, whose length is the rank. So a user with a shadow ban has
# the rank that he would have, and one with a ban none.
STANDING_SQL = f"""
SELECT own.total_score, 1 + (SELECT count(*) FROM (
    SELECT FROM {{shown}}
    WHERE s.total_score > own.total_score OR (s.total_score = own.total_score AND s.reached < own.reached)
    LIMIT {MAX_COUNTED_RANK}
) AS before) AS rank
FROM (
    SELECT total_score, reached FROM {{totals}}
    WHERE user_id = $1 AND NOT EXISTS (SELECT FROM users u WHERE u.id = s.user_id AND u.ban = 2)
) AS own"""  # noqa: S608 – a constant


class Standing(NamedTuple):
    """A user's exact score and rank. `rank` is None while it is not known. A user without an action has score 0 and
    rank None."""

    score: int
    rank: int | None


class _Answer(NamedTuple):
    """One good read of Redis. `changed_ago`: seconds, by Redis' clock, since the shown rows or their position
    changed."""

    snapshot: Snapshot
    changed_ago: float


class BoardCache:
    """One for each board of the process. `request_repair()` is called when the board in Redis is missing or older than
    known; it must not wait."""

    __slots__ = (
        "_agreement",
        "_board_id",
        "_breaker",
        "_entries",
        "_fallback",
        "_fallback_at",
        "_hint_at",
        "_installation",
        "_keys",
        "_lock",
        "_profiles",
        "_read",
        "_retry_at",
        "_rows",
        "_standing",
        "_stores",
        "board",
        "cached_version",
        "changed_at",
        "hinted_shown_version",
        "min_version",
        "newest",
        "read_at",
        "request_repair",
        "stale_since_ms",
        "unreported_change_at",
    )

    def __init__(
        self,
        board: Board,
        stores: Stores,
        profiles: Profiles,
        breaker: Breaker,
        agreement: Agreement,
        request_repair: Callable[[], None],
        installation: Callable[[], str],
    ) -> None:
        """`installation` returns the installation's id, which is known once PostgreSQL was reached."""
        self.board, self.request_repair = board, request_repair
        self._board_id = board.id
        self.min_version: BoardVersion = NEVER
        self.cached_version: BoardVersion = NEVER
        # (epoch, shown version) of the newest message or read: the next position is at least this
        self.hinted_shown_version: BoardVersion = NEVER
        self.newest: Snapshot | None = None
        self.read_at = -inf  # monotonic seconds, when the newest good read of Redis was begun
        self.changed_at = -inf  # monotonic seconds, when the newest read's shown rows changed
        # monotonic seconds, when the first hint came of a change that `oldest_change_at` has not reported
        self.unreported_change_at = inf
        self.stale_since_ms = 0  # Unix milliseconds; 0: Redis can be read, and agrees
        self._stores, self._profiles, self._breaker = stores, profiles, breaker
        self._agreement, self._installation = agreement, installation
        self._keys = list(stores.namespace.board(board))
        self._lock = trio.Lock()
        self._read = stores.redis.register_script(load_board_script("read.lua"))
        self._standing = stores.redis.register_script(load_board_script("standing.lua"))
        self._rows: SingleFlight[list[Any]] = SingleFlight()
        self._entries: dict[bytes, Entry] = {}  # member → row of the previous read; most rows stay the same
        self._fallback: Snapshot | None = None
        self._fallback_at = self._retry_at = self._hint_at = -inf  # monotonic seconds

    # ---- what is known ----------------------------------------------------------------------------------------------

    def note_version(self, version: BoardVersion) -> None:
        """Redis has answered that the board has this version. Reads that arrive from now on are at least as new."""
        self.min_version = max(self.min_version, version)
        self.note_hint(version)

    def note_hint(self, version: BoardVersion, shown_version: int = 0) -> bool:
        """A message names this version of the board. That is a hint: the next read asks Redis.

        True: the shown rows have probably changed.
        """
        if version > self.cached_version:
            self._hint_at = monotonic()
        if (version.epoch, shown_version) <= self.hinted_shown_version:
            return False
        self.hinted_shown_version = BoardVersion(version.epoch, shown_version)
        self.unreported_change_at = min(self.unreported_change_at, monotonic())
        return True

    def invalidate(self) -> None:
        """Hints may have been lost: the next reader reads, however fresh the last read is."""
        self.read_at = -inf

    def is_due(self, shown: Snapshot | None) -> bool:
        """Whether the shown rows may differ from `shown`: a newer shown version was hinted, the last read is older than
        MAX_READ_AGE_SECONDS, or the board is stale."""
        return (
            shown is None
            or shown.stale
            or self.stale_since_ms > 0
            or self.hinted_shown_version > (shown.epoch, shown.shown_version)
            or self._agreement.is_stale
            or monotonic() - self.read_at >= MAX_READ_AGE_SECONDS
        )

    def oldest_change_at(self, snapshot: Snapshot) -> float | None:
        """When the oldest change happened that is in this snapshot and not in that of the last call, in monotonic
        seconds. None for a stale snapshot.

        The newest change is dated by Redis' clock, earlier ones of the same tick by the arrival of their hints. The
        clocks of two machines are never compared.
        """
        since = min(self.unreported_change_at, self.changed_at)
        if self.hinted_shown_version <= (snapshot.epoch, snapshot.shown_version):
            self.unreported_change_at = inf
        return None if snapshot.stale else since

    @property
    def is_stale(self) -> bool:
        """Whether what is shown may not agree with PostgreSQL."""
        return self.stale_since_ms > 0 or self._agreement.is_stale

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def read(self) -> Snapshot:
        """The first READ_SIZE rows: at least as new as `min_version` was when the call began, or marked stale.

        Raises StorageUnavailable when neither store answers and no earlier read succeeded. Cancelling ends the read of
        the store; the next waiting reader starts a new one.
        """
        need, since = self.min_version, self._hint_at
        if self.stale_since_ms and self._fallback is not None and self._lock.locked():
            # another reader is asking Redis already; the others do not wait for a store that fails
            return self._fallback
        if fresh := self._fresh(need, since):
            return fresh
        async with self._lock:
            return self._fresh(need, since) or await self._read_now()

    def fresh(self) -> Snapshot | None:
        """What `read` would return without waiting; None when it would have to."""
        return None if self.stale_since_ms else self._fresh(self.min_version, self._hint_at)

    def _fresh(self, need: BoardVersion, since: float) -> Snapshot | None:
        """The newest read, if it is new enough. While stale, all readers share the outcome of the last try until
        `_retry_at`: rows, or StorageUnavailable."""
        now = monotonic()
        if not self.stale_since_ms:
            is_new = self.cached_version >= need and self.read_at >= since and now - self.read_at < MAX_READ_AGE_SECONDS
            agrees = now < self._agreement.agrees_until and self.read_at >= self._agreement.agreed_at
            return self.newest if is_new and agrees else None
        if now >= self._retry_at:
            return None
        if self._fallback is None:
            raise StorageUnavailable("postgresql", "the board can be read from neither store")
        return self._fallback

    async def _read_now(self) -> Snapshot:
        begun = monotonic()
        known = self.min_version  # a commit during the call may make it look old
        answer = None
        try:
            with guard(self._breaker):
                answer = await run_in_asyncio(self._from_redis_aio, known)
        except StorageUnavailable:
            pass
        else:
            if answer is None:
                self.request_repair()
            elif not self._agreement.is_stale and begun >= self._agreement.agreed_at:
                metrics.LEADERBOARD_SECONDS.observe(monotonic() - begun)
                return self._store(answer, begun)
        self.stale_since_ms = self.stale_since_ms or round(time() * 1000)
        try:
            self._fallback = await self._read_fallback(answer.snapshot if answer else None)
        finally:
            self._retry_at = monotonic() + REDIS_RETRY_INTERVAL_SECONDS
        return self._fallback

    def _store(self, answer: _Answer, begun: float) -> Snapshot:
        snapshot = answer.snapshot
        self.newest, self.cached_version, self.read_at = snapshot, snapshot.board_version, begun
        self.changed_at = monotonic() - answer.changed_ago
        self.min_version = max(self.min_version, snapshot.board_version)
        hinted, read = self.hinted_shown_version, BoardVersion(snapshot.epoch, snapshot.shown_version)
        if hinted > read and begun > self._hint_at:
            metrics.HINTS_UNCONFIRMED.inc()  # Redis does not confirm the hint, so it is dropped
            hinted = NEVER
        self.hinted_shown_version = max(hinted, read)
        self.stale_since_ms, self._fallback, self._fallback_at = 0, None, -inf
        return snapshot

    async def _from_redis_aio(self, known: BoardVersion) -> _Answer | None:
        """One read. None: Redis has no whole board of this installation (emptied, damaged, being rebuilt), or the board
        is older than `known`. Raises StorageUnavailable."""
        acknowledged = self._agreement.acknowledged()
        with redis_errors():
            answer = await self._read(keys=self._keys, args=[self._installation(), READ_SIZE - 1, *acknowledged])
        if not answer:
            self._agreement.mark_stale(StaleReason.MISSING)
            return None
        epoch, version, shown_version, top_at, updated, names, now, incomplete, members, applied = answer
        if not self._agreement.confirm(acknowledged, applied):
            return None
        if incomplete:
            self._agreement.mark_stale(StaleReason.INCOMPLETE)
        if BoardVersion(epoch, version) < known:
            self._agreement.mark_stale(StaleReason.OLD)
            return None
        if self._profiles.drop_outdated(self._board_id, epoch, names):
            self._entries.clear()
        rows = await self._find_entries_aio(members)
        # a name that is found later changes no position, and so no date
        has_names = len(self._entries) == len(members)
        modified = last_modified(top_at, now) if has_names else 0
        snapshot = Snapshot(self._board_id, epoch, version, shown_version, updated or now, rows, last_modified=modified)
        return _Answer(snapshot, max(0, now - (top_at or now)) / 1000)

    async def _find_entries_aio(self, members: list[bytes]) -> tuple[Entry, ...]:
        """The rows of these members. Rows of the previous read are reused: making a UUID's text costs more than a
        row."""
        new = [member for member in members if member not in self._entries]
        standing = {member: read_member(member) for member in new}
        profiles = await self._profiles.find_aio(user for user, _, _ in standing.values()) if new else {}
        rows, known = [], {}
        for rank, member in enumerate(members, 1):
            entry = self._entries.get(member)
            if entry is None:
                user, total, _ = standing[member]
                profile = profiles.get(user)
                name = profile or self._profiles.last_known(user)
                entry = Entry(rank, str(user), name.username, total, name.avatar_url)
                if profile is not None:  # else the next read asks for it again
                    known[member] = entry
            else:
                known[member] = entry = entry if entry.rank == rank else msgspec.structs.replace(entry, rank=rank)
            rows.append(entry)
        self._entries = known
        return tuple(rows)

    async def _read_fallback(self, from_redis: Snapshot | None) -> Snapshot:
        """The board from PostgreSQL, read at most once a second. When PostgreSQL fails too: the rows from Redis, else
        the last rows. Raises StorageUnavailable when there are none."""
        now = monotonic()
        if self._fallback is not None and now - self._fallback_at < MAX_READ_AGE_SECONDS:
            return self._fallback
        last = self._fallback or self.newest
        try:
            rows = await run_in_asyncio(self._rows.run_aio, FALLBACK_TIMEOUT_SECONDS, self._select_aio)
        except StorageUnavailable:
            rows = None
        if rows is None:
            last = from_redis or last
            if last is None:
                raise StorageUnavailable("postgresql", "the board can be read from neither store")
            return msgspec.structs.replace(last, stale=True, stale_since_ms=self.stale_since_ms, last_modified=0)
        self._fallback_at = now
        updated = max((row["updated_ms"] for row in rows[:TOP_SIZE]), default=self.stale_since_ms)
        return Snapshot(
            board=self._board_id,
            epoch=last.epoch if last else 0,
            version=last.version if last else 0,
            shown_version=last.shown_version if last else 0,
            updated_ms=max(updated, last.updated_ms) if last else updated,
            rows=tuple(
                Entry(i, str(row["user_id"]), row["username"], row["total_score"], row["avatar_url"])
                for i, row in enumerate(rows, 1)
            ),
            stale=True,
            stale_since_ms=self.stale_since_ms,
        )

    async def _select_aio(self) -> list[Any]:
        sql, args = for_board(ROWS_SQL, self.board)
        with postgres_errors():
            return list(await self._stores.pool.fetch_aio(sql, *args))

    # ---- one user ---------------------------------------------------------------------------------------------------

    async def standing(self, user: UUID) -> Standing:
        """A user's exact score and rank, at least as new as `min_version` was when the call began. Redis gives them;
        while it is away or the board is stale, PostgreSQL counts them.

        Raises StorageUnavailable when neither store answers. Cancelling changes nothing.
        """
        if not self._agreement.is_stale:
            need, acknowledged = self.min_version, self._agreement.acknowledged()
            try:
                with guard(self._breaker):
                    answer = await self._stores.script(
                        self._standing, self._keys, [self._installation(), user.bytes, *acknowledged]
                    )
            except StorageUnavailable:
                pass
            else:
                if standing := self._standing_of(answer, need, acknowledged):
                    return standing
                self.request_repair()
        sql, args = for_board(STANDING_SQL, self.board, 1)
        row = await self._stores.fetchrow(sql, user, *args)
        if row is None:
            return Standing(0, None)
        return Standing(row["total_score"], row["rank"] if row["rank"] <= MAX_COUNTED_RANK else None)

    def _standing_of(self, answer: list[Any], need: BoardVersion, acknowledged: dict[int, int]) -> Standing | None:
        """The standing in an answer of Redis; None when the answer is incomplete or too old to be used."""
        if not answer:
            return None
        epoch, version, incomplete, key, rank, applied = answer
        if not self._agreement.confirm(acknowledged, applied) or incomplete or BoardVersion(epoch, version) < need:
            return None
        return Standing(MAX_BIGINT - int.from_bytes(key[:8], "big"), rank) if rank else Standing(0, None)
