"""Compares the transparency log with the rows that it is about, and names what was tampered with.

Called by `scoreboard verify`. Every leaf is made once more from its row. So a row that was changed, removed, inserted
or given another place is found, as long as its hash in the tree is the right one; and a changed tree does not fit the
signed checkpoints, which nobody can sign again without the log's key. Rows may be missing for two reasons, both of
which are in the log themselves: their user was erased, or a rule removes old rows (LOG_PRUNED).

Only reads, in one snapshot; memory holds one batch of the sealer. Coroutines run in asyncio.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.audit import AuditKind
from scoreboard.domain.merkle import HASH_BYTES, Node, Range, append, edge_after, nodes_of, root_of
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.stores import Stores
from scoreboard.storage.consistency import UNLIMITED_SQL, Differences
from scoreboard.storage.postgres import log_leaves
from scoreboard.storage.postgres.settled import PLACES

CHUNK_ROWS = 16  # batches of the sealer that one round trip reads
MAX_UNCOVERED_SECONDS = 600.0  # a checkpoint is kept once a minute; nodes may have been down in between

ReadNote = Callable[[str], tuple[int, bytes] | None]
"""Size and root of a kept checkpoint; None when no key of this log signed it."""

BATCHES_SQL = """
SELECT first, first_order, orders, subjects FROM log_leaves ORDER BY first"""
NODE_ROWS_SQL = """
SELECT level, first, hashes FROM log_nodes
WHERE (level, first) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))"""
COUNTS_SQL = """
SELECT count(*) AS rows, coalesce(sum(length(hashes)), 0)::bigint AS bytes FROM log_nodes"""
# Seconds since the first leaf was sealed that no kept checkpoint covers; NULL: there is none.
UNCOVERED_SQL = """
SELECT extract(epoch FROM now() - min(sealed_at))::float FROM log_leaves
WHERE first >= (SELECT coalesce(max(size), 0) FROM log_checkpoints)"""
CHECKPOINTS_SQL = "SELECT size, note FROM log_checkpoints ORDER BY size"
ERASED_SQL = """
SELECT subject, max(id) AS "order" FROM audit_events WHERE kind = $1 AND subject IS NOT NULL GROUP BY subject"""
PRUNED_SQL = "SELECT coalesce(max((details->>'below')::bigint), 0) FROM audit_events WHERE kind = $1"
THERE_SQL = "SELECT id FROM users WHERE id = ANY($1)"


class LogCounts(NamedTuple):
    """How much was compared."""

    leaves: int
    erased: int  # leaves of users who were erased
    pruned: int  # leaves of rows that a rule removed
    checkpoints: int


class _Reasons(NamedTuple):
    """Why rows may be missing."""

    erased: Mapping[UUID, int]  # user → order number of the erasure
    pruned_below: int


async def log_differences_aio(stores: Stores, read_note: ReadNote | None) -> tuple[Differences, LogCounts]:
    """What differs, by what it is about, and how much was compared. `read_note` None: there is no key, and signatures
    are not verified. Raises StorageUnavailable."""

    conn = await stores.connect_aio()
    try:
        with postgres_errors():
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                await conn.execute(UNLIMITED_SQL)
                return await _Comparison(conn, read_note).run_aio()
    finally:
        conn.terminate()


class _Comparison:
    """One pass over the tree, from the first leaf to the last."""

    def __init__(self, conn: asyncpg.Connection, read_note: ReadNote | None) -> None:
        self._conn, self._read_note = conn, read_note
        self._found = Differences()
        self._reasons = _Reasons({}, 0)
        self._size, self._last = 0, -1
        self._edge: dict[Node, bytes] = {}
        self._node_rows = self._node_bytes = 0
        self._erased = self._pruned = self._checkpoints = 0
        self._due: list[tuple[int, str]] = []  # kept checkpoints that are not compared yet, the smallest last

    async def run_aio(self) -> tuple[Differences, LogCounts]:
        conn = self._conn
        erased = {row["subject"]: row["order"] for row in await conn.fetch(ERASED_SQL, AuditKind.USER_ERASED)}
        self._reasons = _Reasons(erased, await conn.fetchval(PRUNED_SQL, AuditKind.LOG_PRUNED))
        self._due = [(row["size"], row["note"]) for row in reversed(await conn.fetch(CHECKPOINTS_SQL))]
        async for batch in conn.cursor(BATCHES_SQL, prefetch=CHUNK_ROWS):
            if not await self._batch_aio(batch):
                break
        else:
            counts = await conn.fetchrow(COUNTS_SQL)
            if counts is not None and (counts["rows"], counts["bytes"]) != (self._node_rows, self._node_bytes):
                self._found.note("log_nodes", "has rows that belong to no batch")
        for size, _ in self._due:
            self._found.note(f"checkpoint {size}", f"was signed for {size} leaves, the tree has {self._size}")
        uncovered = await conn.fetchval(UNCOVERED_SQL)
        if self._read_note is not None and (uncovered or 0) > MAX_UNCOVERED_SECONDS:
            self._found.note("log_checkpoints", f"has none for the leaves of the last {uncovered:.0f} s")
        return self._found, LogCounts(self._size, self._erased, self._pruned, self._checkpoints)

    async def _batch_aio(self, batch: asyncpg.Record) -> bool:
        """Compares one batch of leaves; False when the tree can't be followed any further."""
        orders, subjects = batch["orders"], batch["subjects"]
        if batch["first"] != self._size or not orders or len(orders) != len(subjects):
            self._found.note("log_leaves", f"has {batch['first']} as a batch's first leaf, not {self._size}")
            return False
        if orders[0] <= self._last or batch["first_order"] != orders[0] or any(a > b for a, b in pairwise(orders)):
            self._found.note("log_leaves", f"the leaves from {self._size} on are not in the order of their numbers")
        stored = await self._conn.fetchval("SELECT hashes FROM log_nodes WHERE level = 0 AND first = $1", self._size)
        if stored is None or len(stored) != len(orders) * HASH_BYTES:
            self._found.note("log_nodes", f"has not the hashes of the leaves from {self._size} on")
            return False
        leaves = [stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)]
        await self._rows_aio(orders, subjects, leaves)
        made = append(self._size, self._edge, leaves)
        await self._nodes_aio(made)
        self._checkpoints_within(leaves)
        self._size += len(leaves)
        self._edge = edge_after(self._size, self._edge, made)
        self._last = orders[-1]
        return True

    async def _rows_aio(self, orders: list[int], subjects: list[UUID | None], leaves: list[bytes]) -> None:
        """Compares the leaves of a batch with the rows between the last one before it and its own last one."""
        sealed: dict[int, list[tuple[int, bytes]]] = {}
        for at, (order, leaf) in enumerate(zip(orders, leaves, strict=True)):
            sealed.setdefault(order, []).append((at, leaf))
        changed: set[int] = set()
        for row in await self._conn.fetch(log_leaves.LEAVES_SQL, self._last, orders[-1]):
            order, about = row["order"], _about(row["order"], row["subject"])
            waiting = sealed.get(order, [])
            match = next((pair for pair in waiting if pair[1] == row["leaf"]), None)
            if match is not None:
                waiting.remove(match)
            elif waiting:
                changed.add(order)
                self._found.note(about, "is not the record that was sealed: the row was changed, or has another place")
            else:
                self._found.note(about, "is not in the log: the row was inserted after its neighbours were sealed")
        missing = [at for order, rest in sealed.items() if order not in changed for at, _ in rest]
        await self._missing_aio([(orders[at], subjects[at]) for at in missing])

    async def _missing_aio(self, missing: list[tuple[int, UUID | None]]) -> None:
        """Judges leaves whose rows are not there."""
        users = list({subject for _, subject in missing if subject is not None})
        there = {row["id"] for row in await self._conn.fetch(THERE_SQL, users)} if users else set()
        for order, subject in missing:
            is_event = order % PLACES == 0  # events outlive their users, and no rule removes them
            if is_event:
                self._found.note(_about(order, subject), "was removed: the log has this event, its row is not there")
            elif subject is not None and subject not in there and self._reasons.erased.get(subject, -1) > order:
                self._erased += 1
            elif order < self._reasons.pruned_below:
                self._pruned += 1
            elif subject is not None and subject not in there:
                self._found.note(_about(order, subject), "was removed with its user, and no erasure is in the log")
            else:
                self._found.note(_about(order, subject), "was removed: the log has it, and its row is not there")

    async def _nodes_aio(self, made: Mapping[int, tuple[int, list[bytes]]]) -> None:
        """Compares the inner hashes that the batch must have added."""
        wanted = {(level, first): b"".join(hashes) for level, (first, hashes) in made.items()}
        rows = await self._conn.fetch(NODE_ROWS_SQL, [level for level, _ in wanted], [first for _, first in wanted])
        stored = {(row["level"], row["first"]): row["hashes"] for row in rows}
        for (level, first), hashes in wanted.items():
            if stored.get((level, first)) != hashes:
                self._found.note(f"log_nodes {level}/{first}", "is missing or is not the hash of its leaves")
        self._node_rows += len(wanted)
        self._node_bytes += sum(map(len, wanted.values()))

    def _checkpoints_within(self, leaves: list[bytes]) -> None:
        """Compares the kept checkpoints whose sizes lie in this batch."""
        while self._due and self._due[-1][0] <= self._size + len(leaves):
            size, note = self._due.pop()
            made = append(self._size, self._edge, leaves[: size - self._size])
            edge = edge_after(size, self._edge, made)
            root = root_of([edge[node] for node in nodes_of(Range(0, size))])
            self._checkpoints += 1
            if self._read_note is None:
                continue
            signed = self._read_note(note)
            if signed is None:
                self._found.note(f"checkpoint {size}", "has no signature of this log")
            elif signed != (size, root):
                self._found.note(f"checkpoint {size}", "was signed for another tree: leaves before it were replaced")


def _about(order: int, subject: UUID | None) -> str:
    return f"record {order}" + (f" of user {subject}" if subject else "")
