"""The transparency log as data, for whoever keeps a copy elsewhere. Coroutines run in asyncio.

Tested in tests/cli/test_audit.py.
"""

from typing import NamedTuple

import asyncpg

from scoreboard.domain.merkle import HASH_BYTES
from scoreboard.storage.postgres import log_leaves

# The batch of the sealer that begins at leaf $1, and the last order number before it.
BATCH_SQL = """
SELECT orders, (SELECT hashes FROM log_nodes WHERE level = 0 AND first = $1) AS hashes,
       coalesce((SELECT orders[cardinality(orders)] FROM log_leaves WHERE first < $1 ORDER BY first DESC LIMIT 1), -1)
           AS before
FROM log_leaves WHERE first = $1"""


class ExportedLeaf(NamedTuple):
    """A leaf. `record` is None where its row is not there, or does not match the leaf."""

    leaf_index: int
    order: int
    hash: bytes
    record: str | None


async def export_batch_aio(conn: asyncpg.Connection, first: int) -> list[ExportedLeaf]:
    """The leaves that one batch of the sealer added, from leaf `first` on; none behind the end. Raises what asyncpg
    raises."""
    batch = await conn.fetchrow(BATCH_SQL, first)
    if batch is None:
        return []
    rows = await conn.fetch(log_leaves.RECORDS_SQL, batch["before"], batch["orders"][-1])
    records = {row["leaf"]: row["record"] for row in rows}
    hashes = batch["hashes"] or b""
    leaves = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
    return [
        ExportedLeaf(first + at, order, leaf, records.get(leaf))
        for at, (order, leaf) in enumerate(zip(batch["orders"], leaves, strict=False))
    ]
