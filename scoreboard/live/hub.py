"""Who listens to which board, what they were handed, and the one loop that writes to all of them.

Transports register a `Viewer` each; the batcher calls `show` with a board's newest snapshot, the reader `personal` and `revoke`. Nothing
here waits for a socket: bytes go out by `send_now`, and whoever could not take them is handed what is newest when the socket has drained.
Every method but `show` and `leaving` is synchronous, so atomic.
"""

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from uuid import UUID

import structlog
import trio

from scoreboard.domain import wire
from scoreboard.domain.boards import Snapshot
from scoreboard.domain.wire import CloseCode
from scoreboard.live.prepared import Prepared, prepare
from scoreboard.runtime import observe
from scoreboard.runtime.sockets import Socket
from scoreboard.storage.bus import Update

YIELD_EVERY = 256  # writes, about 2 ms: how long a fan-out may hold the loop that also answers HTTP
PENDING = 16  # events that wait for a viewer's socket, about 4 KiB; full: the oldest goes, the newest scores count
LEAVING_SECONDS = 1.0  # design: good-byes are spread over this, so that the other nodes are not asked by all at once
LEAVING_STEPS = 20  # good-byes go out in so many portions

log = structlog.get_logger()


class Viewer:
    """One connection. Made by its transport, which calls `Hub.join` and, in the end, `Hub.leave`.

    `end` closes the connection with a code, without waiting; it may be called more than once.
    """

    __slots__ = ("end", "pending", "sid", "socket", "user")

    def __init__(self, socket: Socket, end: Callable[[CloseCode], None]) -> None:
        self.socket = socket
        self.end = end
        self.user: UUID | None = None  # None: anonymous
        self.sid: UUID | None = None
        self.pending: deque[bytes] | None = None  # frames that the socket did not take, in order; None: none (most viewers, always)


class _Watch:
    """One board's viewers, each with the serial of the frames that it was handed last, and the newest frames."""

    __slots__ = ("prepared", "viewers")

    def __init__(self) -> None:
        self.viewers: dict[Viewer, int] = {}
        self.prepared: Prepared | None = None


class Hub:
    """All viewers of this node."""

    __slots__ = ("_users", "_viewers", "_watches", "closing", "spent")

    def __init__(self, boards: Iterable[str]) -> None:
        """`boards`: the ids of every board that there is; an unknown one can't be subscribed to."""
        self._watches = {board: _Watch() for board in boards}
        self._viewers: set[Viewer] = set()
        self._users: dict[UUID, set[Viewer]] = {}
        self.closing = False  # `leaving` has begun: who comes now is sent away at once
        self.spent = 0.0  # seconds that the last fan-out took

    # ---- who is there -----------------------------------------------------------------------------------------------

    def join(self, viewer: Viewer) -> None:
        """From now on it gets personal events (once identified) and what it subscribes to."""
        self._viewers.add(viewer)
        viewer.socket.drained = lambda _socket: self._catch_up(viewer)

    def leave(self, viewer: Viewer) -> None:
        """Forgets it, whatever it had. Idempotent."""
        self._viewers.discard(viewer)
        for watch in self._watches.values():
            watch.viewers.pop(viewer, None)
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

    def subscribe(self, viewer: Viewer, board: str) -> bool:
        """It listens to the board, as if nothing of it had been handed over yet. True when it is the only one: the board may not be up
        to date."""
        watch = self._watches[board]
        watch.viewers[viewer] = 0
        return len(watch.viewers) == 1

    def unsubscribe(self, viewer: Viewer, board: str) -> None:
        self._watches[board].viewers.pop(viewer, None)

    def watched(self) -> list[str]:
        """The boards that somebody listens to."""
        return [board for board, watch in self._watches.items() if watch.viewers]

    def shown(self, board: str) -> Snapshot | None:
        """What its viewers were given last."""
        prepared = self._watches[board].prepared
        return prepared.snapshot if prepared else None

    def __len__(self) -> int:
        return len(self._viewers)

    # ---- one viewer -------------------------------------------------------------------------------------------------

    def tell(self, viewer: Viewer, frame: bytes) -> None:
        """Sends it one event, behind those that still wait for its socket."""
        if viewer.pending is not None:
            viewer.pending.append(frame)
        elif not viewer.socket.send_now(frame):
            viewer.pending = deque((frame,), maxlen=PENDING)

    def hand(self, viewer: Viewer, board: str) -> None:
        """Gives it the board's newest frames, unless it has them, or has events to take first."""
        watch = self._watches[board]
        prepared, handed = watch.prepared, watch.viewers.get(viewer)
        if prepared is None or handed is None or handed == prepared.serial or viewer.pending is not None:
            return
        if viewer.socket.send_now(prepared.update if handed == prepared.serial - 1 else prepared.current):
            watch.viewers[viewer] = prepared.serial

    def _catch_up(self, viewer: Viewer) -> None:
        """Its socket has room again, or the one who held it has let go: what waits, then whatever is newest of its boards."""
        if viewer.pending is not None:
            if not viewer.socket.send_now(b"".join(viewer.pending)):
                return  # asked again when it has drained
            viewer.pending = None
        for board, watch in self._watches.items():
            if viewer in watch.viewers:
                self.hand(viewer, board)

    # ---- everyone ---------------------------------------------------------------------------------------------------

    async def show(self, board: str, snapshot: Snapshot, changed_at: float | None = None) -> bool:
        """Hands a board's viewers what is new in a snapshot, if anything is: then True.

        `changed_at`: monotonic seconds of the oldest change in it, from which the push lag is measured; None: not known, not measured.
        Returns when each was written to or found unable to take it. One call a board at a time. Cancelling leaves some viewers with older
        frames, and the next call brings them the newest.
        """
        watch = self._watches[board]
        prepared = prepare(watch.prepared, snapshot)
        if prepared is None:
            return False
        watch.prepared = prepared  # first of all: who joins during the loop below is handed this
        begun = monotonic()
        viewers, serial, update = watch.viewers, prepared.serial, prepared.update
        for count, viewer in enumerate(list(viewers), 1):
            handed = viewers.get(viewer)  # None: left meanwhile; serial: joined or drained meanwhile
            wants = handed is not None and handed != serial and viewer.pending is None
            if wants and viewer.socket.send_now(update if handed == serial - 1 else prepared.current):
                viewers[viewer] = serial
            if not count % YIELD_EVERY:
                _measure(changed_at)
                await trio.lowlevel.checkpoint()
        _measure(changed_at)
        self.spent = monotonic() - begun
        return True

    def personal(self, update: Update) -> None:
        """Tells users what their actions gave, on each of their connections here, whatever these are subscribed to."""
        for one in update.personal:
            viewers = self._users.get(one.user)
            if viewers:
                frame = wire.text_frame(wire.personal(one.previous, one.new, one.points, one.rank, update.position, one.at_ms))
                for viewer in viewers:
                    self.tell(viewer, frame)
                log.debug("score_pushed", request_id=one.request_id, connections=len(viewers))

    def revoke(self, sid: UUID) -> None:
        """Ends every connection of a session that was ended."""
        for viewer in [viewer for viewer in self._viewers if viewer.sid == sid]:
            viewer.end(CloseCode.TOKEN)

    async def leaving(self) -> None:
        """Tells everyone to reconnect elsewhere (1012), spread over a second. Returns when all were told, not when they have gone."""
        self.closing = True
        viewers = list(self._viewers)
        for step in range(LEAVING_STEPS):
            portion = viewers[step::LEAVING_STEPS]
            if not portion:
                break  # fewer viewers than portions: no need to take the whole second
            for viewer in portion:
                viewer.end(CloseCode.RESTART)
            await trio.sleep(LEAVING_SECONDS / LEAVING_STEPS)


def _measure(changed_at: float | None) -> None:
    """Once a portion of writes, for its last viewer: measuring each would cost as much as the write."""
    if changed_at is not None:
        observe.PUSH_LAG.observe(max(0.0, monotonic() - changed_at))
