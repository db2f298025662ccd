"""Applies `migrations/NNNN_name.sql` in order, once each, and gives the app's role its time-outs.

Called by `scoreboard migrate` and by every start of the server. Many nodes may call it at once: the second waits for
the first and finds nothing to do. When there is nothing to do, nothing is locked or written. So a node can start on a
database that is read-only or full. Each file is one transaction. A migration is undone only by a new file.
"""

from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

import asyncpg

from scoreboard.domain.errors import StartError, StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import asyncio_loop, postgres_errors, run_in_asyncio
from scoreboard.drivers.deadline import bounded_aio, ended_connection
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.storage.postgres import roles

# server_version_num: 17 brought transaction_timeout, which alone ends a half-received message that holds locks
OLDEST_POSTGRES = 170_000
ADVISORY_LOCK_KEY = 0x5C0BEB0A  # one migrating session at a time
CHECK_TIMEOUT_SECONDS = 5.0  # for each check before a migration; longer means "not there"

# Set for the role, since PgBouncer refuses unknown start-up parameters. They apply to connections opened afterwards.
TIMEOUTS = {
    "transaction_timeout": "5s",
    "lock_timeout": "1s",
    "statement_timeout": "4s",
    "idle_in_transaction_session_timeout": "5s",
}

MIGRATION_SETTINGS = {
    **dict.fromkeys(TIMEOUTS, "0"),  # none
    "lock_timeout": "60s",  # how long a second node waits for the first
    "client_min_messages": "warning",
}

_SETTINGS_SQL = """
SELECT coalesce((SELECT setconfig FROM pg_db_role_setting
                 WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
                 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())), '{}')"""

# Read from the catalog's rows: `to_regclass` would use the session's cache, which may lack what another node has made.
_IS_NEW_SQL = """
SELECT NOT EXISTS (
    SELECT FROM pg_class WHERE relname = 'schema_migrations' AND relnamespace = current_schema()::regnamespace
)"""
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       TEXT PRIMARY KEY,
    sha256     TEXT NOT NULL,
    applied_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
)"""


class Migration(NamedTuple):
    """One file. `sha256` shows whether the file was edited after it was applied."""

    name: str
    sql: str
    sha256: str


def migrations() -> list[Migration]:
    """The package's migrations in the order of their numbers."""
    texts = (
        (entry.name, entry.read_text("utf-8"))
        for entry in files("scoreboard.storage.postgres").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    )
    return [Migration(name, text, sha256(text.encode()).hexdigest()) for name, text in sorted(texts)]


def outstanding(known: Iterable[Migration], applied: dict[str, str]) -> list[Migration]:
    """What is still to be applied. Raises StartError when an applied file was edited afterwards."""
    todo = []
    for migration in known:
        recorded = applied.get(migration.name)
        if recorded is None:
            todo.append(migration)
        elif recorded != migration.sha256:
            raise StartError(f"migration {migration.name} was applied with another content; a change needs a new file")
    return todo


async def migrate(postgres_url: str, *, pgbouncer: bool = False, app_role: str = "") -> list[str]:
    """Applies outstanding migrations. Returns the names of those applied now. Needs no open stores.

    `app_role`: the role that gets the rights of the app (storage.postgres.roles), when the URL's own role is another
    one; "": the URL's role is the app's.

    Raises StartError when PostgreSQL is too old, when a newer version has migrated the database, or when an applied
    file was edited. Raises StorageUnavailable when PostgreSQL can't be reached. Cancelling rolls back the current file.
    """
    async with asyncio_loop():
        return await run_in_asyncio(_migrate_aio, PostgresConnector(postgres_url, pgbouncer), app_role)


async def is_migrated_aio(conn: asyncpg.Connection) -> bool:
    """Whether every migration of this package is applied. Raises StartError when one was edited
    afterwards."""
    if await conn.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return False
    return not outstanding(migrations(), await _read_applied_aio(conn))


async def _migrate_aio(postgres: PostgresConnector, app_role: str) -> list[str]:
    conn = await postgres.connect_aio()
    try:
        with postgres_errors():
            await bounded_aio(conn, CHECK_TIMEOUT_SECONDS, _refuse_old_aio(conn))
            await bounded_aio(conn, CHECK_TIMEOUT_SECONDS, _refuse_newer_schema_aio(conn))
            if await bounded_aio(conn, CHECK_TIMEOUT_SECONDS, _is_current_aio(conn, app_role)):
                return []
            done = []
            with ended_connection(conn):
                while name := await _apply_next_aio(conn, app_role):
                    done.append(name)
            return done
    finally:
        conn.terminate()


async def _refuse_old_aio(conn: asyncpg.Connection) -> None:
    found = int(await conn.fetchval("SELECT current_setting('server_version_num')"))
    if found < OLDEST_POSTGRES:
        raise StartError(f"PostgreSQL {found // 10_000} is too old: at least {OLDEST_POSTGRES // 10_000} is needed")


async def _refuse_newer_schema_aio(conn: asyncpg.Connection) -> None:
    """Raises StartError when a newer version has migrated the database. Checked at the start alone: running nodes of
    this version continue while newer nodes replace them."""
    if await conn.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return
    last = migrations()[-1].name
    if newer := sorted(name for name in await _read_applied_aio(conn) if name > last):
        raise StartError(
            f"the database is newer than this version: it has {newer[-1]}, known is {last}; install the newer version"
        )


async def _apply_next_aio(conn: asyncpg.Connection, app_role: str) -> str | None:
    """Applies the next file under the lock, and returns its name. None: all files are applied; then it sets the role's
    time-outs, and the rights of the app's role."""
    async with conn.transaction():
        for setting, value in MIGRATION_SETTINGS.items():
            await conn.execute(f"SET LOCAL {setting} = '{value}'")
        await conn.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK_KEY)
        is_new = await conn.fetchval(_IS_NEW_SQL)
        todo = migrations() if is_new else outstanding(migrations(), await _read_applied_aio(conn))
        if not todo:
            await _give_timeouts_aio(conn)
            for statement in await roles.missing_aio(conn, app_role) if app_role else ():
                await conn.execute(statement)
            return None
        if not await conn.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            raise StartError(
                f"the database has to be migrated first ({todo[0].name} is missing), which this role may not do: "
                "run `scoreboard migrate` with postgres.migrate_url"
            )
        await conn.execute(_TABLE)
        await conn.execute(todo[0].sql)
        await conn.execute("INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", todo[0].name, todo[0].sha256)
        return todo[0].name


async def _read_applied_aio(conn: asyncpg.Connection) -> dict[str, str]:
    """Name → SHA-256 of each applied file."""
    return {row["name"]: row["sha256"] for row in await conn.fetch("SELECT name, sha256 FROM schema_migrations")}


async def _is_current_aio(conn: asyncpg.Connection, app_role: str) -> bool:
    """Whether there is nothing to do. Locks and writes nothing."""
    if not (await is_migrated_aio(conn) and await _has_timeouts_aio(conn)):
        return False
    return not app_role or not await roles.missing_aio(conn, app_role)


async def _has_timeouts_aio(conn: asyncpg.Connection) -> bool:
    return {f"{setting}={value}" for setting, value in TIMEOUTS.items()} <= set(await conn.fetchval(_SETTINGS_SQL))


async def _give_timeouts_aio(conn: asyncpg.Connection) -> None:
    """Sets the role's time-outs, if they differ. Raises StorageUnavailable when another session without the lock
    changes the role's settings at the same moment."""
    if await _has_timeouts_aio(conn):
        return
    database = await conn.fetchval("SELECT quote_ident(current_database())")
    try:
        for setting, value in TIMEOUTS.items():
            await conn.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET {setting} = '{value}'")
    except (asyncpg.InternalServerError, asyncpg.UniqueViolationError) as exc:
        # "tuple concurrently updated", or made at the same time
        raise StorageUnavailable(
            "postgresql", f"the role's settings are being changed: {exc}", StoreCondition.BUSY
        ) from exc
