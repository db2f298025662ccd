"""From which networks users have logged in, as keyed hashes; and the flag for a network with too many accounts.

Only kept while the rule `shared_address` is on. Tested in tests/storage/test_log_in_networks.py.
"""

from uuid import UUID

import asyncpg

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.flags import FlagDraft
from scoreboard.drivers.stores import Stores
from scoreboard.storage.flagging import Opened, open_flags_aio

RETENTION_DAYS = 35  # a month, whose key makes its hashes comparable, and some days
NAMED_ACCOUNTS = 20  # whose ids the evidence has: the newest

ADD_SQL = """
INSERT INTO log_in_networks (network, user_id) SELECT $1, id FROM users WHERE id = $2
ON CONFLICT (network, user_id) DO NOTHING RETURNING true"""
COUNT_SQL = "SELECT count(*) FROM (SELECT FROM log_in_networks WHERE network = $1 LIMIT $2) AS counted"
NEWEST_SQL = """
SELECT user_id FROM log_in_networks WHERE network = $1 ORDER BY seen_at DESC, user_id LIMIT $2"""
PRUNE_SQL = "DELETE FROM log_in_networks WHERE seen_at < now() - make_interval(days => $1)"

NOTHING = Opened([], 0, 0)


async def note_log_in(stores: Stores, network: bytes, user: UUID, most_accounts: int, *, alerts: bool) -> Opened:
    """Notes that a user has logged in from a network (its hash). The first time that it has more than `most_accounts`
    of them, that is flagged, once a month. Raises StorageUnavailable."""
    return await stores.in_transaction(_note_aio, network, user, most_accounts, alerts=alerts)


async def prune(stores: Stores) -> None:
    """Deletes old rows. Raises StorageUnavailable."""
    await stores.execute(PRUNE_SQL, RETENTION_DAYS)


async def _note_aio(
    conn: asyncpg.Connection, network: bytes, user: UUID, most_accounts: int, *, alerts: bool
) -> Opened:
    if not await conn.fetchval(ADD_SQL, network, user):
        return NOTHING  # known, or the user was deleted meanwhile
    if await conn.fetchval(COUNT_SQL, network, most_accounts + 1) <= most_accounts:
        return NOTHING
    newest = [str(row["user_id"]) for row in await conn.fetch(NEWEST_SQL, network, NAMED_ACCOUNTS)]
    evidence = {"accounts": most_accounts + 1, "newest": newest}
    return await open_flags_aio(
        conn, [FlagDraft(AnomalyRule.SHARED_ADDRESS, user, evidence, scope=network)], alerts=alerts
    )
