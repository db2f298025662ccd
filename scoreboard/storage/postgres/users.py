"""Users and what they log in with, in PostgreSQL.

Called by operations.accounts and operations.admin.provisioning. Unique indexes alone decide whether a name or an
address is free: on the exact and the folded spelling, and on each of the name's skeletons (domain/skeletons). A name or
address in use is a Refusal that names the field. No statement here violates an index to find that out: PostgreSQL's log
would contain the key, an e-mail address. Every function here may raise StorageUnavailable.

Tested in tests/operations/test_register.py and test_names.py, and tests/cli/test_users.py.
"""

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg

from scoreboard.domain import email_addresses, names
from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, rate_limited
from scoreboard.domain.skeletons import fold_case, folded_skeleton, skeleton_of_first_rule, skeletons
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.skeletons import REST_DAYS

# Names of one user that are reserved after a rename. At this number the user can't give up another one.
MAX_RESTING_NAMES = 10
MAX_CHANGES_AT_ONCE = 10  # profile changes without a pause: enough to try out names and pictures
HOUR_SECONDS = 3600
# of one registration; another try follows when a concurrent one was faster with a skeleton or the address
CREATE_TRIES = 3
PLACE_BY_SKELETON = 3  # `place` of BY_USERNAME
PAGE_USERS = 500  # of a list, for one round trip

# Whether another user has one of the skeletons, or had it lately: {0} are the skeletons, {1} is the one of the first
# rule, {2} the user.
_HELD = """EXISTS (
               SELECT FROM username_skeletons AS s
               WHERE (s.skeleton = ANY({0}::text[]) OR (s.skeleton = {1} AND s.skeleton_count = 0))
                     AND s.user_id IS DISTINCT FROM {2}
                     AND (s.freed_at IS NULL OR s.freed_at >= now() - interval '{3} days')
           )"""

_LOWERED = "ARRAY(SELECT lower(given COLLATE pg_c_utf8) FROM unnest({0}::text[]) AS given)"  # of an array's texts

# $8: every spelling of the address. A new row has one of them, so the unique index separates two concurrent
# registrations. The name's skeletons are inserted first, in their order. So the second of two concurrent registrations
# waits for the first, and then creates no user. If it already has some of the skeletons by then, or if only the address
# was taken meanwhile, `created` is empty: the foreign key of the skeletons is violated, and everything is rolled back.
CREATE_SQL = f"""
WITH taken AS (
    SELECT EXISTS (SELECT FROM users WHERE lower(username COLLATE pg_c_utf8) = lower($2 COLLATE pg_c_utf8)) AS username,
           EXISTS (SELECT FROM users WHERE lower(email COLLATE pg_c_utf8) = ANY ({_LOWERED.format("$8")})) AS email,
           {_HELD.format("$6", "$7", "$1", REST_DAYS)} AS skeleton
), claimed AS (
    INSERT INTO username_skeletons AS s (skeleton, user_id, username, skeleton_count)
    SELECT given.skeleton, $1, $2, cardinality($6::text[]) FROM taken, unnest($6::text[]) AS given(skeleton)
    WHERE NOT (taken.username OR taken.email OR taken.skeleton) ORDER BY given.skeleton COLLATE "C"
    ON CONFLICT (skeleton) DO UPDATE
    SET user_id = excluded.user_id, username = excluded.username, skeleton_count = excluded.skeleton_count,
        freed_at = NULL
    WHERE s.freed_at < now() - interval '{REST_DAYS} days'
    RETURNING user_id
), created AS (
    INSERT INTO users (id, username, email, avatar_url)
    SELECT $1, $2, $3, $4 FROM claimed HAVING count(*) = cardinality($6::text[])
    ON CONFLICT DO NOTHING RETURNING id
), secret AS (
    INSERT INTO credentials (user_id, password_hash) SELECT id, $5 FROM created WHERE $5::text IS NOT NULL
)
SELECT EXISTS (SELECT FROM created) AS is_created, taken.email AND NOT taken.username AS is_email FROM taken"""  # noqa: S608

# Whether `users` has a guest: known by a device, and without an address.
_IS_GUEST = """{0} IS NULL AND EXISTS (
           SELECT FROM identities AS i WHERE i.user_id = {1} AND i.provider = 'device'
       ) AS is_guest"""
PROFILE_SQL = f"""
SELECT id, username, email, avatar_url, created_at, {_IS_GUEST.format("users.email", "users.id")}
FROM users WHERE id = $1"""  # noqa: S608 – constants

# A user name has no @, an address has one: each is looked up by its own index. The order of matches: first the name as
# it was typed, since names that are older than today's rules stay; then the name as it would be stored; then the user
# who has the skeleton of its folded case, whose name may only look similar.
BY_USERNAME = """
SELECT id, username, password_hash, place FROM (
    SELECT id, username,
           CASE lower(username COLLATE pg_c_utf8) WHEN lower($1 COLLATE pg_c_utf8) THEN 1 ELSE 2 END AS place
    FROM users
    WHERE lower(username COLLATE pg_c_utf8) = ANY (ARRAY[lower($1 COLLATE pg_c_utf8), lower($2 COLLATE pg_c_utf8)])
    UNION ALL
    SELECT u.id, u.username, 3 FROM username_skeletons AS s JOIN users AS u ON u.id = s.user_id
    WHERE s.skeleton = $3 AND s.freed_at IS NULL
) AS found LEFT JOIN credentials ON user_id = id ORDER BY place"""
# $1: every spelling of the address, the typed one first. Two accounts that are older than the rule for spellings may
# match.
BY_EMAIL = f"""
SELECT id, username, password_hash FROM users LEFT JOIN credentials ON user_id = id
WHERE lower(email COLLATE pg_c_utf8) = ANY ({_LOWERED.format("$1")})
ORDER BY array_position({_LOWERED.format("$1")}, lower(email COLLATE pg_c_utf8))"""  # noqa: S608 – constants

BY_ID = "SELECT id, username, password_hash FROM users LEFT JOIN credentials ON user_id = id WHERE id = $1"

# Runs before CHANGE_SQL when the name changes, as a statement of its own. CHANGE_SQL sees the names that the user had
# when it began, so it must not begin during another rename of the same user.
LOCK_USER = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE"

# Under the user's row lock, so that changes from several nodes are counted exactly.
# $4: whether avatar_url is set at all, since NULL is a value of it.
# $5: the new name's skeletons; $9: its skeleton by the first rule.
# $6: average seconds between two changes, 0: no limit; $7: how many seconds before it is due a change may come.
# $8: whether resting names are limited.
# `rest`: seconds until the user may give up one more name; 0: at once, or this change gives up none.
CHANGE_SQL = f"""
WITH before AS (
    SELECT id, username, email, avatar_url, created_at, profile_change_due AS due
    FROM users WHERE id = $1 FOR NO KEY UPDATE
), wanted AS (
    SELECT before.*, clock_timestamp() AS at, coalesce($2, username) AS new_username,
           CASE WHEN $4 THEN $3 ELSE avatar_url END AS new_avatar_url, coalesce($2 <> username, false) AS is_renamed
    FROM before
), judged AS (
    SELECT wanted.*, (new_username, new_avatar_url) IS DISTINCT FROM (username, avatar_url) AS is_new,
           CASE WHEN $6::float > 0 AND due IS NOT NULL
                THEN greatest(0, extract(epoch FROM due - at)::float - $7::float) ELSE 0 END AS wait,
           CASE WHEN $8 AND is_renamed AND EXISTS (
               SELECT FROM username_skeletons AS s
               WHERE s.user_id = wanted.id AND s.freed_at IS NULL AND s.skeleton <> ALL ($5::text[])
           ) THEN coalesce((
               SELECT greatest(0, extract(epoch FROM max(s.freed_at) + interval '{REST_DAYS} days' - at)::float)
               FROM username_skeletons AS s
               WHERE s.user_id = wanted.id AND s.freed_at IS NOT NULL AND s.skeleton <> ALL ($5::text[])
               GROUP BY s.username ORDER BY max(s.freed_at) DESC OFFSET {MAX_RESTING_NAMES - 1} LIMIT 1
           ), 0) ELSE 0 END AS rest,
           is_renamed AND (EXISTS (
               SELECT FROM users AS o
               WHERE lower(o.username COLLATE pg_c_utf8) = lower(new_username COLLATE pg_c_utf8) AND o.id <> wanted.id
           ) OR {_HELD.format("$5", "$9", "wanted.id", REST_DAYS)}) AS is_taken
    FROM wanted
), claimed AS (
    INSERT INTO username_skeletons AS s (skeleton, user_id, username, skeleton_count)
    SELECT given.skeleton, id, new_username, cardinality($5::text[]) FROM judged, unnest($5::text[]) AS given(skeleton)
    WHERE is_renamed AND wait = 0 AND rest = 0 AND NOT is_taken ORDER BY given.skeleton COLLATE "C"
    ON CONFLICT (skeleton) DO UPDATE
    SET user_id = excluded.user_id, username = excluded.username, skeleton_count = excluded.skeleton_count,
        freed_at = NULL
    WHERE s.user_id = excluded.user_id OR s.freed_at < now() - interval '{REST_DAYS} days'
    RETURNING user_id
), won AS (
    SELECT user_id FROM claimed GROUP BY user_id HAVING count(*) = cardinality($5::text[])
), freed AS (
    UPDATE username_skeletons AS s SET freed_at = now() FROM won
    WHERE s.user_id = won.user_id AND s.freed_at IS NULL AND s.skeleton <> ALL ($5::text[])
), changed AS (
    UPDATE users AS u SET username = new_username, avatar_url = new_avatar_url, updated_at = now(), profile_change_due =
        CASE WHEN $6 > 0 THEN greatest(judged.due, judged.at) + make_interval(secs => $6) ELSE judged.due END
    FROM judged WHERE u.id = judged.id AND is_new AND wait = 0 AND (NOT is_renamed OR EXISTS (SELECT FROM won))
    RETURNING u.id
)
SELECT id, username, email, avatar_url, created_at, new_username, new_avatar_url, is_new, wait, rest,
       {_IS_GUEST.format("judged.email", "judged.id")}, EXISTS (SELECT FROM changed) AS is_changed,
       EXISTS (SELECT FROM claimed) AND NOT EXISTS (SELECT FROM won) AS is_overtaken
FROM judged"""  # noqa: S608 – constants

REPLACE_HASH = """
UPDATE credentials SET password_hash = $2, updated_at = now() WHERE user_id = $1 AND password_hash = $3
RETURNING true"""

NO_TIMEOUTS = (
    "SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = 0"
)
ERASE_SQL = "SELECT erase_user($1, $2)"  # migration 0017; the event is added in the same transaction

_PAGE = """
SELECT u.id, u.username, u.email, u.avatar_url, coalesce(u.created_at, 'epoch') AS created_at, s.total_score,
       lower(u.username COLLATE pg_c_utf8) AS key
FROM users AS u LEFT JOIN scores AS s ON s.user_id = u.id
WHERE {0} ($2 = '' OR strpos(lower(u.username COLLATE pg_c_utf8), lower($2 COLLATE pg_c_utf8)) > 0 OR EXISTS (
               SELECT FROM unnest($4::text[]) AS given
               WHERE strpos(lower(u.email COLLATE pg_c_utf8), lower(given COLLATE pg_c_utf8)) > 0
           ) OR u.id::text = lower($2 COLLATE pg_c_utf8))
ORDER BY lower(u.username COLLATE pg_c_utf8) LIMIT $3"""
FIRST_PAGE = _PAGE.format("$1::text IS NULL AND")
NEXT_PAGE = _PAGE.format("lower(u.username COLLATE pg_c_utf8) > $1 AND")

EMAILS_BY_NAME = """
SELECT t.name, email FROM unnest($1::text[]) AS t(name)
JOIN users ON lower(username COLLATE pg_c_utf8) = lower(t.name COLLATE pg_c_utf8)"""


class Profile(NamedTuple):
    """An account as its own user sees it."""

    user: UUID
    username: str
    email: str | None  # None: a user without an address, such as a guest
    avatar_url: str | None
    created_ms: int  # Unix milliseconds
    is_guest: bool = False

    @property
    def own_words(self) -> tuple[str, ...]:
        """What a password of this user must not be."""
        return (self.username,) if self.email is None else (self.username, self.email)


class Listed(NamedTuple):
    """A user as an operator sees them. `score` is None before the first action; `key` is the user's place in the
    order."""

    user: UUID
    username: str
    email: str | None
    avatar_url: str | None
    score: int | None
    created_ms: int  # Unix milliseconds
    key: str


class Changed(NamedTuple):
    """A profile after a change. `is_new`: its name or its picture differs from before."""

    profile: Profile
    is_new: bool


class Account(NamedTuple):
    """The account that a log-in names. `password_hash` is None for a user without credentials."""

    user: UUID
    username: str
    password_hash: str | None

    def __repr__(self) -> str:
        return f"Account({self.user})"


async def create(
    stores: Stores, username: str, email: str, avatar_url: str | None, password_hash: str
) -> UUID | Refusal:
    """Creates a user with a password. Returns the user's id, or the Refusal that names the field in use."""
    user = uuid4()
    arguments = creation_arguments(user, username, email, avatar_url, password_hash)
    for _ in range(CREATE_TRIES):
        try:
            row = await stores.fetchrow(CREATE_SQL, *arguments)
        except asyncpg.ForeignKeyViolationError:  # the next try sees what was taken
            continue
        assert row is not None
        if row["is_created"]:
            return user
        return EMAIL_TAKEN if row["is_email"] else USERNAME_TAKEN
    return USERNAME_TAKEN


def creation_arguments(
    user: UUID, username: str, email: str | None, avatar_url: str | None, password_hash: str | None
) -> tuple[object, ...]:
    """The arguments of CREATE_SQL. Without an address and a password the user is one of storage.postgres.identities."""
    wanted, first = skeletons(username), skeleton_of_first_rule(username)
    addresses = [] if email is None else email_addresses.spellings(email)
    return user, username, email, avatar_url, password_hash, wanted, first, addresses


async def find(stores: Stores, name: str) -> Account | None:
    """The account with this user name or e-mail address; None when there is none.

    Case, spaces around it, Unicode composition and the width of letters make no difference. The domain of an address
    may have either of its forms.
    """
    if email_addresses.is_address(name):
        rows = await stores.fetch(BY_EMAIL, email_addresses.spellings(name))
    else:
        stored = names.fold(name)
        rows = await stores.fetch(BY_USERNAME, names.nfc(name), stored, folded_skeleton(stored))
        rows = [
            row
            for row in rows
            if row["place"] < PLACE_BY_SKELETON or fold_case(names.fold(row["username"])) == fold_case(stored)
        ]
    return Account(rows[0]["id"], rows[0]["username"], rows[0]["password_hash"]) if rows else None


async def by_id(stores: Stores, user: UUID) -> Account | None:
    """The account with this id; None when there is none."""
    row = await stores.fetchrow(BY_ID, user)
    return None if row is None else Account(row["id"], row["username"], row["password_hash"])


async def profile(stores: Stores, user: UUID) -> Profile | None:
    """The user's profile; None when there is no such user."""
    row = await stores.fetchrow(PROFILE_SQL, user)
    return None if row is None else _profile(row)


async def change_profile(
    stores: Stores,
    user: UUID,
    username: str | None,
    avatar_url: str | None,
    *,
    set_avatar: bool,
    per_hour: int | None = 0,
) -> Changed | Refusal | None:
    """Changes the name unless it is None, and the picture if `set_avatar` (None removes it). Returns None when there is
    no such user, and a Refusal when the name is in use or a limit is reached.

    `per_hour`: average number of changes an hour, MAX_CHANGES_AT_ONCE of them without a pause; 0: no limit. A change to
    the same values does not count. A user who has given up MAX_RESTING_NAMES names in REST_DAYS can't give up another
    one. None: an operator makes the change, and neither limit applies.
    """
    arguments = _change_arguments(user, username, avatar_url, set_avatar=set_avatar, per_hour=per_hour)
    try:
        if username is None:
            row = await stores.fetchrow(CHANGE_SQL, *arguments)
        else:
            row = await stores.in_transaction(_rename_aio, user, arguments)
    except (asyncpg.UniqueViolationError, OvertakenError):
        # UniqueViolationError: plain SQL created a user of that name at the same moment
        return USERNAME_TAKEN
    if row is None:
        return None
    if row["is_new"] and (wait := max(row["wait"], row["rest"])) > 0:
        why = (
            "Too many changes of this profile."
            if row["wait"] == wait
            else f"You have given up {MAX_RESTING_NAMES} names in {REST_DAYS} days."
        )
        return rate_limited(LimitLayer.USER, why, ceil(wait), names_wait=False)
    if row["is_new"] and not row["is_changed"]:
        return USERNAME_TAKEN
    shown = _profile(row)._replace(username=row["new_username"], avatar_url=row["new_avatar_url"])
    return Changed(shown, is_new=row["is_new"])


def _change_arguments(
    user: UUID, username: str | None, avatar_url: str | None, *, set_avatar: bool, per_hour: int | None
) -> tuple[object, ...]:
    """The arguments of CHANGE_SQL."""
    interval = HOUR_SECONDS / per_hour if per_hour else 0.0
    early = interval * (min(MAX_CHANGES_AT_ONCE, per_hour or 0) - 1)
    wanted, first = ((), "") if username is None else (skeletons(username), skeleton_of_first_rule(username))
    return user, username, avatar_url, set_avatar, wanted, interval, early, per_hour is not None, first


async def rename_aio(conn: asyncpg.Connection, user: UUID, username: str) -> bool:
    """Renames a user within the caller's transaction, without limits. False, and no change: the name is in use. Raises
    OvertakenError, after which the transaction must be rolled back."""
    arguments = _change_arguments(user, username, None, set_avatar=False, per_hour=None)
    row = await _rename_aio(conn, user, arguments)
    return row is not None and (row["is_changed"] or not row["is_new"])


async def _rename_aio(conn: asyncpg.Connection, user: UUID, arguments: tuple[object, ...]) -> asyncpg.Record | None:
    """Runs in a transaction. Raises OvertakenError, which rolls it back."""
    await conn.execute(LOCK_USER, user)
    row = await conn.fetchrow(CHANGE_SQL, *arguments)
    if row is not None and row["is_overtaken"]:
        raise OvertakenError
    return row


class OvertakenError(Exception):
    """A concurrent change took a part of the name's skeletons."""


async def replace_hash(stores: Stores, user: UUID, old: str, new: str) -> bool:
    """Replaces a hash by a new one of the same password; False when the stored hash is no longer `old`."""
    return bool(await stores.fetchval(REPLACE_HASH, user, new, old))


async def delete(stores: Stores, user: UUID, actor: str) -> bool:
    """Deletes the user and all rows that refer to it: score, actions and their log, credentials. The name rests.
    `actor` stands in the audit event, see domain.audit.

    False when there is no such user. Triggers note the deletion for all boards, and end the sessions, whose rows stay
    until they are pruned. There is no time limit, since a user may have many actions. Cancelling rolls back.
    """
    # on a connection of its own, since calls of the pool have a deadline
    return await stores.on_own_connection(None, _delete_aio, user, actor)


async def _delete_aio(conn: asyncpg.Connection, user: UUID, actor: str) -> bool:
    async with conn.transaction():
        await conn.execute(NO_TIMEOUTS)
        return bool(await conn.fetchval(ERASE_SQL, user, actor))


async def page(stores: Stores, after: str | None, query: str = "", size: int = PAGE_USERS) -> list[Listed]:
    """The next `size` users in the order of their names, case ignored. Only users whose name or address contains
    `query`, or whose id it is. `after`: the `key` of the last user of the previous page; None: the first page."""
    addresses = email_addresses.query_spellings(query)
    rows = await stores.fetch(FIRST_PAGE if after is None else NEXT_PAGE, after, query, size, addresses)
    return [
        Listed(
            row["id"],
            row["username"],
            row["email"],
            row["avatar_url"],
            row["total_score"],
            _milliseconds(row["created_at"]),
            row["key"],
        )
        for row in rows
    ]


async def emails_by_name(stores: Stores, usernames: Sequence[str]) -> dict[str, str | None]:
    """Which of these names are in use, case ignored: name → the user's e-mail address, None without one."""
    return {row["name"]: row["email"] for row in await stores.fetch(EMAILS_BY_NAME, list(usernames))}


def _taken(field: str, what: str) -> Refusal:
    return Refusal(Code.CONFLICT, f"{what} is taken.", (FieldError(field, "is taken"),))


USERNAME_TAKEN = _taken("username", "This user name, or one that looks like it,")
EMAIL_TAKEN = _taken("email", "This e-mail address")


def _profile(row: asyncpg.Record) -> Profile:
    return Profile(
        row["id"],
        row["username"],
        row["email"],
        row["avatar_url"],
        _milliseconds(row["created_at"]),
        is_guest=row["is_guest"],
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
