"""Whether Redis may have lost what was written to it. Synchronous.

storage.health sets whether Redis evicts keys, and the connections count reconnects. storage.redis.limits reads both
before it relies on a window. Tested in tests/storage/test_health.py and tests/storage/redis/test_limits.py.
"""

from scoreboard.drivers.generation import Generation


class RedisRetention:
    """One for the process, in `Stores`."""

    __slots__ = ("_generation", "evicts")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.evicts = False  # whether Redis evicts keys when its memory is full

    @property
    def reconnects(self) -> int:
        """How many connections were reopened. After a restart Redis has only what it had saved."""
        return self._generation.reconnects
