"""Users as moderators find and read them: a search, one user, and the user's history. Reads only.

No answer has an e-mail address. A search finds a user by the whole address alone: by parts of it, somebody with a role
could guess addresses piece by piece. Every function may raise StorageUnavailable. Cancelling is safe.

Tested in tests/storage/postgres/test_moderated_users.py.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain import email_addresses
from scoreboard.domain.bans import Ban
from scoreboard.domain.roles import Role, read_role
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.decisions import milliseconds, names_aio

MAX_PAGE = 100  # rows of any list here

_FOUND = """
SELECT u.id, u.username, u.avatar_url, u.role, u.ban, coalesce(u.created_at, 'epoch') AS created_at, s.total_score,
       lower(u.username COLLATE pg_c_utf8) AS key
FROM users AS u LEFT JOIN scores AS s ON s.user_id = u.id
WHERE {0} ORDER BY lower(u.username COLLATE pg_c_utf8) LIMIT $1"""
# $2: the beginning of the name; $3: the key of the last user of the page before. The last code point ends the range of
# the index, else a name that nobody has would read it to its end.
BY_NAME_SQL = _FOUND.format(
    """lower(u.username COLLATE pg_c_utf8) >= lower($2 COLLATE pg_c_utf8)
  AND lower(u.username COLLATE pg_c_utf8) < lower($2 COLLATE pg_c_utf8) || chr(1114111)
  AND ($3::text IS NULL OR lower(u.username COLLATE pg_c_utf8) > $3)"""
)
BY_ADDRESS_SQL = _FOUND.format(
    """lower(u.email COLLATE pg_c_utf8) = ANY (
    ARRAY(SELECT lower(given COLLATE pg_c_utf8) FROM unnest($2::text[]) AS given)
) AND ($3::text IS NULL OR lower(u.username COLLATE pg_c_utf8) > $3)"""
)
BY_ID_SQL = _FOUND.format("u.id = $2 AND ($3::text IS NULL OR lower(u.username COLLATE pg_c_utf8) > $3)")

# By an id that somebody else gave; not by a guest's device key. One probe for each provider, of which there are few.
BY_EXTERNAL_ID_SQL = _FOUND.format(
    """u.id IN (
    WITH RECURSIVE providers(name) AS (
        (SELECT provider FROM identities ORDER BY provider LIMIT 1)
        UNION ALL
        SELECT (SELECT i.provider FROM identities i WHERE i.provider > p.name ORDER BY i.provider LIMIT 1)
        FROM providers p WHERE p.name IS NOT NULL
    )
    SELECT i.user_id FROM providers p JOIN identities i ON i.provider = p.name AND i.external_id = $2
    WHERE p.name <> 'device'
)"""
)

USER_SQL = """
SELECT u.id, u.username, u.avatar_url, u.role, u.ban, coalesce(u.created_at, 'epoch') AS created_at, s.total_score,
       '' AS key,
       (SELECT count(*) FROM sessions WHERE user_id = u.id AND revoked_at IS NULL AND expires_at > now()) AS sessions
FROM users AS u LEFT JOIN scores AS s ON s.user_id = u.id WHERE u.id = $1"""

# One timeline out of five tables, each read from the newest before ($2, $3) on. Actions are ordered by time first, as
# their index is: the order numbers of two nodes' actions may be the other way round.
HISTORY_SQL = """
SELECT kind, at, id, details FROM (
    (SELECT 'action' AS kind, l.processed_at AS at, l.seq AS id, jsonb_build_object(
         'actionId', l.action_id, 'actionType', l.action_type, 'points', l.points_awarded, 'newScore', l.new_score,
         'metadata', l.metadata, 'isReversed', EXISTS (
             SELECT FROM reversals r WHERE r.user_id = l.user_id AND r.seq = l.seq AND r.undone_at IS NULL
         )
     ) AS details
     FROM action_logs AS l
     WHERE l.user_id = $1 AND l.processed_at <= $2 AND (l.processed_at, l.seq) < ($2, $3)
     ORDER BY l.processed_at DESC, l.seq DESC LIMIT $4)
    UNION ALL
    (SELECT 'ban', created_at, id, jsonb_build_object(
         'shadow', kind = 1, 'reason', reason, 'reasonShown', is_reason_shown, 'by', actor,
         'liftedAt', (extract(epoch FROM lifted_at) * 1000)::bigint, 'liftedBy', lifted_by)
     FROM bans WHERE user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT 'reversal', created_at, id, jsonb_build_object(
         'actionId', action_id, 'reason', reason, 'by', actor,
         'undoneAt', (extract(epoch FROM undone_at) * 1000)::bigint, 'undoneBy', undone_by)
     FROM reversals WHERE user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT 'flag', created_at, id, jsonb_build_object(
         'flagId', id::text, 'rule', rule, 'hits', hits, 'evidence', evidence, 'state', state, 'reason', reason,
         'by', decided_by, 'decidedAt', (extract(epoch FROM decided_at) * 1000)::bigint)
     FROM flags WHERE user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT 'note', created_at, id, jsonb_build_object('note', note, 'by', actor)
     FROM user_notes WHERE user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4)
) AS parts ORDER BY at DESC, id DESC LIMIT $4"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
MAX_MICROSECONDS = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class FoundUser(NamedTuple):
    """A user in a list. `score` is None before the first action; `key` is the user's place in the order."""

    user: UUID
    username: str
    avatar_url: str | None
    role: Role | None
    ban: Ban
    score: int | None
    created_ms: int  # Unix milliseconds
    key: str


class HistoryPlace(NamedTuple):
    """A place in a user's history: the entries before it come next."""

    microseconds: int  # Unix time, 0…MAX_MICROSECONDS
    id: int


NEWEST = HistoryPlace(MAX_MICROSECONDS, 2**63 - 1)


HistoryKind = Literal["action", "ban", "reversal", "flag", "note"]


class HistoryEntry(NamedTuple):
    """One entry. `kind` says what `details` has. Actors in it are users' names where
    they have one."""

    kind: HistoryKind
    place: HistoryPlace
    at_ms: int  # Unix milliseconds
    details: Mapping[str, Any]


async def search(
    stores: Stores, query: str, limit: int, after: str | None = None
) -> tuple[list[FoundUser], str | None]:
    """Users whose name begins with `query`, case ignored, or whose whole e-mail address, id or external id it is; all
    users for an empty one. And where the next page begins; None on the last.

    In the order of their names; on the first page, users with that external id come first, beyond `limit`. `after`:
    where the page begins.
    """
    limit = min(limit, MAX_PAGE)
    others = list[FoundUser]()
    if query and after is None:
        others = [_found(row) for row in await stores.fetch(BY_EXTERNAL_ID_SQL, MAX_PAGE, query)]
    if email_addresses.is_address(query):
        rows = await stores.fetch(BY_ADDRESS_SQL, limit, email_addresses.spellings(query), after)
    else:
        try:
            by_id = await stores.fetch(BY_ID_SQL, limit, UUID(query), after)
        except ValueError:
            by_id = []
        rows = by_id or await stores.fetch(BY_NAME_SQL, limit, query, after)
    found = [_found(row) for row in rows]
    known = {each.user for each in others}
    return others + [each for each in found if each.user not in known], found[-1].key if len(found) == limit else None


async def read_user(stores: Stores, user: UUID) -> tuple[FoundUser, int] | None:
    """One user, and how many sessions are open; None when there is no such user."""
    row = await stores.fetchrow(USER_SQL, user)
    return None if row is None else (_found(row), row["sessions"])


async def history(stores: Stores, user: UUID, limit: int, before: HistoryPlace = NEWEST) -> list[HistoryEntry]:
    """The user's actions, bans, reversals, flags and notes, the newest first."""
    return await stores.in_transaction(_history_aio, user, min(limit, MAX_PAGE), before)


async def _history_aio(conn: asyncpg.Connection, user: UUID, limit: int, before: HistoryPlace) -> list[HistoryEntry]:
    at = _EPOCH + before.microseconds * _MICROSECOND
    rows = [(row, json.loads(row["details"])) for row in await conn.fetch(HISTORY_SQL, user, at, before.id, limit)]
    actors = {details[name] for _, details in rows for name in _ACTORS if details.get(name)}
    names = await names_aio(conn, actors)
    return [
        HistoryEntry(
            row["kind"],
            HistoryPlace((row["at"] - _EPOCH) // _MICROSECOND, row["id"]),
            milliseconds(row["at"]),
            details | {name: names.get(details[name], details[name]) for name in _ACTORS if details.get(name)},
        )
        for row, details in rows
    ]


_ACTORS = ("by", "liftedBy", "undoneBy")  # names in `details`


def _found(row: asyncpg.Record) -> FoundUser:
    return FoundUser(
        row["id"],
        row["username"],
        row["avatar_url"],
        read_role(row["role"]),
        Ban(row["ban"]),
        row["total_score"],
        milliseconds(row["created_at"]),
        row["key"],
    )
