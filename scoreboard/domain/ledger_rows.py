"""Rows of the ledger and turns of its writers, as they go from PostgreSQL to Redis and to other nodes: values only."""

from typing import NamedTuple
from uuid import UUID


class LedgerRow(NamedTuple):
    """A user's standing in the ledger; `total` None: no row there any more, the entry goes. The version is then that of
    the removal."""

    user: UUID
    total: int | None
    reached: int
    version: int


class ScoreEvent(NamedTuple):
    """One action, as the message tells every node (for `score:personal`). `place` is the user's among the call's
    rows."""

    user: str
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
