"""Reads proofs from the transparency log: of a record, between two sizes, and the leaves for monitors.

The tree only grows, so what is read after its size belongs to that size or to a later one, and no snapshot is needed.
Each function reads some 40 hashes at most, by their keys. PostgreSQL is asked alone. Coroutines run in asyncio.

Tested in tests/storage/test_sealing.py.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg
import structlog

from scoreboard.domain.merkle import Node, Range, consistency_ranges, inclusion_ranges
from scoreboard.storage.postgres import log_leaves, log_tree

log = structlog.get_logger()


class TreeHead(NamedTuple):
    """The tree as it is now."""

    size: int
    root: bytes


class InclusionProof(NamedTuple):
    """That a record is a leaf of a tree."""

    record: str
    salt: bytes
    leaf_index: int
    path: list[bytes]
    head: TreeHead


class RecordChanged:
    """The stored action is not the one that was sealed: somebody has changed it."""


async def tree_head_aio(conn: asyncpg.Connection) -> TreeHead:
    """Size and root. Raises log_tree.DamagedTree, and what asyncpg raises; so do the others."""
    size = (await log_tree.head_aio(conn)).size
    (root,) = await log_tree.roots_aio(conn, [Range(0, size)])
    return TreeHead(size, root)


async def inclusion_aio(conn: asyncpg.Connection, user: UUID, action_id: str) -> InclusionProof | RecordChanged | None:
    """The proof of an action against the present tree; None: there is no such action, or it is not sealed yet."""
    found = await log_leaves.action_record_aio(conn, user, action_id)
    index = await log_tree.index_aio(conn, found.order) if found else None
    if found is None or index is None:
        return None
    size = (await log_tree.head_aio(conn)).size
    ranges = [Range(index, index + 1), *inclusion_ranges(index, size), Range(0, size)]
    leaf, *path, root = await log_tree.roots_aio(conn, ranges)
    if leaf != found.leaf:
        log.error("log_record_changed", order=found.order)
        return RecordChanged()
    return InclusionProof(found.record, found.salt, index, path, TreeHead(size, root))


async def consistency_aio(conn: asyncpg.Connection, first: int, second: int) -> list[bytes] | None:
    """The proof that the tree of `first` leaves is the beginning of the one of `second` leaves; 0 < first ≤ second.
    None: the tree has fewer leaves."""
    if second > (await log_tree.head_aio(conn)).size:
        return None
    return await log_tree.roots_aio(conn, consistency_ranges(first, second))


async def leaves_aio(conn: asyncpg.Connection, start: int, end: int) -> list[bytes]:
    """The hashes of the leaves from `start` up to, without, `end`, as many as there are."""
    end = min(end, (await log_tree.head_aio(conn)).size)
    nodes = [Node(0, index) for index in range(start, end)]
    hashes = await log_tree.hashes_aio(conn, nodes)
    return [hashes[node] for node in nodes]
