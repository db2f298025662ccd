"""What is stored about one user, read page by page: the user's history, and everything for an export.

Called by operations.personal_data. Each page is one statement with a bounded number of rows. Pages are cut by the last
row before (keyset), so rows that are added meanwhile do not move others to another page. Times are Unix milliseconds.
Every function may raise StorageUnavailable.

Tested in tests/operations/test_personal_data.py.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from scoreboard.domain.bans import Ban
from scoreboard.drivers.stores import Stores

# $2, $3: time and order number of the last row of the page before; infinity for the first page.
HISTORY_SQL = """
SELECT action_id, action_type, points_awarded, new_score, metadata, processed_at, seq, EXISTS (
           SELECT FROM reversals AS r WHERE r.user_id = $1 AND r.seq = action_logs.seq AND r.undone_at IS NULL
       ) AS is_reversed
FROM action_logs WHERE user_id = $1 AND (processed_at, seq) < ($2::timestamptz, $3::bigint)
ORDER BY processed_at DESC, seq DESC LIMIT $4"""

PROFILE_SQL = """
SELECT u.id, u.username, u.email, u.avatar_url, u.role, u.created_at, u.updated_at,
       c.updated_at AS password_changed_at
FROM users AS u LEFT JOIN credentials AS c ON c.user_id = u.id WHERE u.id = $1"""

# Each list of an export, but the actions: its statement takes the user, and as text the key of the last row before ("":
# the first page), and a number of rows. Its first column is that key, which orders the list and is not shown.
LISTS_SQL = {
    "formerNames": """
SELECT skeleton AS key, username, freed_at FROM username_skeletons
WHERE user_id = $1 AND freed_at IS NOT NULL AND skeleton > $2 COLLATE "C" ORDER BY skeleton LIMIT $3""",
    "identities": """
SELECT id_key AS key, provider, CASE provider WHEN 'device' THEN NULL ELSE external_id END AS external_id, created_at
FROM (
    SELECT *, provider || ' ' || external_id AS id_key FROM identities WHERE user_id = $1
) AS own WHERE id_key COLLATE "C" > $2 ORDER BY id_key COLLATE "C" LIMIT $3""",
    "sessions": """
SELECT id::text AS key, id, client, created_at, rotated_at AS refreshed_at, expires_at, revoked_at AS ended_at
FROM sessions WHERE user_id = $1 AND ($2 = '' OR id > nullif($2, '')::uuid) ORDER BY sessions.id LIMIT $3""",
    "scores": """
SELECT board AS key, board, total, updated_at FROM (
    SELECT 'leaderboard' AS board, total_score AS total, updated_at FROM scores WHERE user_id = $1
    UNION ALL
    SELECT board_id(board, period, segment), total, updated_at FROM board_scores WHERE subject = $1
) AS own WHERE board COLLATE "C" > $2 ORDER BY board COLLATE "C" LIMIT $3""",
    "startedActions": """
SELECT id::text AS key, id, action_type, started_at, expires_at, used_by AS action_id FROM action_starts
WHERE user_id = $1 AND ($2 = '' OR id > nullif($2, '')::uuid) ORDER BY action_starts.id LIMIT $3""",
    "heldActions": """
SELECT id::text AS key, action_id, action_type, points, metadata, status, held_at, decided_at, reason,
       encode(evidence_sha256, 'hex') AS evidence_sha256
FROM held_actions WHERE user_id = $1 AND ($2 = '' OR id > nullif($2, '')::bigint) ORDER BY held_actions.id LIMIT $3""",
    "evidence": """
SELECT encode(sha256, 'hex') AS key, encode(sha256, 'hex') AS sha256, uploaded_at,
       translate(encode(content, 'base64'), E'\n', '') AS content_base64
FROM evidence WHERE user_id = $1 AND ($2 = '' OR sha256 > decode($2, 'hex')) ORDER BY evidence.sha256 LIMIT $3""",
    "reversals": """
SELECT id::text AS key, action_id, reason, created_at, undone_at FROM reversals
WHERE user_id = $1 AND ($2 = '' OR id < nullif($2, '')::bigint) ORDER BY reversals.id DESC LIMIT $3""",
    "bans": f"""
SELECT id::text AS key, CASE WHEN is_reason_shown THEN reason END AS reason, created_at, lifted_at FROM bans
WHERE user_id = $1 AND kind = {Ban.FULL:d} AND ($2 = '' OR id < nullif($2, '')::bigint)
ORDER BY bans.id DESC LIMIT $3""",  # noqa: S608 – a constant
    "auditEvents": """
SELECT id::text AS key, kind, details, created_at FROM audit_events
WHERE subject = $1 AND kind IN ('role_changed', 'action_reversed', 'reversal_undone', 'held_approved', 'held_refused')
      AND ($2 = '' OR id < nullif($2, '')::bigint) ORDER BY audit_events.id DESC LIMIT $3""",
}

# Tables about users of which an export has nothing, and why.
LEFT_OUT = {
    "action_keys": "the ids and times of the logged actions, once more",
    "credentials": "the hash of the password; when it was changed stands in the profile",
    "flags": "found by rules against cheats, who would learn the rules from it",
    "log_in_networks": "hashes of networks with a secret key, kept for 35 days",
    "log_secrets": "a secret of the transparency log",
    "user_notes": "notes of moderators for one another",
    "user_holds": "set by rules against cheats, who would learn the rules from it",
}

JSON_COLUMNS = frozenset({"details", "metadata"})  # asyncpg gives JSONB as text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
MAX_SEQ = 2**63 - 1


class Place(NamedTuple):
    """A row's place in a user's history. The first page begins at FIRST_PLACE."""

    at_us: int  # Unix microseconds: as exact as PostgreSQL's times
    seq: int  # order number


FIRST_PLACE = Place((LATEST - EPOCH) // MICROSECOND, MAX_SEQ)


class LoggedAction(NamedTuple):
    """An action of the log."""

    action_id: str
    action_type: str
    points: int
    new_score: int
    metadata: dict[str, Any] | None
    at_ms: int
    place: Place
    is_reversed: bool  # a moderator has taken the points back


class Page(NamedTuple):
    """Rows of a list, by the names of their columns, and the key of the last one."""

    rows: list[dict[str, Any]]
    key: str


async def history(stores: Stores, user: UUID, after: Place, size: int) -> list[LoggedAction]:
    """The next `size` actions of the user, the newest first."""
    rows = await stores.fetch(HISTORY_SQL, user, EPOCH + after.at_us * MICROSECOND, after.seq, size)
    return [
        LoggedAction(
            row["action_id"],
            row["action_type"],
            row["points_awarded"],
            row["new_score"],
            None if row["metadata"] is None else msgspec.json.decode(row["metadata"]),
            milliseconds(row["processed_at"]),
            Place((row["processed_at"] - EPOCH) // MICROSECOND, row["seq"]),
            row["is_reversed"],
        )
        for row in rows
    ]


async def profile(stores: Stores, user: UUID) -> dict[str, Any] | None:
    """The account with all its columns, by their names; None when there is no such user."""
    row = await stores.fetchrow(PROFILE_SQL, user)
    return None if row is None else dict(row)


async def page_of(stores: Stores, name: str, user: UUID, after: str, size: int) -> Page:
    """The next `size` rows of one of LISTS_SQL. `after`: the key of the page before, "" for the first."""
    rows = [dict(row) for row in await stores.fetch(LISTS_SQL[name], user, after, size)]
    keys = [str(row.pop("key")) for row in rows]
    for row in rows:
        for column in JSON_COLUMNS.intersection(row):
            row[column] = None if row[column] is None else msgspec.json.decode(row[column])
    return Page(rows, keys[-1] if keys else after)


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds."""
    return round(moment.timestamp() * 1000)
