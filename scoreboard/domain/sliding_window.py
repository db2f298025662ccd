"""Limits by key in memory, of one node: so many in any 60 seconds, or in any hour; a sliding window. Pure: the time is
an argument.

The exact limits, per user and across all nodes, are in storage.redis.limits.
"""

from collections import OrderedDict, deque

WINDOW_SECONDS = 60
# about 20 MB; full: the least recently used key is dropped. There are at most as many entries as requests in a minute
MAX_KEYS = 50_000


class SlidingWindow:
    """At most `limit` admissions a key in any `seconds`; 0: no limit. A refusal is not counted.

    Admissions are counted by whole seconds. Those of a second leave the window when all of them are older than it, so a
    key may wait up to a second longer than needed, and never less. `now` is in seconds, of a clock that never goes
    back.
    """

    __slots__ = ("_limit", "_seconds", "_windows")

    def __init__(self, limit: int, seconds: int = WINDOW_SECONDS) -> None:
        self._limit, self._seconds = limit, seconds
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def admit(self, key: str, now: float) -> int:
        """0 when admitted, else the seconds until another try is worth making.

        This is `wait` and `count` in one step, since it runs for each request.
        """
        window = self._windows.get(key) if self._limit else None
        if window is None:
            self.count(key, now)
            return 0
        self._windows.move_to_end(key)
        second = int(now)
        window.drop(second - self._seconds - 1)
        if window.total < self._limit:
            window.add(second)
            return 0
        return window.seconds[0][0] + self._seconds + 1 - second

    def wait(self, key: str, now: float, times: int = 1) -> int:
        """0 when one more is within `times` the limit, else the seconds until it is. Counts nothing."""
        window = self._windows.get(key) if self._limit else None
        if window is None:
            return 0
        self._windows.move_to_end(key)  # a key that is refused stays in memory
        window.drop(int(now) - self._seconds - 1)
        if window.total < self._limit * times:
            return 0
        return window.seconds[0][0] + self._seconds + 1 - int(now)

    def count(self, key: str, now: float) -> None:
        """Counts one admission, even above the limit."""
        if not self._limit:
            return
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MAX_KEYS:
                self._windows.popitem(last=False)
            window = self._windows[key] = _Window()
        window.add(int(now))

    def uncount(self, key: str, counted_at: float) -> None:
        """Takes back one that was counted at that time."""
        window = self._windows.get(key)
        if window is not None:
            window.remove(int(counted_at))
            if not window.total:
                del self._windows[key]  # so that it takes no place of a key with a count


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
        """Does nothing when that second has left the window, or the key was dropped. Looks at one entry a second of the
        window at most."""
        for entry in self.seconds:
            if entry[0] == second and entry[1]:
                entry[1] -= 1
                self.total -= 1
                if not entry[1]:
                    self.seconds.remove(entry)
                return
