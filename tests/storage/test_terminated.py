"""Connections that are closed at any moment of a call: PostgreSQL is unavailable then, and nothing else of asyncpg's
comes out."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import asyncpg
import pytest
import trio

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outcomes import Recorded
from scoreboard.drivers.bridge import postgres_errors, run_in_asyncio
from scoreboard.drivers.deadline import ConnectionDeadline, bounded_aio, ended_connection
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin import verify
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.storage.writer import Writer
from tests.storage.seeds import NobodyRefused, agreed, claim, make_users, open_board

FAR = 60.0  # a deadline that no test reaches
TRIES = 240  # of each kind; one in four or so hits its call
LATEST_SECONDS = 0.012  # after which a connection is closed: the calls below take from 1 to 15 ms


async def plain(conn: asyncpg.Connection) -> None:
    await conn.fetch("SELECT n, repeat('x', 50) FROM generate_series(1, 2000) n")


async def in_transaction(conn: asyncpg.Connection) -> None:
    async with conn.transaction():
        for number in range(5):
            await conn.fetchval("SELECT $1::int", number)
        await conn.fetch("SELECT n, 'x' FROM generate_series(1, 500) n")


async def by_cursor(conn: asyncpg.Connection) -> None:
    async with conn.transaction():
        async for _ in conn.cursor("SELECT generate_series(1, 1000)", prefetch=50):
            pass


async def by_statement(conn: asyncpg.Connection) -> None:
    statement = await conn.prepare("SELECT $1::int[]")
    for _ in range(5):
        await statement.fetch(list(range(1000)))


async def by_script(conn: asyncpg.Connection) -> None:
    await conn.execute("SELECT 1; SELECT pg_sleep(0.002); SELECT 2")


END_OTHERS_SQL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"""

CALLS = [plain, in_transaction, by_cursor, by_statement, by_script]


async def in_bounded(conn: asyncpg.Connection, call: Awaitable[None]) -> None:
    with postgres_errors():
        await bounded_aio(conn, FAR, call)


async def in_deadline(conn: asyncpg.Connection, call: Awaitable[None]) -> None:
    with ConnectionDeadline(conn, FAR), postgres_errors():
        await call


async def in_ended_connection(conn: asyncpg.Connection, call: Awaitable[None]) -> None:
    with ended_connection(conn), postgres_errors():
        await call


@pytest.mark.parametrize("way", [in_bounded, in_deadline, in_ended_connection])
async def test_closed_by_us(
    stores: Stores, way: Callable[[asyncpg.Connection, Awaitable[None]], Awaitable[None]]
) -> None:
    """At random moments, whatever the call: it succeeds, or PostgreSQL is unavailable and the connection is known to be
    closed."""
    random = Random(7)

    async def attempt(call: Callable[[asyncpg.Connection], Awaitable[None]]) -> bool:
        conn = await stores.connect_aio()
        timer = asyncio.get_running_loop().call_later(random.uniform(0, LATEST_SECONDS), conn.terminate)
        try:
            await way(conn, call(conn))
        except StorageUnavailable:
            return not conn.is_closed()
        finally:
            timer.cancel()
            conn.terminate()
        return True

    succeeded = [await run_in_asyncio(attempt, CALLS[number % len(CALLS)]) for number in range(TRIES)]
    assert {True, False} <= set(succeeded)


async def test_a_pool_that_is_ended_under_its_calls(stores: Stores) -> None:
    """As when a node stops, or the address leads to another server: each call succeeds or says unavailable, and the
    pool goes on."""
    random = Random(7)

    async def attempt(call: Callable[[asyncpg.Connection], Awaitable[None]]) -> bool:
        timer = asyncio.get_running_loop().call_later(random.uniform(0, LATEST_SECONDS), stores.pool.terminate)
        try:
            await stores.pool.call_aio(call)
        except StorageUnavailable:
            return False
        finally:
            timer.cancel()
        return True

    succeeded = [await run_in_asyncio(attempt, CALLS[number % len(CALLS)]) for number in range(TRIES)]
    assert {True, False} <= set(succeeded)
    assert await stores.fetchval("SELECT 1") == 1


async def test_a_committer_whose_connection_is_ended(stores: Stores) -> None:
    """At random moments of a batch: it is recorded, or PostgreSQL is unavailable; a retry then tells, and each action
    counts once."""
    random = Random(7)
    (user,) = await make_users(stores, 1)
    writer = Writer(stores, NobodyRefused(), [agreed()])

    async def attempt(number: int) -> bool:
        conn = await writer.connection_aio()
        timer = asyncio.get_running_loop().call_later(random.uniform(0, LATEST_SECONDS / 4), conn.terminate)
        try:
            (taken,) = await writer.record_aio([claim(user, action_id=str(number))], by_log=bool(number % 2))
        except StorageUnavailable:
            return False
        finally:
            timer.cancel()
        assert len(taken.recording.outcomes) == 1
        return True

    succeeded = [await run_in_asyncio(attempt, number) for number in range(TRIES)]
    for number, done in enumerate(succeeded):
        if not done:
            (taken,) = await run_in_asyncio(writer.record_aio, [claim(user, action_id=str(number))])
            assert taken.recording.outcomes == [None] or isinstance(taken.recording.outcomes[0], Recorded)
    writer.close()
    assert await stores.fetchval("SELECT total_score FROM scores WHERE user_id = $1", user) == 10 * TRIES


async def test_ended_by_postgresql(empty_database_url: str, stores: Stores) -> None:
    """An administrator, or a shutdown, in the middle of a migration or of `verify`: the command says so, and can be
    repeated."""
    random, failed = Random(7), 0
    await open_board(stores)  # nothing differs, so nothing is looked at again

    async def end_others() -> None:
        await trio.sleep(random.uniform(0, 0.15))
        await run_in_asyncio(kill)

    async def kill() -> None:
        for url in (empty_database_url, stores.postgres.url):
            conn = await PostgresConnector(url).connect_aio()
            await conn.execute(END_OTHERS_SQL)
            conn.terminate()

    async def attempt(work: Callable[[], Awaitable[object]]) -> None:
        nonlocal failed
        try:
            await work()
        except StorageUnavailable:
            failed += 1

    for number in range(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_others)
            if number % 2:
                nursery.start_soon(attempt, lambda: migrate(empty_database_url))
            else:
                nursery.start_soon(attempt, lambda: verify.differences(stores, LEADERBOARD))
    await migrate(empty_database_url)
    assert failed
