"""The read path: each board's cache of this node, and the leaderboard that answers from it.

Tested with a whole node in tests/e2e.
"""

from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.profiles import Profiles
from scoreboard.workers.projector import Projector


class ReadParts(NamedTuple):
    """What reads consist of."""

    board: BoardCache
    leaderboard: Leaderboard

    @property
    def boards(self) -> dict[str, BoardCache]:
        """Every board of this node, by its id."""
        return {self.board.board.id: self.board}


def build_reads(stores: Stores, profiles: Profiles, redis_breaker: Breaker, projector: Projector) -> ReadParts:
    """The projector knows whether the board agrees with PostgreSQL, and repairs it when a read finds that it does
    not."""
    board = BoardCache(
        LEADERBOARD,
        stores,
        profiles,
        redis_breaker,
        projector.agreement,
        projector.request_repair,
        lambda: stores.installation,
    )
    return ReadParts(board, Leaderboard(board))
