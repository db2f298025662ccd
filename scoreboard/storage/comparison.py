"""The result of a comparison of both stores for one board: why the board is stale, and which repair it needs. Pure.

Called by `storage.repair`.
"""

from collections.abc import Set
from enum import Enum, auto
from typing import NamedTuple

from scoreboard.domain.boards import BoardVersion
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.postgres.outbox import MissingBatches
from scoreboard.storage.rebuild import BoardState

# A batch that is missing for longer makes the board stale: the holder of the lease had time to replay it.
BEHIND_SECONDS = 1.0


class Repair(Enum):
    """What a board needs."""

    REPLAY = auto()  # it is sound: replay missing batches, if any
    # Redis came back with an older content: give the board a new epoch, so that every node drops the newer versions
    # that it knows, and replay
    BUMP_EPOCH = auto()
    COMPLETE = auto()  # the projector that switched it in stopped before it was complete
    REBUILD = auto()  # there is none, a part is missing, or an older PostgreSQL database was restored


class Comparison(NamedTuple):
    """The state of both stores. `lost`: how many batches the board has and PostgreSQL does not, by writer."""

    found: BoardState
    lost: dict[int, int]
    missing: list[MissingBatches]
    is_pruned: bool  # missing batches are no longer in the outbox
    detached: dict[int, bool]  # writers without Redis → dead


def needed_repair(seen: Comparison, known: BoardVersion) -> Repair:
    """`known` is the newest version that this node ever saw of the board."""
    found = seen.found
    if not found.is_whole or seen.lost or seen.is_pruned:
        return Repair.REBUILD
    if found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        return Repair.BUMP_EPOCH
    return Repair.COMPLETE if found.is_incomplete else Repair.REPLAY


def reasons_of(seen: Comparison, known: BoardVersion, own: Set[int], *, was_behind: bool = False) -> set[StaleReason]:
    """Why the board may not agree with PostgreSQL. `own`: writers of this node, whose batches the agreement has.
    `was_behind`: the last comparison found a gap; then a young gap counts too, since no committer is just closing
    it."""
    found, reasons = seen.found, set[StaleReason]()
    if not found.is_whole:
        reasons.add(StaleReason.MISSING)
    elif found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        reasons.add(StaleReason.OLD)
    if seen.lost:
        reasons.add(StaleReason.HISTORY_LOST)
    if found.is_incomplete:
        reasons.add(StaleReason.INCOMPLETE)
    if seen.is_pruned or any(was_behind or batches.age > BEHIND_SECONDS for batches in seen.missing):
        reasons.add(StaleReason.BEHIND)
    if any(not dead for writer, dead in seen.detached.items() if writer not in own):
        reasons.add(StaleReason.DETACHED)
    return reasons
