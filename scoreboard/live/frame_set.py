"""What the viewers of a board are sent next, each form encoded once for all who want it, and only if somebody does.

A form is a transport's bytes (WebSocket frame, Server-Sent event) of whole boards or of deltas; a long poll has its
answer. Pure; asked once a tick by those who write them.
"""

from collections.abc import Callable
from typing import NamedTuple

from scoreboard.domain import protocol as wire
from scoreboard.domain.boards import Snapshot
from scoreboard.domain.deltas import Comparison, PositionHistory, changed_positions, compare
from scoreboard.domain.protocol import Encoding, Event

SINCE_LENGTH = 64  # characters; no position of ours is longer


class FrameFormat(NamedTuple):
    """How a viewer is told of a board."""

    wrap: Encoding
    delta: bool


FORMS = tuple(FrameFormat(wrap, delta) for wrap in (wire.websocket, wire.event_stream) for delta in (False, True))

Make = Callable[[FrameFormat], bytes]

Handed = int | str
"""What a viewer has of a board: the serial of the frames that it was handed, 0 for none yet; or the position that it
says it has."""


class FrameSet:
    """A board's newest frames. `update` is for viewers who were handed the frames before (`serial` − 1), `catch_up` for
    all others."""

    __slots__ = ("_answer", "_comparison", "_made", "_previous", "_whole", "position", "recent", "serial", "snapshot")

    def __init__(
        self, snapshot: Snapshot, before: "FrameSet | None" = None, comparison: Comparison | None = None
    ) -> None:
        """`comparison`: with the rows of `before`."""
        self.serial: int = before.serial + 1 if before else 1  # counts a board's frames on this node, from 1
        self.snapshot = snapshot
        self.position = wire.position(snapshot)
        self._previous = before.position if before else ""
        self._comparison = comparison or Comparison()
        # A stale board, and the one that ends it, is told whole in every form, followed by the stale event while it is
        # one. So is another position of the same rows: a delta that changes nothing is never sent.
        self._whole = before is None or snapshot.stale or before.snapshot.stale or self._comparison.same
        self.recent: PositionHistory = (
            before.recent if before else PositionHistory()
        )  # one for a board: handed on from frames to frames
        self.recent.remember(self.position, snapshot.shown)
        self._made: dict[tuple[FrameFormat, Handed], bytes] = {}  # at most a few forms × what PositionHistory remembers
        self._answer: bytes | None = None

    def update(self, form: FrameFormat) -> bytes:
        """What changed since the frames before."""
        if self.serial == 1:
            return self.catch_up(form, 0)  # there were none
        if form.delta and not self._whole:
            return self._kept(form, self.serial, self._delta)
        return self._kept(form._replace(delta=False), self.serial, self._update)

    def catch_up(self, form: FrameFormat, handed: Handed) -> bytes:
        """What a viewer lacks who has `handed`: nothing, or the difference from a position that is remembered; else the
        whole board.

        That tells no changed positions: they would be relative to what this viewer has not seen.
        """
        if isinstance(handed, str) and not self.snapshot.stale and (rows := self.recent.find(handed)) is not None:
            if handed == self.position:
                return b""
            if form.delta and not (comparison := compare(rows, self.snapshot.shown)).same:
                return self._kept(form, handed, lambda form: self._difference(form, handed, comparison))
        return self._kept(form._replace(delta=False), 0, self._current)

    @property
    def answer(self) -> bytes:
        """The body of a long poll's answer."""
        if self._answer is None:
            self._answer = wire.polled(self.snapshot)
        return self._answer

    def _kept(self, form: FrameFormat, handed: Handed, make: Make) -> bytes:
        made = self._made.get((form, handed))
        if made is None:
            made = self._made[form, handed] = make(form)
        return made

    def _update(self, form: FrameFormat) -> bytes:
        return self._board(form, wire.update(self.snapshot, changed_positions(self._comparison)))

    def _current(self, form: FrameFormat) -> bytes:
        return self._board(form, wire.update(self.snapshot, ()))

    def _board(self, form: FrameFormat, payload: bytes) -> bytes:
        board = form.wrap(Event.UPDATE, payload, self.position)
        snapshot = self.snapshot
        return board + form.wrap(Event.STALE, wire.stale(snapshot.stale_since_ms), "") if snapshot.stale else board

    def _delta(self, form: FrameFormat) -> bytes:
        return self._difference(form, self._previous, self._comparison)

    def _difference(self, form: FrameFormat, previous: str, comparison: Comparison) -> bytes:
        return form.wrap(Event.DELTA, wire.delta(previous, comparison, self.snapshot), self.position)


def prepare(before: FrameSet | None, snapshot: Snapshot) -> FrameSet | None:
    """The next frames; None when there is nothing to tell: the shown rows and their position are the same, or the
    snapshot is an older one.

    A stale board may change though its version stays; each of its updates is followed by the stale event, so that an
    update alone says that the board is live.
    """
    if before is None:
        return FrameSet(snapshot)
    shown = before.snapshot
    if not snapshot.stale and (snapshot.epoch, snapshot.top) < (shown.epoch, shown.top):
        return None  # two reads overtook each other
    comparison = compare(shown.shown, snapshot.shown)
    if comparison.same and snapshot.position == shown.position and snapshot.stale == shown.stale:
        return None
    return FrameSet(snapshot, before, comparison)
