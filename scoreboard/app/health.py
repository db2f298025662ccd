"""The health of this node, for /readyz: the stores, warnings for the operator, the boards.

Tested in tests/e2e/test_wrong_stores.py.
"""

from collections.abc import Mapping, Sequence

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import Store, StoreCondition
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.health import HealthMonitor
from scoreboard.workers.projector import Projector


class NodeHealth:
    """Collects what the node's parts already know. Calls no store."""

    def __init__(
        self, monitor: HealthMonitor, projectors: Sequence[Projector], boards: Mapping[Board, BoardCache]
    ) -> None:
        self._monitor, self._projectors, self._boards = monitor, projectors, boards

    def conditions(self) -> Mapping[Store, StoreCondition]:
        """Of each store, as the monitor last saw it."""
        return self._monitor.conditions

    def warnings(self) -> Sequence[str]:
        """What an operator should change, each once."""
        of_boards = dict.fromkeys(warning for projector in self._projectors for warning in projector.warnings)
        return (*self._monitor.warnings, *of_boards)

    def boards(self) -> Mapping[str, str]:
        """By board id: "current" if the board is known to agree with PostgreSQL, else "stale"."""
        return {board.id: "stale" if cache.is_stale else "current" for board, cache in self._boards.items()}
