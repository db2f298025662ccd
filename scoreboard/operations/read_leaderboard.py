"""The board and a user's place on it, as a request is told: never older than what the same client has been told of its
own writes.

Called by the web for `GET /scores/leaderboard` and the page, and by live for `authenticated`.
Tested in tests/web/routes/test_scores.py, and with whole nodes in tests/e2e/test_live.py.
"""

from uuid import UUID

from scoreboard.domain.boards import Snapshot
from scoreboard.storage.board_cache import BoardCache, Standing


class Leaderboard:
    """One board's reads. Both raise StorageUnavailable only when neither store can answer; cancelling costs nothing."""

    __slots__ = ("_board",)

    def __init__(self, board: BoardCache) -> None:
        self._board = board

    async def snapshot(self) -> Snapshot:
        """The first rows; without a Redis call while nothing changes."""
        return await self._board.read()

    def current_snapshot(self) -> Snapshot | None:
        """What `snapshot` would return without waiting; None when it would have to wait."""
        return self._board.fresh()

    async def standing(self, user: UUID) -> Standing:
        """A user's exact score and rank: from the rows at hand if they are there, so that both agree, else asked
        for."""
        snapshot = await self._board.read()
        if not snapshot.stale:  # stale rows are up to a second old
            name = str(user)
            for entry in snapshot.rows:
                if entry.userId == name:
                    return Standing(entry.score, entry.rank)
        return await self._board.standing(user)
