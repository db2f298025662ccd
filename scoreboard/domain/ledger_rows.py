"""Rows of the ledger and turns of its writers, as they go from PostgreSQL to Redis and to other nodes: values only.

Tested in tests/storage/redis/test_projection.py.
"""

from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.boards import Board


class LedgerRow(NamedTuple):
    """A subject's total on one board, as the ledger has it. A subject is a user.

    `total` None: the ledger has no such row any more, and the board's entry is removed. The version is then that of the
    removal.
    """

    board: Board  # its period included
    subject: UUID
    total: int | None
    reached: int
    version: int


class ScoreEvent(NamedTuple):
    """One recorded action in a board's message to every node, for `score:personal`. `place` is the index of the
    subject's row in the call that publishes the message. The message names the board."""

    subject: str
    previous: int
    new: int
    points: int
    at_ms: int
    request_id: str
    place: int


class SequenceRange(NamedTuple):
    """Consecutive turns of one writer: `first`…`last`, both included."""

    writer: int
    first: int
    last: int
