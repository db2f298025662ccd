"""The monthly partitions of the action log, made ahead of time.

Called by housekeeping on every node; several nodes may call it at once. Rows in the DEFAULT partition (the server was
down for months) are moved to the partition of their month when that is created.
"""

from datetime import UTC, datetime

import asyncpg
import structlog

from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.conditions import postgres_condition
from scoreboard.drivers.stores import Stores

MONTHS_AHEAD = 3  # besides them there is a DEFAULT partition
ADVISORY_LOCK_KEY = 0x5C0BEB0B  # one node at a time makes partitions
ADVISORY_LOCK_TIMEOUT_SECONDS = 10  # for the other nodes to finish; no request waits meanwhile
# for the tables themselves, while the advisory lock is held: other sessions that need the tables wait behind this one
TABLE_LOCK_TIMEOUT_MS = 500
SETTINGS_SQL = (
    "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; "
    f"SET LOCAL lock_timeout = '{ADVISORY_LOCK_TIMEOUT_SECONDS}s'"
)

ABSENT_SQL = """
SELECT t.name, (SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relname = t.name AND n.nspname = current_schema()) AS oid
FROM unnest($1::text[]) AS t(name)
WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'action_logs'::regclass AND c.relname = t.name)"""

# Migration 0017: with the rights of the tables' owner, which the app may not have.
MAKE_SQL = "SELECT make_log_partition(left($1::text, 10)::date)"

log = structlog.get_logger()

_warned: set[str] = set()  # partitions that this process has warned of; bounded by the months that it sees


def months(now: datetime) -> list[tuple[str, str, str]]:
    """(partition's name, first moment, first moment after it) of this month and the next MONTHS_AHEAD, in UTC."""
    start = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    bounds = [
        f"{month // 12:04d}-{month % 12 + 1:02d}-01 00:00:00+00" for month in range(start, start + MONTHS_AHEAD + 2)
    ]
    return [
        (f"action_logs_{bounds[i][:7].replace('-', '_')}", bounds[i], bounds[i + 1]) for i in range(MONTHS_AHEAD + 1)
    ]


async def make_partitions(stores: Stores, seconds: float) -> list[str]:
    """Creates missing partitions on a connection of its own. Returns their names. See `make_partitions_aio`.

    Raises StorageUnavailable, also after `seconds`. Cancelling rolls back.
    """
    return await stores.on_own_connection(seconds, make_partitions_aio)


async def make_partitions_aio(conn: asyncpg.Connection) -> list[str]:
    """Creates missing partitions, in one transaction. Returns their names.

    A partition can't be created when a detached table has its name, or when a partition of another name has its month.
    Then a warning is logged once, and its rows go to the DEFAULT partition or to that other one. Raises
    StorageUnavailable, also when other sessions hold the locks for too long.
    """
    with postgres_errors():
        wanted = months(await conn.fetchval("SELECT now()"))
        names = [name for name, _, _ in wanted]
        if not await _absent_aio(conn, names):
            return []
        made = []
        async with conn.transaction():
            await conn.execute(SETTINGS_SQL)
            await conn.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK_KEY)
            await conn.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_TIMEOUT_MS}ms'")
            # read again: another node may have created them before this one had the lock
            absent = await _absent_aio(conn, names)
            for name, first, _ in wanted:
                if absent.get(name) is not None:
                    _warn(name, "a table, a view or an index has this name: attach it to action_logs, or rename it")
                elif name in absent and await _make_aio(conn, name, first):
                    made.append(name)
    return made


async def _absent_aio(conn: asyncpg.Connection, names: list[str]) -> dict[str, int | None]:
    """The names that are no partitions of the log, each with the oid of the table that has the name, if any.

    Read from the catalogs' rows. `to_regclass` would use the session's cache, which lacks other sessions' new tables
    until the session locks one.
    """
    return {row["name"]: row["oid"] for row in await conn.fetch(ABSENT_SQL, names)}


async def _make_aio(conn: asyncpg.Connection, name: str, first: str) -> bool:
    """Creates one partition. False when PostgreSQL refuses it: it is rolled back, and the transaction continues."""
    try:
        async with conn.transaction():
            await conn.execute(MAKE_SQL, first)
    except asyncpg.PostgresError as exc:
        if postgres_condition(exc) is not None:  # PostgreSQL itself fails: the next run tries all partitions again
            raise
        _warn(name, str(exc))
        return False
    return True


def _warn(name: str, why: str) -> None:
    if name not in _warned:
        _warned.add(name)
        log.warning("partition_refused", table=name, why=why)
