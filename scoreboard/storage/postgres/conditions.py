"""Conditions of single actions: daily caps, starts, evidence, actions that wait for a decision, approvals.

`storage.postgres.ledger` calls `decide_aio` in the transaction that records a batch with such actions, after the limits
and before the recording. Everything is compared by PostgreSQL's clock.

1. The rows of the users concerned are locked FOR NO KEY UPDATE: two nodes never decide about one user at once, and
   other actions of the user, which lock FOR KEY SHARE, do not wait. Starts, held actions and sums of a day all belong
   to a user.
2. An action whose id is known already is left alone. It is found to be a duplicate later.
3. A start is used, and an action held, only if nothing refused the action before.

Batches without such actions never come here. Coroutines with names that end in `_aio` run in asyncio, and raise what
asyncpg raises.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.actions import invalid
from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.bans import Ban, banned
from scoreboard.domain.conditions import Conditions, HeldStatus
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import (
    TOO_MANY_HELD,
    USER_DELETED,
    Held,
    Outcome,
    SubmittedAction,
    daily_cap_reached,
)
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events

MAX_HELD_ACTIONS = 100  # of a user that wait at a time; more: 429

# A ban waits for this lock too: whoever may not act now neither uses a start nor is held or approved.
LOCK_SQL = """
SELECT id, ban, CASE WHEN ban = 2 THEN
    (SELECT reason FROM bans b WHERE b.user_id = users.id AND lifted_at IS NULL AND is_reason_shown) END AS ban_reason
FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE OF users"""

# What is known of each action (user, type, action id) of the batch. `points` and `count`: what its user has of its type
# today, with what waits; $4: whether anybody asks.
KNOWN_SQL = """
SELECT i.place,
       EXISTS (SELECT FROM action_keys k WHERE k.user_id = i.user_id AND k.action_id = i.action_id) AS is_known,
       today.points, today.count,
       (SELECT count(*) FROM held_actions h WHERE h.user_id = i.user_id AND h.status = 'held') AS held,
       (extract(epoch FROM day + interval '1 day' - now()) * 1000)::bigint AS rest_of_day_ms
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[]) WITH ORDINALITY
     AS i(user_id, action_type, action_id, is_capped, place)
CROSS JOIN (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS day) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(points), 0)::bigint AS points, count(*) AS count FROM (
        SELECT points_awarded AS points FROM action_logs l
        WHERE i.is_capped AND l.user_id = i.user_id AND l.action_type = i.action_type AND l.processed_at >= day
        UNION ALL
        SELECT h.points FROM held_actions h
        WHERE i.is_capped AND h.user_id = i.user_id AND h.action_type = i.action_type AND h.status = 'held'
              AND h.held_at >= day
    ) both_kinds
) today"""

IS_KNOWN_SQL = "SELECT EXISTS (SELECT FROM action_keys WHERE user_id = $1 AND action_id = $2)"

# Texts, so that what is no UUID is no error but unknown.
STARTS_SQL = """
SELECT id::text, user_id, action_type, used_by, expires_at < clock_timestamp() AS is_expired,
       extract(epoch FROM clock_timestamp() - started_at)::float8 AS age
FROM action_starts WHERE user_id = ANY($1) AND id::text = ANY($2) FOR UPDATE"""
USE_SQL = """
UPDATE action_starts SET used_by = given.action_id
FROM unnest($1::text[], $2::text[]) AS given(id, action_id) WHERE action_starts.id = given.id::uuid"""

EVIDENCE_SQL = """
SELECT user_id, encode(sha256, 'hex') AS sha256, length(content) AS size FROM evidence
JOIN unnest($1::uuid[], $2::text[]) AS given(owner, hash) ON user_id = owner AND sha256 = decode(hash, 'hex')"""

# The key first: a row for it means that the action is new.
HOLD_SQL = """
WITH input AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::int[], $6::bigint[], $7::text[],
                         $8::jsonb[], $9::text[], $10::int[], $11::int[], $12::text[], $13::int[])
        AS t(user_id, action_id, digest, action_type, points, timestamp_ms, signature, metadata, evidence, size,
             days, undecided, retention_days)
),
fresh AS (
    INSERT INTO action_keys (user_id, action_id, body_sha256)
    SELECT user_id, action_id, digest FROM input ORDER BY user_id, action_id
    ON CONFLICT DO NOTHING
    RETURNING user_id, action_id
)
INSERT INTO held_actions (user_id, action_id, action_type, points, timestamp_ms, signature, metadata, body_sha256,
                          evidence_sha256, evidence_size, expires_at, undecided, retention_days)
SELECT user_id, action_id, action_type, points, timestamp_ms, signature, metadata, digest, decode(evidence, 'hex'),
       nullif(size, 0), now() + make_interval(days => days), undecided, retention_days
FROM input JOIN fresh USING (user_id, action_id) ORDER BY user_id, action_id
RETURNING user_id, action_id, (extract(epoch FROM held_at) * 1000)::bigint AS held_ms,
          (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms"""

# An approval: the key goes, so that the recording that follows takes it again, with its own time.
APPROVE_SQL = """
WITH approved AS (
    UPDATE held_actions h SET status = 'approved', decided_at = clock_timestamp(), decided_by = given.actor,
                              reason = given.reason,
                              keep_until = clock_timestamp() + make_interval(days => h.retention_days)
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS given(user_id, action_id, actor, reason)
    WHERE h.user_id = given.user_id AND h.action_id = given.action_id AND h.status = 'held'
    RETURNING h.user_id, h.action_id
),
freed AS (
    DELETE FROM action_keys k USING approved a WHERE k.user_id = a.user_id AND k.action_id = a.action_id
)
SELECT user_id, action_id FROM approved"""

ALREADY_DECIDED = Refusal(Code.CONFLICT, "This action was decided already.")
START_UNKNOWN = invalid("startId", "is not a start of yours for this action type")
START_USED = invalid("startId", "was used already")
START_EXPIRED = invalid("startId", "has expired")
EVIDENCE_DIFFERS = invalid("evidence", "has another size than what you uploaded with this hash")


class _Known(NamedTuple):
    """What the database has of a batch: by place of the action, by id of a start, by owner and hash of evidence."""

    actions: dict[int, asyncpg.Record]
    starts: dict[str, asyncpg.Record]
    evidence_sizes: dict[tuple[UUID, str], int]


class _Decisions:
    """Decides about a batch's actions one after the other: what one is given counts against the next."""

    def __init__(self, known: _Known) -> None:
        self._known = known
        self._capped: dict[tuple[UUID, str], list[int]] = {}  # points and actions that this batch adds
        self._held: dict[UUID, int] = {}  # actions that this batch adds
        self.used_starts: dict[str, str] = {}  # by id: the action that uses it
        self.held: list[int] = []  # places
        self.approved: list[int] = []

    def decide(self, place: int, action: SubmittedAction) -> Refusal | None:
        """Why the action is refused; None: it is not. Then it is noted what it uses."""
        conditions, row = action.conditions, self._known.actions[place]
        assert conditions is not None
        if conditions.approval is not None:
            self.approved.append(place)
            return None
        if row["is_known"]:
            return None
        refusal = (
            self._check_cap(action, conditions, row)
            or self._check_start(action, conditions)
            or self._check_hold(action, conditions, row)
        )
        if refusal is None:
            self._note(place, action, conditions)
        return refusal

    def _check_cap(self, action: SubmittedAction, conditions: Conditions, row: asyncpg.Record) -> Refusal | None:
        points, count = self._capped.get((action.user, action.action_type), (0, 0))
        over_points = conditions.daily_points and row["points"] + points + _points(action) > conditions.daily_points
        over_count = conditions.daily_count and row["count"] + count + 1 > conditions.daily_count
        return daily_cap_reached(row["rest_of_day_ms"]) if over_points or over_count else None

    def _check_start(self, action: SubmittedAction, conditions: Conditions) -> Refusal | None:
        if conditions.start is None:
            return None
        start = self._known.starts.get(conditions.start.id)
        if start is None or start["user_id"] != action.user or start["action_type"] != action.action_type:
            return START_UNKNOWN
        if start["used_by"] is not None or conditions.start.id in self.used_starts:
            return START_USED
        if start["is_expired"]:
            return START_EXPIRED
        if start["age"] < conditions.start.minimum:
            return invalid("startId", f"was given less than {conditions.start.minimum:g} seconds ago")
        return None

    def _check_hold(self, action: SubmittedAction, conditions: Conditions, row: asyncpg.Record) -> Refusal | None:
        hold = conditions.hold
        if hold is None:
            return None
        if row["held"] + self._held.get(action.user, 0) >= MAX_HELD_ACTIONS:
            return TOO_MANY_HELD
        if hold.evidence_sha256 is not None:
            size = self._known.evidence_sizes.get((action.user, hold.evidence_sha256), hold.evidence_size)
            if size != hold.evidence_size:
                return EVIDENCE_DIFFERS
        return None

    def _note(self, place: int, action: SubmittedAction, conditions: Conditions) -> None:
        used = self._capped.setdefault((action.user, action.action_type), [0, 0])
        used[0] += _points(action)
        used[1] += 1
        if conditions.start is not None:
            self.used_starts[conditions.start.id] = action.action_id
        if conditions.hold is not None:
            self._held[action.user] = self._held.get(action.user, 0) + 1
            self.held.append(place)


async def decide_aio(
    conn: asyncpg.Connection, actions: Sequence[SubmittedAction], decided: Sequence[Outcome | None]
) -> list[Outcome | None]:
    """The outcomes of the batch. None: the action is to be recorded, or was processed before.

    `decided`: outcomes of the limits; what was refused stays so. What is held, used or approved is written here.
    """
    outcomes = list(decided)
    places = [place for place, action in enumerate(actions) if action.conditions and outcomes[place] is None]
    if not places:
        return outcomes
    users = {row["id"]: row for row in await conn.fetch(LOCK_SQL, [actions[place].user for place in places])}
    for place in places:
        user = users.get(actions[place].user)
        if user is None:
            outcomes[place] = USER_DELETED
        elif user["ban"] == Ban.FULL:
            outcomes[place] = banned(user["ban_reason"])
    places = [place for place in places if outcomes[place] is None]
    decisions = _Decisions(await _read_aio(conn, actions, places))
    for place in places:
        outcomes[place] = decisions.decide(place, actions[place])
    if decisions.used_starts:
        await conn.execute(USE_SQL, list(decisions.used_starts), list(decisions.used_starts.values()))
    for place, held in (await _hold_aio(conn, actions, decisions.held)).items():
        outcomes[place] = held
    for place in await _approve_aio(conn, actions, decisions.approved):
        outcomes[place] = ALREADY_DECIDED
    return outcomes


async def _read_aio(conn: asyncpg.Connection, actions: Sequence[SubmittedAction], places: Sequence[int]) -> _Known:
    chosen = [actions[place] for place in places]
    conditions = [action.conditions or Conditions() for action in chosen]
    rows = await conn.fetch(
        KNOWN_SQL,
        [action.user for action in chosen],
        [action.action_type for action in chosen],
        [action.action_id for action in chosen],
        [bool(each.daily_points or each.daily_count) for each in conditions],
    )
    starts: dict[str, asyncpg.Record] = {}
    if ids := [each.start.id for each in conditions if each.start is not None]:
        found = await conn.fetch(STARTS_SQL, [action.user for action in chosen], ids)
        starts = {row["id"]: row for row in found}
    sizes: dict[tuple[UUID, str], int] = {}
    if named := [
        (action.user, each.hold.evidence_sha256)
        for action, each in zip(chosen, conditions, strict=True)
        if each.hold is not None and each.hold.evidence_sha256 is not None
    ]:
        found = await conn.fetch(EVIDENCE_SQL, [user for user, _ in named], [digest for _, digest in named])
        sizes = {(row["user_id"], row["sha256"]): row["size"] for row in found}
    return _Known({places[row["place"] - 1]: row for row in rows}, starts, sizes)


async def _hold_aio(
    conn: asyncpg.Connection, actions: Sequence[SubmittedAction], places: Sequence[int]
) -> dict[int, Held]:
    """Keeps the actions until a decision. Returns those that are new; another was recorded a moment ago."""
    if not places:
        return {}
    columns: list[tuple[Any, ...]] = []
    for place in places:
        action = actions[place]
        assert action.conditions is not None
        hold = action.conditions.hold
        assert hold is not None
        columns.append(
            (
                action.user,
                action.action_id,
                action.body_sha256,
                action.action_type,
                action.points_or_refusal,
                action.timestamp_ms,
                action.signature,
                action.metadata,
                hold.evidence_sha256,
                hold.evidence_size,
                hold.days,
                hold.undecided,
                hold.retention_days,
            )
        )
    rows = await conn.fetch(HOLD_SQL, *(list(column) for column in zip(*columns, strict=True)))
    by_key = {(row["user_id"], row["action_id"]): row for row in rows}
    held: dict[int, Held] = {}
    for place in places:
        action = actions[place]
        if row := by_key.get((action.user, action.action_id)):
            held[place] = Held(
                action.user,
                action.action_id,
                action.action_type,
                _points(action),
                HeldStatus.HELD,
                row["held_ms"],
                row["expires_ms"],
            )
    return held


async def _approve_aio(
    conn: asyncpg.Connection, actions: Sequence[SubmittedAction], places: Sequence[int]
) -> list[int]:
    """Approves held actions, and frees their ids for the recording that follows. Returns the places of those that were
    decided before."""
    if not places:
        return []
    approvals = [
        (actions[place], conditions.approval)
        for place in places
        if (conditions := actions[place].conditions) and conditions.approval
    ]
    rows = await conn.fetch(
        APPROVE_SQL,
        [action.user for action, _ in approvals],
        [action.action_id for action, _ in approvals],
        [approval.actor for _, approval in approvals],
        [approval.reason for _, approval in approvals],
    )
    approved = {(row["user_id"], row["action_id"]) for row in rows}
    events = [
        AuditEvent(
            AuditKind.HELD_APPROVED,
            approval.actor,
            action.user,
            {"actionId": action.action_id, "points": action.points_or_refusal, "reason": approval.reason},
        )
        for action, approval in approvals
        if (action.user, action.action_id) in approved
    ]
    if events:
        await audit_events.add_aio(conn, events)
    return [place for place in places if (actions[place].user, actions[place].action_id) not in approved]


async def is_known(stores: Stores, user: UUID, action_id: str) -> bool:
    """Whether an action of the user with that id was recorded, or waits or waited for a decision. Raises
    StorageUnavailable."""
    return bool(await stores.fetchval(IS_KNOWN_SQL, user, action_id))


def _points(action: SubmittedAction) -> int:
    assert isinstance(action.points_or_refusal, int)  # what its rule refuses is refused by the limits
    return action.points_or_refusal
