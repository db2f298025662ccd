"""What the policy of a rule does when it flags a user, and how a decision ends that.

`hold`: the user's further actions wait for a moderator (operations.held_users). `block`: the user is banned, by SYSTEM.
Both end when the flag is approved; a hold ends with any decision. Whoever has a role is never banned by a rule. All is
in the transaction of the flag or of the decision. Tested in tests/storage/postgres/test_flag_policies.py.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from scoreboard.domain.anomalies import AnomalyPolicy, AnomalyRule
from scoreboard.domain.audit import SYSTEM, AuditEvent, AuditKind
from scoreboard.domain.bans import Ban
from scoreboard.domain.flags import Flag
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, bans
from scoreboard.storage.postgres.decisions import LOCK_SQL, next_id_aio

MAX_HELD_USERS = 10_000  # that a node knows of; of more, those whose hold is newest are not held

HOLD_SQL = "INSERT INTO user_holds (user_id, flag_id) SELECT * FROM unnest($1::uuid[], $2::bigint[])"
END_HOLD_SQL = "DELETE FROM user_holds WHERE flag_id = $1"
HELD_SQL = "SELECT user_id FROM user_holds GROUP BY user_id ORDER BY min(created_at) LIMIT $1"

NOTE_BAN_SQL = "UPDATE flags SET ban_id = $2 WHERE id = $1"
# Only the ban that the flag has put on: one that a moderator put on afterwards stays.
LIFT_SQL = """
UPDATE bans SET lifted_at = now(), lifted_by = $2
WHERE id = (SELECT ban_id FROM flags WHERE id = $1) AND lifted_at IS NULL RETURNING id"""


async def apply_aio(
    conn: asyncpg.Connection, flags: Sequence[Flag], policies: Mapping[AnomalyRule, AnomalyPolicy]
) -> None:
    """Does what the policies say about new flags. Waits for batches with actions of users who are banned."""
    held = [flag for flag in flags if policies.get(flag.rule) is AnomalyPolicy.HOLD]
    if held:
        await conn.execute(HOLD_SQL, [flag.user for flag in held], [flag.id for flag in held])
    # in the order in which every writer locks users
    for flag in sorted(flags, key=lambda flag: (flag.user, flag.id)):
        if policies.get(flag.rule) is AnomalyPolicy.BLOCK:
            await _ban_aio(conn, flag)


async def end_aio(conn: asyncpg.Connection, flag: Flag, actor: str, *, approved: bool) -> None:
    """Ends what the policy did, as far as the decision says. The caller has locked the user's row."""
    await conn.execute(END_HOLD_SQL, flag.id)
    if not approved or (ban := await conn.fetchval(LIFT_SQL, flag.id, actor)) is None:
        return
    await conn.execute(bans.SET_BAN_SQL, flag.user, Ban.NONE)
    event = AuditEvent(AuditKind.BAN_LIFTED, actor, flag.user, {"ban": ban, "flag": flag.id})
    await audit_events.add_aio(conn, [event])


async def held_users(stores: Stores) -> frozenset[UUID]:
    """The users whose actions wait, at most MAX_HELD_USERS. Raises StorageUnavailable."""
    return frozenset(row["user_id"] for row in await stores.fetch(HELD_SQL, MAX_HELD_USERS))


async def _ban_aio(conn: asyncpg.Connection, flag: Flag) -> None:
    row = await conn.fetchrow(LOCK_SQL, flag.user)
    if row is None or row["role"] is not None or row["ban"] != Ban.NONE:
        return
    ban, reason = await next_id_aio(conn), f"rule {flag.rule}, flag {flag.id}"
    await conn.execute(bans.INSERT_SQL, ban, flag.user, Ban.FULL, reason, False, SYSTEM)
    await conn.execute(bans.SET_BAN_SQL, flag.user, Ban.FULL)
    await conn.execute(NOTE_BAN_SQL, flag.id, ban)
    details = {"ban": ban, "shadow": False, "flag": flag.id}
    await audit_events.add_aio(conn, [AuditEvent(AuditKind.USER_BANNED, SYSTEM, flag.user, details)])
