"""What a moderator decides about a flag. Called by the admin API.

Tested in tests/storage/test_flagging.py.
"""

from scoreboard.domain.flags import Verdict
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import flags
from scoreboard.storage.postgres.flags import Decision

MAX_FLAG_ID = 2**63 - 1  # of PostgreSQL's bigint


async def decide(stores: Stores, flag: int, verdict: Verdict, actor: str, reason: str) -> Decision | None:
    """Decides an open flag, with an audit event in the same transaction. None: there is no such flag.

    A flag is decided once: if somebody was faster, the decision has `is_made` False and the flag as that one left it.
    Raises StorageUnavailable. After a cancellation the flag may be decided.
    """
    if not 0 < flag <= MAX_FLAG_ID:
        return None
    return await stores.in_transaction(flags.decide_aio, flag, verdict, actor, reason)
