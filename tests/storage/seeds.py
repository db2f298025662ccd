"""Data that tests put into the stores first: users, actions, a board, batches of a writer; and the two orders to
compare."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from math import inf
from time import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import Refusal
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.namespace import SPECIFIED
from scoreboard.drivers.stores import Stores
from scoreboard.storage.agreement import Agreement
from scoreboard.storage.postgres import ledger
from scoreboard.storage.redis.projection import Projection

NAMES = SPECIFIED.board(LEADERBOARD)
UPDATES = SPECIFIED.updates

# For new connections: so that only a time-out that the code sets itself ends a wait for a lock.
NO_LOCK_TIMEOUT_SQL = """
DO $$ BEGIN
    EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET lock_timeout = 0', current_database());
END $$"""


async def make_users(stores: Stores, count: int) -> list[UUID]:
    rows = await stores.fetch(
        "INSERT INTO users (username, email) SELECT 'u' || n || gen_random_uuid(), gen_random_uuid() || '@example.org' "
        "FROM generate_series(1, $1) n RETURNING id",
        count,
    )
    return [row["id"] for row in rows]


def claim(
    user: UUID, *, points: int = 10, action_id: str | None = None, body: bytes | None = None, **others: object
) -> SubmittedAction:
    action = action_id or str(uuid4())
    values: dict[str, Any] = {
        "action_type": "task_finish",
        "timestamp_ms": round(time() * 1000),
        "metadata": None,
        "signature": "ab" * 32,
        "request_id": "test",
        "points_or_refusal": points,
        "cooldown_ms": 0,
    }
    return SubmittedAction(
        user=user, action_id=action, body_sha256=sha256(body or action.encode()).digest(), **(values | others)
    )


async def open_board(stores: Stores, epoch: int = 1) -> None:
    """An empty board, whole and complete, and windows of the rate limits that are complete too."""
    await stores.command("HSET", NAMES.meta, "epoch", epoch, "installation", "")
    await complete_windows(stores)


async def complete_windows(stores: Stores) -> None:
    """Makes Redis' windows of the rate limits count as complete."""
    await stores.command("SET", SPECIFIED.limits_since, 1)


def agreed() -> Agreement:
    """The agreement of a board for which a comparison has found nothing."""
    agreement = Agreement(LEADERBOARD, unchecked_seconds=inf)
    agreement.set_stale_reasons(())
    return agreement


class NobodyRefused:
    """Limits of which none is used up."""

    async def decide_by_log_aio(
        self, _conn: asyncpg.Connection, actions: Sequence[SubmittedAction]
    ) -> list[Refusal | None]:
        return [None] * len(actions)


@asynccontextmanager
async def connection(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    conn = await run_in_asyncio(stores.connect_committer_aio)
    try:
        yield conn
    finally:
        conn.terminate()


class Scribe:
    """Records batches in the ledger under sequences of its own and, if told so, brings them to the board, as a
    committer does."""

    def __init__(self, conn: asyncpg.Connection, number: int) -> None:
        self.conn, self.number, self.sequence = conn, number, 0

    async def record(self, claims: Sequence[SubmittedAction]) -> tuple[SequenceRange, ledger.Recording]:
        sequences = SequenceRange(self.number, self.sequence + 1, self.sequence + 1)
        recording = await run_in_asyncio(ledger.record_aio, self.conn, claims, sequences)
        self.sequence += bool(recording.rows)
        return sequences, recording

    async def project(self, projection: Projection, recorded: tuple[SequenceRange, ledger.Recording]) -> object:
        sequences, recording = recorded
        return await run_in_asyncio(projection.apply_aio, sequences, recording.rows, recording.events)


async def order_in_postgres(stores: Stores) -> list[tuple[str, int]]:
    rows = await stores.fetch("SELECT user_id, total_score FROM scores ORDER BY total_score DESC, reached")
    return [(str(row["user_id"]), row["total_score"]) for row in rows]


async def order_in_redis(stores: Stores) -> list[tuple[str, int]]:
    """By the exact order, each with the total that the specification's sorted set has."""
    members = await stores.command("ZRANGE", NAMES.order, 0, -1)
    users = [str(UUID(bytes=member[16:])) for member in members]
    scores = [await stores.command("ZSCORE", NAMES.totals, user) for user in users]
    assert await stores.command("ZCARD", NAMES.totals) == len(users)
    return [(user, int(float(score))) for user, score in zip(users, scores, strict=True)]
