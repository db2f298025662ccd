"""Roles in PostgreSQL: read at each request that needs one, changed together with their audit event.

Tested in tests/storage/postgres/test_staff.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.errors import Refusal
from scoreboard.domain.roles import NO_ROLE, Role, missing_role, read_role, refuse_own_change
from scoreboard.domain.sessions import SERVER_CLIENT
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events

ROLE_SQL = "SELECT role FROM users WHERE id = $1"

# Admins first and by id, so that two of them who take the role from one another do it one after the other. The second
# finds that he has none any more.
LOCK_ADMINS_SQL = "SELECT id FROM users WHERE role = 'admin' ORDER BY id FOR NO KEY UPDATE"
LOCK_SQL = "SELECT id, role FROM users WHERE id = $1 FOR NO KEY UPDATE"
SET_ROLE_SQL = "UPDATE users SET role = $2 WHERE id = $1"

# A server key opens no session for who has a role (operations.server_users), and keeps none that it opened before.
END_SERVER_SESSIONS_SQL = """
UPDATE sessions SET revoked_at = now() WHERE user_id = $1 AND client = $2 AND revoked_at IS NULL"""


class RoleChange(NamedTuple):
    """A user's role before and after a change; they may be equal."""

    before: Role | None
    after: Role | None


async def role_of(stores: Stores, user: UUID) -> Role | None:
    """The user's role now; None without one, or when there is no such user. Raises StorageUnavailable."""
    return read_role(await stores.fetchval(ROLE_SQL, user))


async def set_role(stores: Stores, user: UUID, role: Role | None, actor: UUID | str) -> RoleChange | Refusal | None:
    """Gives the user that role, or takes it (None). `actor`: the id of an admin, or OPERATOR of domain.audit, whom no
    rule refuses. Returns None when there is no such user.

    Whoever has a role loses the sessions that server keys have opened, on every node within two seconds. The change
    and its audit event are one transaction; a role that the user has already makes no event. Raises
    StorageUnavailable. After a cancellation it is unknown whether the role was changed.
    """
    return await stores.in_transaction(_set_role_aio, user, role, actor)


async def _set_role_aio(
    conn: asyncpg.Connection, user: UUID, role: Role | None, actor: UUID | str
) -> RoleChange | Refusal | None:
    admins = {row["id"] for row in await conn.fetch(LOCK_ADMINS_SQL)}
    if isinstance(actor, UUID) and actor not in admins:  # taken since the request came
        return missing_role(Role.ADMIN)
    row = await conn.fetchrow(LOCK_SQL, user)
    if row is None:
        return None
    before = read_role(row["role"])
    if user == actor and (refused := refuse_own_change(before, role, len(admins))):
        return refused
    if before is not role:
        await conn.execute(SET_ROLE_SQL, user, role)
        if role is not None:
            await conn.execute(END_SERVER_SESSIONS_SQL, user, SERVER_CLIENT)
        details = {"before": before or NO_ROLE, "after": role or NO_ROLE}
        await audit_events.add_aio(conn, [AuditEvent(AuditKind.ROLE_CHANGED, str(actor), user, details)])
    return RoleChange(before, role)
