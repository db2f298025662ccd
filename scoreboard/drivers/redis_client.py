"""A Redis client without redis-py's pool, for the write path: it has few callers, and each batch waits for it twice.

redis-py's pool and time-outs need five timers and tasks for a call, each a turn of the loop on trio-asyncio. Here a
call uses an idle connection or opens one, and has one deadline.
"""

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import NoScriptError


class Script(Protocol):
    """A registered Lua script, of redis-py's client or of this one."""

    async def __call__(self, keys: Sequence[str], args: Iterable[Any]) -> Any: ...


class DirectClient:
    """As many connections as there are calls at the same time."""

    __slots__ = ("_idle", "_pool", "_seconds")

    def __init__(self, pool: redis.asyncio.ConnectionPool, seconds: float) -> None:
        """`pool` is used only to make connections, which need no time-outs of their own. `seconds`: the deadline of a
        call, connecting included."""
        self._pool, self._seconds = pool, seconds
        self._idle: list[Any] = []

    async def execute_aio(self, *args: Any) -> Any:
        """Runs a command and returns Redis' reply. Raises redis-py's exception for an error reply, and TimeoutError
        after `seconds`.

        The connection is closed after a call that ends without a reply, also by cancellation, and after a reply that
        means "not here". The next call opens it again.
        """
        conn = self._idle.pop() if self._idle else self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._seconds):
                await self._pool.ensure_connection(conn)
                await conn.send_packed_command(conn.pack_command(*args), check_health=False)
                return await conn.read_response()
        finally:
            if conn.should_reconnect():
                await conn.disconnect(nowait=True)
            self._idle.append(conn)

    def register_script(self, text: str) -> Script:
        """A callable for the script. The text is sent only when Redis does not have the script."""
        digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

        async def call_aio(keys: Sequence[str], args: Iterable[Any]) -> Any:
            call_of = (len(keys), *keys, *args)
            try:
                return await self.execute_aio("EVALSHA", digest, *call_of)
            except NoScriptError:
                return await self.execute_aio("EVAL", text, *call_of)

        return call_aio

    async def close_aio(self) -> None:
        """Closes all connections. No call may be running."""
        while self._idle:
            await self._idle.pop().disconnect()
