"""Limits by key in this node's memory: so many in any 60 seconds, a sliding window.

Used for addresses and log-ins. It is a node's own count on purpose: the exact limits, per user and across nodes, are in storage.limits, and
the load balancer's configuration holds the global one.
"""

from collections import OrderedDict, deque

WINDOW = 60  # seconds
KEYS = 50_000  # keys, about 20 MB; full: the one not seen for longest is forgotten. Entries are at most the requests of the last minute


class SlidingWindow:
    """At most `limit` admissions a key in any 60 seconds; 0: no limit. Refused ones count nothing.

    Counts by whole seconds and errs on the side of refusing: a second's admissions leave when all of them are more than 60 s old.
    """

    __slots__ = ("_limit", "_windows")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def admit(self, key: str, now: float) -> int:
        """0 when admitted, else after how many seconds another try is worth making. `now` in seconds of a clock that never goes back."""
        if not self._limit:
            return 0
        second = int(now)
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= KEYS:
                self._windows.popitem(last=False)
            window = self._windows[key] = _Window()
        else:
            self._windows.move_to_end(key)
            window.drop(second - WINDOW - 1)
        if window.total >= self._limit:
            return window.seconds[0][0] + WINDOW + 1 - second
        window.add(second)
        return 0


class _Window:
    """Admissions of one key: [second, how many], oldest first, and their sum."""

    __slots__ = ("seconds", "total")

    def __init__(self) -> None:
        self.seconds: deque[list[int]] = deque()
        self.total = 0

    def drop(self, until: int) -> None:
        while self.seconds and self.seconds[0][0] <= until:
            self.total -= self.seconds.popleft()[1]

    def add(self, second: int) -> None:
        if self.seconds and self.seconds[-1][0] == second:
            self.seconds[-1][1] += 1
        else:
            self.seconds.append([second, 1])
        self.total += 1
