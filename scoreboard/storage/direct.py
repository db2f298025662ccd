"""The write path's way to Redis: few callers, each batch waits for it twice, so nothing stands between a call and its connection.

redis-py's pool and time-outs cost a call five timers and tasks, each a turn of the loop on trio-asyncio. Here a call takes an idle
connection or makes one, and has one deadline over all it does.
"""

import asyncio
from typing import Any

import redis.asyncio


class DirectClient(redis.asyncio.Redis):
    """A Redis client without a bound on its connections: there are as many as calls at the same time. Scripts work as on any other.

    A call raises TimeoutError after `seconds`; its connection is closed then, as after any end but an answer, and made anew for the next.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, seconds: float) -> None:
        """`pool` only makes the connections. They need no time-outs of their own."""
        super().__init__(connection_pool=pool)
        self._seconds = seconds
        self._idle: list[Any] = []

    async def execute_command(self, *args: Any, **_: Any) -> Any:
        """The answer as Redis gives it; an error reply is raised."""
        pool = self.connection_pool
        conn = self._idle.pop() if self._idle else pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._seconds):
                await pool.ensure_connection(conn)
                await conn.send_packed_command(conn.pack_command(*args), check_health=False)
                return await conn.read_response()
        finally:
            self._idle.append(conn)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes what is idle. Nobody may be waiting for an answer any more."""
        while self._idle:
            await self._idle.pop().disconnect()
        await super().aclose(close_connection_pool)
