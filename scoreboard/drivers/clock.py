"""PostgreSQL's time on a node. All nodes issue and verify tokens by it, so a node whose own clock is wrong does too.

The authenticator measures the offset of the node's clock, since it reads from PostgreSQL every 1.5 s. Synchronous.
"""

import time
from collections.abc import Callable

MAX_ROUND_TRIP_SECONDS = 0.5  # a slower answer shows too imprecisely when PostgreSQL read its clock


def steady_clock(
    wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], float]:
    """A clock in Unix seconds: the node's time now, continued by the monotonic clock. Setting the node's clock later
    does not change it."""
    ahead = wall() - monotonic()
    return lambda: monotonic() + ahead


class DatabaseClock:
    """`now()` is PostgreSQL's time in Unix seconds; before the first measurement it is the node's own."""

    __slots__ = ("_is_measured", "_node_clock", "offset")

    def __init__(self, node_clock: Callable[[], float] | None = None) -> None:
        self._node_clock = node_clock or steady_clock()
        self._is_measured = False
        self.offset = 0.0  # seconds that PostgreSQL's clock is ahead

    def now(self) -> float:
        return self._node_clock() + self.offset

    def node_now(self) -> float:
        """The node's own time in Unix seconds, for `measure`."""
        return self._node_clock()

    def measure(self, asked: float, answer: float, answered: float) -> None:
        """Corrects the offset. PostgreSQL's clock was `answer` between `asked` and `answered` of the node's own.

        A quick answer, or the first one, counts as from the middle of that time. A slow one moves the offset only as
        far as it proves the offset wrong.
        """
        least, most = answer - answered, answer - asked
        if least > most:  # the node's clock was set back meanwhile
            return
        if most - least <= MAX_ROUND_TRIP_SECONDS or not self._is_measured:
            self.offset = (least + most) / 2
        else:
            self.offset = min(max(self.offset, least), most)
        self._is_measured = True
