"""The stores of a benchmark: a fresh database and an emptied Valkey for each server, and afterwards what they hold.

Both servers are the embedded ones, the same processes for everybody. asyncpg runs in a thread with a loop of its own:
the benchmark itself is Trio.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis
import trio

from tests.bench.report import Kept

T = TypeVar("T")
UNLIMITED = "SET statement_timeout = 0; SET transaction_timeout = 0; SET lock_timeout = 0"
DROP_SECONDS, DROP_PAUSE_SECONDS = 60.0, 0.2  # that autovacuum of a million users may take; between two tries
CHUNK = 50_000  # users of a board that are read at once
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SCHEMA = Path(__file__).parents[1] / "peers" / "schema.sql"


def named(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def asked(url: str, work: Callable[["asyncpg.Connection[Any]"], Awaitable[T]]) -> T:
    """Runs asyncpg in a thread with a loop of its own, without the time-outs that the server gives its role."""

    async def run() -> T:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(UNLIMITED)
            return await work(connection)
        finally:
            await connection.close()

    return await trio.to_thread.run_sync(lambda: asyncio.run(run()))


async def fresh(postgres_url: str, redis_url: str, database: str) -> str:
    """An empty database and an empty Valkey. Returns the database's URL.

    Raises RuntimeError if a commit would not be durable.
    """

    async def make(connection: "asyncpg.Connection[Any]") -> None:
        await drop_database(connection, database)
        await connection.execute(f'CREATE DATABASE "{database}"')
        # what one server gave its role is not the next one's
        await connection.execute("ALTER ROLE CURRENT_USER RESET ALL")
        for name, wanted in DURABLE.items():
            if (found := await connection.fetchval(f"SHOW {name}")) != wanted:
                raise RuntimeError(f"PostgreSQL has {name} = {found}: figures without durability would say nothing")

    await asked(postgres_url, make)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return named(postgres_url, database)


async def drop_database(connection: "asyncpg.Connection[Any]", database: str) -> None:
    """Drops it if it is there, whoever uses it. Raises what PostgreSQL says when that can't be done within
    DROP_SECONDS.

    FORCE ends sessions of our own role; a worker of PostgreSQL's own (autovacuum) is a superuser's, ends by itself, and
    is waited for.
    """
    give_up = time.monotonic() + DROP_SECONDS
    while True:
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(DROP_PAUSE_SECONDS)
        else:
            return


async def fill_peer(url: str, users: Sequence[uuid.UUID]) -> None:
    """The peers' tables, and their users."""

    async def make(connection: "asyncpg.Connection[Any]") -> None:
        await connection.execute(SCHEMA.read_text())
        rows = [(user, f"load-{number:06}", f"load-{number:06}@example.com") for number, user in enumerate(users, 1)]
        await connection.executemany("INSERT INTO users (id, username, email) VALUES ($1, $2, $3)", rows)

    await asked(url, make)


async def kept(url: str, redis_url: str) -> Kept:
    async def count(connection: "asyncpg.Connection[Any]") -> tuple[int, int, int]:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM action_logs),"
            " (SELECT coalesce(sum(points_awarded), 0)::bigint FROM action_logs),"
            " (SELECT coalesce(sum(total_score), 0)::bigint FROM scores)"
        )
        assert row is not None
        return row[0], row[1], row[2]

    actions, points, totals = await asked(url, count)
    with redis.Redis.from_url(redis_url) as client:
        board = 0
        for start in range(0, client.zcard("leaderboard"), CHUNK):
            board += sum(
                int(score) for _, score in client.zrange("leaderboard", start, start + CHUNK - 1, withscores=True)
            )
    return Kept(actions, points, totals, board)


def window_size(redis_url: str, user_id: str) -> int:
    """How many slots a user's sliding window holds: above zero only if the limit's call was made."""
    with redis.Redis.from_url(redis_url) as client:
        return int(client.zcard(f"rate_limit:user:{user_id}"))
