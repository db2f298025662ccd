"""A board, its versions and its snapshots: values only.

`leaderboard` is the first of many boards; code that writes, reads or sends a board has it as an argument. A
`BoardVersion` orders snapshots, messages and calls by how new they are. A `Snapshot` is one consistent read of the
first rows.
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
    """One board: which totals it ranks, which table holds them, and which actions count for it.

    `period` and `segment` are empty for a board of all times and of all users.
    """

    name: str
    period: str = ""
    segment: str = ""
    action_types: frozenset[str] | None = None  # what counts for it; None: every action
    totals: Totals = Totals.BOARD_SCORES

    @property
    def id(self) -> str:
        """The name of its channel and its Redis keys, such as `daily:2026-11-25`; board_id() in SQL."""
        return ":".join(filter(None, self[:3]))

    def counts(self, action_type: str) -> bool:
        """Whether an action of that type counts for the board."""
        return self.action_types is None or action_type in self.action_types


# Every action counts for it. The answer to an action has the total and the rank on this board.
LEADERBOARD = Board("leaderboard", totals=Totals.SCORES)
BOARDS: tuple[Board, ...] = (LEADERBOARD,)  # of a node; the leaderboard is the first


class BoardVersion(NamedTuple):
    """How new a board's content is. Compared as a pair; a rebuilt board has a new epoch."""

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
    last_modified: int = 0  # Unix seconds by the store's clock, see `last_modified`; 0: not known

    @property
    def board_version(self) -> BoardVersion:
        return BoardVersion(self.epoch, self.version)

    @property
    def position(self) -> str:
        """Identifies the content of the shown rows, the same on every node. Opaque to clients."""
        return f"{self.epoch}-{self.shown_version}"

    @property
    def shown(self) -> tuple[Entry, ...]:
        return self.rows[:TOP_SIZE]


def last_modified(changed_ms: int, now_ms: int) -> int:
    """The Last-Modified (Unix seconds) of content that changed last at `changed_ms`: the start of the next second.

    0 until that second begins. The content may change again before, and a date has no fractions (RFC 9110, 8.8.2.2). So
    while the date is the same, a client that got it has the newest content.
    """
    second = changed_ms // 1000 + 1
    return second if changed_ms and now_ms >= second * 1000 else 0


def rfc3339(milliseconds: int) -> str:
    """UTC with milliseconds and Z, as every time in the API."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{_second(whole)}.{rest:03d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    """The part of a time that is the same for a whole second. Cached, since formatting is the slowest part of an
    answer."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(16_384)  # users, about 4 MB; a UUID's text is needed four times an action
def user_id(user: UUID) -> str:
    """A user's id, as clients and Redis read it."""
    return str(user)
