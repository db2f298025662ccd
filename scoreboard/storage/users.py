"""Users and what they log in with, in PostgreSQL.

Called by operations.accounts and operations.provisioning. Whether a name or an address is free is decided by the unique indexes alone; a
taken one is a Refusal that names the field. Everything here may raise StorageUnavailable.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.storage.connections import Stores

CREATE = """
WITH created AS (INSERT INTO users (username, email, avatar_url) VALUES ($1, $2, $3) RETURNING id),
     secret AS (INSERT INTO credentials (user_id, password_hash) SELECT id, $4 FROM created)
SELECT id FROM created"""

PROFILE = "SELECT id, username, email, avatar_url, created_at FROM users WHERE id = $1"

# A user name has no @, an address has one: each is looked up by its own index.
BY_USERNAME = """
SELECT id, username, password_hash FROM users LEFT JOIN credentials ON user_id = id
WHERE lower(username COLLATE pg_c_utf8) = lower($1 COLLATE pg_c_utf8)"""
BY_EMAIL = """
SELECT id, username, password_hash FROM users LEFT JOIN credentials ON user_id = id
WHERE lower(email COLLATE pg_c_utf8) = lower($1 COLLATE pg_c_utf8)"""

# $4: whether avatar_url is to be set at all, since NULL is a value of it.
CHANGE = """
WITH before AS (SELECT username, avatar_url FROM users WHERE id = $1 FOR NO KEY UPDATE)
UPDATE users AS u SET username = coalesce($2, u.username), avatar_url = CASE WHEN $4 THEN $3 ELSE u.avatar_url END, updated_at = now()
FROM before WHERE u.id = $1
RETURNING u.id, u.username, u.email, u.avatar_url, u.created_at,
          (u.username, u.avatar_url) IS DISTINCT FROM (before.username, before.avatar_url) AS is_new"""

REPLACE_HASH = "UPDATE credentials SET password_hash = $2, updated_at = now() WHERE user_id = $1 AND password_hash = $3"

# Without credentials: nobody can log in as one of these, their tokens are handed out by the command that makes them.
CREATE_MANY = "INSERT INTO users (username, email) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING"
IDS = "SELECT username, id FROM users WHERE username = ANY($1::text[])"

KNOWN = """
SELECT t.name FROM unnest($1::text[]) AS t(name) JOIN users ON lower(username COLLATE pg_c_utf8) = lower(t.name COLLATE pg_c_utf8)"""

# Unique constraints and the fields that a client knows them by. The specification's own are of the exact spelling, the folded ones of any.
FIELDS = {
    "users_username_key": "username",
    "users_username_folded": "username",
    "users_email_key": "email",
    "users_email_folded": "email",
}


class Profile(NamedTuple):
    """What a user sees of their own account."""

    user: UUID
    username: str
    email: str
    avatar_url: str | None
    created_ms: int  # Unix milliseconds


class Changed(NamedTuple):
    """A profile that was written. `is_new`: its name or its picture is another than before."""

    profile: Profile
    is_new: bool


class Account(NamedTuple):
    """Whom a log-in is for. `password_hash` is None for a user without credentials."""

    user: UUID
    username: str
    password_hash: str | None


async def create(stores: Stores, username: str, email: str, avatar_url: str | None, password_hash: str) -> UUID | Refusal:
    """A new user with a password, or what is taken."""
    try:
        return UUID(str(await stores.fetchval(CREATE, username, email, avatar_url, password_hash)))
    except asyncpg.UniqueViolationError as exc:
        return taken(exc.constraint_name)


async def find(stores: Stores, name: str) -> Account | None:
    """The account of a user name, or of an e-mail address, in any case."""
    row = await stores.fetchrow(BY_EMAIL if "@" in name else BY_USERNAME, name)
    return None if row is None else Account(row["id"], row["username"], row["password_hash"])


async def profile(stores: Stores, user: UUID) -> Profile | None:
    """None when there is no such user."""
    row = await stores.fetchrow(PROFILE, user)
    return None if row is None else _profile(row)


async def change(stores: Stores, user: UUID, username: str | None, avatar_url: str | None, *, set_avatar: bool) -> Changed | Refusal | None:
    """Changes the name unless it is None, and the picture if `set_avatar` (None removes it). None when there is no such user."""
    try:
        row = await stores.fetchrow(CHANGE, user, username, avatar_url, set_avatar)
    except asyncpg.UniqueViolationError as exc:
        return taken(exc.constraint_name)
    return None if row is None else Changed(_profile(row), is_new=row["is_new"])


async def replace_hash(stores: Stores, user: UUID, old: str, new: str) -> None:
    """The same password hashed anew; does nothing when the password was changed meanwhile."""
    await stores.execute(REPLACE_HASH, user, new, old)


async def create_many(stores: Stores, usernames: Sequence[str], emails: Sequence[str]) -> dict[str, UUID]:
    """Users without a password, those that are there already included, by name."""
    await stores.execute(CREATE_MANY, list(usernames), list(emails))
    return {row["username"]: row["id"] for row in await stores.fetch(IDS, list(usernames))}


async def known(stores: Stores, usernames: Sequence[str]) -> set[str]:
    """Which of these names are taken, in any case."""
    return {row["name"] for row in await stores.fetch(KNOWN, list(usernames))}


def taken(constraint: str | None) -> Refusal:
    """409 CONFLICT that names the field."""
    field = FIELDS.get(constraint or "", "username")
    what = "This user name" if field == "username" else "This e-mail address"
    return Refusal(Code.CONFLICT, f"{what} is taken.", (FieldError(field, "is taken"),))


def _profile(row: asyncpg.Record) -> Profile:
    return Profile(row["id"], row["username"], row["email"], row["avatar_url"], round(row["created_at"].timestamp() * 1000))
