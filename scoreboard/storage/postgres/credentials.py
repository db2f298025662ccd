"""Passwords in PostgreSQL: another one, or none, ends the sessions that were opened with the one before.

Called by operations.accounts and operations.admin.users. A log-in opens its session only while the hash that it has
compared is still the user's (storage.postgres.sessions), and waits for a change that is under way: so no session of an
old password is left over. Everything here may raise StorageUnavailable.

Tested by tests/operations/test_change_password.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.storage.connections.stores import Stores

CHANGE = """
UPDATE credentials SET password_hash = $2, updated_at = now() WHERE user_id = $1 AND password_hash = $3
RETURNING user_id"""
SET = """
INSERT INTO credentials (user_id, password_hash) SELECT id, $2 FROM users WHERE id = $1
ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash, updated_at = now() RETURNING user_id"""

REMOVE = "DELETE FROM credentials WHERE user_id = $1"

# A statement of its own, after the hash is written or removed: it sees the session of a log-in that the change has
# waited for.
END_SESSIONS = """
UPDATE sessions SET revoked_at = now() WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND revoked_at IS NULL
RETURNING id"""


async def change(stores: Stores, user: UUID, old: str, new: str, session: UUID) -> list[UUID] | None:
    """Puts the hash `new` in the place of `old`, and ends all sessions of the user but `session`: these. None: `old` is
    not the hash."""
    return await stores.in_transaction(_change_aio, CHANGE, (user, new, old), session)


async def replace(stores: Stores, user: UUID, new: str) -> list[UUID] | None:
    """Gives the user a password, whether there was one or not, and ends all sessions: these. None: there is no such
    user."""
    try:
        return await stores.in_transaction(_change_aio, SET, (user, new), None)
    except asyncpg.ForeignKeyViolationError:  # deleted at the same moment
        return None


async def remove(stores: Stores, user: UUID) -> list[UUID]:
    """Takes the user's password away, if there is one, and ends all sessions: these. Nobody can log in as the user from
    then on."""
    return await stores.in_transaction(_remove_aio, user)


async def _change_aio(
    conn: asyncpg.Connection, sql: str, arguments: tuple[object, ...], session: UUID | None
) -> list[UUID] | None:
    """In a transaction."""
    if await conn.fetchrow(sql, *arguments) is None:
        return None
    return [row["id"] for row in await conn.fetch(END_SESSIONS, arguments[0], session)]


async def _remove_aio(conn: asyncpg.Connection, user: UUID) -> list[UUID]:
    """In a transaction."""
    await conn.execute(REMOVE, user)
    return [row["id"] for row in await conn.fetch(END_SESSIONS, user, None)]
