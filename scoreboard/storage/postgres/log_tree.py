"""The tree of the transparency log in PostgreSQL: rows of hashes that are only ever added.

A row of `log_nodes` has the hashes that one batch of the sealer added on one level. So a row a second is written at
most for each level, however many actions there are, and a hash is found by one probe. Coroutines run in asyncio.

Tested in tests/storage/test_sealing.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.merkle import HASH_BYTES, Node, Range, nodes_of, root_of

HEAD_SQL = """
SELECT first + cardinality(orders) AS size, orders[cardinality(orders)] AS last
FROM log_leaves ORDER BY first DESC LIMIT 1"""
NODES_SQL = f"""
SELECT wanted.level, wanted.number, (
    SELECT substring(hashes FROM ((wanted.number - first) * {HASH_BYTES} + 1)::int FOR {HASH_BYTES})
    FROM log_nodes AS n WHERE n.level = wanted.level AND n.first <= wanted.number ORDER BY n.first DESC LIMIT 1
) AS hash
FROM unnest($1::smallint[], $2::bigint[]) AS wanted(level, number)"""  # noqa: S608 – constants

ADD_LEAVES_SQL = "INSERT INTO log_leaves (first, first_order, orders, subjects) VALUES ($1, $2, $3, $4)"
ADD_NODES_SQL = """
INSERT INTO log_nodes (level, first, hashes) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])"""
ADD_CHECKPOINT_SQL = "INSERT INTO log_checkpoints (size, note) VALUES ($1, $2)"

# Size and age in seconds of the checkpoint that was kept last.
LAST_CHECKPOINT_SQL = """
SELECT size, extract(epoch FROM clock_timestamp() - signed_at)::float AS age
FROM log_checkpoints ORDER BY size DESC LIMIT 1"""

# The index of the leaf with an order number. The numbers in a row ascend, so width_bucket finds one by halving.
INDEX_SQL = """
SELECT first + at - 1 AS index FROM (
    SELECT first, orders, width_bucket($1::bigint, orders) AS at
    FROM log_leaves WHERE first_order <= $1 ORDER BY first_order DESC, first DESC LIMIT 1
) AS batch WHERE orders[at] = $1"""


class Head(NamedTuple):
    """The end of the tree."""

    size: int  # leaves
    last: int  # order number of the last leaf; -1: there is none


class DamagedTree(StorageUnavailable):
    """A hash of the tree is missing: somebody has removed rows."""

    def __init__(self, node: Node) -> None:
        super().__init__("postgresql", f"the transparency log has no hash for {node.level}/{node.number}")


async def head_aio(conn: asyncpg.Connection) -> Head:
    """The present end."""
    row = await conn.fetchrow(HEAD_SQL)
    return Head(row["size"], row["last"]) if row else Head(0, -1)


async def hashes_aio(conn: asyncpg.Connection, nodes: Iterable[Node]) -> dict[Node, bytes]:
    """The hashes of these complete subtrees. Raises DamagedTree."""
    wanted = list(nodes)
    if not wanted:
        return {}
    rows = await conn.fetch(NODES_SQL, [node.level for node in wanted], [node.number for node in wanted])
    found = {Node(row["level"], row["number"]): row["hash"] for row in rows}
    for node, value in found.items():
        if value is None or len(value) != HASH_BYTES:
            raise DamagedTree(node)
    return found


async def roots_aio(conn: asyncpg.Connection, ranges: Sequence[Range]) -> list[bytes]:
    """The roots of these parts of the tree, read with one query. Raises DamagedTree."""
    nodes = [nodes_of(part) for part in ranges]
    hashes = await hashes_aio(conn, {node for part in nodes for node in part})
    return [root_of([hashes[node] for node in part]) for part in nodes]


async def index_aio(conn: asyncpg.Connection, order: int) -> int | None:
    """The index of the leaf with that order number; None: it is not sealed."""
    index: int | None = await conn.fetchval(INDEX_SQL, order)
    return index


async def add_aio(
    conn: asyncpg.Connection,
    size: int,
    orders: Sequence[int],
    subjects: Sequence[UUID | None],
    made: Mapping[int, tuple[int, Sequence[bytes]]],
) -> None:
    """Adds leaves behind the first `size` ones, and the nodes that `merkle.append` made. In the caller's transaction.

    Raises asyncpg.UniqueViolationError when another has added leaves there.
    """
    await conn.execute(ADD_LEAVES_SQL, size, orders[0], list(orders), list(subjects))
    await conn.execute(
        ADD_NODES_SQL,
        list(made),
        [first for first, _ in made.values()],
        [b"".join(hashes) for _, hashes in made.values()],
    )
