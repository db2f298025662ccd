"""Coalesces the changes of each board and publishes at most one frame a tick. Read `run` first.

It never touches a socket (see hub) and never orders anybody (see domain.ranking).

The contract:

1. `notify(board)` says that a board has changed. A board that had no frame for a tick is read at once. Any other is
   read when the tick of its last frame is over.
2. Each watched board is also checked once a tick, for changes of which no message came (see `BoardCache.is_due`).
3. A board that nobody watches is not read. `refresh(board)` reads it for its first viewer.
4. Whether a board is due, and what is new in it, is judged against `hub.published(board)`: what its viewers were sent
   last, never what was read last.
5. One publish a board at a time, under the board's lock. Boards do not wait for each other's locks.
6. A read that fails changes nothing: viewers keep what they have, and the next tick tries again.
7. When a broadcast takes longer than a tick, ticks get longer (OVERLOAD_STRETCH).

Bound: one entry for each board that has changed. Further changes of the same board are coalesced.
"""

from collections.abc import Mapping
from math import ceil, inf

import structlog
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.hub import Hub
from scoreboard.storage.board_cache import BoardCache
from scoreboard.telemetry import metrics

# specification P1: a frame every 100 ms instead of one a change, about 90 % fewer messages
TICK_SECONDS = 0.1
# Part of a tick. A frame that is less late does not move those that follow: a busy board has ten a second and not nine.
MAX_LATENESS = 0.1
# A broadcast that takes longer than a tick gets this multiple of its time: a third of the loop stays for other tasks.
OVERLOAD_STRETCH = 1.5

log = structlog.get_logger()


def tick_interval(tick_seconds: float, broadcast_seconds: float) -> float:
    """Seconds between ticks, when the last broadcasts took `broadcast_seconds`: longer only under overload."""
    return tick_seconds if broadcast_seconds <= tick_seconds else broadcast_seconds * OVERLOAD_STRETCH


def next_tick(now: float, last: float, interval: float) -> float:
    """When the next tick is due: on the grid of `interval` seconds that `last` lies on, and never in the past."""
    return last + interval * max(1, ceil((now - last) / interval))


def next_frame(now: float, due: float, interval: float) -> float:
    """When a board may have its next frame, if it has one now that might have gone out at `due`."""
    return interval + (due if now - due < MAX_LATENESS * interval else now)


class Batcher:
    """One for the process. `notify` and `refresh` may be called beside `run`."""

    __slots__ = ("_boards", "_changed", "_hub", "_interval", "_locks", "_next_frame_at", "_tick_seconds", "_wait_scope")

    def __init__(self, boards: Mapping[str, BoardCache], hub: Hub, *, tick_seconds: float = TICK_SECONDS) -> None:
        """`boards`: the node's reads of each board, by the board's id."""
        self._boards, self._hub, self._tick_seconds = boards, hub, tick_seconds
        self._interval = tick_seconds  # seconds between two frames of a board, now
        self._locks = {board_id: trio.Lock() for board_id in boards}  # rule 5
        self._next_frame_at = dict.fromkeys(boards, -inf)  # trio's clock: the earliest time of that board's next frame
        self._changed: set[str] = set()  # ids of boards that have changed and were not read yet
        self._wait_scope = trio.CancelScope()  # of the wait in `_wait_until`: its deadline is the next thing to do

    def notify(self, board: Board) -> None:
        """The board has just changed (rule 1)."""
        self._changed.add(board.id)
        self._wait_scope.deadline = min(self._wait_scope.deadline, self._next_frame_at[board.id])

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Publishes for ever. Cancelling it loses nothing: the next run starts from the stores.

        Raises any exception but `StorageUnavailable`; `runtime.supervise` then starts it again.
        """
        tick = trio.current_time()
        task_status.started()
        while True:
            self._interval = tick_interval(self._tick_seconds, self._hub.broadcast_seconds)
            metrics.TICK_INTERVAL.set(self._interval)
            tick = next_tick(trio.current_time(), tick, self._interval)
            self._hub.broadcast_seconds = 0.0  # a tick without a broadcast ends the stretching
            await self._wait_until(tick)
            for board in self._hub.watched_boards():
                await self._publish_if_due(board)

    async def refresh(self, board: Board) -> None:
        """Reads and publishes a board that nobody watched until now. Returns when it is published.

        Raises StorageUnavailable when it can be read from neither store.
        """
        cache = self._boards[board.id]
        async with self._locks[board.id]:
            snapshot = await cache.read()
            cache.oldest_change_at(snapshot)  # dropped: they date from when nobody watched, and would count as lag
            await self._hub.publish(board, snapshot)

    async def _wait_until(self, tick: float) -> None:
        """Returns at that time. Meanwhile it publishes boards that change, as soon as they may have a frame."""
        while True:
            soonest = min((self._next_frame_at[board.id] for board in self._watched_and_changed()), default=inf)
            with trio.CancelScope(deadline=min(tick, soonest)) as self._wait_scope:
                await trio.sleep_forever()
            if trio.current_time() >= tick:
                return
            for board in self._watched_and_changed():
                await self._publish_if_due(board)

    def _watched_and_changed(self) -> list[Board]:
        if not self._changed:
            return []
        return [board for board in self._hub.watched_boards() if board.id in self._changed]

    async def _publish_if_due(self, board: Board) -> None:
        """Reads a board that may have changed and publishes it, unless it had a frame less than a tick ago."""
        cache, now, due = self._boards[board.id], trio.current_time(), self._next_frame_at[board.id]
        if now < due:
            return
        async with self._locks[board.id]:
            self._changed.discard(board.id)
            if not cache.is_due(self._hub.published(board)):
                return
            try:
                snapshot = await cache.read()
            except StorageUnavailable as exc:
                log.debug("board_read_failed", board=board.id, error=str(exc))
                return  # rule 6
            if await self._hub.publish(board, snapshot, cache.oldest_change_at(snapshot)):
                stretched = tick_interval(self._tick_seconds, self._hub.broadcast_seconds)
                self._next_frame_at[board.id] = next_frame(now, due, max(self._interval, stretched))
