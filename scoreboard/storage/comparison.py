"""What a comparison of both stores says of a board: why it may not agree, and which repair it needs. Pure.

Called by `storage.repair`. Tested in tests/workers/test_projector.py.
"""

from collections.abc import Set
from enum import Enum, auto
from typing import NamedTuple

from scoreboard.domain.boards import BoardVersion
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.postgres.outbox import Missing
from scoreboard.storage.rebuild import BoardState

# a turn that is missing for longer makes the board stale: whoever has the lease had time to bring it
BEHIND_SECONDS = 1.0


class Repair(Enum):
    """What a board needs."""

    REPLAY = auto()  # it is sound: fill gaps, if any
    # it came back with an older content: a new epoch, so that everybody drops the newer versions, and fill
    RENEW = auto()
    COMPLETE = auto()  # whoever put it in place was stopped before it was complete
    REBUILD = auto()  # there is none, a part is missing, or PostgreSQL's history went back


class Comparison(NamedTuple):
    """What both stores say at one time. `lost`: turns that the board has and PostgreSQL does not, by writer."""

    found: BoardState
    lost: dict[int, int]
    missing: list[Missing]
    is_pruned: bool  # what is missing is no longer kept
    detached: dict[int, bool]  # writers without Redis → dead


def needed_repair(seen: Comparison, known: BoardVersion) -> Repair:
    """`known` is the newest version that this node ever saw of the board."""
    found = seen.found
    if not found.is_whole or seen.lost or seen.is_pruned:
        return Repair.REBUILD
    if found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        return Repair.RENEW
    return Repair.COMPLETE if found.is_incomplete else Repair.REPLAY


def reasons_of(seen: Comparison, known: BoardVersion, own: Set[int], *, was_behind: bool = False) -> set[StaleReason]:
    """Why the board may not agree with PostgreSQL. `own`: writers of this node, whose turns the agreement has.
    `was_behind`: a gap was found before; then a young one is none that a committer is just closing."""
    found, reasons = seen.found, set[StaleReason]()
    if not found.is_whole:
        reasons.add(StaleReason.MISSING)
    elif found.run_id != found.server or BoardVersion(found.epoch, found.version) < known:
        reasons.add(StaleReason.OLD)
    if seen.lost:
        reasons.add(StaleReason.HISTORY)
    if found.is_incomplete:
        reasons.add(StaleReason.INCOMPLETE)
    if seen.is_pruned or any(was_behind or lack.age > BEHIND_SECONDS for lack in seen.missing):
        reasons.add(StaleReason.BEHIND)
    if any(not dead for writer, dead in seen.detached.items() if writer not in own):
        reasons.add(StaleReason.DETACHED)
    return reasons
