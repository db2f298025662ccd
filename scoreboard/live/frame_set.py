"""What the viewers of a board are sent next. Each format is encoded once for all its viewers, and only if it has any.

A format is a transport's bytes (WebSocket frame, Server-Sent event) of whole boards or of deltas. A long poll has a
body of its own. Everything is encoded from a snapshot, which names its board. No I/O and no clock. The hub makes one
`FrameSet` for each published snapshot.
"""

from collections.abc import Callable
from typing import NamedTuple

from scoreboard.domain import framing, protocol
from scoreboard.domain.boards import Snapshot
from scoreboard.domain.deltas import Comparison, PositionHistory, changed_positions, compare
from scoreboard.domain.framing import Encoding
from scoreboard.domain.protocol import Event

MAX_SINCE_LENGTH = 64  # characters; no position of ours is longer


class FrameFormat(NamedTuple):
    """How a viewer is sent a board."""

    encode: Encoding
    delta: bool


FORMATS = tuple(
    FrameFormat(encode, delta) for encode in (framing.websocket, framing.event_stream) for delta in (False, True)
)

EncodeFormat = Callable[[FrameFormat], bytes]

LastSent = int | str
"""What a viewer has of a board: the serial of the frames that it was sent last, 0 for none yet; or the position that it
says it has."""


class FrameSet:
    """A board's newest frames. `update` is for viewers that were sent the previous frames (`serial` − 1), `catch_up`
    for all others."""

    __slots__ = (
        "_comparison",
        "_encoded",
        "_poll_body",
        "_previous_position",
        "_whole",
        "history",
        "position",
        "serial",
        "snapshot",
    )

    def __init__(
        self, snapshot: Snapshot, previous: "FrameSet | None" = None, comparison: Comparison | None = None
    ) -> None:
        """`comparison`: with the rows of `previous`."""
        self.serial: int = previous.serial + 1 if previous else 1  # counts a board's frames on this node, from 1
        self.snapshot = snapshot
        self.position = protocol.position(snapshot)
        self._previous_position = previous.position if previous else ""
        self._comparison = comparison or Comparison()
        # Three boards are sent whole in every format: a stale one, which the stale event follows; the one that ends it;
        # and another position of the same rows, since a delta that changes nothing is never sent.
        self._whole = previous is None or snapshot.stale or previous.snapshot.stale or self._comparison.same
        # One history for a board: each frame set gets it from the previous one.
        self.history: PositionHistory = previous.history if previous else PositionHistory()
        self.history.remember(self.position, snapshot.shown)
        # Bound: formats × the positions that the history keeps. It goes with the frame set, a tick later.
        self._encoded: dict[tuple[FrameFormat, LastSent], bytes] = {}
        self._poll_body: bytes | None = None

    def update(self, frame_format: FrameFormat) -> bytes:
        """What changed since the previous frames."""
        if self.serial == 1:
            return self.catch_up(frame_format, 0)  # there are no previous frames
        if frame_format.delta and not self._whole:
            return self._cached(frame_format, self.serial, self._encode_delta)
        return self._cached(frame_format._replace(delta=False), self.serial, self._encode_update)

    def catch_up(self, frame_format: FrameFormat, last_sent: LastSent) -> bytes:
        """What a viewer lacks that was sent `last_sent`: nothing, or the difference from a position that the history
        has; else the whole board.

        The whole board names no changed positions: they would be relative to what this viewer has not seen.
        """
        if (
            isinstance(last_sent, str)
            and not self.snapshot.stale
            and (rows := self.history.find(last_sent)) is not None
        ):
            if last_sent == self.position:
                return b""
            if frame_format.delta and not (comparison := compare(rows, self.snapshot.shown)).same:
                return self._cached(
                    frame_format,
                    last_sent,
                    lambda frame_format: self._encode_difference(frame_format, last_sent, comparison),
                )
        return self._cached(frame_format._replace(delta=False), 0, self._encode_whole)

    @property
    def poll_body(self) -> bytes:
        """The body of a long poll's answer."""
        if self._poll_body is None:
            self._poll_body = protocol.polled(self.snapshot)
        return self._poll_body

    def _cached(self, frame_format: FrameFormat, last_sent: LastSent, encode: EncodeFormat) -> bytes:
        encoded = self._encoded.get((frame_format, last_sent))
        if encoded is None:
            encoded = self._encoded[frame_format, last_sent] = encode(frame_format)
        return encoded

    def _encode_update(self, frame_format: FrameFormat) -> bytes:
        return self._encode_board(frame_format, protocol.update(self.snapshot, changed_positions(self._comparison)))

    def _encode_whole(self, frame_format: FrameFormat) -> bytes:
        return self._encode_board(frame_format, protocol.update(self.snapshot, ()))

    def _encode_board(self, frame_format: FrameFormat, payload: bytes) -> bytes:
        frame = frame_format.encode(Event.UPDATE, payload, self.position)
        if not self.snapshot.stale:
            return frame
        return frame + frame_format.encode(
            Event.STALE, protocol.stale(self.snapshot.board, self.snapshot.stale_since_ms), ""
        )

    def _encode_delta(self, frame_format: FrameFormat) -> bytes:
        return self._encode_difference(frame_format, self._previous_position, self._comparison)

    def _encode_difference(self, frame_format: FrameFormat, previous_position: str, comparison: Comparison) -> bytes:
        return frame_format.encode(
            Event.DELTA, protocol.delta(previous_position, comparison, self.snapshot), self.position
        )


def next_frame_set(previous: FrameSet | None, snapshot: Snapshot) -> FrameSet | None:
    """The next frames. None when there is nothing to send: the shown rows and their position are the same, or the
    snapshot is an older one.

    A stale board may change though its version stays. The stale event follows each of its updates, so an update alone
    says that the board is live.
    """
    if previous is None:
        return FrameSet(snapshot)
    published = previous.snapshot
    if not snapshot.stale and (snapshot.epoch, snapshot.shown_version) < (published.epoch, published.shown_version):
        return None  # two reads overtook each other
    comparison = compare(published.shown, snapshot.shown)
    if comparison.same and snapshot.position == published.position and snapshot.stale == published.stale:
        return None
    return FrameSet(snapshot, previous, comparison)
