"""Flags in PostgreSQL: opened by the rules, listed and decided by moderators.

A flag is decided once: of two moderators the second learns what the first has decided. The decision and its audit event
are one transaction. Tested in tests/storage/test_flagging.py.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.audit import AuditEvent, AuditKind
from scoreboard.domain.flags import MAX_FLAG_REASON_CHARACTERS, Flag, FlagDraft, FlagState, Verdict
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, flag_policies

# After a decision the rule is silent about the user: the actions that it was about are still in its hour, and somebody
# has just looked.
QUIET_HOURS_APPROVED = 24
QUIET_HOURS_REVOKED = 1
DECIDED_RETENTION_DAYS = 365
PAGE_FLAGS = 100  # of a list, at most

# A user who was deleted meanwhile has no flags. The row of the user is locked before the flag's index is.
OPEN_SQL = f"""
WITH present AS MATERIALIZED (
    SELECT id FROM users WHERE id = ANY($2::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO flags AS f (rule, user_id, seq, evidence)
SELECT given.rule, given.user_id, given.seq, given.evidence
FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::jsonb[]) AS given(rule, user_id, seq, evidence)
JOIN present ON present.id = given.user_id
WHERE NOT EXISTS (
    SELECT FROM flags AS d WHERE d.user_id = given.user_id AND d.rule = given.rule AND d.decided_at > now() -
        CASE d.state WHEN 'approved' THEN interval '{QUIET_HOURS_APPROVED} hours'
                     ELSE interval '{QUIET_HOURS_REVOKED} hours' END
)
ORDER BY given.user_id, given.rule
ON CONFLICT (rule, user_id) WHERE state = 'open' AND scope IS NULL
DO UPDATE SET hits = f.hits + 1, last_hit_at = now()
RETURNING *"""  # noqa: S608 – constants

OPEN_SCOPED_SQL = """
INSERT INTO flags (rule, user_id, evidence, scope) SELECT $1, id, $3, $4 FROM users WHERE id = $2
ON CONFLICT (rule, scope) WHERE scope IS NOT NULL DO NOTHING
RETURNING *"""

LIST_SQL = """
SELECT * FROM flags
WHERE ($1::text IS NULL OR state = $1) AND ($2::uuid IS NULL OR user_id = $2) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4"""

LOCK_USER_SQL = "SELECT FROM users WHERE id = (SELECT user_id FROM flags WHERE id = $1) FOR UPDATE"
READ_SQL = "SELECT * FROM flags WHERE id = $1"
DECIDE_SQL = """
UPDATE flags SET state = $2, decided_by = $3, reason = $4, decided_at = now() WHERE id = $1 AND state = 'open'
RETURNING *"""

PRUNE_SQL = "DELETE FROM flags WHERE decided_at < now() - make_interval(days => $1)"


class Decision(NamedTuple):
    """The flag as it is now. `is_made`: by this call; else somebody had decided before, and nothing was changed."""

    flag: Flag
    is_made: bool


async def open_aio(conn: asyncpg.Connection, drafts: Sequence[FlagDraft]) -> list[Flag]:
    """Stores findings about single users. Returns the flags that are new, not those of before that absorbed a hit.
    At most one draft for each rule and user."""
    if not drafts:
        return []
    rows = await conn.fetch(
        OPEN_SQL,
        [draft.rule for draft in drafts],
        [draft.user for draft in drafts],
        [draft.seq for draft in drafts],
        [json.dumps(draft.evidence) for draft in drafts],
    )
    return [_flag(row) for row in rows if row["hits"] == 1]


async def open_scoped_aio(conn: asyncpg.Connection, draft: FlagDraft) -> list[Flag]:
    """Stores a finding about many users, once for its scope. Returns the flag if it is new."""
    rows = await conn.fetch(OPEN_SCOPED_SQL, draft.rule, draft.user, json.dumps(draft.evidence), draft.scope)
    return [_flag(row) for row in rows]


async def list_flags(
    stores: Stores,
    *,
    state: FlagState | None = None,
    user: UUID | None = None,
    before: int | None = None,
    limit: int = PAGE_FLAGS,
) -> list[Flag]:
    """Flags, the newest first: of one state, of one user, with lower ids than `before`. Raises StorageUnavailable."""
    return [_flag(row) for row in await stores.fetch(LIST_SQL, state, user, before, min(limit, PAGE_FLAGS))]


async def read_flag(stores: Stores, flag: int) -> Flag | None:
    """One flag; None when there is none. Raises StorageUnavailable."""
    row = await stores.fetchrow(READ_SQL, flag)
    return None if row is None else _flag(row)


async def decide_aio(conn: asyncpg.Connection, flag: int, verdict: Verdict, actor: str, reason: str) -> Decision | None:
    """Decides an open flag, with its audit event, in the caller's transaction, and ends what its policy did. None:
    there is no such flag."""
    # the user first, as everywhere: whoever flags the user meanwhile has that row, and waits for the flag's
    await conn.execute(LOCK_USER_SQL, flag)
    row = await conn.fetchrow(DECIDE_SQL, flag, verdict.state, actor, reason[:MAX_FLAG_REASON_CHARACTERS])
    if row is None:
        found = await conn.fetchrow(READ_SQL, flag)
        return None if found is None else Decision(_flag(found), is_made=False)
    decided = _flag(row)
    details = {"flag": decided.id, "rule": decided.rule, "verdict": verdict, "reason": decided.reason}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.FLAG_DECIDED, actor, decided.user, details)])
    await flag_policies.end_aio(conn, decided, actor, approved=verdict is Verdict.APPROVE)
    return Decision(decided, is_made=True)


async def prune(stores: Stores) -> None:
    """Deletes flags that were decided long ago. Raises StorageUnavailable."""
    await stores.execute(PRUNE_SQL, DECIDED_RETENTION_DAYS)


def _flag(row: asyncpg.Record) -> Flag:
    return Flag(
        row["id"],
        AnomalyRule(row["rule"]),
        row["user_id"],
        json.loads(row["evidence"]),
        row["seq"],
        row["hits"],
        round(row["created_at"].timestamp() * 1000),
        round(row["last_hit_at"].timestamp() * 1000),
        FlagState(row["state"]),
        row["decided_by"],
        row["reason"],
        None if row["decided_at"] is None else round(row["decided_at"].timestamp() * 1000),
    )
