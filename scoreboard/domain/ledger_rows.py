"""Rows of the ledger and turns of its writers, as they go from PostgreSQL to Redis and to other nodes: values only.

Tested in tests/storage/redis/test_projection.py.
"""

from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.boards import Board


class LedgerRow(NamedTuple):
    """A subject's total on one board, as the ledger has it. A subject is a user.

    `total` None: the ledger has no such row any more, the entry goes. The version is then that of the removal.
    """

    board: Board  # which names its period too
    subject: UUID
    total: int | None
    reached: int
    version: int


class ScoreEvent(NamedTuple):
    """One action, as the message of a board tells every node (for `score:personal`). `place` is the subject's among
    the rows of that message's call. The message names the board."""

    subject: str
    previous: int
    new: int
    points: int
    at_ms: int
    request_id: str
    place: int


class SequenceRange(NamedTuple):
    """Which of a writer's turns a call covers: `first`…`last`, all of them."""

    writer: int
    first: int
    last: int
