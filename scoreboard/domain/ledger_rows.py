"""Rows of the ledger and batches of its writers, as they go from PostgreSQL to Redis and to other nodes: values only.

Tested in tests/storage/redis/test_projection.py.
"""

from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import Board


class LedgerRow(NamedTuple):
    """A subject's total on one board, as the ledger has it. A subject is a user.

    `total` is None when the ledger's row was removed: the entry goes, and the version is that of the removal. With a
    `ban` the entry goes too, although the ledger has a total.
    """

    board: Board  # which names its period too
    subject: UUID
    total: int | None
    reached: int
    version: int
    ban: int = Ban.NONE


class ScoreEvent(NamedTuple):
    """One action, as a board's message carries it to every node (for `score:personal`).

    `place` is the subject's place among the rows of the call that made the message. The message names the board.
    """

    subject: str
    previous: int
    new: int
    points: int
    at_ms: int
    request_id: str
    place: int


class SequenceRange(NamedTuple):
    """The batches of a writer that a call covers, by their sequence numbers: `first` to `last`, without a gap. In SQL
    the number is `commits.turn`."""

    writer: int
    first: int
    last: int
