"""Up to which order number everything is decided: no row with a lower number can still appear.

Order numbers (action_logs.seq, audit_events.id) come from one sequence, and a transaction that took a low number may
commit after one that took a higher one. So "the newest row" is no safe mark for whoever reads the log in its order. A
safe one is found without any cost for writers, because of how PostgreSQL locks:

1. A statement that inserts into a table holds the table's RowExclusiveLock before it is executed, so before it calls
   `nextval`, and until its transaction ends.
2. Read the sequence first. Then read which transactions hold that lock on one of TABLES. Every number that was given
   out before belongs to one of them, or to a transaction that has ended.
3. When all of these have ended, every lower number is decided. A statement that begins afterwards sees its row, or
   there will never be one.

Transactions that do not write to these tables hold nothing up, however old they are. One that does, and does not end,
holds up everything: the app's role ends its own after 5 s (storage.postgres.migrate).

Who inserts into one of TABLES takes the number in the statement that inserts, or later in the same transaction; never
in a statement before. A number that is taken for another table, or by hand, is not waited for. Each table of TABLES is
partitioned or plain; rows are inserted by its own name, not by a partition's.
"""

from typing import NamedTuple

import asyncpg

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import postgres_errors

TABLES = ("action_logs", "audit_events")  # all that have order numbers
PLACES = 4096  # order numbers of one number of the sequence: record.sql

# A cached number would be given out long after the sequence was read.
SEQUENCE_SQL = """
SELECT last_value + is_called::int AS next, (SELECT seqcache FROM pg_sequence WHERE seqrelid = 'commit_ids'::regclass)
FROM commit_ids"""

HOLDERS_SQL = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = ANY($1::text[]::regclass[]::oid[])"""


class _Mark(NamedTuple):
    below: int
    holders: frozenset[str]  # transactions that may have a number below it


class Settled:
    """For one connection, since the answers of another server or of a restored copy are about another history."""

    __slots__ = ("_mark", "below")

    def __init__(self) -> None:
        self.below = 0  # every order number below this one is decided
        self._mark: _Mark | None = None

    @property
    def waits_for(self) -> int:
        """How many transactions hold the next mark up."""
        return len(self._mark.holders) if self._mark else 0

    async def advance_aio(self, conn: asyncpg.Connection) -> int:
        """Returns `below`, which may have risen. Two short statements that wait for no lock and change nothing.

        Rows are read by a statement that begins after this has returned, never in a snapshot that is older. So it is
        called outside a transaction, or in one that is READ COMMITTED and has written to none of TABLES. Cancelling is
        safe. Raises StorageUnavailable.
        """
        with postgres_errors():
            mark = self._mark
            if mark is None:
                (row,) = await conn.fetch(SEQUENCE_SQL)
                if row["seqcache"] != 1:
                    raise StorageUnavailable(
                        "postgresql", "numbers of commit_ids are cached; it needs: ALTER SEQUENCE commit_ids CACHE 1"
                    )
                mark = _Mark(row["next"] * PLACES, await _holders_aio(conn))
            else:
                mark = mark._replace(holders=mark.holders & await _holders_aio(conn))
        if mark.holders:
            self._mark = mark
        else:
            self.below, self._mark = mark.below, None
        return self.below


async def _holders_aio(conn: asyncpg.Connection) -> frozenset[str]:
    return frozenset(row["virtualtransaction"] for row in await conn.fetch(HOLDERS_SQL, TABLES))
