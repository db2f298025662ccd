"""Who listens to which board, and the one loop that hands everyone what is new.

Transports register a `Viewer` each, a long poll a `Poll`; the batcher calls `show` with a board's newest snapshot, the
reader `personal` and `revoke`. Nothing here waits for a socket: what one takes at once goes out (see subscribers), and
whoever could not take it is handed what is newest when the socket has drained. Every method that does not await is
atomic.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from math import inf
from time import monotonic
from uuid import UUID

import structlog
import trio

from scoreboard.domain import protocol as wire
from scoreboard.domain.boards import Snapshot
from scoreboard.domain.protocol import CloseCode, Event
from scoreboard.live.fan_out import Subscribers
from scoreboard.live.frame_set import FORMS, SINCE_LENGTH, FrameFormat, FrameSet, prepare
from scoreboard.live.viewer import Poll, Viewer
from scoreboard.storage.bus import Update
from scoreboard.telemetry import metrics

# writes, in whole portions, about 2 ms, or answers to polls, about 5: then whatever else waits for the loop has its
# turn
YIELD_EVERY = 256
PENDING = 16  # events that wait for a viewer's socket, about 4 KiB; full: the oldest goes, the newest scores count
LEAVING_SECONDS = 1.0  # design: good-byes are spread over this, so that the other nodes are not asked by all at once
LEAVING_STEPS = 20  # good-byes go out in so many portions

log = structlog.get_logger()


class BoardChannel:
    """One board: its viewers by the form that they want; who polls; the newest frames."""

    __slots__ = ("polls", "prepared", "sent_at", "subscribers", "warm")

    def __init__(self) -> None:
        self.subscribers = {form: Subscribers(form) for form in FORMS}
        self.polls: set[Poll] = set()
        self.prepared: FrameSet | None = None
        self.sent_at = -inf  # trio's clock, when its viewers were last sent something
        self.warm = False  # somebody has been watching since it was read last: `prepared` is a tick old at most

    @property
    def is_watched(self) -> bool:
        return bool(self.polls) or any(self.subscribers.values())

    def drop(self, one: Viewer | Poll) -> None:
        if isinstance(one, Poll):
            self.polls.discard(one)
        else:
            for subscribers in self.subscribers.values():
                subscribers.discard(one)
        self.warm = self.warm and self.is_watched


class Hub:
    """All viewers of this node."""

    __slots__ = ("_caught_up", "_users", "_viewers", "_watches", "closing", "spent")

    def __init__(self, boards: Iterable[str]) -> None:
        """`boards`: the ids of every board that there is; an unknown one can't be subscribed to."""
        self._watches = {board: BoardChannel() for board in boards}
        self._viewers: set[Viewer] = set()
        self._users: dict[UUID, set[Viewer]] = {}
        self._caught_up = self._catch_up  # one method object for all viewers
        self.closing = False  # `leaving` has begun: who comes now is sent away at once
        self.spent = 0.0  # seconds that fan-outs took since the batcher set it to 0: those of a tick, of all boards

    # ---- who is there -----------------------------------------------------------------------------------------------

    def join(self, viewer: Viewer) -> None:
        """From now on it gets personal events (once identified) and what it subscribes to."""
        self._viewers.add(viewer)
        viewer.catch_up = self._caught_up
        viewer.socket.on_writable = viewer.drained

    def leave(self, viewer: Viewer) -> None:
        """Forgets it, whatever it had. Idempotent."""
        self._viewers.discard(viewer)
        for watch in self._watches.values():
            watch.drop(viewer)
        if viewer.user is not None:
            others = self._users.get(viewer.user, set())
            others.discard(viewer)
            if not others:
                self._users.pop(viewer.user, None)

    def identify(self, viewer: Viewer, user: UUID, sid: UUID) -> None:
        """The viewer is this user (for good: another user's token ends a connection) in this session."""
        viewer.user, viewer.sid = user, sid
        self._users.setdefault(user, set()).add(viewer)

    def knows(self, board: str) -> bool:
        return board in self._watches

    def subscribe(self, viewer: Viewer, board: str, *, delta: bool = False, since: str = "") -> bool:
        """It listens to the board, in this form only, as if nothing of it had been handed over yet but, if given, the
        position `since`.

        True when nobody has been listening: what is shown may be out of date.
        """
        watch = self._watches[board]
        for subscribers in watch.subscribers.values():
            subscribers.discard(viewer)
        watch.subscribers[FrameFormat(viewer.wrap, delta)].add(viewer, since if 0 < len(since) <= SINCE_LENGTH else 0)
        return not watch.warm

    def unsubscribe(self, viewer: Viewer, board: str) -> None:
        self._watches[board].drop(viewer)

    def wait(self, poll: Poll, board: str) -> bool:
        """The poll is woken whenever the board has new frames, until `forget`. True as for `subscribe`."""
        self._watches[board].polls.add(poll)
        return not self.is_warm(board)

    def forget(self, poll: Poll, board: str) -> None:
        self._watches[board].drop(poll)

    def is_warm(self, board: str) -> bool:
        """Whether somebody has been listening, so that what is shown is a tick old at most."""
        return self._watches[board].warm

    def watched(self) -> list[str]:
        """The boards that somebody listens to."""
        return [board for board, watch in self._watches.items() if watch.is_watched]

    def subscribers(self) -> set[Viewer]:
        """Everyone who listens to a board; polls left out."""
        return {
            viewer
            for watch in self._watches.values()
            for subscribers in watch.subscribers.values()
            for viewer in subscribers
        }

    def audience(self) -> int:
        """How many watch here, waiting polls included."""
        return len(self.subscribers()) + sum(len(watch.polls) for watch in self._watches.values())

    def shown(self, board: str) -> Snapshot | None:
        """What its viewers were given last."""
        prepared = self._watches[board].prepared
        return prepared.snapshot if prepared else None

    def prepared(self, board: str) -> FrameSet | None:
        """The same with its frames."""
        return self._watches[board].prepared

    def __len__(self) -> int:
        return len(self._viewers)

    # ---- one viewer -------------------------------------------------------------------------------------------------

    def tell(self, viewer: Viewer, message: bytes) -> None:
        """Sends it one message, wrapped for its transport, behind those that still wait for its socket."""
        if viewer.pending is not None:
            viewer.pending.append(message)
        elif not viewer.socket.send_now(message):
            viewer.pending = deque((message,), maxlen=PENDING)

    def hand(self, viewer: Viewer, board: str) -> None:
        """Gives it the board's newest frames, unless it has them, gets them with its group, or has events to take
        first."""
        watch = self._watches[board]
        if watch.prepared is not None:
            for subscribers in watch.subscribers.values():
                subscribers.hand(viewer, watch.prepared)

    def _catch_up(self, viewer: Viewer) -> None:
        """Its socket has room again, or the one who held it has let go: what waits, then whatever is newest of its
        boards."""
        if viewer.pending is not None:
            if not viewer.socket.send_now(b"".join(viewer.pending)):
                return  # asked again when it has drained
            viewer.pending = None
        for board in self._watches:
            self.hand(viewer, board)

    # ---- everyone ---------------------------------------------------------------------------------------------------

    async def show(self, board: str, snapshot: Snapshot, changed_at: float | None = None) -> bool:
        """Hands a board's viewers what is new in a snapshot, if anything is: then True.

        `changed_at`: monotonic seconds of the oldest change in it, from which the push lag is measured; None: not
        known, not measured. Returns when each was written to or found unable to take it. One call a board at a time.
        Cancelling leaves some viewers with older frames, and the next call brings them the newest.
        """
        watch = self._watches[board]
        watch.warm = watch.is_watched
        prepared = prepare(watch.prepared, snapshot)
        if prepared is None:
            return False
        watch.prepared = prepared  # first of all: who joins during the loops below is handed this
        begun, count = monotonic(), 0
        for portion in chain(
            *(subscribers.hand_all(prepared) for subscribers in watch.subscribers.values()), _wake(watch.polls)
        ):
            count += portion
            if count >= YIELD_EVERY:
                count = 0
                _measure(changed_at)
                await trio.lowlevel.checkpoint()
        _measure(changed_at)
        watch.sent_at = trio.current_time()
        self.spent += monotonic() - begun
        return True

    def personal(self, update: Update) -> None:
        """Tells users what their actions gave, on each of their connections here, whatever these are subscribed to."""
        for one in update.personal:
            viewers = self._users.get(one.user)
            if viewers:
                message = wire.personal(one.previous, one.new, one.points, one.rank, update.position, one.at_ms)
                for viewer in viewers:
                    # no id: of the board it has what it had before
                    self.tell(viewer, viewer.wrap(Event.PERSONAL, message, ""))
                log.debug("score_pushed", request_id=one.request_id, connections=len(viewers))

    async def count_viewers(self, count: int) -> None:
        """Tells subscribers how many watch on all nodes, unless they know. Who is behind is told another time; one call
        at a time."""
        messages: dict[wire.Encoding, bytes] = {}
        for written, viewer in enumerate(self.subscribers(), 1):
            if viewer.told != count and viewer.pending is None:
                message = messages.get(viewer.wrap)
                if message is None:
                    message = messages[viewer.wrap] = viewer.wrap(Event.VIEWERS, wire.viewers(count), "")
                if viewer.socket.send_now(message):
                    viewer.told = count
            if not written % YIELD_EVERY:
                await trio.lowlevel.checkpoint()

    async def send_heartbeats(self, quiet_seconds: float) -> None:
        """Sends a heartbeat to those who asked for it, of each board of which nothing was sent for so long. Who is
        behind needs none."""
        for watch in self._watches.values():
            if trio.current_time() - watch.sent_at < quiet_seconds:
                continue
            watch.sent_at = trio.current_time()
            viewers = [
                viewer for subscribers in watch.subscribers.values() for viewer in subscribers if viewer.wants_heartbeat
            ]
            for written, viewer in enumerate(viewers, 1):
                if viewer.pending is None:
                    viewer.socket.send_now(wire.HEARTBEAT if viewer.wrap is wire.event_stream else wire.HEARTBEAT_FRAME)
                if not written % YIELD_EVERY:
                    await trio.lowlevel.checkpoint()

    def revoke(self, sid: UUID) -> None:
        """Ends every connection of a session that was ended."""
        for viewer in [viewer for viewer in self._viewers if viewer.sid == sid]:
            viewer.end(CloseCode.TOKEN)

    async def leaving(self) -> None:
        """Tells everyone to reconnect elsewhere (1012), spread over a second. Returns when all were told, not when they
        have gone."""
        self.closing = True
        everyone: list[Viewer | Poll] = [
            *self._viewers,
            *(poll for watch in self._watches.values() for poll in watch.polls),
        ]
        for step in range(LEAVING_STEPS):
            portion = everyone[step::LEAVING_STEPS]
            if not portion:
                break  # fewer viewers than portions: no need to take the whole second
            for one in portion:
                one.end(CloseCode.RESTART)
            await trio.sleep(LEAVING_SECONDS / LEAVING_STEPS)


def _wake(polls: set[Poll]) -> Iterator[int]:
    """Wakes all who wait, and yields after each."""
    for poll in tuple(polls):
        poll.wake()
        yield 1


def _measure(changed_at: float | None) -> None:
    """Once a portion of writes, for its last viewer: measuring each would cost as much as the write."""
    if changed_at is not None:
        metrics.PUSH_LAG.observe(max(0.0, monotonic() - changed_at))
