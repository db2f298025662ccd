"""PostgreSQL's time, as a node knows it: whose clock is wrong issues and judges tokens by the same time as all others.

Whoever asks PostgreSQL anyway measures how far the node's clock is off (operations.sessions, every 1.5 s). Synchronous.
"""

import time
from collections.abc import Callable

ROUND_TRIP_SECONDS = 0.5  # a measurement that took longer says too little of when PostgreSQL read its clock


class DatabaseClock:
    """`now()` is PostgreSQL's time in Unix seconds; the node's own until it was measured first."""

    __slots__ = ("_node_clock", "offset")

    def __init__(self, node_clock: Callable[[], float] = time.time) -> None:
        self._node_clock = node_clock
        self.offset = 0.0  # seconds that PostgreSQL's clock is ahead

    def now(self) -> float:
        return self._node_clock() + self.offset

    def node_now(self) -> float:
        """By the node's own clock, for measuring."""
        return self._node_clock()

    def measure(self, asked: float, answer: float, answered: float) -> None:
        """PostgreSQL's clock said `answer` between `asked` and `answered` of the node's own."""
        if 0 <= answered - asked <= ROUND_TRIP_SECONDS:
            self.offset = answer - (asked + answered) / 2
