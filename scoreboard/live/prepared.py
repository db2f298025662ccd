"""What the viewers of a board are sent next, encoded once for all of them. Pure; asked by the hub once a tick."""

from scoreboard.domain import wire
from scoreboard.domain.boards import Snapshot
from scoreboard.domain.deltas import changed_positions, compare


class Prepared:
    """A board's newest frames. `update` is for viewers who were handed the frames before (`serial` − 1), `current` for all others."""

    __slots__ = ("_current", "serial", "snapshot", "update")

    def __init__(self, serial: int, snapshot: Snapshot, update: bytes | None) -> None:
        self.serial = serial  # counts a board's frames on this node, from 1; a viewer's 0 = nothing yet
        self.snapshot = snapshot
        self._current: bytes | None = None
        self.update = update or self.current

    @property
    def current(self) -> bytes:
        """The whole board, changed positions left out: they would be relative to what this viewer has not seen."""
        if self._current is None:
            self._current = wire.text_frame(wire.update(self.snapshot, ())) + _stale(self.snapshot)
        return self._current


def prepare(before: Prepared | None, snapshot: Snapshot) -> Prepared | None:
    """The next frames; None when there is nothing to tell: the shown rows and their position are the same, or the snapshot is an older one.

    A stale board keeps its last position and may change under it; each of its updates is followed by the stale event, so that an update
    alone says that the board is live.
    """
    if before is None:
        return Prepared(1, snapshot, None)
    shown = before.snapshot
    if not snapshot.stale and (snapshot.epoch, snapshot.top) < (shown.epoch, shown.top):
        return None  # two reads overtook each other
    comparison = compare(shown.shown, snapshot.shown)
    if comparison.same and snapshot.position == shown.position and snapshot.stale == shown.stale:
        return None
    update = wire.text_frame(wire.update(snapshot, changed_positions(comparison))) + _stale(snapshot)
    return Prepared(before.serial + 1, snapshot, update)


def _stale(snapshot: Snapshot) -> bytes:
    return wire.text_frame(wire.stale(snapshot.stale_since_ms)) if snapshot.stale else b""
