"""Erases a user who asks for it, in one transaction.

Called by operations.personal_data. Password and sessions go first: a log-in that holds the password's row is waited
for, and one that comes later waits, and then finds nobody. All or nothing: a client that leaves meanwhile has it rolled
back, and can log in again and ask once more. May raise StorageUnavailable.

Tested in tests/operations/test_personal_data.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.credentials import END_SESSIONS, REMOVE
from scoreboard.storage.postgres.users import ERASE_SQL, NO_TIMEOUTS


async def erase(stores: Stores, user: UUID) -> list[UUID] | None:
    """Deletes the user and all rows that refer to it. Returns the sessions that have ended; None when there is no such
    user. The audit event names the user as its actor. There is no time limit, since a user may have many actions.
    Cancelling rolls back."""
    return await stores.on_own_connection(None, _erase_aio, user)


async def _erase_aio(conn: asyncpg.Connection, user: UUID) -> list[UUID] | None:
    async with conn.transaction():
        await conn.execute(NO_TIMEOUTS)
        await conn.execute(REMOVE, user)
        ended = [row["id"] for row in await conn.fetch(END_SESSIONS, user, None)]
        return ended if await conn.fetchval(ERASE_SQL, user, str(user)) else None
