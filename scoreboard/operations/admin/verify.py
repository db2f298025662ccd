"""Do the stores agree? `scoreboard verify`: sums of the action log, scores, and the board's totals, order and ranks.

On a running system the stores are read one after the other while scores change; so what differs is looked at again, and
only what keeps differing counts. Never mends anything.
"""

import trio

from scoreboard.domain.boards import Board
from scoreboard.storage import consistency as audit
from scoreboard.storage.connections.stores import Stores

LOOKS = 4  # a difference that is only a moment old is gone by then: a board is mended within three seconds
PAUSE = 1.0  # seconds between two looks


async def differences(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    """What keeps differing, by what it is about, and how many users were compared. Raises StorageUnavailable.
    Cancelling is harmless."""
    found, users = await _compare(stores, board)
    for _ in range(LOOKS - 1):
        if not found:
            break
        await trio.sleep(PAUSE)
        again, users = await _compare(stores, board)
        found = {about: what for about, what in again.items() if about in found}
    return found, users


async def _compare(stores: Stores, board: Board) -> tuple[dict[str, str], int]:
    keys = stores.namespace.board(board)
    return await stores.on_own_connection(None, audit.differences, stores.redis, board, keys)
