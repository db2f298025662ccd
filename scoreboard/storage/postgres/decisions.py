"""What decisions of moderators have in common in PostgreSQL: who may decide, order numbers, and how the decision that
is in force already is told to the second of two moderators.

Coroutines run in asyncio, in the transaction of the decision. Tested in tests/storage/postgres/test_bans.py.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.roles import Role, missing_role, read_role, refuse_moderation
from scoreboard.drivers.stores import Stores

# One order with action_logs.seq and audit_events.id, see migration 0008.
NEXT_ID_SQL = "SELECT nextval('commit_ids') * 4096"
ROLE_SQL = "SELECT role FROM users WHERE id = $1"
# Waits for batches with actions of the user, and keeps later ones waiting until the transaction ends.
LOCK_SQL = "SELECT role, ban FROM users WHERE id = $1 FOR UPDATE"
NAMES_SQL = "SELECT id, username FROM users WHERE id = ANY($1)"

NO_SUCH_USER = Refusal(Code.NOT_FOUND, "There is no such user.")
OWN_CASE = Refusal(Code.FORBIDDEN, "Nobody decides about himself.")


class Subject(NamedTuple):
    """The user a decision is about, with the row locked."""

    user: UUID
    ban: Ban


async def lock_subject_aio(conn: asyncpg.Connection, user: UUID, actor: UUID) -> Subject | Refusal:
    """Locks the user for a decision of `actor`, whose role is read again: it may have been taken since the request
    came. A Refusal when there is no such user, or when the actor may not decide. Raises what asyncpg raises."""
    role = read_role(await conn.fetchval(ROLE_SQL, actor))
    if role is None or not role.includes(Role.MODERATOR):
        return missing_role(Role.MODERATOR)
    if user == actor:
        return OWN_CASE
    row = await conn.fetchrow(LOCK_SQL, user)
    if row is None:
        return NO_SUCH_USER
    return refuse_moderation(role, read_role(row["role"])) or Subject(user, Ban(row["ban"]))


async def refuse_subject(stores: Stores, user: UUID, actor: UUID) -> Refusal | None:
    """Why `actor` may not decide about the user now; None when he may, or there is no such user. For decisions whose
    transaction is made elsewhere: nothing is locked. Raises StorageUnavailable."""
    return await stores.in_transaction(_refuse_subject_aio, user, actor)


async def _refuse_subject_aio(conn: asyncpg.Connection, user: UUID, actor: UUID) -> Refusal | None:
    role = read_role(await conn.fetchval(ROLE_SQL, actor))
    if role is None or not role.includes(Role.MODERATOR):
        return missing_role(Role.MODERATOR)
    return OWN_CASE if user == actor else refuse_moderation(role, read_role(await conn.fetchval(ROLE_SQL, user)))


async def next_id_aio(conn: asyncpg.Connection) -> int:
    """The order number of a decision."""
    return int(await conn.fetchval(NEXT_ID_SQL))


async def decided_aio(conn: asyncpg.Connection, what: str, actor: str, at: datetime) -> Refusal:
    """409 for the second of two moderators: what was decided, by whom and when."""
    names = await names_aio(conn, [actor])
    return Refusal(Code.CONFLICT, f"{what} by {names.get(actor, actor)} at {rfc3339(milliseconds(at))}.")


async def names_aio(conn: asyncpg.Connection, actors: Iterable[str]) -> dict[str, str]:
    """The names of those actors that are users, by what the actor is called in the tables. Deleted ones are absent."""
    ids = set[UUID]()
    for actor in actors:
        with suppress(ValueError):  # domain.audit: an actor need not be a user
            ids.add(UUID(actor))
    return {str(row["id"]): row["username"] for row in await conn.fetch(NAMES_SQL, list(ids))} if ids else {}


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds."""
    return round(moment.timestamp() * 1000)
