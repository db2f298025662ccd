"""Notes of moderators about users, in PostgreSQL. They are read with the user's history (moderated_users).

Tested in tests/storage/postgres/test_moderated_users.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.errors import Code, Refusal
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events
from scoreboard.storage.postgres.decisions import lock_subject_aio, next_id_aio

MAX_NOTES = 1_000  # of a user; full: nobody adds another
MAX_NOTE_LENGTH = 2_000  # characters, as the column

COUNT_SQL = "SELECT count(*) FROM user_notes WHERE user_id = $1"
INSERT_SQL = "INSERT INTO user_notes (id, user_id, note, actor) VALUES ($1, $2, $3, $4)"

TOO_MANY = Refusal(Code.CONFLICT, f"This user has {MAX_NOTES} notes already.")


async def add(stores: Stores, user: UUID, note: str, actor: UUID) -> int | Refusal:
    """Adds a note with its audit event, and returns its id. A Refusal as for every decision (decisions). Raises
    StorageUnavailable. After a cancellation it is unknown whether the note was added."""
    return await stores.in_transaction(_add_aio, user, note, actor)


async def _add_aio(conn: asyncpg.Connection, user: UUID, note: str, actor: UUID) -> int | Refusal:
    subject = await lock_subject_aio(conn, user, actor)
    if isinstance(subject, Refusal):
        return subject
    if await conn.fetchval(COUNT_SQL, user) >= MAX_NOTES:
        return TOO_MANY
    return await write_aio(conn, user, note, actor)


async def write_aio(conn: asyncpg.Connection, user: UUID, note: str, actor: UUID) -> int:
    """Adds a note in the transaction of a decision that has locked the user, whatever their number: why the decision
    was taken back. Returns its id. Raises what asyncpg raises."""
    added = await next_id_aio(conn)
    await conn.execute(INSERT_SQL, added, user, note, str(actor))
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.NOTE_ADDED, str(actor), user, {"note": added})])
    return added
