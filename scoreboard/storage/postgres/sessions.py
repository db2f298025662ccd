"""Sessions in PostgreSQL: which are open, which refresh token is live, and which were revoked.

Called by operations.sessions, operations.refresh_session and operations.authenticator. Each function is one statement,
so the row's lock orders two requests with the same token. A row outlives its user (`user_id` is NULL then), so that
every node learns that the session has ended. Times are PostgreSQL's. Every function may raise StorageUnavailable.

Tested by tests/operations/test_refresh_session.py and test_authenticator.py.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.sessions import REFRESH_GRACE_SECONDS
from scoreboard.drivers.stores import Stores

# Days that an ended session's row is kept, at least: an access token of it may be valid for a day, plus one day.
MIN_RETENTION_DAYS = 2

# A concurrent change of the password holds the row. The statement waits for it, and then opens no session.
OPEN = """
WITH held AS (SELECT FROM credentials WHERE user_id = $2 AND password_hash = $6 FOR SHARE)
INSERT INTO sessions (id, user_id, token_sha256, expires_at, client)
SELECT $1, $2, $3, now() + make_interval(days => $4), nullif($5, '') FROM held
RETURNING expires_at"""

# A concurrent deletion of the user, or the change of a guest into an account, holds the row. The statement waits for
# it, reads the row again, and then opens no session. $6: only while the user is a guest.
OPEN_IDENTIFIED = """
WITH held AS (SELECT FROM users WHERE id = $2 AND (NOT $6 OR email IS NULL) FOR SHARE)
INSERT INTO sessions (id, user_id, token_sha256, expires_at, client)
SELECT $1, $2, $3, now() + make_interval(days => $4), nullif($5, '') FROM held
RETURNING expires_at"""

OPEN_MANY = """
INSERT INTO sessions (id, user_id, token_sha256, expires_at)
SELECT sid, user_id, token, now() + make_interval(secs => $4)
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS t(sid, user_id, token)"""

# Spends the presented token if it is the live one; $5: of this user, if it is not NULL.
ROTATE = """
UPDATE sessions AS s
SET token_sha256 = $3, spent_sha256 = $2, rotated_at = now(), expires_at = now() + make_interval(days => $4)
FROM users AS u
WHERE s.id = $1 AND s.token_sha256 = $2 AND s.revoked_at IS NULL AND s.expires_at > now()
      AND u.id = s.user_id AND s.user_id = coalesce($5::uuid, s.user_id)
RETURNING s.user_id, u.username, s.expires_at"""

# The state of the session of a token that is not its live one.
INSPECT = """
SELECT s.user_id, u.username, s.expires_at, s.token_sha256,
       coalesce(s.spent_sha256 = $2 AND s.rotated_at > now() - make_interval(secs => $3), false) AS within_reuse_grace,
       s.revoked_at IS NULL AND s.expires_at > now() AS live
FROM sessions AS s JOIN users AS u ON u.id = s.user_id WHERE s.id = $1"""

# Of several tokens, those that can be refreshed: the live one of a session, or the one that was spent within the grace.
# `number` counts from 1.
OWNERS = """
SELECT given.number, s.user_id FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS given(sid, presented, number)
JOIN sessions AS s ON s.id = given.sid WHERE s.revoked_at IS NULL AND s.expires_at > now() AND s.user_id IS NOT NULL
     AND (s.token_sha256 = given.presented
          OR (s.spent_sha256 = given.presented AND s.rotated_at > now() - make_interval(secs => $3)))"""

# One page of the user's live sessions, the newest first. $2: the last one of the page before, or NULL.
LIVE = """
SELECT id, client, created_at, coalesce(rotated_at, created_at) AS used_at FROM sessions
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
      AND ($2::uuid IS NULL OR (created_at, id) < (SELECT created_at, id FROM sessions WHERE id = $2 AND user_id = $1))
ORDER BY created_at DESC, id DESC LIMIT $3"""

IS_YOUNGER = """
SELECT EXISTS (
    SELECT FROM sessions WHERE id = $1 AND revoked_at IS NULL AND created_at > now() - make_interval(secs => $2)
)"""

REVOKE_OWN = """
UPDATE sessions SET revoked_at = now()
WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now() RETURNING true"""

# $2: the session that goes on, or NULL.
REVOKE_ALL = """
UPDATE sessions SET revoked_at = now()
WHERE user_id = $1 AND id IS DISTINCT FROM $2::uuid AND revoked_at IS NULL AND expires_at > now() RETURNING id"""

REVOKE = "UPDATE sessions SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL"

# Returns at least one row, since each contains the time.
REVOKED = """
SELECT id, extract(epoch FROM clock_timestamp())::float AS now
FROM (VALUES (1)) AS one LEFT JOIN sessions ON revoked_at > now() - make_interval(secs => $1)"""

NOW = "SELECT extract(epoch FROM clock_timestamp())::float"

PRUNE = """
DELETE FROM sessions
WHERE expires_at < now() - make_interval(days => $1) OR revoked_at < now() - make_interval(days => $1)"""


class Opened(NamedTuple):
    """An open session."""

    user: UUID
    username: str
    expires_ms: int  # Unix milliseconds


class LiveSession(NamedTuple):
    """A session as its user sees it. Times are Unix milliseconds."""

    sid: UUID
    client: str  # browser and system in words; "": not known
    created_ms: int
    used_ms: int  # of the last refresh: a client that is in use refreshes every 15 minutes


class TokenState(NamedTuple):
    """The session of a presented token that is not its live one."""

    opened: Opened
    token_sha256: bytes  # the live one
    within_reuse_grace: bool
    live: bool

    def __repr__(self) -> str:
        """Without the token's hash, which must not be in a log."""
        return f"TokenState({self.opened}, within_reuse_grace={self.within_reuse_grace}, live={self.live})"


async def open_session(
    stores: Stores, sid: UUID, user: UUID, token_sha256: bytes, days: int, password_hash: str, client: str = ""
) -> int | None:
    """Opens a session for `days`. Returns when it expires, in Unix milliseconds. `client`: see domain.user_agents.

    None, and no session: `password_hash` is no longer the user's, or the user was deleted.
    """
    expires = await stores.fetchval(OPEN, sid, user, token_sha256, days, client, password_hash)
    return None if expires is None else _milliseconds(expires)


async def open_identified(
    stores: Stores, sid: UUID, user: UUID, token_sha256: bytes, days: int, client: str = "", *, only_guest: bool
) -> int | None:
    """The same for a user whom something else than a password identifies. None, and no session: the user was deleted,
    or `only_guest` and the user has an address, so is no guest any more."""
    expires = await stores.fetchval(OPEN_IDENTIFIED, sid, user, token_sha256, days, client, only_guest)
    return None if expires is None else _milliseconds(expires)


async def open_many(
    stores: Stores, sids: list[UUID], users: list[UUID], tokens_sha256: list[bytes], seconds: int
) -> None:
    """Opens a session for each user, for `seconds`. Session, user and token of one row have the same index."""
    await stores.execute(OPEN_MANY, sids, users, tokens_sha256, float(seconds))


async def rotate(
    stores: Stores, sid: UUID, presented_sha256: bytes, next_sha256: bytes, days: int, user: UUID | None = None
) -> Opened | None:
    """Replaces the live token by the next one. None, and no change: the presented token is not live, or belongs to
    another user than `user`."""
    row = await stores.fetchrow(ROTATE, sid, presented_sha256, next_sha256, days, user)
    return None if row is None else Opened(row["user_id"], row["username"], _milliseconds(row["expires_at"]))


async def owners(stores: Stores, presented: Sequence[tuple[UUID, bytes]]) -> dict[int, UUID]:
    """The user of each token that can be refreshed, by its index in `presented`. A token is given as its session and
    its SHA-256."""
    sids, digests = [sid for sid, _ in presented], [digest for _, digest in presented]
    rows = await stores.fetch(OWNERS, sids, digests, float(REFRESH_GRACE_SECONDS))
    return {row["number"] - 1: row["user_id"] for row in rows}


async def inspect_token(stores: Stores, sid: UUID, presented_sha256: bytes) -> TokenState | None:
    """The state of a token's session; None when there is no such session."""
    row = await stores.fetchrow(INSPECT, sid, presented_sha256, float(REFRESH_GRACE_SECONDS))
    if row is None:
        return None
    opened = Opened(row["user_id"], row["username"], _milliseconds(row["expires_at"]))
    return TokenState(opened, row["token_sha256"], row["within_reuse_grace"], row["live"])


async def live(stores: Stores, user: UUID, after: UUID | None, size: int) -> list[LiveSession]:
    """The next `size` sessions of the user that have not ended, the newest first. `after`: the last one of the page
    before."""
    return [
        LiveSession(row["id"], row["client"] or "", _milliseconds(row["created_at"]), _milliseconds(row["used_at"]))
        for row in await stores.fetch(LIVE, user, after, size)
    ]


async def is_younger(stores: Stores, sid: UUID, seconds: float) -> bool:
    """Whether a live session was opened, by a log-in, in the last so many seconds."""
    return bool(await stores.fetchval(IS_YOUNGER, sid, float(seconds)))


async def revoke_own(stores: Stores, sid: UUID, user: UUID) -> bool:
    """Ends a session of this user for good. False: the user has no such session, or it has ended."""
    return bool(await stores.fetchval(REVOKE_OWN, sid, user))


async def revoke_all(stores: Stores, user: UUID, keep: UUID | None) -> list[UUID]:
    """Ends all sessions of the user but `keep`, for good. Returns those that have ended."""
    return [row["id"] for row in await stores.fetch(REVOKE_ALL, user, keep)]


async def revoke(stores: Stores, sid: UUID) -> None:
    """Ends a session for good."""
    await stores.execute(REVOKE, sid)


async def revoked_within(stores: Stores, seconds: float) -> tuple[list[UUID], float]:
    """The sessions that were revoked in the last so many seconds, and PostgreSQL's time in Unix seconds."""
    rows = await stores.fetch(REVOKED, seconds)
    return [row["id"] for row in rows if row["id"] is not None], rows[0]["now"]


async def now(stores: Stores) -> float:
    """PostgreSQL's time in Unix seconds, for commands that need it once. A node uses drivers.clock."""
    return float(await stores.fetchval(NOW))


async def prune(stores: Stores, days: int = MIN_RETENTION_DAYS) -> None:
    """Deletes sessions that ended so many days ago or longer. Called by housekeeping."""
    await stores.execute(PRUNE, max(days, MIN_RETENTION_DAYS))


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
