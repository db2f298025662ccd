"""Audit events in PostgreSQL: added to and read, never changed.

Tested in tests/storage/postgres/test_audit_events.py.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditEvent
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres.decisions import milliseconds, names_aio

MAX_PAGE = 100  # events of one read

ADD_SQL = """
INSERT INTO audit_events (id, kind, actor, subject, details)
SELECT nextval('commit_ids') * 4096, kind, actor, subject, details
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::jsonb[]) AS given(kind, actor, subject, details)"""

# Each condition has an index: the primary key, audit_events_kind, audit_events_subject.
PAGE_SQL = """
SELECT id, kind, actor, subject, details, created_at FROM audit_events WHERE {where} ORDER BY id DESC LIMIT $1"""


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


class StoredEvent(NamedTuple):
    """An event as it stands in the log. `actor_name`: of an actor who is a user and not deleted."""

    id: int
    kind: str
    actor: str
    actor_name: str | None
    subject: UUID | None
    details: Mapping[str, Any]
    created_ms: int  # Unix milliseconds


async def page(
    stores: Stores, limit: int, before: int | None = None, *, kind: str | None = None, subject: UUID | None = None
) -> list[StoredEvent]:
    """The newest events with lower ids than `before`, of one kind and about one user if these are given. At most
    MAX_PAGE. Raises StorageUnavailable."""
    return await stores.in_transaction(_page_aio, min(limit, MAX_PAGE), before, kind, subject)


async def _page_aio(
    conn: asyncpg.Connection, limit: int, before: int | None, kind: str | None, subject: UUID | None
) -> list[StoredEvent]:
    given: dict[str, object] = {"id < ${}": before, "kind = ${}": kind, "subject = ${}": subject}
    used = {condition: value for condition, value in given.items() if value is not None}
    where = " AND ".join(condition.format(number) for number, condition in enumerate(used, 2)) or "true"
    rows = await conn.fetch(PAGE_SQL.replace("{where}", where), limit, *used.values())
    names = await names_aio(conn, {row["actor"] for row in rows})
    return [
        StoredEvent(
            row["id"],
            row["kind"],
            row["actor"],
            names.get(row["actor"]),
            row["subject"],
            json.loads(row["details"]),
            milliseconds(row["created_at"]),
        )
        for row in rows
    ]
