"""Makes an action of a user not count any more, or count again: the ledger first, then every board and the user's own
connections at once.

Each is one transaction with its audit event (storage.postgres.reversals). The user's connections get `score:personal`
with the points that went or came back. Tested in tests/operations/admin/test_reverse_action.py.
"""

from uuid import UUID

from scoreboard.domain.boards import user_id
from scoreboard.domain.errors import Refusal
from scoreboard.domain.ledger_rows import ScoreEvent
from scoreboard.drivers.stores import Stores
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.postgres import reversals
from scoreboard.storage.postgres.reversals import Correction


async def reverse_action(
    stores: Stores, boards: BoardRefresh, user: UUID, action_id: str, reason: str, actor: UUID, *, request_id: str
) -> Correction | Refusal:
    """Reverses the action. Raises StorageUnavailable when PostgreSQL can't be used. After that, and after a
    cancellation, it is unknown whether the action is reversed; another try tells."""
    outcome = await reversals.reverse(stores, boards.boards, user, action_id, reason, actor)
    return await _tell(boards, user, outcome, request_id)


async def undo_reversal(
    stores: Stores,
    boards: BoardRefresh,
    user: UUID,
    action_id: str,
    actor: UUID,
    reason: str | None = None,
    *,
    request_id: str,
) -> Correction | Refusal:
    """Undoes the reversal that is in force. A reason becomes a note. Raises as `reverse_action`."""
    return await _tell(boards, user, await reversals.undo(stores, user, action_id, actor, reason), request_id)


async def _tell(
    boards: BoardRefresh, user: UUID, outcome: Correction | Refusal, request_id: str
) -> Correction | Refusal:
    if isinstance(outcome, Correction):
        event = ScoreEvent(
            user_id(user), outcome.previous, outcome.new, outcome.points, outcome.at_ms, request_id, place=0
        )
        await boards.send(user, [event])
    return outcome
