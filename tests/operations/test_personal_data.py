"""A user's own data: pages of the history, the export, and the erasure that leaves nothing."""

import base64
import json
from typing import Any
from uuid import UUID

import pytest
import trio

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.bans import Ban
from scoreboard.domain.errors import Code, StorageUnavailable
from scoreboard.domain.identities import ExternalIdentity
from scoreboard.domain.roles import Role
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.operations import personal_data as module
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.identified_users import find_or_create
from scoreboard.operations.login_admission import Client
from scoreboard.operations.personal_data import (
    NOT_FRESH,
    PASSWORD_NEEDED,
    WRONG_PASSWORD,
    cursor_of,
    read_place,
    write_export,
)
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres import bans, erasure, personal_data, staff
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.personal_data import FIRST_PLACE
from tests.operations.people import PASSWORD, Node, code, database_url, logged_in, node

__all__ = ["database_url"]  # the module's own fixture

# Two actions at a time, so that equal times are told apart by the order number.
LOG_SQL = """
INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature, metadata,
                         processed_at)
SELECT $1, 'action-' || n, 'task_finish', 10, 10 * n, n, 'signature', '{"n": 1}',
       '2026-03-01T00:00:00.123456Z'::timestamptz + (n / 2) * interval '1 hour'
FROM generate_series(1, $2::int) AS n"""

# Every table that may tell of a user. audit_events outlives its user on purpose: it has the id alone.
TRACES_SQL = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND column_name IN ('user_id', 'subject') AND table_name NOT LIKE 'action_logs_%'
      AND table_name <> 'audit_events'"""


def identity_of(one: Node, session: LoggedIn) -> Identity:
    identity = one.sessions.authenticate(session.accessToken)
    assert identity is not None
    return identity


async def exported(one: Node, user: UUID) -> dict[str, Any]:
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    assert await write_export(one.stores, user, 1_768_041_000_000, write)
    data = json.loads(b"".join(pieces))["data"]
    assert isinstance(data, dict)
    return data


async def test_the_history_comes_in_pages(database_url: str, redis_url: str) -> None:
    """Every action once, the newest first, also where two have the same time."""
    async with node(database_url, redis_url) as one:
        ada, eve = await one.register("Ada"), await one.register("Eve")
        user = UUID(ada.userId)
        await one.stores.execute(LOG_SQL, user, 9)
        await one.stores.execute(LOG_SQL, UUID(eve.userId), 2)
        found, place = [], FIRST_PLACE
        while page := await one.accounts.history(identity_of(one, ada), place, 2):
            found += page
            following = read_place(cursor_of(page[-1]))
            assert following is not None
            place = following
        assert [action.action_id for action in found] == [f"action-{n}" for n in range(9, 0, -1)]
        assert (found[0].points, found[0].new_score, found[0].metadata) == (10, 90, {"n": 1})


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-2", "1-2-3", "9" * 18 + "-1", "1-" + "9" * 19, "1e3-1", "١-١"])
def test_a_made_up_cursor_is_none(cursor: str) -> None:
    assert read_place(cursor) is None


async def test_an_export_has_everything_and_no_secret(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one query reads; of another user nothing."""
    monkeypatch.setattr(module, "EXPORT_ROWS", 3)
    async with node(database_url, redis_url) as one:
        ada, eve = await one.register("Ada"), await one.register("Eve")
        user = UUID(ada.userId)
        sessions = [await logged_in(one, "Ada") for _ in range(6)]
        await one.accounts.change_profile(identity_of(one, ada), username="Lovelace")
        await one.stores.execute(LOG_SQL, user, 7)
        await one.stores.execute(LOG_SQL, UUID(eve.userId), 1)
        await one.stores.execute("INSERT INTO identities VALUES ('game', 'ada-7', $1), ('device', 'hash', $1)", user)
        await one.stores.execute(
            "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, 70, 7, 7)", user
        )
        await one.stores.execute(
            "INSERT INTO board_scores (board, subject, total, reached, version) VALUES ('daily', $1, 20, 1, 1)", user
        )
        data = await exported(one, user)
        assert data["exportedAt"] == "2026-01-10T10:30:00.000Z"
        profile = data["profile"]
        assert (profile["id"], profile["username"], profile["email"]) == (ada.userId, "Lovelace", "ada@example.org")
        assert [each["username"] for each in data["formerNames"]] == ["Ada"]
        assert [(each["provider"], each["externalId"]) for each in data["identities"]] == [
            ("device", None),
            ("game", "ada-7"),
        ]
        assert len(data["sessions"]) == 1 + len(sessions)
        assert len({each["id"] for each in data["sessions"]}) == 7
        assert [(each["board"], each["total"]) for each in data["scores"]] == [("daily", 20), ("leaderboard", 70)]
        assert [each["actionId"] for each in data["actions"]] == [f"action-{n}" for n in range(7, 0, -1)]
        text = json.dumps(data)
        assert eve.userId not in text
        stored = await one.stores.fetch("SELECT encode(token_sha256, 'hex') AS digest FROM sessions")
        hashes = [row["digest"] for row in stored] + [
            await one.stores.fetchval("SELECT password_hash FROM credentials")
        ]
        for secret in (*hashes, ada.refreshToken, ada.actionSecret, "signature", "argon2"):
            assert secret not in text


async def test_an_export_tells_nothing_that_protects_against_cheats(database_url: str, redis_url: str) -> None:
    """A ban and a reversal are in it, a shadow ban, a flag and a note are not; evidence comes whole, four at a time."""
    async with node(database_url, redis_url) as one:
        user = UUID((await one.register("Ada")).userId)
        await one.stores.execute(LOG_SQL, user, 2)
        await one.stores.execute(
            """INSERT INTO bans (id, user_id, kind, reason, is_reason_shown, actor, lifted_at)
               VALUES (1, $1, $2, 'shown reason', true, 'them', now()),
                      (2, $1, $2, 'hidden reason', false, 'them', now()),
                      (3, $1, $3, 'shadow reason', false, 'them', NULL)""",
            user,
            Ban.FULL,
            Ban.SHADOW,
        )
        await one.stores.execute(
            "INSERT INTO reversals (id, user_id, action_id, seq, points, reason, actor) "
            "VALUES (1, $1, 'action-2', 2, '{}', 'reversal reason', 'them')",
            user,
        )
        await one.stores.execute(
            "INSERT INTO user_notes (id, user_id, note, actor) VALUES (1, $1, 'a note', 'them')", user
        )
        await one.stores.execute("INSERT INTO flags (rule, user_id, evidence) VALUES ('jump', $1, '{}')", user)
        await one.stores.execute(
            "INSERT INTO evidence (user_id, sha256, content) "
            "SELECT $1, sha256(n::text::bytea), decode(repeat('00ff', 100), 'hex') FROM generate_series(1, 9) AS n",
            user,
        )
        await one.stores.execute(
            """INSERT INTO audit_events (id, kind, actor, subject, details)
               VALUES (1, 'user_banned', 'them', $1, '{"shadow": true}'),
                      (2, 'action_reversed', 'them', $1, '{"seq": 2}')""",
            user,
        )
        data = await exported(one, user)
        assert [each["reason"] for each in data["bans"]] == [None, "shown reason"]
        assert [(each["actionId"], each["reason"]) for each in data["reversals"]] == [("action-2", "reversal reason")]
        assert [each["reversed"] for each in data["actions"]] == [True, False]
        assert [(each["kind"], each["details"]) for each in data["auditEvents"]] == [("action_reversed", {"seq": 2})]
        assert len({each["sha256"] for each in data["evidence"]}) == 9
        assert base64.b64decode(data["evidence"][0]["contentBase64"]) == b"\x00\xff" * 100
        text = json.dumps(data)
        for hidden in ("shadow", "hidden reason", "a note", "jump", "them"):
            assert hidden not in text


async def test_no_table_about_users_is_forgotten(database_url: str, redis_url: str) -> None:
    """Each is exported, or left out for a reason."""
    async with node(database_url, redis_url) as one:
        tables = {row["table_name"] for row in await one.stores.fetch(TRACES_SQL)} | {"audit_events"}
        read = " ".join((*personal_data.LISTS_SQL.values(), personal_data.HISTORY_SQL, personal_data.PROFILE_SQL))
        exported_tables = {table for table in tables if f"FROM {table}" in read}
        assert tables - exported_tables == set(personal_data.LEFT_OUT)


async def test_an_export_of_nobody_writes_nothing(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:

        async def write(_piece: bytes) -> None:
            raise AssertionError("there is nothing to write")

        assert not await write_export(one.stores, UUID(int=7), 0, write)


async def test_an_erased_user_is_gone(database_url: str, redis_url: str) -> None:
    """From every table; the sessions' rows are nobody's. The audit event has the user's id as actor and subject."""
    async with node(database_url, redis_url) as one:
        ada, eve = await one.register("Ada"), await one.register("Eve")
        other = await logged_in(one, "Ada")
        user = UUID(ada.userId)
        await one.stores.execute(LOG_SQL, user, 3)
        await one.stores.execute("INSERT INTO identities VALUES ('game', 'ada', $1)", user)
        await one.stores.execute(
            "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, 30, 3, 3)", user
        )
        await one.stores.command("HSET", one.stores.namespace.profile(user), "username", "Ada")
        assert await one.accounts.erase(identity_of(one, ada), PASSWORD) is None
        for session in (ada, other):
            assert one.sessions.authenticate(session.accessToken) is None
            assert code(await one.accounts.refresh_session(session.refreshToken)) is Code.UNAUTHORIZED
        assert len(one.revoked) == 2
        assert await one.stores.fetchval("SELECT count(*) FROM users WHERE id = $1", user) == 0
        for table, column in await one.stores.fetch(TRACES_SQL):
            assert await one.stores.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = $1", user) == 0, table
        assert await one.stores.command("EXISTS", one.stores.namespace.profile(user)) == 0
        event = await one.stores.fetchrow(
            "SELECT kind, actor, subject, details FROM audit_events WHERE subject = $1", user
        )
        assert event is not None
        assert tuple(event) == ("user_erased", ada.userId, user, "{}")
        assert one.sessions.authenticate(eve.accessToken) is not None
        assert (await one.register("Other Ada", email="ada@example.org")).userId != ada.userId


async def test_a_wrong_password_erases_nobody_and_counts(database_url: str, redis_url: str) -> None:
    """As a wrong password at a log-in: also the right one is refused then."""
    async with node(database_url, redis_url, login_per_minute=3) as one:
        ada = await one.register("Ada")
        identity, client = identity_of(one, ada), Client("203.0.113.7")
        assert await one.accounts.erase(identity, None, client) == PASSWORD_NEEDED
        for _ in range(3):
            assert await one.accounts.erase(identity, "wrong password", client) == WRONG_PASSWORD
        assert code(await one.accounts.erase(identity, PASSWORD, client)) is Code.RATE_LIMITED
        assert one.sessions.authenticate(ada.accessToken) is not None
        assert await one.accounts.erase(identity, PASSWORD, Client("198.51.100.7")) is None


async def test_a_user_without_a_password_needs_a_fresh_log_in(database_url: str, redis_url: str) -> None:
    """A token of an old session, refreshed a moment ago, is not enough; another session's age does not help."""
    async with node(database_url, redis_url) as one:
        made = await find_or_create(one.stores, ExternalIdentity("game", "eve"), "Eve")
        assert isinstance(made, IdentifiedUser)
        old = await one.accounts.sessions.open_identified(made.user, made.username)
        assert old is not None
        await one.stores.execute("UPDATE sessions SET created_at = now() - interval '301 seconds'")
        refreshed = await one.accounts.refresh_session(old.refreshToken)
        assert isinstance(refreshed, LoggedIn)
        fresh = await one.accounts.sessions.open_identified(made.user, made.username)
        assert fresh is not None
        assert await one.accounts.erase(identity_of(one, refreshed), None) == NOT_FRESH
        assert await one.accounts.erase(identity_of(one, refreshed), PASSWORD) == NOT_FRESH
        assert await one.accounts.erase(identity_of(one, fresh), None) is None
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 0


async def test_an_erasure_that_fails_changes_nothing(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user still logs in with the password, and may ask once more."""
    async with node(database_url, redis_url) as one:
        ada = await one.register("Ada")
        with monkeypatch.context() as patched:
            patched.setattr(erasure, "ERASE_SQL", "SELECT pg_terminate_backend(pg_backend_pid()), $1::uuid, $2::text")
            with pytest.raises(StorageUnavailable):
                await one.accounts.erase(identity_of(one, ada), PASSWORD)
        assert one.sessions.authenticate(ada.accessToken) is not None
        again = await logged_in(one, "Ada")
        assert await one.accounts.erase(identity_of(one, again), PASSWORD) is None


async def test_a_log_in_during_an_erasure_opens_no_session(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the erasure, which holds the password's row, and then finds nobody."""
    async with node(database_url, redis_url) as one:
        ada = await one.register("Ada")
        holder = await run_in_asyncio(one.stores.connect_aio)
        outcomes: list[object] = []

        async def erase() -> None:
            outcomes.append(await one.accounts.erase(identity_of(one, ada), PASSWORD))

        async def log_in() -> None:
            outcomes.append(await one.accounts.log_in("Ada", PASSWORD))

        async def waiting(calls: int) -> None:
            while await one.stores.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < calls:
                await trio.lowlevel.checkpoint()

        with trio.fail_after(20):
            # Another session holds the user's row, so the erasure stays where it is.
            await run_in_asyncio(holder.execute, "BEGIN")
            await run_in_asyncio(holder.execute, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(ada.userId))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(erase)
                await waiting(1)
                nursery.start_soon(log_in)
                await waiting(2)
                await run_in_asyncio(holder.execute, "COMMIT")
        holder.terminate()
        assert None in outcomes
        assert sum(code(outcome) is Code.UNAUTHORIZED for outcome in outcomes if outcome is not None) == 1
        assert await one.stores.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == 0


async def test_the_history_is_read_by_its_index(database_url: str, redis_url: str) -> None:
    """A page of a long history costs as many rows as it has."""
    async with node(database_url, redis_url) as one:
        user = UUID((await one.register("Ada")).userId)
        await one.stores.execute(LOG_SQL, user, 5000)
        await one.stores.execute("ANALYZE action_logs")
        rows = await one.stores.fetch(
            f"EXPLAIN (ANALYZE, FORMAT TEXT) {personal_data.HISTORY_SQL}", user, personal_data.LATEST, 2**62, 50
        )
        plan = "\n".join(row[0] for row in rows)
        assert "Index Scan" in plan
        assert "Seq Scan" not in plan


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_an_export_tells_of_a_ban_but_not_of_a_shadow_ban(database_url: str, redis_url: str, kind: Ban) -> None:
    """Nor of the end of one."""
    async with node(database_url, redis_url) as one:
        ada, mia = UUID((await one.register()).userId), UUID((await one.register("Mia")).userId)
        await staff.set_role(one.stores, mia, Role.MODERATOR, OPERATOR)
        await bans.put_on(one.stores, ada, kind, "a bot", mia)
        await bans.lift(one.stores, ada, mia)
        data = await exported(one, ada)
        assert [ban["liftedAt"] is None for ban in data["bans"]] == ([] if kind is Ban.SHADOW else [False])
        assert data["auditEvents"] == []
