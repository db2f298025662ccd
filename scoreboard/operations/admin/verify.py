"""`scoreboard verify`: whether the stores agree on the sums of the action log, the scores, and a board's totals and
order; and whether the transparency log agrees with its records.

On a running system the stores are read one after the other while scores change. So differences are compared again, and
only those that remain are reported. Repairs nothing.

Tested in tests/operations/admin/test_verify.py and tests/storage/test_log_audit.py.
"""

from collections.abc import Sequence

import trio

from scoreboard.domain.boards import Board
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.security.checkpoints import VerifierKey, open_checkpoint
from scoreboard.storage.consistency import CORRECTIONS_SQL, compare_stores_aio
from scoreboard.storage.log_audit import LogCounts, log_differences_aio

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


async def corrections(stores: Stores) -> tuple[int, int]:
    """How many users are banned now, and how many actions are reversed: what the comparison has left out. Raises
    StorageUnavailable. Cancelling is safe."""
    (row,) = await stores.fetch(CORRECTIONS_SQL)
    return row["banned"], row["reversed"]


async def log_differences(stores: Stores, keys: Sequence[VerifierKey]) -> tuple[dict[str, str], LogCounts]:
    """What was tampered with, by what it is about, and how much was compared. `keys`: those whose checkpoints count;
    none: signatures are not verified. Raises StorageUnavailable. Cancelling is safe."""

    def read_note(note: str) -> tuple[int, bytes] | None:
        opened = next((found for key in keys if (found := open_checkpoint(note, key))), None)
        return (opened.size, opened.root) if opened else None

    return await run_in_asyncio(log_differences_aio, stores, read_note if keys else None)
