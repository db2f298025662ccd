"""Passwords in PostgreSQL. Changing or removing a password ends the sessions that were opened with the old one.

Called by operations.accounts and operations.admin.users. A log-in opens its session only while the hash that it has
compared is still the user's (storage.postgres.sessions), and waits for a concurrent change. So no session of an old
password remains. Every function here may raise StorageUnavailable.

Tested by tests/operations/test_change_password.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.drivers.stores import Stores

CHANGE = """
UPDATE credentials SET password_hash = $2, updated_at = now() WHERE user_id = $1 AND password_hash = $3
RETURNING user_id"""
SET = """
INSERT INTO credentials (user_id, password_hash) SELECT id, $2 FROM users WHERE id = $1
ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash, updated_at = now() RETURNING user_id"""

REMOVE = "DELETE FROM credentials WHERE user_id = $1"

# A statement of its own, after the hash was written or removed. So it sees the session of a log-in for which the change
# has waited.
END_SESSIONS = """
UPDATE sessions SET revoked_at = now() WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND revoked_at IS NULL
RETURNING id"""


async def change(stores: Stores, user: UUID, old: str, new: str, session: UUID) -> list[UUID] | None:
    """Replaces the hash `old` by `new`, and ends all sessions of the user but `session`. Returns the ended sessions.
    None, and no change: `old` is not the stored hash."""
    return await stores.in_transaction(_change_aio, CHANGE, (user, new, old), session)


async def replace(stores: Stores, user: UUID, new: str) -> list[UUID] | None:
    """Sets the user's password hash, whether there was one or not, and ends all sessions. Returns the ended sessions.
    None: there is no such user."""
    try:
        return await stores.in_transaction(_change_aio, SET, (user, new), None)
    except asyncpg.ForeignKeyViolationError:  # deleted at the same moment
        return None


async def remove(stores: Stores, user: UUID) -> list[UUID]:
    """Removes the user's password, if there is one, and ends all sessions. Returns the ended sessions. From then on
    nobody can log in as this user."""
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
