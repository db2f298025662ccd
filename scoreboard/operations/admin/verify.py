"""Do the stores agree? `scoreboard verify`: sums of the action log, scores, and the board's totals, order and ranks.

On a running system the stores are read one after the other while scores change; so what differs is compared again, and
only what keeps differing counts. It never repairs anything.

Tested in tests/workers/test_projector.py.
"""

import trio

from scoreboard.domain.boards import Board
from scoreboard.storage import consistency
from scoreboard.storage.connections.stores import Stores

MAX_COMPARISONS = 4  # a difference that is only a moment old is gone by then: a board is repaired within three seconds
COMPARISON_INTERVAL_SECONDS = 1.0


async def differences(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    """What keeps differing, by what it is about, and how many users were compared. Raises StorageUnavailable.
    Cancelling is harmless."""
    found, users = await _compare(stores, board)
    for _ in range(MAX_COMPARISONS - 1):
        if not found:
            break
        await trio.sleep(COMPARISON_INTERVAL_SECONDS)
        again, users = await _compare(stores, board)
        found = {about: what for about, what in again.items() if about in found}
    return found, users


async def _compare(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    keys = stores.namespace.board(board)
    return await stores.on_own_connection(None, consistency.differences, stores.redis, board, keys)
