"""Migrations: once each, from however many nodes, and never a file that was edited."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import trio
import unicodedata2

from scoreboard.domain.errors import StartError, StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.postgres import migrate as module
from scoreboard.storage.postgres.migrate import TIMEOUTS, Migration, is_migrated_aio, migrate, migrations, outstanding
from tests.conftest import execute

# The migrations that made or emptied username_skeletons: which Unicode the keys that were written since are of.
UNICODE_OF_SKELETONS = {"0004_names.sql": "17.0.0"}
EMPTIES_SKELETONS = re.compile(r"(?:CREATE TABLE|TRUNCATE(?: TABLE)?|DELETE FROM) username_skeletons\s*[(;]")

NOWHERE = "redis://127.0.0.1:1/0"  # none of these tests speaks to Redis


@asynccontextmanager
async def postgres(url: str) -> AsyncIterator[Stores]:
    async with open_stores(url, NOWHERE) as stores:
        yield stores


async def test_each_file_is_applied_once_in_order(empty_database_url: str) -> None:
    """The first call applies all of them by number, the second finds nothing to do."""
    names = [migration.name for migration in migrations()]
    assert names == sorted(names)
    async with postgres(empty_database_url):
        conn = await run_in_asyncio(PostgresConnector(empty_database_url).connect_aio)
        assert not await run_in_asyncio(is_migrated_aio, conn)
        assert await migrate(empty_database_url) == names
        assert await run_in_asyncio(is_migrated_aio, conn)
        assert await migrate(empty_database_url) == []
        conn.terminate()


async def test_two_nodes_at_once_are_harmless(empty_database_url: str) -> None:
    """Between four nodes that start together every file is applied exactly once, and nobody fails."""
    applied: list[str] = []

    async def node() -> None:
        applied.extend(await migrate(empty_database_url))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(node)
    assert sorted(applied) == [migration.name for migration in migrations()]


async def test_a_failing_file_leaves_nothing_behind(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is one transaction: what came before stays, what failed is gone, and the next call goes on from
    there."""
    good, bad = (
        Migration("0001_good.sql", "CREATE TABLE good ()", "1"),
        Migration("0002_bad.sql", "CREATE TABLE bad (); SELECT 1 / 0", "2"),
    )
    monkeypatch.setattr(module, "migrations", lambda: [good, bad])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database_url)
    async with postgres(empty_database_url) as stores:
        assert await stores.fetchval("SELECT to_regclass('good') IS NOT NULL AND to_regclass('bad') IS NULL")
    monkeypatch.setattr(module, "migrations", lambda: [good, bad._replace(sql="CREATE TABLE bad ()")])
    assert await migrate(empty_database_url) == ["0002_bad.sql"]


async def test_an_edited_file_is_refused(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was applied with another content stops the start and is named."""
    await migrate(empty_database_url)
    first, *others = migrations()
    monkeypatch.setattr(module, "migrations", lambda: [first._replace(sha256="0" * 64), *others])
    with pytest.raises(StartError, match=first.name):
        await migrate(empty_database_url)


def test_files_of_a_newer_version_do_not_disturb_an_older_one() -> None:
    """Migrations that this version does not know do not count as outstanding."""
    known = Migration("0001_a.sql", "", "1")
    assert outstanding([known], {"0001_a.sql": "1", "0002_b.sql": "2"}) == []


@pytest.mark.parametrize(("version", "accepted"), [("160004", False), ("170000", True), ("180006", True)])
async def test_an_old_postgresql_is_refused(version: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 17 nothing ends a half-received message that holds locks: one clear line, before anything is touched."""

    class Fake:
        async def fetchval(self, _sql: str) -> str:
            return version

        def terminate(self) -> None:
            pass

        def is_closed(self) -> bool:
            return False

    async def connect_aio(_connector: PostgresConnector) -> Fake:
        return Fake()

    async def nothing_left(*_: Any) -> None:
        return None

    async def is_current(*_: Any) -> bool:
        return False

    monkeypatch.setattr(PostgresConnector, "connect_aio", connect_aio)
    monkeypatch.setattr(module, "_is_current_aio", is_current)
    monkeypatch.setattr(module, "_apply_next_aio", nothing_left)
    if accepted:
        assert await migrate("postgresql://unused") == []
    else:
        with pytest.raises(StartError, match="PostgreSQL 16 is too old: at least 17 is needed"):
            await migrate("postgresql://unused")


async def test_nobody_there_is_storage_unavailable(empty_database_url: str) -> None:
    """A refused connection, an unknown database and a wrong password all raise StorageUnavailable."""
    parts = urlsplit(empty_database_url)
    for url in (
        "postgresql://nobody:x@127.0.0.1:1/none",
        parts._replace(path="/no_such_database").geturl(),
        parts._replace(netloc=parts.netloc.replace(parts.password or "", "wrong")).geturl(),
    ):
        with pytest.raises(StorageUnavailable, match="postgresql"):
            await migrate(url)


async def test_the_roles_time_outs_hold_on_new_connections(empty_database_url: str) -> None:
    """Every connection made after the migration has them, without a start-up parameter."""
    await migrate(empty_database_url)
    async with postgres(empty_database_url) as stores:
        found = {name: await stores.fetchval("SELECT current_setting($1)", name) for name in TIMEOUTS}
        assert found == TIMEOUTS
        with pytest.raises(StorageUnavailable, match="QueryCanceled"):
            await stores.execute("SET statement_timeout = '10ms'; SELECT pg_sleep(5)")


async def test_the_columns_are_the_specifications(stores: Stores) -> None:
    """Names, types and nullability of the specification's tables. One differs: guests have no address."""
    rows = await stores.fetch(
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name IN ('users', 'scores', 'action_logs')"
    )
    columns = {f"{row[0]}.{row[1]}": (row[2], row[3], row[4]) for row in rows}
    assert columns["users.username"] == ("character varying", 50, "NO")
    assert columns["users.email"] == ("character varying", 255, "YES")
    assert columns["users.avatar_url"] == ("character varying", 500, "YES")
    assert columns["scores.total_score"] == ("bigint", None, "NO")
    assert columns["scores.user_id"] == ("uuid", None, "NO")
    assert columns["action_logs.action_id"] == ("character varying", 100, "NO")
    assert columns["action_logs.action_type"] == ("character varying", 50, "NO")
    assert columns["action_logs.points_awarded"] == ("integer", None, "NO")
    assert columns["action_logs.signature"] == ("character varying", 500, "NO")
    assert columns["action_logs.metadata"] == ("jsonb", None, "YES")
    assert columns["action_logs.processed_at"] == ("timestamp with time zone", None, "NO")


async def test_rows_land_in_default_until_their_month_has_a_partition(stores: Stores) -> None:
    """An action is recorded also when its month has no partition."""
    user = await stores.fetchval("INSERT INTO users (username, email) VALUES ('ada', 'ada@example.org') RETURNING id")
    insert = (
        "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature,"
        " processed_at) VALUES ($1, 'a', 't', 1, 1, 1, 's', $2::text::timestamptz) RETURNING tableoid::regclass::text"
    )
    assert await stores.fetchval(insert, user, "1999-12-31T00:00:00Z") == "action_logs_default"
    await stores.execute(
        "CREATE TABLE action_logs_2999 PARTITION OF action_logs FOR VALUES FROM ('2999-01-01') TO ('3000-01-01')"
    )
    assert await stores.fetchval(insert, user, "2999-12-31T00:00:00Z") == "action_logs_2999"


async def test_a_long_migration_outlives_the_roles_time_outs(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may take as long as it needs, though the role's own statements may not."""
    monkeypatch.setattr(module, "TIMEOUTS", dict.fromkeys(TIMEOUTS, "100ms"))
    await migrate(empty_database_url)
    known = [*migrations(), Migration("9999_slow.sql", "SELECT pg_sleep(0.3)", "1")]
    monkeypatch.setattr(module, "migrations", lambda: known)
    assert await migrate(empty_database_url) == ["9999_slow.sql"]


async def test_a_node_starts_on_a_migrated_database_that_is_read_only(empty_database_url: str) -> None:
    """Where nothing is to be done nothing is written; where something is, the store is unavailable and the start
    waits."""
    name = urlsplit(empty_database_url).path.removeprefix("/")
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    writable = "SET default_transaction_read_only = off"
    await trio.to_thread.run_sync(execute, empty_database_url, read_only)
    with pytest.raises(StorageUnavailable) as caught:
        await migrate(empty_database_url)
    assert caught.value.condition is StoreCondition.READ_ONLY
    await trio.to_thread.run_sync(
        execute, empty_database_url, writable, f"ALTER DATABASE {name} RESET default_transaction_read_only"
    )
    await migrate(empty_database_url)
    await trio.to_thread.run_sync(execute, empty_database_url, read_only)
    assert await migrate(empty_database_url) == []


async def test_time_outs_that_somebody_took_away_are_given_again(empty_database_url: str) -> None:
    """Each start checks whether the role has the time-outs."""
    await migrate(empty_database_url)
    name = urlsplit(empty_database_url).path.removeprefix("/")
    await trio.to_thread.run_sync(
        execute, empty_database_url, f"ALTER ROLE CURRENT_USER IN DATABASE {name} RESET lock_timeout"
    )
    assert await migrate(empty_database_url) == []
    async with postgres(empty_database_url) as stores:
        assert await stores.fetchval("SELECT current_setting('lock_timeout')") == TIMEOUTS["lock_timeout"]


async def test_a_role_that_somebody_else_changes_makes_the_start_wait(empty_database_url: str) -> None:
    """PostgreSQL says "tuple concurrently updated" and no SQLSTATE of a lock: the store is busy, and the next try finds
    it right."""
    await migrate(empty_database_url)
    name = urlsplit(empty_database_url).path.removeprefix("/")
    await trio.to_thread.run_sync(
        execute, empty_database_url, f"ALTER ROLE CURRENT_USER IN DATABASE {name} SET lock_timeout = '9s'"
    )
    async with postgres(empty_database_url):
        other, watcher = (
            await run_in_asyncio(PostgresConnector(empty_database_url).connect_aio),
            await run_in_asyncio(PostgresConnector(empty_database_url).connect_aio),
        )
        await run_in_asyncio(other.execute, "BEGIN")
        await run_in_asyncio(other.execute, f"ALTER ROLE CURRENT_USER IN DATABASE {name} SET work_mem = '8MB'")

        async def commit_when_awaited() -> None:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while not await run_in_asyncio(watcher.fetchval, waiting):
                await trio.sleep(0.01)
            await run_in_asyncio(other.execute, "COMMIT")

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit_when_awaited)
                with pytest.raises(StorageUnavailable) as caught:
                    await migrate(empty_database_url)
        assert caught.value.condition is StoreCondition.BUSY
        assert await migrate(empty_database_url) == []
        assert await migrate(empty_database_url) == []
        for conn in (other, watcher):
            conn.terminate()


async def test_a_migration_that_another_node_does_not_end_is_storage_unavailable(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that waits too long for the lock raises StorageUnavailable, and nothing is applied."""
    monkeypatch.setitem(module.MIGRATION_SETTINGS, "lock_timeout", "50ms")
    async with postgres(empty_database_url) as stores:
        holder = await run_in_asyncio(PostgresConnector(empty_database_url).connect_aio)
        await run_in_asyncio(holder.fetchval, "SELECT pg_advisory_lock($1)", module.ADVISORY_LOCK_KEY)
        with pytest.raises(StorageUnavailable) as caught:
            await migrate(empty_database_url)
        assert caught.value.condition is StoreCondition.BUSY
        assert await stores.fetchval("SELECT to_regclass('schema_migrations') IS NULL")
        holder.terminate()


async def test_skeletons_of_the_first_rule_are_known_as_such(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database with names in it is migrated: their rows stay, each as the only one of its name by the rule before."""
    known = migrations()
    monkeypatch.setattr(module, "migrations", lambda: [one for one in known if one.name < "0005"])
    await migrate(empty_database_url)
    async with postgres(empty_database_url) as stores:
        user = await stores.fetchval(
            "INSERT INTO users (username, email) VALUES ('Mail', 'm@example.org') RETURNING id"
        )
        await stores.execute(
            "INSERT INTO username_skeletons (skeleton, user_id, username) VALUES ('rnall', $1, 'Mail')", user
        )
        monkeypatch.setattr(module, "migrations", lambda: known)
        assert (await migrate(empty_database_url))[0] == "0005_skeletons.sql"
        row = await stores.fetchrow(
            "SELECT skeleton, user_id, username, freed_at, skeleton_count FROM username_skeletons"
        )
        assert row is not None
        assert tuple(row) == ("rnall", user, "Mail", None, 0)


def test_another_unicode_comes_with_a_migration_that_empties_the_skeletons() -> None:
    """Rows by older data stay in databases, and housekeeping finds no difference: two names that look alike would have
    no key in common."""
    assert [migration.name for migration in migrations() if EMPTIES_SKELETONS.search(migration.sql)] == list(
        UNICODE_OF_SKELETONS
    )
    version = list(UNICODE_OF_SKELETONS.values())[-1]
    assert f"confusables.txt of Unicode {version} (" in files("scoreboard.domain").joinpath(
        "confusables.txt"
    ).read_text("utf-8")
    assert unicodedata2.unidata_version == version
    assert len({*UNICODE_OF_SKELETONS.values()}) == len(UNICODE_OF_SKELETONS)
