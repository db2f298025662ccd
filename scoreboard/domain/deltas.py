"""Compares two reads of a board's shown rows. Pure.

`compare` is called once a tick. The events of both modes are made from its result: the whole board with its changed
positions, or the changed rows and the removed users. `PositionHistory` stores the rows of the last positions, so that a
viewer who reconnects with one of them gets a delta. Rows are tuples of Entry in rank order, each user at most once.
"""

from collections.abc import Sequence

import msgspec

from scoreboard.domain.boards import Entry

# positions of a board, ten seconds of ticks, about 50 kB; full: the oldest is dropped, and gets no delta any more
POSITION_HISTORY_SIZE = 100


class RowChange(msgspec.Struct, frozen=True):
    """A row that is new among the shown rows, or differs in any member."""

    entry: Entry
    previous_rank: int | None  # None: was not shown


class Comparison(msgspec.Struct, frozen=True):
    """`changed` in the order of the new ranks, `removed` (rows as last shown) in that of the old ones."""

    changed: tuple[RowChange, ...] = ()
    removed: tuple[Entry, ...] = ()

    @property
    def same(self) -> bool:
        return not (self.changed or self.removed)


class ChangedPosition(msgspec.Struct, frozen=True):
    """A user whose rank on the shown board changed; `previousRank` is None on entering, `newRank` None on leaving."""

    userId: str
    previousRank: int | None
    newRank: int | None
    score: int


def compare(before: Sequence[Entry], after: Sequence[Entry]) -> Comparison:
    """The changes that turn the rows `before` into the rows `after`."""
    old = {entry.userId: entry for entry in before}
    changed = []
    for entry in after:
        known = old.pop(entry.userId, None)
        if known != entry:
            changed.append(RowChange(entry, known.rank if known else None))
    return Comparison(tuple(changed), tuple(old.values()))


def changed_positions(comparison: Comparison) -> tuple[ChangedPosition, ...]:
    """The part of a comparison that concerns ranks: moves, entries and exits, but no score that changed in place."""
    moved = tuple(
        ChangedPosition(row.entry.userId, row.previous_rank, row.entry.rank, row.entry.score)
        for row in comparison.changed
        if row.previous_rank != row.entry.rank
    )
    return moved + tuple(ChangedPosition(entry.userId, entry.rank, None, entry.score) for entry in comparison.removed)


class PositionHistory:
    """The rows of a board's last positions. A position identifies content, so it may come from any node."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Entry, ...] | None] = {}  # oldest first

    def remember(self, position: str, rows: tuple[Entry, ...]) -> None:
        """Stores the rows of a position. If the position had other rows before (a name that no store gave at first),
        it has none from now on: it is unknown which of them a viewer has."""
        known = self._rows.pop(position, rows)
        self._rows[position] = rows if known == rows else None
        if len(self._rows) > POSITION_HISTORY_SIZE:
            del self._rows[next(iter(self._rows))]

    def find(self, position: str) -> tuple[Entry, ...] | None:
        """The rows that a viewer at that position has; None when they are not stored."""
        return self._rows.get(position)
