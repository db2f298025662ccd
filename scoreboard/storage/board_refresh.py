"""Brings a user's totals to every board at once, after a change that no committer made.

The change is noted in `commits` by triggers, so the projector brings it to the boards in any case, within a second.
This makes it a matter of milliseconds, and carries the event for the user's own connections, which nobody repeats.
Called by operations.admin; no task runs here.

Tested in tests/operations/admin/test_reverse_action.py and test_ban_user.py.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from scoreboard.domain.boards import LEADERBOARD, Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Connection, Stores
from scoreboard.runtime.breaker import Breaker, guard
from scoreboard.storage.postgres import ledger
from scoreboard.storage.redis.projection import Projection

NO_BATCH = SequenceRange(0, 1, 0)  # the rows belong to no batch of a writer

log = structlog.get_logger()


class BoardRefresh:
    """One for a node. `projections` are shared with its committers, the leaderboard's first."""

    __slots__ = ("_breaker", "_projections", "_stores")

    def __init__(self, stores: Stores, projections: Sequence[Projection], breaker: Breaker) -> None:
        self._stores, self._projections, self._breaker = stores, tuple(projections), breaker

    @property
    def boards(self) -> tuple[Board, ...]:
        """The boards of this node."""
        return tuple(projection.board for projection in self._projections)

    async def send(self, user: UUID, events: Sequence[ScoreEvent] = ()) -> None:
        """Sends the user's current rows to every board; `events` go with the leaderboard's, where the user is in place
        0. Never raises StorageUnavailable: a failure is logged. Cancelling leaves it to the projector."""
        try:
            with guard(self._breaker):
                await run_in_asyncio(self._send_aio, user, events)
        except StorageUnavailable as exc:
            log.warning("board_refresh_failed", why=str(exc))

    async def _send_aio(self, user: UUID, events: Sequence[ScoreEvent]) -> None:
        for projection in self._projections:
            board = projection.board

            async def read_aio(conn: Connection, board: Board = board) -> list[LedgerRow]:
                return await ledger.current_rows_aio(conn, board, {user: 0})

            # a user who is not in the ledger was never on the board
            rows = [row for row in await self._stores.pool.call_aio(read_aio) if row.total is not None]
            if rows:
                await projection.apply_aio(NO_BATCH, rows, events if board == LEADERBOARD else [])
