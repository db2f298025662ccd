"""The monthly partitions of the action log, made ahead of time.

Called by housekeeping on every node; safe from several at once. Rows that landed in the DEFAULT partition (the server was down for months)
move to their month when it is made. asyncio-flavoured.
"""

from datetime import UTC, datetime

import asyncpg

from scoreboard.storage.bridge import postgres_errors

AHEAD = 3  # months; design: three months ahead plus a DEFAULT partition
LOCK = 0x5C0BEB0B  # key of the advisory lock: one node at a time
UNHURRIED = "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL lock_timeout = '3s'"


def months(now: datetime) -> list[tuple[str, str, str]]:
    """(partition's name, first moment, first moment after) of this month and the next AHEAD, in UTC."""
    start = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    bounds = [f"{month // 12:04d}-{month % 12 + 1:02d}-01 00:00:00+00" for month in range(start, start + AHEAD + 2)]
    return [(f"action_logs_{bounds[i][:7].replace('-', '_')}", bounds[i], bounds[i + 1]) for i in range(AHEAD + 1)]


async def make_partitions(conn: asyncpg.Connection) -> list[str]:
    """Makes what is missing; returns the new partitions' names.

    Raises StorageUnavailable, also when another session holds the log's locks.
    """
    made = []
    with postgres_errors():
        now = await conn.fetchval("SELECT now()")
        for name, first, after in months(now):
            if await conn.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
                continue
            async with conn.transaction():
                await conn.execute(UNHURRIED)
                await conn.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
                if not await conn.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
                    await _make(conn, name, first, after)
                    made.append(name)
    return made


async def _make(conn: asyncpg.Connection, name: str, first: str, after: str) -> None:
    """Names and bounds are ours (`months`), so they may stand in the text: DDL takes no parameters."""
    await conn.execute(f"""
        LOCK TABLE action_logs_default IN ACCESS EXCLUSIVE MODE;
        CREATE TABLE {name} (LIKE action_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
        WITH moved AS (DELETE FROM action_logs_default WHERE processed_at >= '{first}' AND processed_at < '{after}' RETURNING *)
        INSERT INTO {name} SELECT * FROM moved;
        ALTER TABLE action_logs ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{after}');
    """)  # noqa: S608
