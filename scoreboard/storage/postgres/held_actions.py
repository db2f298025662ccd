"""Actions that wait for a decision, in PostgreSQL: lists, refusals, what has expired.

`storage.postgres.conditions` holds and approves actions, in the transactions that record. Called by
operations.held_actions and by the housekeeping. Every function may raise StorageUnavailable.

Tested in tests/operations/test_held_actions.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.conditions import Approval, Conditions, HeldStatus, Verdict
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events

_COLUMNS = """
SELECT h.id, h.user_id, h.action_id, h.action_type, h.points, h.status, h.undecided, h.reason, h.decided_by,
       h.metadata::text, encode(h.evidence_sha256, 'hex') AS evidence_sha256, coalesce(h.evidence_size, 0) AS size,
       coalesce(length(e.content) = h.evidence_size, false) AS is_uploaded,
       (extract(epoch FROM h.held_at) * 1000)::bigint AS held_ms,
       (extract(epoch FROM h.expires_at) * 1000)::bigint AS expires_ms,
       (extract(epoch FROM h.decided_at) * 1000)::bigint AS decided_ms
FROM held_actions h LEFT JOIN evidence e ON e.user_id = h.user_id AND e.sha256 = h.evidence_sha256
"""
OF_USER_SQL = f"{_COLUMNS} WHERE h.user_id = $1 AND h.id < $2 ORDER BY h.id DESC LIMIT $3"
WAITING_SQL = f"{_COLUMNS} WHERE h.status = 'held' AND h.id > $1 ORDER BY h.id LIMIT $2"
FIND_SQL = f"{_COLUMNS} WHERE h.user_id = $1 AND h.action_id = $2"
BY_ID_SQL = f"{_COLUMNS} WHERE h.id = $1"
EXPIRED_SQL = f"{_COLUMNS} WHERE h.status = 'held' AND h.expires_at < now() ORDER BY h.expires_at LIMIT $1"

SUBMITTED_SQL = """
SELECT action_type, timestamp_ms, metadata::text, signature, body_sha256, points
FROM held_actions WHERE user_id = $1 AND action_id = $2 AND status = 'held'"""

REFUSE_SQL = """
UPDATE held_actions SET status = 'refused', decided_at = clock_timestamp(), decided_by = $3, reason = $4,
                        keep_until = clock_timestamp() + make_interval(days => retention_days)
WHERE user_id = $1 AND action_id = $2 AND status = 'held' RETURNING action_type"""

PRUNE_SQL = "DELETE FROM held_actions WHERE status <> 'held' AND keep_until < now()"

HIGHEST_ID = 2**63 - 1


class HeldRow(NamedTuple):
    """An action that waits, or waited, for a decision. Times are Unix milliseconds. `evidence_sha256` in hexadecimal
    digits, None where the type wants none; `is_uploaded`: the blob is there and has the size that the action named."""

    id: int
    user: UUID
    action_id: str
    action_type: str
    points: int
    status: HeldStatus
    undecided: Verdict
    reason: str | None
    decided_by: str | None
    metadata: str | None  # JSON text
    evidence_sha256: str | None
    evidence_size: int
    is_uploaded: bool
    held_ms: int
    expires_ms: int
    decided_ms: int | None

    @property
    def lacks_evidence(self) -> bool:
        """Whether the evidence that the action names is not there."""
        return self.evidence_sha256 is not None and not self.is_uploaded


def _held_row(row: asyncpg.Record) -> HeldRow:
    return HeldRow(*row)._replace(status=HeldStatus(row["status"]), undecided=Verdict(row["undecided"]))


async def of_user(stores: Stores, user: UUID, before: int | None, limit: int) -> list[HeldRow]:
    """A user's own, newest first. `before`: the id of the last one of the page before; None: the first page."""
    return [_held_row(row) for row in await stores.fetch(OF_USER_SQL, user, before or HIGHEST_ID, limit)]


async def waiting(stores: Stores, after: int, limit: int) -> list[HeldRow]:
    """All users' actions that wait, oldest first. `after`: the id of the last one of the page before; 0: the first
    page."""
    return [_held_row(row) for row in await stores.fetch(WAITING_SQL, after, limit)]


async def find(stores: Stores, user: UUID, action_id: str) -> HeldRow | None:
    """The user's action with that id, if it waits or waited."""
    row = await stores.fetchrow(FIND_SQL, user, action_id)
    return None if row is None else _held_row(row)


async def find_by_id(stores: Stores, number: int) -> HeldRow | None:
    """The same by the row's own id."""
    row = await stores.fetchrow(BY_ID_SQL, number)
    return None if row is None else _held_row(row)


async def expired(stores: Stores, limit: int) -> list[HeldRow]:
    """Those that nobody decided about in time."""
    return [_held_row(row) for row in await stores.fetch(EXPIRED_SQL, limit)]


async def approval_of(
    stores: Stores, user: UUID, action_id: str, approval: Approval, request_id: str
) -> SubmittedAction | None:
    """The waiting action as it was sent, to be recorded with that approval; None when it does not wait any more."""
    row = await stores.fetchrow(SUBMITTED_SQL, user, action_id)
    if row is None:
        return None
    return SubmittedAction(
        user=user,
        action_id=action_id,
        action_type=row["action_type"],
        timestamp_ms=row["timestamp_ms"],
        metadata=row["metadata"],
        signature=row["signature"],
        body_sha256=row["body_sha256"],
        request_id=request_id,
        points_or_refusal=row["points"],
        cooldown_ms=0,
        is_limited=False,
        conditions=Conditions(approval=approval),
    )


async def refuse(stores: Stores, user: UUID, action_id: str, actor: str, reason: str) -> bool:
    """Refuses a waiting action, with its audit event. False when it does not wait any more."""
    return await stores.in_transaction(_refuse_aio, user, action_id, actor, reason)


async def _refuse_aio(conn: asyncpg.Connection, user: UUID, action_id: str, actor: str, reason: str) -> bool:
    if await conn.fetchrow(REFUSE_SQL, user, action_id, actor, reason) is None:
        return False
    details = {"actionId": action_id, "reason": reason}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.HELD_REFUSED, actor, user, details)])
    return True


async def prune(stores: Stores) -> None:
    """Deletes decided actions whose time is over. What was approved stays in the action log, and every action id stays
    taken."""
    await stores.execute(PRUNE_SQL)
