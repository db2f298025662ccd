"""The outbox of messages to other servers: added in a transaction, claimed by one node, ended as sent or dead.

A claim is a time until which nobody else takes the message. It is committed before the message is sent, so no
transaction is open meanwhile; a node that dies leaves it to the others. Tested in
tests/storage/postgres/test_outgoing_messages.py.
"""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.outgoing_messages import MAX_PENDING, MAX_SUMMARY_CHARACTERS, MAX_TRIES, OutgoingMessage
from scoreboard.drivers.stores import Stores

# While a node sends: longer than a request may take, with time to write its outcome.
CLAIM_SECONDS = 30.0
MAX_ERROR_CHARACTERS = 300
SENT_RETENTION_DAYS = 7  # so that a repeated key is known for a while
DEAD_RETENTION_DAYS = 30
PAGE_MESSAGES = 200  # of a list for an operator

# One at a time for each channel, or two writers would both find room. The lock is held until the transaction ends.
LOCK_SQL = "SELECT pg_advisory_xact_lock(1595406601, hashtext($1))"
ADD_SQL = """
INSERT INTO outgoing_messages (channel, kind, key, summary, data)
SELECT $1::text, kind, key, summary, data
FROM unnest($2::text[], $3::text[], $4::text[], $5::jsonb[]) WITH ORDINALITY AS t(kind, key, summary, data, place)
WHERE place + (SELECT count(*) FROM outgoing_messages WHERE channel = $1::text AND state = 'pending') <= $6
ON CONFLICT (channel, key) DO NOTHING"""

CLAIM_SQL = """
UPDATE outgoing_messages SET tries = tries + 1, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE id IN (
    SELECT id FROM outgoing_messages WHERE state = 'pending' AND due_at <= clock_timestamp() AND channel = ANY($1)
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING id, channel, kind, summary, data, tries, (extract(epoch FROM created_at) * 1000)::bigint AS created_ms"""

# Only by who has the claim still: `tries` counts the claims.
SENT_SQL = """
UPDATE outgoing_messages SET state = 'sent', ended_at = clock_timestamp(), last_error = NULL
WHERE id = $1 AND tries = $2 AND state = 'pending'"""
FAILED_SQL = """
UPDATE outgoing_messages SET
    last_error = $3,
    state = CASE WHEN tries >= $5 THEN 'dead' ELSE 'pending' END,
    ended_at = CASE WHEN tries >= $5 THEN clock_timestamp() END,
    due_at = clock_timestamp() + make_interval(secs => $4)
WHERE id = $1 AND tries = $2 AND state = 'pending'"""

PRUNE_SQL = """
DELETE FROM outgoing_messages
WHERE (state = 'sent' AND ended_at < now() - make_interval(days => $1))
   OR (state = 'dead' AND ended_at < now() - make_interval(days => $2))"""
LIST_SQL = """
SELECT id, channel, kind, summary, state, tries, last_error, created_at, due_at FROM outgoing_messages
WHERE $1 = '' OR state = $1 ORDER BY created_at DESC, id LIMIT $2"""
RETRY_SQL = """
UPDATE outgoing_messages SET state = 'pending', tries = 0, ended_at = NULL, due_at = clock_timestamp()
WHERE state = 'dead' AND ($1::uuid IS NULL OR id = $1)"""


class ClaimedMessage(NamedTuple):
    """A message that this node is to send now."""

    id: UUID
    channel: str
    kind: str
    summary: str
    data: Any
    tries: int  # this one included
    created_ms: int  # Unix milliseconds


class ListedMessage(NamedTuple):
    """A message as an operator sees it."""

    id: UUID
    channel: str
    kind: str
    summary: str
    state: str  # pending, sent or dead
    tries: int
    last_error: str | None
    created: datetime
    due: datetime


async def add_aio(conn: asyncpg.Connection, messages: Sequence[OutgoingMessage]) -> int:
    """Adds messages of one channel, in the transaction of what they tell of. Returns how many were added: not those
    with a known key, and none beyond MAX_PENDING."""
    if not messages:
        return 0
    channel = messages[0].channel
    assert all(message.channel == channel for message in messages)
    await conn.execute(LOCK_SQL, channel)
    added = await conn.execute(
        ADD_SQL,
        channel,
        [message.kind for message in messages],
        [message.key for message in messages],
        [message.summary[:MAX_SUMMARY_CHARACTERS] for message in messages],
        [json.dumps(message.data) for message in messages],
        MAX_PENDING,
    )
    return int(added.rpartition(" ")[2])


async def claim(stores: Stores, channels: Collection[str], limit: int) -> list[ClaimedMessage]:
    """At most `limit` messages that are due, for this node alone for CLAIM_SECONDS. Raises StorageUnavailable."""
    rows = await stores.fetch(CLAIM_SQL, list(channels), limit, CLAIM_SECONDS)
    return [
        ClaimedMessage(
            row["id"],
            row["channel"],
            row["kind"],
            row["summary"],
            json.loads(row["data"]),
            row["tries"],
            row["created_ms"],
        )
        for row in rows
    ]


async def mark_sent(stores: Stores, message: ClaimedMessage) -> None:
    """The receiver has it. Raises StorageUnavailable."""
    await stores.execute(SENT_SQL, message.id, message.tries)


async def mark_failed(stores: Stores, message: ClaimedMessage, error: str, wait_seconds: float) -> None:
    """A try has failed; the next one is due in `wait_seconds`. After MAX_TRIES the message is dead. Raises
    StorageUnavailable."""
    await stores.execute(
        FAILED_SQL, message.id, message.tries, error[:MAX_ERROR_CHARACTERS], float(wait_seconds), MAX_TRIES
    )


async def prune(stores: Stores) -> None:
    """Deletes old messages that have ended. Raises StorageUnavailable."""
    await stores.execute(PRUNE_SQL, SENT_RETENTION_DAYS, DEAD_RETENTION_DAYS)


async def list_messages(stores: Stores, state: str = "") -> list[ListedMessage]:
    """The newest PAGE_MESSAGES, of one state or of any. Raises StorageUnavailable."""
    return [
        ListedMessage(
            row["id"],
            row["channel"],
            row["kind"],
            row["summary"],
            row["state"],
            row["tries"],
            row["last_error"],
            row["created_at"],
            row["due_at"],
        )
        for row in await stores.fetch(LIST_SQL, state, PAGE_MESSAGES)
    ]


async def retry(stores: Stores, message: UUID | None) -> int:
    """Makes a dead message pending again, or all of them (None). Returns how many. Raises StorageUnavailable."""
    return int((await stores.execute(RETRY_SQL, message)).rpartition(" ")[2])
