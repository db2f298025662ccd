"""What this node knows of its own health, for /readyz: the stores, warnings for the operator, the boards."""

from collections.abc import Mapping, Sequence

from scoreboard.domain.errors import Store, StoreCondition
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.health import HealthMonitor
from scoreboard.workers.projector import Projector


class NodeHealth:
    """Asks the parts that know; costs no store a call."""

    def __init__(self, monitor: HealthMonitor, projector: Projector, board: BoardCache) -> None:
        self._monitor, self._projector, self._board = monitor, projector, board

    def conditions(self) -> Mapping[Store, StoreCondition]:
        """Of each store, as the monitor last saw it."""
        return self._monitor.conditions

    def warnings(self) -> Sequence[str]:
        """What an operator should change."""
        return (*self._monitor.warnings, *self._projector.warnings)

    def boards(self) -> Mapping[str, str]:
        """ "current" or "stale", by board id: whether a board is known to agree with PostgreSQL."""
        return {self._board.board.id: "stale" if self._board.is_stale else "current"}
