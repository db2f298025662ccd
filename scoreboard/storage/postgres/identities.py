"""Who users are to others than this installation: by a guest's device key, by a server's own id, by an outside issuer.

Called by operations.identified_users, and by what adds or shows identities. An identity belongs to one user for good.
No statement violates an index to find out whether one is free, as in storage.postgres.users: PostgreSQL's log would
contain the id, which may be personal. Writers of one identity come one after the other by an advisory lock, so two
nodes that create its user at once get the same user. Every function here may raise StorageUnavailable.

Tested in tests/storage/postgres/test_identities.py.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg

from scoreboard.domain.errors import Refusal
from scoreboard.domain.identities import ExternalIdentity
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.users import CREATE_SQL, CREATE_TRIES, USERNAME_TAKEN, creation_arguments

MAX_IDENTITIES_READ = 100  # of one user: one for each provider is usual; more are not shown

# The first words keep these locks apart from other advisory locks.
LOCK_SQL = "SELECT pg_advisory_xact_lock(hashtextextended('scoreboard identity ' || $1::text || ' ' || $2::text, 0))"

FIND_SQL = """
SELECT u.id, u.username FROM identities AS i JOIN users AS u ON u.id = i.user_id
WHERE i.provider = $1 AND i.external_id = $2"""

FIND_MANY_SQL = "SELECT external_id, user_id FROM identities WHERE provider = $1 AND external_id = ANY($2)"

# Without a row where the user is not there. Waits for a deletion of the user.
ADD_SQL = """
WITH held AS (SELECT id FROM users WHERE id = $3 FOR KEY SHARE)
INSERT INTO identities (provider, external_id, user_id) SELECT $1, $2, id FROM held
ON CONFLICT (provider, external_id) DO NOTHING RETURNING user_id"""

OF_USER_SQL = f"""
SELECT provider, external_id, created_at FROM identities WHERE user_id = $1
ORDER BY created_at, provider, external_id LIMIT {MAX_IDENTITIES_READ}"""  # noqa: S608 – a constant


class IdentifiedUser(NamedTuple):
    """The user of an identity. `is_new`: this call has created the user."""

    user: UUID
    username: str
    is_new: bool = False


class StoredIdentity(NamedTuple):
    """An identity as it is stored."""

    identity: ExternalIdentity
    created_ms: int  # Unix milliseconds


async def find(stores: Stores, identity: ExternalIdentity) -> IdentifiedUser | None:
    """The user of this identity; None when there is none."""
    row = await stores.fetchrow(FIND_SQL, *identity)
    return None if row is None else IdentifiedUser(row["id"], row["username"])


async def find_many(stores: Stores, provider: str, external_ids: Collection[str]) -> dict[str, UUID]:
    """The users of these ids of one provider. Ids without a user are absent. The caller bounds their number."""
    rows = await stores.fetch(FIND_MANY_SQL, provider, list(external_ids))
    return {row["external_id"]: row["user_id"] for row in rows}


async def create(
    stores: Stores, identity: ExternalIdentity, username: str, avatar_url: str | None = None
) -> IdentifiedUser | Refusal:
    """Creates a user without address and password who has this identity, in one transaction. Returns the identity's
    user where it has one already, and USERNAME_TAKEN where the name is in use.

    `username` must have passed domain.account_rules. After a cancellation the user may be there or not; another call
    tells.
    """
    for _ in range(CREATE_TRIES):
        try:
            return await stores.in_transaction(_create_aio, identity, username, avatar_url)
        except (asyncpg.ForeignKeyViolationError, _OvertakenError):  # the next try sees what was taken meanwhile
            continue
    return USERNAME_TAKEN


async def add(stores: Stores, identity: ExternalIdentity, user: UUID) -> UUID | None:
    """Gives the user this identity. Returns the user who has it now: another one who had it before keeps it. None: the
    user is not there."""
    return await stores.in_transaction(_add_aio, identity, user)


async def of_user(stores: Stores, user: UUID) -> list[StoredIdentity]:
    """The identities of the user, the oldest first; at most MAX_IDENTITIES_READ."""
    rows = await stores.fetch(OF_USER_SQL, user)
    return [
        StoredIdentity(ExternalIdentity(row["provider"], row["external_id"]), _milliseconds(row["created_at"]))
        for row in rows
    ]


async def _create_aio(
    conn: asyncpg.Connection, identity: ExternalIdentity, username: str, avatar_url: str | None
) -> IdentifiedUser | Refusal:
    """In a transaction."""
    await conn.execute(LOCK_SQL, *identity)
    # A statement of its own, after the lock: so it sees the user of whoever held the lock before.
    row = await conn.fetchrow(FIND_SQL, *identity)
    if row is not None:
        return IdentifiedUser(row["id"], row["username"])
    user = uuid4()
    created = await conn.fetchrow(CREATE_SQL, *creation_arguments(user, username, None, avatar_url, None))
    assert created is not None
    if not created["is_created"]:
        return USERNAME_TAKEN
    if await conn.fetchval(ADD_SQL, *identity, user) is None:  # plain SQL added it at the same moment, without the lock
        raise _OvertakenError
    return IdentifiedUser(user, username, is_new=True)


async def _add_aio(conn: asyncpg.Connection, identity: ExternalIdentity, user: UUID) -> UUID | None:
    """In a transaction."""
    await conn.execute(LOCK_SQL, *identity)
    row = await conn.fetchrow(FIND_SQL, *identity)
    if row is not None:
        owner: UUID = row["id"]
        return owner
    added: UUID | None = await conn.fetchval(ADD_SQL, *identity, user)
    return added


class _OvertakenError(Exception):
    """The identity was added to another user meanwhile: everything is rolled back."""


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
