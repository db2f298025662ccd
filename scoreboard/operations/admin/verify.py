"""Do the stores agree? `scoreboard verify`: sums of the action log, scores, and a board's totals, order and ranks.

On a running system the stores are read one after the other while scores change. So what differs is compared again, and
only what keeps differing counts. Repairs nothing.

Tested in tests/workers/test_projector.py.
"""

import trio

from scoreboard.domain.boards import Board
from scoreboard.storage.connections.bridge import run_in_asyncio
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.consistency import compare_stores_aio

COMPARISONS = 4  # a difference that is only a moment old is gone by then: a board is repaired within three seconds
COMPARISON_INTERVAL_SECONDS = 1.0


async def differences(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    """What keeps differing, by what it is about, and how many users were compared. Raises StorageUnavailable.
    Cancelling is harmless."""
    found: dict[str, str]
    found, users = await run_in_asyncio(compare_stores_aio, stores, board)
    for _ in range(COMPARISONS - 1):
        if not found:
            break
        await trio.sleep(COMPARISON_INTERVAL_SECONDS)
        again, users = await run_in_asyncio(compare_stores_aio, stores, board)
        found = {about: what for about, what in again.items() if about in found}
    return found, users
