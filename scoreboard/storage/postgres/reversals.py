"""Reversals in PostgreSQL: an action of the log that does not count any more, and the undo of that.

Each is one transaction with its audit event, under the lock of the user's row, so no batch of the user is under way.
Nothing in action_logs changes. Totals and `reached` are those of the log without the actions that are reversed now.
Triggers give the changed totals a new version and note them for every board (migrations 0003 and 0007).

Tested in tests/storage/postgres/test_reversals.py.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.boards import LEADERBOARD, Board, Totals
from scoreboard.domain.errors import Code, Refusal
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, notes
from scoreboard.storage.postgres.decisions import decided_aio, lock_subject_aio, milliseconds, next_id_aio

# The key's processed_at leads to the log's one partition.
ACTION_SQL = """
SELECT l.seq, l.action_type, l.points_awarded FROM action_keys k
JOIN action_logs l ON l.user_id = k.user_id AND l.processed_at = k.processed_at AND l.action_id = k.action_id
WHERE k.user_id = $1 AND k.action_id = $2"""
# The newest first. $2: the action's id.
FOUND_SQL = """
SELECT id, seq, points, actor, created_at, undone_at, undone_by FROM reversals
WHERE user_id = $1 AND action_id = $2 ORDER BY id DESC LIMIT 1"""
INSERT_SQL = """
INSERT INTO reversals (id, user_id, action_id, seq, points, reason, actor) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING created_at"""
UNDO_SQL = "UPDATE reversals SET undone_at = now(), undone_by = $2 WHERE id = $1 RETURNING undone_at"

# $2: points, $3: seq of the action, $4: types of actions that count for the board (NULL: all). `reached` falls to the
# last action that counts, and only if it was this one. 0: none counts.
_REACHED = """CASE WHEN reached <> $3 THEN reached ELSE coalesce((
    SELECT max(l.seq) FROM action_logs AS l
    WHERE l.user_id = $1 AND l.seq <> $3 AND ($4::text[] IS NULL OR l.action_type = ANY($4))
      AND NOT EXISTS (SELECT FROM reversals r WHERE r.user_id = $1 AND r.seq = l.seq AND r.undone_at IS NULL)
), 0) END"""
# `before` is locked with the user.
TAKE_SCORE_SQL = f"""
WITH before AS (SELECT total_score FROM scores WHERE user_id = $1)
UPDATE scores AS s SET total_score = greatest(0, s.total_score - $2::bigint), reached = {_REACHED}, updated_at = now()
FROM before WHERE user_id = $1 RETURNING before.total_score AS before, s.total_score AS after"""  # noqa: S608 – constants
TAKE_BOARD_SQL = f"""
WITH before AS (
    SELECT total FROM board_scores WHERE board = $5 AND period = $6 AND segment = $7 AND subject = $1
)
UPDATE board_scores AS s SET total = greatest(0, s.total - $2::bigint), reached = {_REACHED}, updated_at = now()
FROM before WHERE board = $5 AND period = $6 AND segment = $7 AND subject = $1
RETURNING before.total AS before, s.total AS after"""  # noqa: S608 – constants

# What a total may be at most, see scores_total_score_exact.
_GIVEN = "least(9007199254740991, s.{0} + $2::bigint), reached = greatest(reached, $3), updated_at = now()"
GIVE_SCORE_SQL = f"""
WITH before AS (SELECT total_score FROM scores WHERE user_id = $1)
UPDATE scores AS s SET total_score = {_GIVEN.format("total_score")}
FROM before WHERE user_id = $1 RETURNING before.total_score AS before, s.total_score AS after"""  # noqa: S608 – constants
GIVE_BOARD_SQL = f"""
UPDATE board_scores AS s SET total = {_GIVEN.format("total")}
WHERE board = $4 AND period = $5 AND segment = $6 AND subject = $1"""  # noqa: S608 – constants

NO_SUCH_ACTION = Refusal(Code.NOT_FOUND, "This user has no such action in the log.")
NO_REVERSAL = Refusal(Code.NOT_FOUND, "This action was never reversed.")


class Correction(NamedTuple):
    """A reversal or its undo: the total on the leaderboard before and after it."""

    reversal: int
    previous: int
    new: int
    at_ms: int  # Unix milliseconds

    @property
    def points(self) -> int:
        """The change; negative for a reversal."""
        return self.new - self.previous


async def reverse(
    stores: Stores, boards: Sequence[Board], user: UUID, action_id: str, reason: str, actor: UUID
) -> Correction | Refusal:
    """Makes an action not count on any of the boards. A Refusal when the actor may not, when there is no such user or
    action, or when it is reversed already: then it says who decided that.

    Waits for batches with actions of the user. No total falls below 0. Raises StorageUnavailable. After a cancellation
    it is unknown whether the action is reversed.
    """
    return await stores.in_transaction(_reverse_aio, boards, user, action_id, reason, actor)


async def undo(
    stores: Stores, user: UUID, action_id: str, actor: UUID, reason: str | None = None
) -> Correction | Refusal:
    """Makes a reversed action count again: every total gets what the reversal took. A reason becomes a note about the
    user. Raises and waits as `reverse`."""
    return await stores.in_transaction(_undo_aio, user, action_id, actor, reason)


async def _reverse_aio(
    conn: asyncpg.Connection, boards: Sequence[Board], user: UUID, action_id: str, reason: str, actor: UUID
) -> Correction | Refusal:
    subject = await lock_subject_aio(conn, user, actor)
    if isinstance(subject, Refusal):
        return subject
    action = await conn.fetchrow(ACTION_SQL, user, action_id)
    if action is None:
        return NO_SUCH_ACTION
    found = await conn.fetchrow(FOUND_SQL, user, action_id)
    if found is not None and found["undone_at"] is None:
        return await decided_aio(conn, "This action was reversed already,", found["actor"], found["created_at"])
    seq, points = action["seq"], action["points_awarded"]
    taken: list[tuple[str, str, str, int]] = []
    previous = new = 0
    for board in boards:
        if not board.counts(action["action_type"]):
            continue
        arguments = (user, points, seq, None if board.action_types is None else sorted(board.action_types))
        if board.totals is Totals.SCORES:
            row = await conn.fetchrow(TAKE_SCORE_SQL, *arguments)
        else:
            row = await conn.fetchrow(TAKE_BOARD_SQL, *arguments, *board[:3])
        if row is None:  # the board came later than the action
            continue
        taken.append((*board[:3], row["before"] - row["after"]))
        if board.totals is Totals.SCORES:
            previous, new = row["before"], row["after"]
    reversal = await next_id_aio(conn)
    at = await conn.fetchval(INSERT_SQL, reversal, user, action_id, seq, json.dumps(taken), reason, str(actor))
    await _audit_aio(conn, AuditKind.ACTION_REVERSED, reversal, user, action_id, seq, actor)
    return Correction(reversal, previous, new, milliseconds(at))


async def _undo_aio(
    conn: asyncpg.Connection, user: UUID, action_id: str, actor: UUID, reason: str | None
) -> Correction | Refusal:
    subject = await lock_subject_aio(conn, user, actor)
    if isinstance(subject, Refusal):
        return subject
    found = await conn.fetchrow(FOUND_SQL, user, action_id)
    if found is None:
        return NO_REVERSAL
    if found["undone_at"] is not None:
        return await decided_aio(conn, "The reversal was undone already,", found["undone_by"], found["undone_at"])
    previous = new = 0
    for name, period, segment, points in json.loads(found["points"]):
        if name == LEADERBOARD.name:
            row = await conn.fetchrow(GIVE_SCORE_SQL, user, points, found["seq"])
            if row is not None:
                previous, new = row["before"], row["after"]
        else:
            await conn.execute(GIVE_BOARD_SQL, user, points, found["seq"], name, period, segment)
    at = await conn.fetchval(UNDO_SQL, found["id"], str(actor))
    await _audit_aio(conn, AuditKind.REVERSAL_UNDONE, found["id"], user, action_id, found["seq"], actor)
    if reason is not None:
        await notes.write_aio(conn, user, f"Why {action_id} counts again: {reason}", actor)
    return Correction(found["id"], previous, new, milliseconds(at))


async def _audit_aio(
    conn: asyncpg.Connection, kind: AuditKind, reversal: int, user: UUID, action_id: str, seq: int, actor: UUID
) -> None:
    details: dict[str, Any] = {"reversal": reversal, "actionId": action_id, "seq": seq}
    await audit_events.add_aio(conn, [AuditEvent(kind, str(actor), user, details)])
