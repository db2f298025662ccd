"""Reads the action log in its order, once, and flags what the anomaly rules find.

One transaction takes the watermark, reads the actions above it, and writes flags, alerts and the new watermark: so each
action is looked at exactly once, whichever node does it and whenever one dies. Only what is decided is read
(storage.postgres.settled), since a transaction in flight may still add a lower number. Nothing here is on the way of an
action. Where another session holds a user's row, the run gives up at once and the next one tries again: committers
could be waiting for the rows of the other users.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.anomalies import (
    HISTORY_ACTIONS,
    HISTORY_MS,
    MAX_CLAIMED_SECONDS,
    AnomalyLimits,
    AnomalyPolicy,
    AnomalyRule,
    LoggedAction,
    find,
)
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.flags import FlagDraft
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.postgres_connector import BACKGROUND_LOCK_TIMEOUT_SQL
from scoreboard.drivers.stores import Stores
from scoreboard.storage.flagging import NO_POLICIES, Opened, open_flags_aio
from scoreboard.storage.postgres.settled import PLACES, Settled

CALL_SECONDS = 4.0  # of one run: PostgreSQL ends a transaction of the app's role after 5 s
MAX_ACTIONS = 2_000  # of one run: the rest in the next one, at once
# How many numbers of commit_ids one run covers. It grows where few have actions, and shrinks where a run takes too
# long.
FIRST_SPAN, MAX_SPAN = 64, 1 << 20

WATERMARK_SQL = "SELECT below FROM anomaly_watermark"
LOCK_SQL = "SELECT below FROM anomaly_watermark FOR UPDATE SKIP LOCKED"
ADVANCE_SQL = "UPDATE anomaly_watermark SET below = $1"

# Bounded and rounded as a numeric: a client may send a number that no float can hold, or one that is too small for it.
_COLUMNS = f"""
seq, points_awarded AS points, (extract(epoch FROM processed_at) * 1000)::bigint AS at_ms,
CASE jsonb_typeof(metadata->'timeSpent') WHEN 'number'
    THEN round(greatest(0, least((metadata->>'timeSpent')::numeric, {MAX_CLAIMED_SECONDS:.0f})), 3)::float ELSE 0
END AS claimed"""
NEW_SQL = f"SELECT user_id, {_COLUMNS} FROM action_logs WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3"  # noqa: S608
# $2: Unix milliseconds from which on the history counts.
HISTORY_SQL = f"""
SELECT given.user_id, h.* FROM unnest($1::uuid[]) AS given(user_id), LATERAL (
    SELECT {_COLUMNS} FROM action_logs AS l
    WHERE l.user_id = given.user_id AND l.processed_at >= to_timestamp($2::float / 1000) AND l.seq < $3
    ORDER BY l.processed_at DESC, l.seq DESC LIMIT {HISTORY_ACTIONS}
) AS h"""  # noqa: S608 – constants


# $1: Unix milliseconds.
LAG_SQL = "SELECT greatest(0, extract(epoch FROM clock_timestamp()) - $1::bigint / 1000.0)::float"


class Examined(NamedTuple):
    """What one run did. `is_behind`: there is more to look at now."""

    actions: int
    opened: Opened
    is_behind: bool
    lag_seconds: float  # age of the newest action that was looked at, while there is more; else 0


NOTHING = Examined(0, Opened([], 0, 0), is_behind=False, lag_seconds=0.0)


class AnomalyLog:
    """The log as one node's worker reads it. Nodes take turns by the lock of the watermark."""

    __slots__ = ("_alerts", "_generation", "_limits", "_policies", "_settled", "_span", "_stores")

    def __init__(
        self,
        stores: Stores,
        limits: AnomalyLimits,
        *,
        alerts: bool,
        policies: Mapping[AnomalyRule, AnomalyPolicy] = NO_POLICIES,
    ) -> None:
        """`alerts`: whether the settings name a receiver of alerts."""
        self._policies = policies
        self._stores, self._limits, self._alerts = stores, limits, alerts
        self._span = FIRST_SPAN
        self._settled, self._generation = Settled(), -1

    async def examine(self) -> Examined:
        """Looks at the next actions of the log. NOTHING: there are none, or another node is at it.

        Raises StorageUnavailable; then nothing was done, or all of it. Cancelling does the same.
        """
        try:
            return await run_in_asyncio(self._stores.pool.call_aio, self._examine_aio, seconds=CALL_SECONDS)
        except StorageUnavailable:
            self._settled = Settled()  # the next answer may be another server's
            self._span = max(1, self._span // 8)
            raise

    async def _examine_aio(self, conn: asyncpg.Connection) -> Examined:
        if self._generation != self._stores.pool.generation.number:  # other connections, perhaps to another server
            self._settled, self._generation = Settled(), self._stores.pool.generation.number
        settled = await self._settled.advance_aio(conn)
        if await conn.fetchval(WATERMARK_SQL) >= settled:
            return NOTHING
        async with conn.transaction():
            await conn.execute(BACKGROUND_LOCK_TIMEOUT_SQL)
            begin = await conn.fetchval(LOCK_SQL)
            if begin is None or begin >= settled:
                return NOTHING
            end = min(settled, begin + self._span * PLACES)
            rows = await conn.fetch(NEW_SQL, begin, end, MAX_ACTIONS + 1)
            if len(rows) > MAX_ACTIONS:
                end = rows.pop()["seq"]
            opened = Opened([], 0, 0)
            if rows:
                drafts = await self._find_aio(conn, rows, begin)
                opened = await open_flags_aio(conn, drafts, alerts=self._alerts, policies=self._policies)
            await conn.execute(ADVANCE_SQL, end)
        self._span = min(MAX_SPAN, self._span * 2) if len(rows) < MAX_ACTIONS // 2 else max(1, self._span // 2)
        lag = await conn.fetchval(LAG_SQL, rows[-1]["at_ms"]) if rows and end < settled else 0.0
        return Examined(len(rows), opened, is_behind=end < settled, lag_seconds=lag)

    async def _find_aio(self, conn: asyncpg.Connection, rows: Sequence[asyncpg.Record], begin: int) -> list[FlagDraft]:
        since = min(row["at_ms"] for row in rows) - HISTORY_MS
        users = list({row["user_id"] for row in rows})
        history = await conn.fetch(HISTORY_SQL, users, float(since), begin)
        # thousands of short steps: in a thread, so that requests go on
        return await asyncio.get_running_loop().run_in_executor(None, find_all, history, rows, self._limits)


def find_all(
    history: Sequence[asyncpg.Record], new: Sequence[asyncpg.Record], limits: AnomalyLimits
) -> list[FlagDraft]:
    """What the rules find about each user's new actions. Pure."""
    counts = dict[UUID, int]()
    for row in new:
        counts[row["user_id"]] = counts.get(row["user_id"], 0) + 1
    in_order = sorted((*history, *new), key=lambda row: (row["user_id"], row["seq"]))
    return [
        FlagDraft(finding.rule, user, finding.evidence, finding.seq)
        for user, actions in groupby(in_order, key=lambda row: row["user_id"])
        for finding in find([_logged(row) for row in actions], counts[user], limits)
    ]


def _logged(row: asyncpg.Record) -> LoggedAction:
    return LoggedAction(row["seq"], row["at_ms"], row["points"], row["claimed"])
