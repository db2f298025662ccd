"""The viewers of this node and their subscriptions, and the one loop that sends new boards to all subscribers.

Transports add a `Viewer` or a `Poll` each. The batcher calls `publish` with a board's newest snapshot, the
subscription `send_personal` and `close_session`. Nothing here waits for a socket (see fan_out). Every method that does
not await is atomic. A board is a value, and each has its own `BoardChannel`, independent of the others.

The contract of what a viewer gets:

1. `published(board)` is the snapshot that `publish` was given last, if anything was new in it. It changes before the
   first write. So a viewer that subscribes during a broadcast gets the new one, once.
2. A new subscriber gets the published board whole, by `send_latest`. With `since` it gets nothing if that is the
   published position; in delta mode it gets the difference if the history has the position.
3. After that it gets each published board once, and never an older one after a newer one.
4. A viewer whose socket can't take a board is skipped. When its socket is writable again it gets the newest board,
   whole, in delta mode too. If it missed only the newest one, it gets that one as the others did.
5. Events keep the order in which `send` was called. Events that wait go out before any board.
6. `is_current(board)`: `publish` was called since the board has been watched without a break, so what is published is a
   tick old at most. If not, the caller has the board read before it calls `send_latest`.

Bounds: MAX_PENDING_EVENTS events wait for a viewer's socket; when full, the oldest goes, since the newest scores
count. Boards are never queued. The number of viewers is bounded by admission.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from math import inf
from time import monotonic
from uuid import UUID

import structlog
import trio

from scoreboard.domain import framing, protocol
from scoreboard.domain.boards import Board, Snapshot
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.protocol import Event
from scoreboard.live.fan_out import Subscribers
from scoreboard.live.frame_set import FORMATS, MAX_SINCE_LENGTH, FrameFormat, FrameSet, next_frame_set
from scoreboard.live.viewer import Poll, Viewer
from scoreboard.storage.bus import Rejected, Update
from scoreboard.telemetry import metrics

# Writes, in whole portions, about 2 ms; or answers to polls, about 5 ms. Then other tasks run.
WRITES_PER_CHECKPOINT = 256
MAX_PENDING_EVENTS = 16  # for one viewer, about 4 KiB
SHUTDOWN_SECONDS = 1.0  # closes are spread over this, so that not all viewers reconnect to the other nodes at once
SHUTDOWN_STEPS = 20  # portions of closes

log = structlog.get_logger()


class BoardChannel:
    """One board: its subscribers by format, its polls, its newest frames."""

    __slots__ = ("board", "frame_set", "is_current", "polls", "sent_at", "subscribers")

    def __init__(self, board: Board) -> None:
        self.board = board
        self.subscribers = {frame_format: Subscribers(frame_format) for frame_format in FORMATS}
        self.polls: set[Poll] = set()
        self.frame_set: FrameSet | None = None
        self.sent_at = -inf  # trio's clock, when its subscribers were last sent something
        self.is_current = False  # rule 6

    @property
    def is_watched(self) -> bool:
        return bool(self.polls) or any(self.subscribers.values())

    def viewers(self) -> Iterator[Viewer]:
        return chain(*self.subscribers.values())

    def discard(self, viewer: Viewer) -> None:
        for subscribers in self.subscribers.values():
            subscribers.discard(viewer)
        self.is_current = self.is_current and self.is_watched

    def discard_poll(self, poll: Poll) -> None:
        self.polls.discard(poll)
        self.is_current = self.is_current and self.is_watched

    def send_latest(self, viewer: Viewer) -> None:
        if self.frame_set is not None:
            for subscribers in self.subscribers.values():
                subscribers.send_latest(viewer, self.frame_set)


class Hub:
    """All viewers of this node."""

    __slots__ = ("_channels", "_users", "_viewers", "broadcast_seconds", "is_shutting_down")

    def __init__(self, boards: Iterable[Board]) -> None:
        """`boards`: every board that can be subscribed to."""
        self._channels = {board.id: BoardChannel(board) for board in boards}
        self._viewers: set[Viewer] = set()
        self._users: dict[UUID, set[Viewer]] = {}
        self.is_shutting_down = False  # new connections are closed at once
        self.broadcast_seconds = 0.0  # of all boards since the last tick, when the batcher set it to 0

    # ---- viewers and subscriptions ----------------------------------------------------------------------------------

    def add(self, viewer: Viewer) -> None:
        """From now on it gets personal events (once identified) and what it subscribes to."""
        self._viewers.add(viewer)
        viewer.hub = self
        viewer.socket.on_writable = viewer.on_writable

    def remove(self, viewer: Viewer) -> None:
        """Ends its subscriptions; it gets no event any more. Idempotent."""
        self._viewers.discard(viewer)
        for channel in self._channels.values():
            channel.discard(viewer)
        if viewer.user is not None:
            others = self._users.get(viewer.user, set())
            others.discard(viewer)
            if not others:
                self._users.pop(viewer.user, None)

    def identify(self, viewer: Viewer, user: UUID, sid: UUID) -> None:
        """The viewer is this user (for good: another user's token ends a connection) in this session."""
        viewer.user, viewer.sid = user, sid
        self._users.setdefault(user, set()).add(viewer)

    def find_board(self, name: str) -> Board | None:
        """The board whose channel has this name."""
        channel = self._channels.get(name)
        return channel.board if channel is not None else None

    def subscribe(self, viewer: Viewer, board: Board, *, delta: bool = False, since: str = "") -> bool:
        """It gets the board from now on, in this format only. It counts as sent nothing of it, or the position `since`.

        True: the board is not current, so it must be read before `send_latest`.
        """
        channel = self._channels[board.id]
        for subscribers in channel.subscribers.values():
            subscribers.discard(viewer)
        last_sent = since if 0 < len(since) <= MAX_SINCE_LENGTH else 0
        channel.subscribers[FrameFormat(viewer.encode, delta)].add(viewer, last_sent)
        return not channel.is_current

    def unsubscribe(self, viewer: Viewer, board: Board) -> None:
        self._channels[board.id].discard(viewer)

    def add_poll(self, poll: Poll, board: Board) -> bool:
        """The poll is called whenever the board has new frames, until `remove_poll`. Returns the same as
        `subscribe`."""
        channel = self._channels[board.id]
        channel.polls.add(poll)
        return not channel.is_current

    def remove_poll(self, poll: Poll, board: Board) -> None:
        self._channels[board.id].discard_poll(poll)

    def is_current(self, board: Board) -> bool:
        """Whether what is published is a tick old at most."""
        return self._channels[board.id].is_current

    def watched_boards(self) -> list[Board]:
        """The boards that have subscribers or polls."""
        return [channel.board for channel in self._channels.values() if channel.is_watched]

    def subscribers(self) -> set[Viewer]:
        """All viewers that subscribed to a board; polls left out."""
        return {viewer for channel in self._channels.values() for viewer in channel.viewers()}

    def viewer_count(self) -> int:
        """How many watch here, waiting polls included."""
        return len(self.subscribers()) + sum(len(channel.polls) for channel in self._channels.values())

    def published(self, board: Board) -> Snapshot | None:
        """What the board's subscribers were sent last (rule 1)."""
        frame_set = self._channels[board.id].frame_set
        return frame_set.snapshot if frame_set else None

    def frame_set(self, board: Board) -> FrameSet | None:
        """The same with its frames."""
        return self._channels[board.id].frame_set

    def __len__(self) -> int:
        return len(self._viewers)

    # ---- one viewer -------------------------------------------------------------------------------------------------

    def send(self, viewer: Viewer, message: bytes) -> None:
        """Sends it one message, encoded for its transport, after those that still wait for its socket."""
        if viewer.pending is not None:
            viewer.pending.append(message)
        elif not viewer.socket.send_now(message):
            viewer.pending = deque((message,), maxlen=MAX_PENDING_EVENTS)

    def send_latest(self, viewer: Viewer, board: Board) -> None:
        """Sends it the board's newest frames, unless it has them, gets them with its batch, or has events that wait."""
        self._channels[board.id].send_latest(viewer)

    def on_writable(self, viewer: Viewer) -> None:
        """Its socket has room again, or another writer has released it: sends the events that wait, then the newest of
        each of its boards."""
        if viewer.pending is not None:
            if not viewer.socket.send_now(b"".join(viewer.pending)):
                return  # called again when the socket is writable
            viewer.pending = None
        for channel in self._channels.values():
            channel.send_latest(viewer)

    # ---- everyone ---------------------------------------------------------------------------------------------------

    async def publish(self, board: Board, snapshot: Snapshot, changed_at: float | None = None) -> bool:
        """Sends a board's subscribers what is new in a snapshot, if anything is: then True.

        `changed_at`: monotonic seconds of the oldest change in it, from which the push lag is measured. None: it is not
        known, and not measured. Returns when each viewer was written to or was skipped. One call a board at a time.
        Cancelling leaves some viewers with older frames, and the next call sends them the newest.
        """
        channel = self._channels[board.id]
        channel.is_current = channel.is_watched
        frame_set = next_frame_set(channel.frame_set, snapshot)
        if frame_set is None:
            return False
        channel.frame_set = frame_set  # before any write: rule 1
        begun, count = monotonic(), 0
        for portion in chain(
            *(subscribers.broadcast(frame_set) for subscribers in channel.subscribers.values()),
            _notify_polls(channel.polls),
        ):
            count += portion
            if count >= WRITES_PER_CHECKPOINT:
                count = 0
                _measure_lag(changed_at)
                await trio.lowlevel.checkpoint()
        _measure_lag(changed_at)
        channel.sent_at = trio.current_time()
        self.broadcast_seconds += monotonic() - begun
        return True

    def send_personal(self, board: Board, update: Update) -> None:
        """Sends users what their actions gave on a board, on each of their connections here, whatever those subscribed
        to."""
        channel = board.id
        for one in update.personal:
            viewers = self._users.get(one.user)
            if viewers:
                message = protocol.personal(
                    channel, one.previous, one.new, one.points, one.rank, update.position, one.at_ms
                )
                for viewer in viewers:
                    # no id: what the viewer has of the board is the same as before
                    self.send(viewer, viewer.encode(Event.PERSONAL, message, ""))
                log.debug("score_pushed", board=channel, request_id=one.request_id, connections=len(viewers))

    def send_rejected(self, rejected: Rejected) -> None:
        """Sends a user, on each connection here, that an action was refused after it had waited for a decision."""
        viewers = self._users.get(rejected.user)
        if viewers:
            message = protocol.rejected(rejected.action_id, rejected.action_type, rejected.reason)
            for viewer in viewers:
                self.send(viewer, viewer.encode(Event.REJECTED, message, ""))

    async def send_viewer_count(self, count: int) -> None:
        """Sends subscribers how many watch on all nodes, unless they were sent that number. A viewer that is behind is
        skipped this time. One call at a time."""
        messages: dict[framing.Encoding, bytes] = {}
        for written, viewer in enumerate(self.subscribers(), 1):
            if viewer.last_viewer_count != count and viewer.pending is None:
                message = messages.get(viewer.encode)
                if message is None:
                    message = messages[viewer.encode] = viewer.encode(Event.VIEWERS, protocol.viewers(count), "")
                if viewer.socket.send_now(message):
                    viewer.last_viewer_count = count
            if not written % WRITES_PER_CHECKPOINT:
                await trio.lowlevel.checkpoint()

    async def send_heartbeats(self, quiet_seconds: float) -> None:
        """Sends a heartbeat to the viewers that want one, of each board that sent nothing for `quiet_seconds`. A viewer
        that is behind is skipped."""
        for channel in self._channels.values():
            if trio.current_time() - channel.sent_at < quiet_seconds:
                continue
            channel.sent_at = trio.current_time()
            viewers = [viewer for viewer in channel.viewers() if viewer.wants_heartbeat]
            for written, viewer in enumerate(viewers, 1):
                if viewer.pending is None:
                    is_stream = viewer.encode is framing.event_stream
                    viewer.socket.send_now(framing.HEARTBEAT_COMMENT if is_stream else framing.HEARTBEAT_FRAME)
                if not written % WRITES_PER_CHECKPOINT:
                    await trio.lowlevel.checkpoint()

    def close_session(self, sid: UUID) -> None:
        """Closes every connection of a session that was ended."""
        for viewer in [viewer for viewer in self._viewers if viewer.sid == sid]:
            viewer.close(CloseCode.TOKEN)

    async def shut_down(self) -> None:
        """Closes everyone with 1012 (reconnect elsewhere), spread over a second. Returns when each close was begun."""
        self.is_shutting_down = True
        everyone: list[Viewer | Poll] = [
            *self._viewers,
            *(poll for channel in self._channels.values() for poll in channel.polls),
        ]
        for step in range(SHUTDOWN_STEPS):
            portion = everyone[step::SHUTDOWN_STEPS]
            if not portion:
                break  # fewer viewers than steps: no need to take the whole second
            for one in portion:
                one.close(CloseCode.RESTART)
            await trio.sleep(SHUTDOWN_SECONDS / SHUTDOWN_STEPS)


def _notify_polls(polls: set[Poll]) -> Iterator[int]:
    """Calls all polls that wait, and yields after each."""
    for poll in tuple(polls):
        poll.on_frames()
        yield 1


def _measure_lag(changed_at: float | None) -> None:
    """Once a portion, for its last viewer: measuring each would cost as much as the write."""
    if changed_at is not None:
        metrics.PUSH_LAG.observe(max(0.0, monotonic() - changed_at))
