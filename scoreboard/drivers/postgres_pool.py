"""PostgreSQL connections for everything but the write path, with one deadline for all that a call does.

asyncpg's own pool waits for PostgreSQL in four places (acquire, call, reset, close), each with its own time-out. It
also keeps connections that were opened while the database was read-only. Here a call has one hard deadline. A reply
that means "not here" closes the connection and all idle ones. Nothing is reset between two calls, since no caller
changes a session. Coroutines run in asyncio; the plain methods may be called from anywhere on the loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.conditions import costs_connection
from scoreboard.drivers.deadline import bounded_aio
from scoreboard.drivers.generation import Generation
from scoreboard.drivers.postgres_connector import PostgresConnector

T = TypeVar("T")

CALL_SECONDS = 2.5  # for waiting, connecting and answering; a client's request should end within 3 s
IDLE_SECONDS = 60.0  # an unused connection is closed after this


class PostgresPool:
    """At most `size` connections. The connection that was used last is used first."""

    __slots__ = ("_close_timer", "_connector", "_free", "_generations", "_idle", "generation")

    def __init__(self, connector: PostgresConnector, size: int) -> None:
        self._connector = connector
        self._free = asyncio.Semaphore(size)
        # at most `size`; with the loop's time at which the last call ended
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._generations: dict[asyncpg.Connection, int] = {}  # of all that are open
        self._close_timer: asyncio.TimerHandle | None = None
        self.generation = Generation("postgresql")

    async def call_aio(
        self, function_aio: Callable[[asyncpg.Connection], Awaitable[T]], *, seconds: float = CALL_SECONDS
    ) -> T:
        """Runs `function_aio` on a connection and returns its value. Raises StorageUnavailable within `seconds`; error
        replies of the data are raised as they are.

        Cancelling closes the connection and returns at once. Then it is unknown whether the call had an effect.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable(
                "postgresql", f"no connection was free within {seconds:.3g} s", StoreCondition.BUSY
            ) from None
        try:
            conn = self._pop_idle() or await self._open_aio(deadline - loop.time())
            try:
                with postgres_errors():
                    return await bounded_aio(conn, deadline - loop.time(), function_aio(conn))
            except BaseException as exc:
                if costs_connection(exc):
                    conn.terminate()
                if isinstance(exc, StorageUnavailable) and costs_connection(exc) and loop.time() < deadline:
                    self.replace(exc.why)  # not after the deadline: a slow statement is no fault of the connections
                raise
            finally:
                self._put_back(conn)
        finally:
            self._free.release()

    async def fetch_aio(self, sql: str, *args: object) -> list[asyncpg.Record]:
        return list(await self.call_aio(lambda conn: conn.fetch(sql, *args)))

    def replace(self, why: str, *, at_once: bool = False) -> None:
        """Closes every open connection: idle ones now, those in use after their call."""
        self.generation.replace(why, at_once=at_once)
        self._idle = [(conn, since) for conn, since in self._idle if self._is_usable(conn)]

    def terminate(self) -> None:
        """Ends all connections, without waiting."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._idle.clear()
        for conn in list(self._generations):
            conn.terminate()
        self._generations.clear()

    async def _open_aio(self, seconds: float) -> asyncpg.Connection:
        # read before connecting: a connection that is being opened when all are replaced belongs to the old ones
        number = self.generation.number
        conn = await self._connector.connect_aio(seconds)
        self._generations[conn] = number
        return conn

    def _pop_idle(self) -> asyncpg.Connection | None:
        while self._idle:
            conn, _ = self._idle.pop()
            if self._is_usable(conn):
                return conn
        return None

    def _put_back(self, conn: asyncpg.Connection) -> None:
        if self._is_usable(conn) and not conn.is_in_transaction():
            self._idle.append((conn, asyncio.get_running_loop().time()))
            self._schedule_close()
        else:
            self._drop(conn)

    def _is_usable(self, conn: asyncpg.Connection) -> bool:
        """Whether the connection may be used again; else it is closed."""
        if conn.is_closed() or self._generations.get(conn) != self.generation.number:
            self._drop(conn)
            return False
        return True

    def _drop(self, conn: asyncpg.Connection) -> None:
        self._generations.pop(conn, None)
        conn.terminate()

    # ---- closing unused connections ---------------------------------------------------------------------------------

    def _schedule_close(self) -> None:
        if self._close_timer is None and self._idle:
            self._close_timer = asyncio.get_running_loop().call_at(self._idle[0][1] + IDLE_SECONDS, self._close_unused)

    def _close_unused(self) -> None:
        self._close_timer = None
        now = asyncio.get_running_loop().time()
        while self._idle and now - self._idle[0][1] >= IDLE_SECONDS:
            self._drop(self._idle.pop(0)[0])
        self._schedule_close()
