"""A client's board, and the two ways to change it. Pure.

`apply_update` takes the whole board of a `leaderboard:update`, `apply_delta` the changed rows of a `leaderboard:delta`,
which fit one position only. The result is exactly the server's board at its position, or None.
"""

import msgspec

from scoreboard.domain.boards import Entry


class Update(msgspec.Struct, frozen=True):
    """Data of `leaderboard:update`. Who moved (`changedPositions`) follows from the board before, so it is not read."""

    leaderboard: tuple[Entry, ...]
    position: str
    timestamp: str = ""


class Row(msgspec.Struct, frozen=True):
    """A changed row of a delta; `previousRank` None: it was not shown."""

    userId: str
    username: str
    score: int
    rank: int
    previousRank: int | None = None
    avatarUrl: str | None = None


class Delta(msgspec.Struct, frozen=True):
    """Data of `leaderboard:delta`: what turns the board at `previousPosition` into the one at `position`."""

    position: str
    previousPosition: str
    changed: tuple[Row, ...] = ()
    removed: tuple[str, ...] = ()
    timestamp: str = ""


class Board(msgspec.Struct, frozen=True):
    """The shown rows (at most ten) in rank order.

    `position` is opaque and names this content, on every node alike; "" before the first frame. `timestamp` (RFC 3339,
    UTC) is when it became so.
    """

    position: str = ""
    entries: tuple[Entry, ...] = ()
    timestamp: str = ""

    def apply_update(self, update: Update) -> "Board":
        """The whole board of an update, which replaces this one."""
        return Board(update.position, update.leaderboard, update.timestamp)

    def apply_delta(self, delta: Delta) -> "Board | None":
        """The board after the delta; this one if it is there already; None on a gap: the delta starts elsewhere, or
        doesn't fit."""
        if delta.previousPosition != self.position:
            return self if delta.position == self.position else None
        rows = {entry.userId: entry for entry in self.entries}
        for user in delta.removed:
            if rows.pop(user, None) is None:
                return None
        for row in delta.changed:
            rows[row.userId] = Entry(
                rank=row.rank, userId=row.userId, username=row.username, score=row.score, avatarUrl=row.avatarUrl
            )
        entries = tuple(sorted(rows.values(), key=lambda entry: entry.rank))
        if any(entry.rank != rank for rank, entry in enumerate(entries, 1)):
            return None  # ranks are exact and unique, so the delta does not fit
        return Board(delta.position, entries, delta.timestamp)
