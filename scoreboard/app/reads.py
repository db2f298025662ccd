"""Builds the read path: the cache of each board, and the leaderboard that answers from it.

Tested with whole nodes, for example in tests/e2e/test_two_nodes.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD, Board
from scoreboard.drivers.stores import Stores
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.profiles import Profiles
from scoreboard.workers.projector import Projector


class ReadParts(NamedTuple):
    """What reads consist of."""

    boards: dict[Board, BoardCache]
    leaderboard: Leaderboard

    @property
    def by_id(self) -> dict[str, BoardCache]:
        """Every board of this node, by its id."""
        return {board.id: cache for board, cache in self.boards.items()}


def build_reads(
    stores: Stores, profiles: Profiles, redis_breaker: Breaker, projectors: Sequence[Projector]
) -> ReadParts:
    """A board's projector knows whether the board agrees with PostgreSQL, and repairs it when a read finds that it does
    not."""
    boards = {
        projector.board: BoardCache(
            projector.board,
            stores,
            profiles,
            redis_breaker,
            projector.agreement,
            projector.request_repair,
            lambda: stores.installation,
        )
        for projector in projectors
    }
    return ReadParts(boards, Leaderboard(boards[LEADERBOARD]))
