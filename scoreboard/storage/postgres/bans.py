"""Bans in PostgreSQL: put on and lifted in one transaction with their audit event.

`users.ban` says what is in force, and a trigger of migration 0013 brings each change of it to every board. `bans` is
the history. Tested in tests/storage/postgres/test_bans.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.bans import Ban
from scoreboard.domain.errors import Code, Refusal
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, notes
from scoreboard.storage.postgres.decisions import decided_aio, lock_subject_aio, next_id_aio

SET_BAN_SQL = "UPDATE users SET ban = $2 WHERE id = $1"
INSERT_SQL = """
INSERT INTO bans (id, user_id, kind, reason, is_reason_shown, actor) VALUES ($1, $2, $3, $4, $5, $6)"""
NEWEST_SQL = """
SELECT id, kind, actor, created_at, lifted_at, lifted_by FROM bans WHERE user_id = $1 ORDER BY id DESC LIMIT 1"""
LIFT_SQL = "UPDATE bans SET lifted_at = now(), lifted_by = $2 WHERE user_id = $1 AND lifted_at IS NULL RETURNING id"

NEVER_BANNED = Refusal(Code.NOT_FOUND, "This user has no ban.")


async def put_on(
    stores: Stores, user: UUID, kind: Ban, reason: str, actor: UUID, *, is_reason_shown: bool = False
) -> int | Refusal:
    """Bans the user and returns the ban's id. A Refusal when the actor may not, when there is no such user, or when a
    ban is in force: then it says who decided that.

    Waits for batches with actions of the user; later batches see the ban. Raises StorageUnavailable. After a
    cancellation it is unknown whether the user is banned.
    """
    return await stores.in_transaction(_put_on_aio, user, kind, reason, actor, is_reason_shown)


async def lift(stores: Stores, user: UUID, actor: UUID, reason: str | None = None) -> int | Refusal:
    """Lifts the ban that is in force and returns its id. A reason becomes a note about the user. Raises and waits as
    `put_on`."""
    return await stores.in_transaction(_lift_aio, user, actor, reason)


async def _put_on_aio(
    conn: asyncpg.Connection, user: UUID, kind: Ban, reason: str, actor: UUID, is_reason_shown: bool
) -> int | Refusal:
    subject = await lock_subject_aio(conn, user, actor)
    if isinstance(subject, Refusal):
        return subject
    if subject.ban is not Ban.NONE:
        row = await conn.fetchrow(NEWEST_SQL, user)
        if row is None or row["lifted_at"] is not None:  # plain SQL wrote users.ban
            return Refusal(Code.CONFLICT, "This user is banned already, by the database's operator.")
        what = "a shadow ban" if subject.ban is Ban.SHADOW else "a ban"
        return await decided_aio(conn, f"This user has {what} already,", row["actor"], row["created_at"])
    ban = await next_id_aio(conn)
    await conn.execute(INSERT_SQL, ban, user, kind, reason, is_reason_shown, str(actor))
    await conn.execute(SET_BAN_SQL, user, kind)
    details = {"ban": ban, "shadow": kind is Ban.SHADOW}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.USER_BANNED, str(actor), user, details)])
    return ban


async def _lift_aio(conn: asyncpg.Connection, user: UUID, actor: UUID, reason: str | None) -> int | Refusal:
    subject = await lock_subject_aio(conn, user, actor)
    if isinstance(subject, Refusal):
        return subject
    ban = await conn.fetchval(LIFT_SQL, user, str(actor))
    if ban is None and subject.ban is Ban.NONE:
        row = await conn.fetchrow(NEWEST_SQL, user)
        if row is None:
            return NEVER_BANNED
        return await decided_aio(conn, "The ban was lifted already,", row["lifted_by"], row["lifted_at"])
    await conn.execute(SET_BAN_SQL, user, Ban.NONE)
    details = {"ban": ban, "shadow": subject.ban is Ban.SHADOW}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.BAN_LIFTED, str(actor), user, details)])
    if reason is not None:
        await notes.write_aio(conn, user, f"Why the ban was lifted: {reason}", actor)
    return int(ban or 0)
