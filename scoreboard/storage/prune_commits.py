"""Deletes rows of the outbox that no board needs any more. Called by workers.housekeeping; tested with it.

Each writer's last row stays in `commits`, and its field in `applied`, also when the writer has ended. They can't be
dropped safely:

1. The two stores change one after the other, and every node compares them several times a second. A writer that is
   missing in one store alone looks like a lost history, and the board would be rebuilt.
2. It can't be known that a writer has ended. A committer without an action for a day still expects its last row. A
   PostgreSQL session whose number is used again continues from that row.
3. A Redis that comes back with an older content still has the field. That would look like a lost history, too.

Tested in tests/workers/test_housekeeping.py.
"""

from collections.abc import Sequence

import asyncpg

from scoreboard.domain.boards import Board
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import outbox
from scoreboard.storage.rebuild import Rebuilder


async def prune_commits(stores: Stores, boards: Sequence[Board], seconds: float) -> int:
    """Deletes old rows that all boards have, and returns how many.

    Raises StorageUnavailable, also after `seconds`. Cancelling ends the connection; deleted batches stay deleted.
    """
    return await stores.on_own_connection(seconds, _prune_aio, stores, boards)


async def _prune_aio(conn: asyncpg.Connection, stores: Stores, boards: Sequence[Board]) -> int:
    applied = outbox.applied_everywhere([(await Rebuilder(stores, board).state_aio()).applied for board in boards])
    pruned = 0
    while gone := await outbox.prune_aio(conn, applied):
        pruned += gone
    return pruned
