"""Coalesces the changes of each board and has at most one frame a tick sent.

The reader says which board has changed. A board that was quiet for a tick is read at once, any other when its tick is
over; all that are watched are looked at once a tick too, for what nobody tells (see `BoardCache.is_due`). The hub gets
the snapshots and compares them with what it showed last. The batcher never touches a socket (see hub) and never orders
anybody (see domain.ranking). Read `run` first.
"""

from collections.abc import Mapping
from math import ceil, inf

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.hub import Hub
from scoreboard.storage.board_cache import BoardCache
from scoreboard.telemetry import metrics

TICK = 0.1  # seconds; specification P1: a frame every 100 ms instead of one a change, about 90 % fewer messages
# of a tick: a frame that is less late does not move those that follow, so that a busy board has ten a second and not
# nine
LATE = 0.1
# a fan-out that takes longer than a tick gets this multiple of its time: a third of the loop stays for everything else
OVERLOAD_STRETCH = 1.5

log = structlog.get_logger()


def interval(tick: float, spent: float) -> float:
    """Seconds between ticks, when the last fan-out took `spent`: longer only under overload."""
    return tick if spent <= tick else spent * OVERLOAD_STRETCH


def next_tick(now: float, last: float, every: float) -> float:
    """When the next tick is due: on the grid of `every` seconds that `last` lies on, and never in the past."""
    return last + every * max(1, ceil((now - last) / every))


def next_frame(now: float, due: float, every: float) -> float:
    """When a board may have its next frame, if it has one now that might have gone out at `due`."""
    return every + (due if now - due < LATE * every else now)


class Batcher:
    """One for the process. `notify` and `refresh` may be called beside `run`."""

    __slots__ = ("_boards", "_changed", "_due", "_every", "_hub", "_locks", "_tick", "_waiting")

    def __init__(self, boards: Mapping[str, BoardCache], hub: Hub, *, tick: float = TICK) -> None:
        self._boards, self._hub, self._tick = boards, hub, tick
        self._every = tick  # seconds between two frames of a board, now
        self._locks = {board: trio.Lock() for board in boards}  # one `show` a board at a time
        self._due = dict.fromkeys(boards, -inf)  # trio's clock: no frame of that board goes out before
        self._changed: set[str] = set()  # boards of which a change was told that was not read yet
        self._waiting = trio.CancelScope()  # of the wait for whatever is next: its deadline is that time

    def notify(self, board: str) -> None:
        """A board that has just changed: its viewers see it at once, or when the tick of its last frame is over."""
        self._changed.add(board)
        self._waiting.deadline = min(self._waiting.deadline, self._due[board])

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Sends frames for ever. Cancelling it loses nothing: the next run starts from the stores.

        Raises whatever is not `StorageUnavailable`; the supervisor decides what a bug costs.
        """
        tick = trio.current_time()
        task_status.started()
        while True:
            self._every = interval(self._tick, self._hub.spent)
            metrics.TICK_INTERVAL.set(self._every)
            tick = next_tick(trio.current_time(), tick, self._every)
            self._hub.spent = 0.0  # a tick without a fan-out ends the stretching
            await self._until(tick)
            for board in self._hub.watched():
                await self._bring_up_to_date(board)

    async def _until(self, tick: float) -> None:
        """Returns at that time; meanwhile boards that change have their frames, as soon as they may."""
        while True:
            soonest = min((self._due[board] for board in self._watched_and_changed()), default=inf)
            with trio.CancelScope(deadline=min(tick, soonest)) as self._waiting:
                await trio.sleep_forever()
            if trio.current_time() >= tick:
                return
            for board in self._watched_and_changed():
                await self._bring_up_to_date(board)

    def _watched_and_changed(self) -> set[str]:
        return self._changed.intersection(self._hub.watched()) if self._changed else set()

    async def refresh(self, board: str) -> None:
        """Brings the hub up to date with a board that nobody watched until now. Returns when it is shown.

        Raises StorageUnavailable when it can be read from neither store.
        """
        shared = self._boards[board]
        async with self._locks[board]:
            snapshot = await shared.read()
            shared.changes_since(snapshot)  # from the time when nobody watched: no push, no lag
            await self._hub.show(board, snapshot)

    async def _bring_up_to_date(self, board: str) -> None:
        """Reads a board that may have changed and has it shown, unless it had a frame less than a tick ago."""
        shared, now = self._boards[board], trio.current_time()
        if now < self._due[board]:
            return
        async with self._locks[board]:
            self._changed.discard(board)
            if not shared.is_due(self._hub.shown(board)):
                return
            try:
                snapshot = await shared.read()
            except StorageUnavailable as exc:
                log.debug("board_unreadable", board=board, error=str(exc))
                return  # `have` stays where it was, so the next tick tries again
            if await self._hub.show(board, snapshot, shared.changes_since(snapshot)):
                self._due[board] = next_frame(
                    now, self._due[board], max(self._every, interval(self._tick, self._hub.spent))
                )
