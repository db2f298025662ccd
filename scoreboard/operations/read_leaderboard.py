"""Reads the board and a user's place on it. Never older than the outcome of a client's own last action on this node.

Called by the web for `GET /scores/leaderboard` and the page, and by live for `authenticated`.
Tested in tests/web/routes/test_scores.py, and with whole nodes in tests/e2e/test_live.py.
"""

from uuid import UUID

from scoreboard.domain.boards import Snapshot
from scoreboard.storage.board_cache import BoardCache, Standing


class Leaderboard:
    """One board's reads. They raise StorageUnavailable only when neither store can answer. Cancelling is safe."""

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
        """A user's exact score and rank. For a user in the first rows they come from those, so that both agree; else
        from the store."""
        snapshot = await self._board.read()
        if not snapshot.stale:  # stale rows are up to a second old
            name = str(user)
            for entry in snapshot.rows:
                if entry.userId == name:
                    return Standing(entry.score, entry.rank)
        return await self._board.standing(user)
