"""Audit events in PostgreSQL: added to, never changed.

Tested in tests/storage/postgres/test_audit_events.py.
"""

import json
from collections.abc import Sequence

import asyncpg

from scoreboard.domain.audit import AuditEvent

ADD_SQL = """
INSERT INTO audit_events (id, kind, actor, subject, details)
SELECT nextval('commit_ids') * 4096, kind, actor, subject, details
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::jsonb[]) AS given(kind, actor, subject, details)"""


async def add_aio(conn: asyncpg.Connection, events: Sequence[AuditEvent]) -> None:
    """Adds the events, in their order. Called in the transaction that makes the change they tell of: both are there or
    neither. Raises what asyncpg raises."""
    await conn.execute(
        ADD_SQL,
        [event.kind for event in events],
        [event.actor for event in events],
        [event.subject for event in events],
        [json.dumps(event.details) for event in events],
    )
