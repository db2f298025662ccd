"""Deadlines of PostgreSQL calls that bind: when one is over, the connection ends, and with it whatever waits for its answer.

A time-out round a call that PostgreSQL does not answer waits for the cancellation to be answered: 43.9 s were seen. asyncio-flavoured.
"""

import asyncio
from types import TracebackType

import asyncpg

from scoreboard.domain.errors import StorageUnavailable


class ConnectionDeadline:
    """Round calls of one connection: it is terminated unless the block ends, or `extend` is called, within so many seconds.

    What is raised because of that becomes StorageUnavailable: asyncpg raises many things when its connection is closed during a call.
    """

    __slots__ = ("_alarm", "_conn", "_over", "seconds")

    def __init__(self, conn: asyncpg.Connection, seconds: float) -> None:
        self._conn, self.seconds = conn, seconds
        self._over = False
        self._alarm: asyncio.TimerHandle | None = None

    def extend(self) -> None:
        """The block is making progress: it has `seconds` from now on."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(self.seconds, self._end)

    def _end(self) -> None:
        self._over = True
        self._conn.terminate()

    def __enter__(self) -> "ConnectionDeadline":
        self.extend()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        assert self._alarm is not None
        self._alarm.cancel()
        if self._over and isinstance(exc, Exception):
            raise StorageUnavailable("postgresql", f"no answer within {self.seconds} s") from exc
