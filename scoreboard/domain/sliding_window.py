"""Rate limits by key in memory: a sliding window of 60 seconds. Pure: the time is an argument.

Each node counts for itself. The exact limits, for each user and across nodes, are in storage.redis.limits.
"""

from collections import OrderedDict, deque

WINDOW_SECONDS = 60
# about 20 MB; full: the least recently used key is dropped. A key has at most 62 entries, one a second
MAX_KEYS = 50_000


class SlidingWindow:
    """At most `limit` admissions for each key in any 60 seconds; 0: no limit. Refused ones are not counted.

    Admissions are counted by whole seconds, and never too many are admitted: those of a second are dropped when all of
    them are more than 60 s old. `now` is in seconds, of a clock that never goes back.
    """

    __slots__ = ("_limit", "_windows")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def admit(self, key: str, now: float) -> int:
        """0 when admitted, else the seconds until the next try may succeed. `wait` and `count` in one step."""
        window = self._windows.get(key) if self._limit else None
        if window is None:
            self.count(key, now)
            return 0
        self._windows.move_to_end(key)
        second = int(now)
        window.drop(second - WINDOW_SECONDS - 1)
        if window.total < self._limit:
            window.add(second)
            return 0
        return window.seconds[0][0] + WINDOW_SECONDS + 1 - second

    def wait(self, key: str, now: float, times: int = 1) -> int:
        """0 when one more is within `times` the limit, else the seconds until it is. Counts nothing."""
        window = self._windows.get(key) if self._limit else None
        if window is None:
            return 0
        self._windows.move_to_end(key)  # a refused key is in use too, and is not dropped
        window.drop(int(now) - WINDOW_SECONDS - 1)
        if window.total < self._limit * times:
            return 0
        return window.seconds[0][0] + WINDOW_SECONDS + 1 - int(now)

    def count(self, key: str, now: float) -> None:
        """Counts one, also above the limit."""
        if not self._limit:
            return
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MAX_KEYS:
                self._windows.popitem(last=False)
            window = self._windows[key] = _Window()
        window.add(int(now))

    def uncount(self, key: str, counted_at: float) -> None:
        """Withdraws one that `count` counted at that time."""
        window = self._windows.get(key)
        if window is not None:
            window.remove(int(counted_at))
            if not window.total:
                del self._windows[key]  # a withdrawn try must not cause another key to be dropped


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

    def remove(self, second: int) -> None:
        """Withdraws one of that second. Does nothing when the second was dropped already. Checks at most 62 entries."""
        for entry in self.seconds:
            if entry[0] == second and entry[1]:
                entry[1] -= 1
                self.total -= 1
                if not entry[1]:
                    self.seconds.remove(entry)
                return
