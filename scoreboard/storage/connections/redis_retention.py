"""What is known of whether Redis still has what was written to it. Synchronous.

storage.health says whether Redis evicts keys, the connections count themselves; storage.redis.limits asks before it
trusts a window. Tested where it is used: tests/storage/test_health.py and tests/storage/redis/test_limits.py.
"""

from scoreboard.storage.connections.generation import Generation


class RedisRetention:
    """One for the process, in `Stores`."""

    __slots__ = ("_generation", "evicts")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.evicts = False  # Redis throws keys away when its memory is full

    @property
    def reconnects(self) -> int:
        """Connections that were made anew: a Redis that was started anew comes back with what it had saved."""
        return self._generation.reconnects
