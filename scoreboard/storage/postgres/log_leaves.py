"""The leaves of the transparency log, made from rows of action_logs and audit_events: one definition, in SQL.

The sealer, proofs, the export and `scoreboard verify` all use it, so a row that was changed gives another leaf.
domain.log_records describes the texts, and tests compare both. The texts of these queries come from this package, never
from functions in the database, which its owner could replace. Coroutines run in asyncio.

Tested in tests/storage/test_sealing.py and test_log_audit.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.log_records import SALT_BYTES

_SALT = f"substring(sha256(secret || int8send({{}})) FOR {SALT_BYTES})"
_HASHED = """'"' || encode(sha256(salt || convert_to('{0}:' || {1}, 'UTF8')), 'hex') || '"'"""

# Records, from rows with a `salt`; without one they are NULL. to_json quotes and escapes a text; numbers and times are
# printed as integers.
_ACTION = f"""
'{{"action":' || {_HASHED.format("action", "action_id")}
|| ',"kind":"action","metadata":' || coalesce({_HASHED.format("metadata", "metadata::text")}, 'null')
|| ',"newScore":' || new_score || ',"order":' || seq || ',"points":' || points_awarded
|| ',"signature":"' || encode(sha256(convert_to(signature, 'UTF8')), 'hex')
|| '","time":' || (extract(epoch FROM processed_at) * 1000)::bigint
|| ',"type":' || to_json(action_type::text)::text || ',"user":"' || user_id || '"}}'"""
_EVENT = f"""
'{{"actor":' || to_json(actor::text)::text || ',"details":' || {_HASHED.format("details", "details::text")}
|| ',"event":' || to_json(kind::text)::text || ',"kind":"event","order":' || id
|| ',"subject":' || coalesce('"' || subject || '"', 'null')
|| ',"time":' || (extract(epoch FROM created_at) * 1000)::bigint || '}}'"""

_ACTIONS = f"""
SELECT seq AS "order", user_id AS subject, salt, {_ACTION} AS record
FROM action_logs LEFT JOIN log_secrets USING (user_id), LATERAL (SELECT {_SALT.format("seq")} AS salt) AS salted
WHERE """  # noqa: S608 – constants
_EVENTS = f"""
SELECT id AS "order", subject, salt, {_EVENT} AS record
FROM audit_events, log_event_secret, LATERAL (SELECT {_SALT.format("id")} AS salt) AS salted
WHERE """  # noqa: S608 – constants

_LEAF = "sha256('\\x00'::bytea || convert_to(record, 'UTF8'))"

# All records with order numbers above $1, up to $2.
LEAVES_SQL = f"""
SELECT "order", subject, {_LEAF} AS leaf FROM (
    {_ACTIONS} seq > $1 AND seq <= $2
    UNION ALL
    {_EVENTS} id > $1 AND id <= $2
) AS records ORDER BY "order", leaf"""  # noqa: S608 – constants
RECORDS_SQL = LEAVES_SQL.replace('SELECT "order", subject, ', 'SELECT "order", subject, record, ', 1)

# The highest of the next $3 order numbers above $1 and below $2.
UPPER_SQL = """
SELECT max("order") FROM (
    (SELECT seq AS "order" FROM action_logs WHERE seq > $1 AND seq < $2 ORDER BY seq LIMIT $3)
    UNION ALL
    (SELECT id FROM audit_events WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3)
    ORDER BY 1 LIMIT $3
) AS next"""

# For users who have none yet: 360 random bits, hashed.
SECRETS_SQL = """
INSERT INTO log_secrets (user_id, secret)
SELECT user_id, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
FROM (SELECT DISTINCT user_id FROM action_logs WHERE seq > $1 AND seq <= $2) AS new
WHERE NOT EXISTS (SELECT FROM log_secrets AS known WHERE known.user_id = new.user_id)
ON CONFLICT DO NOTHING"""

# One action; its key leads to its partition and to the index by user.
ACTION_SQL = f"""
SELECT "order", salt, record, {_LEAF} AS leaf FROM (
    {_ACTIONS} user_id = $1 AND action_id = $2 AND processed_at = $3
) AS records"""  # noqa: S608 – constants
PROCESSED_SQL = "SELECT processed_at FROM action_keys WHERE user_id = $1 AND action_id = $2"

# How long the oldest record above $1 has waited, in seconds; NULL: there is none.
WAITING_SQL = """
SELECT extract(epoch FROM clock_timestamp() - min(since))::float FROM (
    (SELECT processed_at AS since FROM action_logs WHERE seq > $1 ORDER BY seq LIMIT 1)
    UNION ALL
    (SELECT created_at FROM audit_events WHERE id > $1 ORDER BY id LIMIT 1)
) AS oldest"""


class ActionRecord(NamedTuple):
    """The record of one action, as of now."""

    order: int
    salt: bytes
    record: str
    leaf: bytes


async def action_record_aio(conn: asyncpg.Connection, user: UUID, action_id: str) -> ActionRecord | None:
    """The record of an action, sealed or not; None where there is no such action, or its user has no secret yet."""
    processed = await conn.fetchval(PROCESSED_SQL, user, action_id)
    row = await conn.fetchrow(ACTION_SQL, user, action_id, processed) if processed else None
    if row is None or row["record"] is None:
        return None
    return ActionRecord(row["order"], row["salt"], row["record"], row["leaf"])
