"""Coalesces the changes of each board and has at most one frame a tick sent.

The reader raises what a board is known to have; this task reads the boards that are watched and due, and hands the snapshots to the hub,
which compares them with what it showed last. It never touches a socket (see hub) and never orders anybody (see domain.ranking). Read `run`
first.
"""

from collections.abc import Mapping
from math import ceil

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.hub import Hub
from scoreboard.runtime import observe
from scoreboard.storage.board import SharedBoard

TICK = 0.1  # seconds; specification P1: a frame every 100 ms instead of one a change, about 90 % fewer messages
BREATH = 1.5  # a fan-out that takes longer than a tick gets this multiple of its time: a third of the loop stays for everything else

log = structlog.get_logger()


def interval(tick: float, spent: float) -> float:
    """Seconds between ticks, when the last fan-out took `spent`: longer only under overload."""
    return tick if spent <= tick else spent * BREATH


def next_tick(now: float, last: float, every: float) -> float:
    """When the next tick is due: on the grid of `every` seconds that `last` lies on, and never in the past."""
    return last + every * max(1, ceil((now - last) / every))


class Batcher:
    """One for the process. `refresh` may be called beside `run`."""

    __slots__ = ("_boards", "_hub", "_locks", "_tick")

    def __init__(self, boards: Mapping[str, SharedBoard], hub: Hub, *, tick: float = TICK) -> None:
        self._boards, self._hub, self._tick = boards, hub, tick
        self._locks = {board: trio.Lock() for board in boards}  # one `show` a board at a time

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Ticks for ever. Cancelling it loses nothing: the next run starts from the stores.

        Raises whatever is not `StorageUnavailable`; the supervisor decides what a bug costs.
        """
        last = trio.current_time()
        task_status.started()
        while True:
            every = interval(self._tick, self._hub.spent)
            observe.TICK_INTERVAL.set(every)
            await trio.sleep_until(last := next_tick(trio.current_time(), last, every))
            self._hub.spent = 0.0  # a tick without a fan-out ends the stretching
            for board in self._hub.watched():
                await self._tick_of(board)

    async def refresh(self, board: str) -> None:
        """Brings the hub up to date with a board that nobody watched until now. Returns when it is shown.

        Raises StorageUnavailable when it can be read from neither store.
        """
        shared = self._boards[board]
        async with self._locks[board]:
            snapshot = await shared.read()
            shared.changes_since(snapshot)  # from the time when nobody watched: no push, no lag
            await self._hub.show(board, snapshot)

    async def _tick_of(self, board: str) -> None:
        shared = self._boards[board]
        async with self._locks[board]:
            if not shared.is_due(self._hub.shown(board)):
                return
            try:
                snapshot = await shared.read()
            except StorageUnavailable as exc:
                log.debug("board_unreadable", board=board, error=str(exc))
                return  # `have` stays where it was, so the next tick tries again
            await self._hub.show(board, snapshot, shared.changes_since(snapshot))
