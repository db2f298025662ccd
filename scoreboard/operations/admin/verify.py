"""`scoreboard verify`: whether the stores agree on the sums of the action log, the scores, and a board's totals and
order.

On a running system the stores are read one after the other while scores change. So differences are compared again, and
only those that remain are reported. Repairs nothing.
"""

import trio

from scoreboard.domain.boards import Board
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.storage.consistency import compare_stores_aio

COMPARISONS = 4  # a board is repaired within three seconds, so a temporary difference is gone after these
COMPARISON_INTERVAL_SECONDS = 1.0


async def differences(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    """The differences that remain, by what they are about, and how many users were compared. Raises StorageUnavailable.
    Cancelling is safe."""
    found: dict[str, str]
    found, users = await run_in_asyncio(compare_stores_aio, stores, board)
    for _ in range(COMPARISONS - 1):
        if not found:
            break
        await trio.sleep(COMPARISON_INTERVAL_SECONDS)
        again, users = await run_in_asyncio(compare_stores_aio, stores, board)
        found = {about: what for about, what in again.items() if about in found}
    return found, users
