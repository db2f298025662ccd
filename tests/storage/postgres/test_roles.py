"""Two roles: one owns the tables, the other is the app's. What the app does works, and PostgreSQL itself refuses what
nobody should do."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import trio

from scoreboard.domain.audit import OPERATOR, AuditEvent, AuditKind
from scoreboard.domain.errors import SettingsError, StartError
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded import servers
from scoreboard.embedded import stack as embedded
from scoreboard.embedded.stack import Endpoints
from scoreboard.storage.log_audit import log_differences_aio
from scoreboard.storage.postgres import audit_events, users
from scoreboard.storage.postgres import partitions as partitions_module
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.storage.postgres.partitions import make_partitions_aio
from scoreboard.storage.postgres.roles import ALL_ROWS, TableRights, grants, wanted_rights
from scoreboard.storage.start_stores import role_of
from tests.background_loop import in_background
from tests.conftest import database
from tests.storage.seeds import connection, make_users
from tests.storage.test_sealing import record, seal_all

APP = "app"
SECOND_ROLE = f"CREATE ROLE {APP} LOGIN PASSWORD '{APP}';\n\n"


@pytest.fixture(scope="module")
def two_roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A server with a second role, which only its superuser can make: in single-user mode, before it starts."""
    run = servers._run

    async def with_second_role(command: Any, data: Path, stdin: str, server: Any) -> None:
        await run(command, data, stdin + SECOND_ROLE if stdin else stdin, server)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(servers, "_run", with_second_role)
        with in_background(lambda: embedded.running(tmp_path_factory.mktemp("roles"))) as (endpoints, _):
            yield endpoints


@pytest.fixture
def owner_url(two_roles: Endpoints) -> Iterator[str]:
    with database(two_roles.postgres_url) as url:
        yield url


def app_url(owner_url: str) -> str:
    parts = urlsplit(owner_url)
    return parts._replace(netloc=f"{APP}:{APP}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
async def app(owner_url: str, two_roles: Endpoints) -> AsyncIterator[Stores]:
    """The stores as the app sees them, after `scoreboard migrate`."""
    await migrate(owner_url, app_role=APP)
    url = app_url(owner_url)
    assert await migrate(url) == []  # a node's start: it sets its own role's time-outs
    async with open_stores(url, two_roles.redis_url) as stores:
        yield stores


FORBIDDEN = [
    f"{verb} {table}{rest}"
    for table in ("action_logs", "audit_events", "log_leaves", "log_nodes", "log_checkpoints")
    for verb, rest in (("DELETE FROM", ""), ("TRUNCATE", ""), ("DROP TABLE", ""))
] + [
    "UPDATE action_logs SET points_awarded = 1000",
    "UPDATE audit_events SET actor = 'x'",
    "UPDATE log_leaves SET first = 1",
    "UPDATE log_nodes SET first = 1",
    "UPDATE log_checkpoints SET note = ''",
    "UPDATE log_secrets SET secret = ''",
    "DELETE FROM log_secrets",
    "UPDATE log_event_secret SET secret = ''",
    "DELETE FROM users",
    "DELETE FROM action_logs_default",
    "INSERT INTO action_logs_default SELECT * FROM action_logs",
    "SELECT * FROM action_logs_default",
    "ALTER TABLE audit_events DISABLE TRIGGER USER",
    "ALTER TABLE action_logs DETACH PARTITION action_logs_default",
    "CREATE TABLE mine (a int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "INSERT INTO schema_migrations (name, sha256) VALUES ('9999', '')",
    "ALTER SEQUENCE commit_ids RESTART",
    "SELECT setval('commit_ids', 1)",
    "SET ROLE scoreboard",
]


async def test_the_app_may_not_change_the_log(app: Stores) -> None:
    """Nor what could be used for it."""
    await record(app, await make_users(app, 2))
    await seal_all(app)
    async with connection(app) as conn:
        for sql in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await run_in_asyncio(conn.execute, sql)


async def test_what_the_app_does_works(app: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions, sealing, events, the erasure of a user, and next month's partition, with rows moved to it."""
    players = await make_users(app, 3)
    await record(app, players, each=2)
    assert await seal_all(app) == 6
    async with connection(app) as conn:
        made = await run_in_asyncio(make_partitions_aio, conn)
        assert len(made) == partitions_module.MONTHS_AHEAD + 1
        monkeypatch.setattr(partitions_module, "MONTHS_AHEAD", partitions_module.MONTHS_AHEAD + 1)
        assert len(await run_in_asyncio(make_partitions_aio, conn)) == 1
    await record(app, players)
    await app.in_transaction(audit_events.add_aio, [AuditEvent(AuditKind.USER_BANNED, OPERATOR, players[0])])
    assert await users.delete(app, players[0], OPERATOR)
    assert not await users.delete(app, uuid4(), OPERATOR)
    assert await app.fetchval("SELECT count(*) FROM action_logs") == 6
    assert await app.fetchval("SELECT count(*) FROM audit_events WHERE kind = 'user_erased'") == 1
    await seal_all(app)
    found, counts = await run_in_asyncio(log_differences_aio, app, None)
    assert (found, counts.erased) == ({}, 2)


async def test_a_temporary_table_does_not_stand_in_for_users(app: Stores) -> None:
    """The function of an erasure runs with the owner's rights: it looks at the real table."""
    (user,) = await make_users(app, 1)
    async with connection(app) as conn:
        await run_in_asyncio(conn.execute, "CREATE TEMPORARY TABLE users (id UUID)")
        await run_in_asyncio(conn.execute, "SELECT erase_user($1, 'me')", user)
    assert await app.fetchval("SELECT count(*) FROM users") == 0


async def test_a_second_migration_finds_nothing_to_do(owner_url: str) -> None:
    await migrate(owner_url, app_role=APP)
    assert await migrate(owner_url, app_role=APP) == []


async def test_rights_that_somebody_gave_are_taken_back(owner_url: str, app: Stores) -> None:
    async with open_stores(owner_url, "redis://127.0.0.1:1/0") as owner:
        await owner.execute(f"GRANT UPDATE ON action_logs TO {APP}; GRANT DELETE ON audit_events TO PUBLIC")
        await owner.execute(f"REVOKE INSERT ON sessions FROM {APP}")
    await migrate(owner_url, app_role=APP)
    assert not await app.fetchval("SELECT has_table_privilege('action_logs', 'UPDATE')")
    assert not await app.fetchval("SELECT has_table_privilege('audit_events', 'DELETE')")
    assert await app.fetchval("SELECT has_table_privilege('sessions', 'INSERT')")


async def test_a_node_that_may_not_migrate_says_so(owner_url: str) -> None:
    with trio.fail_after(30), pytest.raises(StartError, match=r"postgres\.migrate_url"):
        await migrate(app_url(owner_url))


@pytest.mark.parametrize(("role", "why"), [("absent", "has no role absent"), ("scoreboard", "owns the tables")])
async def test_a_role_whose_rights_would_mean_nothing_is_refused(owner_url: str, role: str, why: str) -> None:
    with pytest.raises(StartError, match=why):
        await migrate(owner_url, app_role=role)


def test_partitions_have_no_rights_of_their_own() -> None:
    partition = TableRights("action_logs_2026_11", True, frozenset({"SELECT"}))
    assert wanted_rights(partition) == frozenset()
    assert list(grants([partition], APP)) == ['REVOKE SELECT ON "action_logs_2026_11" FROM app, PUBLIC']
    assert list(grants([TableRights("sessions", False, ALL_ROWS)], APP)) == []


def test_the_role_is_the_one_of_the_url() -> None:
    assert role_of("postgresql://a%40b:secret@db.example/scores") == "a@b"
    with pytest.raises(SettingsError, match="must name its role"):
        role_of("postgresql://db.example/scores")
