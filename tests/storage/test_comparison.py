"""What a comparison of both stores leads to: the repair, and the reasons why the board is stale."""

import pytest

from scoreboard.domain.boards import NEVER, BoardVersion
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.comparison import BEHIND_SECONDS, Comparison, Repair, needed_repair, reasons_of
from scoreboard.storage.postgres.outbox import MissingBatches
from scoreboard.storage.rebuild import BoardState


def seen(
    epoch: int,
    version: int,
    run_id: str = "server",
    *,
    is_whole: bool = True,
    is_incomplete: bool = False,
    lost: int = 0,
    missing_for: float | None = None,
    is_pruned: bool = False,
    detached: dict[int, bool] | None = None,
) -> Comparison:
    """A board of that version. `lost` counts batches of writer 7; `missing_for` is the age of one, in seconds."""
    state = BoardState(is_whole, epoch, version, run_id, "server", is_incomplete, {})
    missing = []
    if missing_for is not None:
        missing.append(MissingBatches(SequenceRange(7, 1, 1), {}, frozenset(), missing_for))
    return Comparison(state, {7: lost} if lost else {}, missing, is_pruned, detached or {})


@pytest.mark.parametrize(
    ("comparison", "known", "repair", "reasons"),
    [
        (seen(0, 0, is_whole=False), NEVER, Repair.REBUILD, {StaleReason.MISSING}),
        (seen(3, 9, is_whole=False), BoardVersion(3, 9), Repair.REBUILD, {StaleReason.MISSING}),
        (seen(1, 5), BoardVersion(1, 5), Repair.REPLAY, set()),
        (seen(1, 5, "before"), BoardVersion(1, 5), Repair.BUMP_EPOCH, {StaleReason.OLD}),
        (seen(1, 4), BoardVersion(1, 5), Repair.BUMP_EPOCH, {StaleReason.OLD}),
        (seen(1, 9), BoardVersion(2, 1), Repair.BUMP_EPOCH, {StaleReason.OLD}),
        (seen(2, 1), BoardVersion(1, 9), Repair.REPLAY, set()),
        (seen(2, 1, is_incomplete=True), BoardVersion(1, 9), Repair.COMPLETE, {StaleReason.INCOMPLETE}),
        (seen(1, 5, lost=2), BoardVersion(1, 5), Repair.REBUILD, {StaleReason.HISTORY_LOST}),
        (seen(1, 5, is_pruned=True), BoardVersion(1, 5), Repair.REBUILD, {StaleReason.BEHIND}),
        (seen(1, 5, missing_for=BEHIND_SECONDS / 2), BoardVersion(1, 5), Repair.REPLAY, set()),
        (seen(1, 5, missing_for=BEHIND_SECONDS * 2), BoardVersion(1, 5), Repair.REPLAY, {StaleReason.BEHIND}),
        (seen(1, 5, detached={7: False}), BoardVersion(1, 5), Repair.REPLAY, {StaleReason.DETACHED}),
        (seen(1, 5, detached={7: True, 8: False}), BoardVersion(1, 5), Repair.REPLAY, set()),
    ],
)
def test_what_a_comparison_leads_to(
    comparison: Comparison, known: BoardVersion, repair: Repair, reasons: set[StaleReason]
) -> None:
    """A part missing, a lost history: built anew. A restarted server, a fallen version: renumbered. An old gap makes a
    board stale; another node's living writer without Redis does, a dead one or our own (8) does not."""
    assert needed_repair(comparison, known) is repair
    assert reasons_of(comparison, known, {8}) == reasons
