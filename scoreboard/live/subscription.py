"""Receives what the nodes publish, this one too: boards that have changed, sessions that were ended, heartbeats.

1. The first task receives, and puts messages into a bounded channel.
2. The second task dispatches them.
3. The third task publishes this node's heartbeat once a second, with the number of its viewers. A half-open
   subscription raises no error. So when no message has come for three seconds, not even this node's own heartbeat, the
   third task has the first one subscribe again.

Every message is a hint. One that is lost costs a second (see storage.board_cache).
"""

import random
from collections.abc import Mapping
from functools import partial

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.batcher import Batcher
from scoreboard.live.dependencies import Authenticator
from scoreboard.live.hub import Hub
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.storage import bus
from scoreboard.storage.board_cache import BoardCache
from scoreboard.telemetry import metrics

# Bound of the channel, about 10 s of batches. When full, what comes is dropped and counted: a later message names the
# newer version, and each board is read once a second anyway.
MAX_UNREAD_MESSAGES = 1024
HEARTBEAT_INTERVAL_SECONDS = 1.0
HEARTBEAT_TIMEOUT_SECONDS = 3.0  # without any message, this node's own heartbeats included: the subscription is dead
RETRY_SECONDS = 0.5  # before the next attempt, times 1…2: no thundering herd of nodes

log = structlog.get_logger()


class Subscription:
    """One for the process."""

    __slots__ = (
        "_authenticator",
        "_batcher",
        "_boards",
        "_bus",
        "_hub",
        "_last_message_at",
        "_node",
        "_scope",
        "_viewers",
    )

    def __init__(
        self,
        messages: bus.Bus,
        boards: Mapping[str, BoardCache],
        batcher: Batcher,
        hub: Hub,
        viewers: ViewerCount,
        *,
        node: str,
        authenticator: Authenticator,
    ) -> None:
        """`boards`: by id. `node`: the name under which this one's heartbeats go out."""
        self._bus, self._boards, self._batcher, self._hub, self._viewers = messages, boards, batcher, hub, viewers
        self._node, self._authenticator = node, authenticator
        self._last_message_at = 0.0  # trio's clock, when the last payload came or the attempt began
        self._scope: trio.CancelScope | None = None  # of the present attempt

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Receives for ever. Calls `started` at once: until it is subscribed, watched boards are read every second.

        Cancelling closes the subscription. Raises any exception but StorageUnavailable.
        """
        send_channel, receive_channel = trio.open_memory_channel[bytes](MAX_UNREAD_MESSAGES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, send_channel)
            nursery.start_soon(self._send_heartbeats)
            nursery.start_soon(self._dispatch_all, receive_channel)
            task_status.started()

    # ---- receiving --------------------------------------------------------------------------------------------------

    async def _receive(self, send_channel: "trio.MemorySendChannel[bytes]") -> None:
        is_failing = False
        while True:
            self._last_message_at = trio.current_time()
            try:
                with trio.CancelScope() as self._scope:
                    await self._bus.listen(self._on_subscribed, partial(self._on_message, send_channel))
                log.warning("subscription_timed_out", seconds=HEARTBEAT_TIMEOUT_SECONDS)
            except StorageUnavailable as exc:
                if not is_failing:
                    log.warning("subscription_lost", error=str(exc))
                is_failing = True
            else:
                is_failing = False
            await trio.sleep(RETRY_SECONDS * random.uniform(1, 2))  # noqa: S311 – jitter

    def _on_subscribed(self) -> None:
        """Messages from before the subscription are lost, so every board is read again."""
        for cache in self._boards.values():
            cache.invalidate()

    def _on_message(self, send_channel: "trio.MemorySendChannel[bytes]", payload: bytes) -> None:
        self._last_message_at = trio.current_time()
        try:
            send_channel.send_nowait(payload)
        except trio.WouldBlock:
            metrics.HINTS_DROPPED.inc()

    async def _send_heartbeats(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_INTERVAL_SECONDS)
            try:
                await self._bus.publish_beat(self._node, self._viewers.local())
            except StorageUnavailable:
                pass  # then no heartbeat comes back, and the time-out below applies
            if trio.current_time() - self._last_message_at >= HEARTBEAT_TIMEOUT_SECONDS and self._scope is not None:
                self._scope.cancel()

    # ---- dispatching ------------------------------------------------------------------------------------------------

    async def _dispatch_all(self, receive_channel: "trio.MemoryReceiveChannel[bytes]") -> None:
        async for payload in receive_channel:
            match self._bus.decode(payload):
                case bus.Update() as update if update.board in self._boards:
                    self._on_board_changed(self._boards[update.board], update)
                case bus.Revoked(sid):
                    self._authenticator.mark_revoked(sid)  # before the hub closes: a client that reconnects is refused
                    self._hub.close_session(sid)
                case bus.Rejected() as rejected:
                    self._hub.send_rejected(rejected)
                case bus.Heartbeat(node, viewers):
                    self._viewers.on_heartbeat(node, viewers)
                case _:
                    pass  # a board that only other nodes know, or another version's message

    def _on_board_changed(self, cache: BoardCache, update: bus.Update) -> None:
        if cache.note_hint(update.version, update.shown_version):
            self._batcher.notify(cache.board)
        # While the board is stale no rank is sure: the message may come from a call that its sender has abandoned.
        self._hub.send_personal(cache.board, update.without_ranks() if cache.is_stale else update)
