"""A board and what is shown of it: values only.

`leaderboard` is the first of many boards. Code that writes, reads, numbers or sends a board takes it as an argument. A
`BoardVersion` says how new something is: it orders snapshots, messages and calls. A `Snapshot` is one consistent read
of the first rows.
"""

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import msgspec

TOP_SIZE = 10  # rows on screen and in every frame; specification: top 10
READ_SIZE = 100  # rows of one read, the largest `limit` of the REST route (specification)


class Totals(StrEnum):
    """The table of the ledger that holds a board's totals."""

    SCORES = "scores"  # one row a user: the specification's
    BOARD_SCORES = "board_scores"  # one row for each board, period, segment and subject


class Board(NamedTuple):
    """One board: which totals it ranks, where they are kept, and what counts for it.

    `period` and `segment` are empty for a board of all times and of everybody.
    """

    name: str
    period: str = ""
    segment: str = ""
    action_types: frozenset[str] | None = None  # what counts for it; None: every action
    totals: Totals = Totals.BOARD_SCORES

    @property
    def id(self) -> str:
        """Names its channel, its Redis keys and its position, as `daily:2026-11-25`; board_id() in SQL."""
        return ":".join(filter(None, self[:3]))

    def counts(self, action_type: str) -> bool:
        """Whether an action of that type counts for the board."""
        return self.action_types is None or action_type in self.action_types


# Every action counts for it. The answer to an action has the total and the rank of this board.
LEADERBOARD = Board("leaderboard", totals=Totals.SCORES)
BOARDS: tuple[Board, ...] = (LEADERBOARD,)  # all boards of a node, the leaderboard first


class BoardVersion(NamedTuple):
    """How new a board's content is: compared as a pair, the incarnation first."""

    epoch: int
    version: int


NEVER = BoardVersion(0, 0)  # older than every real version: epochs start at 1


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row, as clients read it. `avatarUrl` is left out when there is none."""

    rank: int
    userId: str
    username: str
    score: int
    avatarUrl: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """One read of a board: at most READ_SIZE rows, in order."""

    board: str
    epoch: int
    version: int
    shown_version: int  # the version at which the shown rows last changed
    # Unix milliseconds by the store's clock, when the shown rows last changed; a rebuild changes none
    updated_ms: int
    rows: tuple[Entry, ...]
    stale: bool = False  # read from PostgreSQL while Redis can't be read
    stale_since_ms: int = 0  # Unix milliseconds; 0 when not stale
    last_modified: int = 0  # Unix seconds by the store's clock, see `last_modified`; 0: not to be sent

    @property
    def board_version(self) -> BoardVersion:
        return BoardVersion(self.epoch, self.version)

    @property
    def position(self) -> str:
        """Names the content of the shown rows, the same on every node. Opaque to clients."""
        return f"{self.epoch}-{self.shown_version}"

    @property
    def shown(self) -> tuple[Entry, ...]:
        return self.rows[:TOP_SIZE]


def last_modified(changed_ms: int, now_ms: int) -> int:
    """The Last-Modified (Unix seconds) of content that changed last at that time: the second after the change.

    0 while that second has not begun. Until then the content may change again in the same second, and a date has no
    fractions (RFC 9110, 8.8.2.2). So a client that has this date, or an answer of a later second, has the newest
    content as long as the date stays the same.
    """
    second = changed_ms // 1000 + 1
    return second if changed_ms and now_ms >= second * 1000 else 0


def rfc3339(milliseconds: int) -> str:
    """UTC with milliseconds and Z, as every time in the API."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{_second(whole)}.{rest:03d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    """Cached, because formatting a date takes longer than the rest of an answer."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(16_384)  # users, about 4 MB; an action needs the text of its UUID four times
def user_id(user: UUID) -> str:
    """A user's id as text, as clients and Redis have it."""
    return str(user)
