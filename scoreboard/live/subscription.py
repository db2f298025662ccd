"""Hears what other nodes, and this one, publish: boards that have changed, sessions that were ended, beats.

One task receives and one hands on, with a bounded channel between them; a third publishes a beat a second, with the
number of those who watch here, and reconnects when three have not come back: a half-open subscription is not noticed
otherwise. Everything heard is a hint; what is missed costs a second (see storage.board_cache).
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.batcher import Batcher
from scoreboard.live.hub import Hub
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.storage import bus
from scoreboard.storage.board_cache import BoardCache
from scoreboard.telemetry import observe

# payloads, about 10 s of batches; full: dropped, a later one carries the newer version, and a second mends the rest
UNREAD = 1024
HEARTBEAT_INTERVAL_SECONDS = 1.0  # seconds between two beats of this node
MISSED_HEARTBEATS = 3.0  # seconds without any payload, beats of this node included: the subscription is dead
RETRY = 0.5  # seconds before the next attempt, times 1…2 so that nodes don't come all at once

log = structlog.get_logger()


class Reader:
    """One for the process. `revoked(sid)` is told of sessions that ended elsewhere, before the hub is."""

    __slots__ = ("_audience", "_batcher", "_boards", "_bus", "_heard", "_hub", "_listening", "_node", "_revoked")

    def __init__(
        self,
        hints: bus.Bus,
        boards: Mapping[str, BoardCache],
        batcher: Batcher,
        hub: Hub,
        audience: ViewerCount,
        *,
        node: str,
        revoked: Callable[[UUID], None],
    ) -> None:
        self._bus, self._boards, self._batcher, self._hub, self._audience = hints, boards, batcher, hub, audience
        self._node, self._revoked = node, revoked
        self._heard = 0.0  # trio's clock, when the last payload came or the attempt began
        self._listening: trio.CancelScope | None = None

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Listens for ever. Started at once: a node that hears nothing yet reads its watched boards every second.

        Cancelling closes the subscription. Raises whatever is not StorageUnavailable.
        """
        deposit, heard = trio.open_memory_channel[bytes](UNREAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, deposit)
            nursery.start_soon(self._beat)
            nursery.start_soon(self._hand_on, heard)
            task_status.started()

    # ---- receiving --------------------------------------------------------------------------------------------------

    async def _listen(self, deposit: "trio.MemorySendChannel[bytes]") -> None:
        failing = False
        while True:
            self._heard = trio.current_time()
            try:
                with trio.CancelScope() as self._listening:
                    await self._bus.listen(self._subscribed, partial(self._deliver, deposit))
                log.warning("subscription_silent", seconds=MISSED_HEARTBEATS)
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("subscription_lost", error=str(exc))
                failing = True
            else:
                failing = False
            await trio.sleep(RETRY * random.uniform(1, 2))  # noqa: S311 – jitter

    def _subscribed(self) -> None:
        """What was published before is lost: every board is read anew."""
        for board in self._boards.values():
            board.invalidate()

    def _deliver(self, deposit: "trio.MemorySendChannel[bytes]", payload: bytes) -> None:
        self._heard = trio.current_time()
        try:
            deposit.send_nowait(payload)
        except trio.WouldBlock:
            observe.HINTS_DROPPED.inc()

    async def _beat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_INTERVAL_SECONDS)
            try:
                await self._bus.publish_beat(self._node, self._audience.here())
            except StorageUnavailable:
                pass  # no beat comes back then, and that is what counts
            if trio.current_time() - self._heard >= MISSED_HEARTBEATS and self._listening is not None:
                self._listening.cancel()

    # ---- handing on -------------------------------------------------------------------------------------------------

    async def _hand_on(self, heard: "trio.MemoryReceiveChannel[bytes]") -> None:
        async for payload in heard:
            match self._bus.decode(payload):
                case bus.Update() as update if update.board in self._boards:
                    board = self._boards[update.board]
                    if board.note_hint(update.version, update.top):
                        self._batcher.notify(update.board)
                    # A rank on a board that lacks something is none: the message may come of a call that its sender had
                    # given up.
                    self._hub.personal(update.without_ranks() if board.is_stale else update)
                case bus.Revoked(sid):
                    self._revoked(sid)
                    self._hub.revoke(sid)
                case bus.Heartbeat(node, viewers):
                    self._audience.hear(node, viewers)
                case _:
                    pass  # a board that only other nodes know, or another version's message
