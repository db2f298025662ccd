"""A guest becomes an account, in one transaction: address, password, perhaps another name, and the end of all sessions.

Called by operations.guests. The user's row is locked first. A log-in by the device key holds that row too
(storage.postgres.sessions): it comes before, and then its session ends here, or after, and then it opens none. May
raise StorageUnavailable.

Tested in tests/operations/test_guests.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain import email_addresses
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.identities import DEVICE
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.credentials import END_SESSIONS
from scoreboard.storage.postgres.users import (
    CREATE_TRIES,
    EMAIL_TAKEN,
    LOCK_USER,
    USERNAME_TAKEN,
    OvertakenError,
    rename_aio,
)

NOT_A_GUEST = Refusal(Code.CONFLICT, "This is no guest: it has an account, or belongs to another log-in.")

# After LOCK_USER, as a statement of its own: so it sees what a concurrent link has committed.
STATE_SQL = f"""
SELECT email IS NULL AND NOT EXISTS (SELECT FROM credentials WHERE user_id = $1)
       AND EXISTS (SELECT FROM identities WHERE user_id = $1 AND provider = '{DEVICE}') AS is_guest,
       EXISTS (
           SELECT FROM users WHERE lower(email COLLATE pg_c_utf8) = ANY (
               ARRAY(SELECT lower(given COLLATE pg_c_utf8) FROM unnest($2::text[]) AS given))
       ) AS is_email_taken
FROM users WHERE id = $1"""  # noqa: S608 – a constant
SET_EMAIL_SQL = "SELECT set_email($1, $2)"
SET_PASSWORD_SQL = "INSERT INTO credentials (user_id, password_hash) VALUES ($1, $2)"  # noqa: S105 – a statement
PROFILE_SQL = "SELECT username, avatar_url FROM users WHERE id = $1"


class Linked(NamedTuple):
    """The account that a guest has become, and its sessions that have ended."""

    username: str
    avatar_url: str | None
    ended: list[UUID]


async def link(
    stores: Stores, user: UUID, username: str | None, email: str, password_hash: str
) -> Linked | Refusal | None:
    """None: there is no such user. A Refusal: NOT_A_GUEST, or the name or the address is in use. Then nothing has
    changed. `username`: None keeps the name; it and `email` must have passed domain.account_rules."""
    for _ in range(CREATE_TRIES):
        try:
            return await stores.in_transaction(_link_aio, user, username, email, password_hash)
        except OvertakenError:  # the next try sees which name was taken meanwhile
            continue
        except _RefusedError as refused:
            return refused.refusal
    return USERNAME_TAKEN


async def _link_aio(
    conn: asyncpg.Connection, user: UUID, username: str | None, email: str, password_hash: str
) -> Linked | None:
    """In a transaction. Raises _RefusedError, which rolls it back."""
    await conn.execute(LOCK_USER, user)
    state = await conn.fetchrow(STATE_SQL, user, email_addresses.spellings(email))
    if state is None:
        return None
    if not state["is_guest"]:
        raise _RefusedError(NOT_A_GUEST)
    if username is not None and not await rename_aio(conn, user, username):
        raise _RefusedError(USERNAME_TAKEN)
    if state["is_email_taken"] or not await conn.fetchval(SET_EMAIL_SQL, user, email):
        raise _RefusedError(EMAIL_TAKEN)
    await conn.execute(SET_PASSWORD_SQL, user, password_hash)
    ended = [row["id"] for row in await conn.fetch(END_SESSIONS, user, None)]
    profile = await conn.fetchrow(PROFILE_SQL, user)
    assert profile is not None
    return Linked(profile["username"], profile["avatar_url"], ended)


class _RefusedError(Exception):
    """Ends the transaction without a change."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
