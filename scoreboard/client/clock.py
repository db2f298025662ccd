"""The server's time, as a client measures it. Pure, given the machine's own time.

An action carries a timestamp, and the server refuses one that is five minutes old or a minute ahead. Machines of
players are often wrong by more. So the client compares the `Date` of each answer with its own time, and stamps actions
with the server's. When a token must be renewed is counted on a clock that nobody sets (see exchanges); this here is for
timestamps only.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

# a `Date` has whole seconds and the answer was on its way for some; a smaller difference is no error of the clock
TOLERANCE_SECONDS = 5.0
HALF_SECOND = 0.5  # a `Date` leaves out the fraction, which is this on average


def machine_time() -> float:
    """Unix seconds by this machine."""
    return time.time()


class ServerClock:
    """Unix seconds by the server. `machine` gives Unix seconds by this machine."""

    def __init__(self, machine: Callable[[], float] = machine_time) -> None:
        self._machine = machine
        self.offset = 0.0  # seconds to add to the machine's time; 0 while both agree, or nothing is known

    def now(self) -> float:
        return self._machine() + self.offset

    def measure(self, date: str | None) -> None:
        """Sets the offset from the `Date` of an answer that has just come. A text that is no date changes nothing."""
        try:
            moment = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):  # whatever a proxy may have put there
            return
        offset = moment + HALF_SECOND - self._machine()
        self.offset = offset if abs(offset) > TOLERANCE_SECONDS else 0.0
