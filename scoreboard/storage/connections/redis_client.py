"""A Redis client without a pool, for the write path: it has few callers, and each batch of actions waits for it twice.

redis-py's pool and time-outs cost a call five timers and tasks, each a turn of the loop on trio-asyncio. Here a call
takes an idle connection or makes one, and has one deadline over all it does.
"""

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import NoScriptError


class Script(Protocol):
    """A Lua script of a client: of redis-py's as of this one's."""

    async def __call__(self, keys: Sequence[str], args: Iterable[Any]) -> Any: ...


class DirectClient:
    """As many connections as there are calls at the same time."""

    __slots__ = ("_idle", "_pool", "_seconds")

    def __init__(self, pool: redis.asyncio.ConnectionPool, seconds: float) -> None:
        """`pool` only makes the connections, which need no time-outs of their own. `seconds`: for a call, connecting
        included."""
        self._pool, self._seconds = pool, seconds
        self._idle: list[Any] = []

    async def execute_aio(self, *args: Any) -> Any:
        """The answer as Redis gives it. An error reply is raised as redis-py's exception, TimeoutError after `seconds`.

        After any other end than a reply, cancelling among them, the connection is closed, and made anew for the next
        call; after a reply that means "not here" too.
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
        """The script, sent whole only to a Redis that does not know it."""
        digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

        async def call_aio(keys: Sequence[str], args: Iterable[Any]) -> Any:
            call_of = (len(keys), *keys, *args)
            try:
                return await self.execute_aio("EVALSHA", digest, *call_of)
            except NoScriptError:
                return await self.execute_aio("EVAL", text, *call_of)

        return call_aio

    async def close_aio(self) -> None:
        """Closes all connections. No call may be under way."""
        while self._idle:
            await self._idle.pop().disconnect()
