"""Housekeeping: an expected failure ends one run, with one warning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.workers import housekeeping
from scoreboard.workers.housekeeping import run_housekeeping
from tests.storage.proxy import Fault, proxy_before
from tests.storage.seeds import Scribe, claim, connection, make_users

WAITING = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    await migrate(database_url)
    async with open_stores(database_url, redis_url) as stores:
        yield stores


@asynccontextmanager
async def locked(database_url: str, table: str) -> AsyncIterator[asyncpg.Connection]:
    """Another session that holds a lock which nothing gets past. Inside open stores."""

    async def lock() -> asyncpg.Connection:
        conn = await asyncpg.connect(database_url)
        for setting in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
            await conn.execute(f"SET {setting} = 0")
        await conn.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        return conn

    conn = await run_in_asyncio(lock)
    try:
        yield conn
    finally:
        conn.terminate()


@asynccontextmanager
async def kept(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """Runs with short pauses, and the events that they log."""
    monkeypatch.setattr(housekeeping, "RUN_INTERVAL_SECONDS", 0.1)
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_housekeeping, stores, (LEADERBOARD,))
            yield lines
            nursery.cancel_scope.cancel()


async def until_kept(lines: list[Any]) -> None:
    with trio.fail_after(20):
        while lines[-1]["event"] != "housekeeping_done":
            await trio.sleep(0.05)


@pytest.mark.parametrize("table", ["sessions", "commits"])
@pytest.mark.parametrize("how", ["lock time-outs", "cancelled", "terminated"])
async def test_a_table_that_is_locked(
    stores: Stores, database_url: str, monkeypatch: pytest.MonkeyPatch, table: str, how: str
) -> None:
    """Runs fail by time-outs, ended statements or ended sessions: one warning, then a run succeeds."""
    ends = {"cancelled": WAITING, "terminated": WAITING.replace("cancel", "terminate")}.get(how)
    async with locked(database_url, table) as other, kept(stores, monkeypatch) as lines:
        for _ in range(30):
            await trio.sleep(0.1)
            if ends:
                await run_in_asyncio(other.fetch, ends)
        assert [line["event"] for line in lines if line["event"].startswith("housekeeping_")] == ["housekeeping_failed"]
        other.terminate()
        await until_kept(lines)
    assert {line["log_level"] for line in lines} <= {"warning", "info", "debug"}
    assert not any("exc_info" in line for line in lines)


async def test_a_postgresql_that_does_not_answer(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run ends at its deadline, and later runs succeed when answers come again."""
    monkeypatch.setattr(housekeeping, "JOB_TIMEOUT_SECONDS", 0.5)
    await migrate(database_url)
    async with (
        proxy_before(database_url) as proxy,
        open_stores(proxy.url, redis_url) as stores,
        kept(stores, monkeypatch) as lines,
    ):
        proxy.fault = Fault.SWALLOW
        with trio.fail_after(20):
            while [line["event"] for line in lines if line["event"].startswith("housekeeping_")][-1:] != [
                "housekeeping_failed"
            ]:
                await trio.sleep(0.05)
        proxy.fault = None
        await until_kept(lines)


async def test_ended_sessions_are_kept_as_long_as_the_setting_says(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from their end; never shorter than an access token may live. A live session stays."""
    await stores.execute("""
        INSERT INTO sessions (id, token_sha256, expires_at, revoked_at)
        SELECT gen_random_uuid(), '', now() + interval '9 days',
               CASE days WHEN 0 THEN NULL ELSE now() - days * interval '1 day' END
        FROM unnest('{0, 1, 3, 10, 40}'::int[]) AS days""")
    monkeypatch.setattr(housekeeping, "RUN_INTERVAL_SECONDS", 0.1)
    for days, remaining in ((30, 4), (5, 3), (1, 2)):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(run_housekeeping, stores, (LEADERBOARD,), session_days=days))
            nursery.cancel_scope.cancel()
        assert await stores.fetchval("SELECT count(*) FROM sessions") == remaining


async def test_names_of_users_from_elsewhere_are_looked_at(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes the skeletons of users from plain SQL, so that no other user can have a name that looks the same."""
    async with kept(stores, monkeypatch):
        await stores.execute("INSERT INTO users (username, email) VALUES ('PayPaI', 'a@example.org')")
        with trio.fail_after(20):
            while (
                await stores.fetchval("SELECT count(*) FROM username_skeletons WHERE skeleton IN ('paypal', 'paypai')")
                < 2
            ):
                await trio.sleep(0.05)


async def test_housekeeping_makes_partitions(stores: Stores) -> None:
    """This month and three ahead have partitions; rows that had landed in DEFAULT are in their month's afterwards."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await Scribe(conn, 1).record([claim(user)])
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 1
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(run_housekeeping, stores, (LEADERBOARD,))
            nursery.cancel_scope.cancel()
    assert await stores.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'action_logs'::regclass") == 5
    assert await stores.fetchval("SELECT count(*) FROM action_logs_default") == 0
    assert await stores.fetchval("SELECT count(*) FROM action_logs") == 1
    async with connection(stores) as conn:
        await Scribe(conn, 2).record([claim(user, points=1)])
