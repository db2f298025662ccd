"""Hard deadlines for calls on a PostgreSQL connection: the connection is terminated when the time is over.

1. An ordinary time-out cancels a call, and asyncpg then waits until PostgreSQL has received the cancellation. That took
   43.9 s when answers were lost in the network. Terminating a connection waits for nothing.
2. When a connection ends during a call, asyncpg raises any of AttributeError, InterfaceError, CancelledError and
   others.
3. So every call is made inside `bounded_aio` (one call), `ConnectionDeadline` (many calls), or `ended_connection` (no
   deadline). An exception that comes after the end of the connection becomes StorageUnavailable there, whatever ended
   the connection.

All of this runs in asyncio.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import asyncpg

from scoreboard.domain.errors import ScoreboardError, StorageUnavailable
from scoreboard.drivers.conditions import postgres_condition

T = TypeVar("T")


async def bounded_aio(conn: asyncpg.Connection, seconds: float, call: Awaitable[T]) -> T:
    """Awaits the call and returns its value. After `seconds` the connection is terminated and StorageUnavailable
    raised.

    Error replies of PostgreSQL and asyncpg's own DataError are raised as they are, and the connection stays open. After
    every other exception, and after a cancellation, the connection is terminated. An exception that means that the
    connection was lost becomes StorageUnavailable.
    """
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        conn.terminate()

    timer = asyncio.get_running_loop().call_later(max(seconds, 0), expire)
    try:
        return await call
    except ScoreboardError:  # ours, raised on purpose
        raise
    except asyncio.CancelledError as exc:
        was_closed = conn.is_closed()
        conn.terminate()
        if was_closed and not _is_cancelled():  # raised by asyncpg; the caller has not cancelled
            raise _connection_lost(exc, seconds) from exc
        raise
    except Exception as exc:
        if expired:
            raise _connection_lost(exc, seconds) from exc
        was_closed = conn.is_closed()
        if isinstance(exc, asyncpg.PostgresError) or (isinstance(exc, ValueError) and not was_closed):
            raise
        lost = was_closed or postgres_condition(exc) is not None
        conn.terminate()
        if lost:
            raise StorageUnavailable("postgresql", f"{type(exc).__name__}: {exc}") from exc
        raise
    except BaseException:
        conn.terminate()
        raise
    finally:
        timer.cancel()


class ConnectionDeadline:
    """A block of calls on one connection. The connection is terminated unless the block ends, or `extend` is called,
    within `seconds`.

    An exception that this causes becomes StorageUnavailable.
    """

    __slots__ = ("_conn", "_timer", "seconds")

    def __init__(self, conn: asyncpg.Connection, seconds: float) -> None:
        self._conn, self.seconds = conn, seconds
        self._timer: asyncio.TimerHandle | None = None

    def extend(self) -> None:
        """The block makes progress: its deadline is `seconds` from now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.seconds, self._conn.terminate)

    def __enter__(self) -> "ConnectionDeadline":
        self.extend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if exc is not None and _is_lost_connection(self._conn, exc):
            raise _connection_lost(exc, self.seconds) from exc


@contextmanager
def ended_connection(conn: asyncpg.Connection) -> Iterator[None]:
    """A block of calls on one connection, without a deadline. An exception that is raised because the connection has
    ended becomes StorageUnavailable."""
    try:
        yield
    except BaseException as exc:
        if _is_lost_connection(conn, exc):
            raise StorageUnavailable("postgresql", f"the connection has ended ({type(exc).__name__})") from exc
        raise


def _is_lost_connection(conn: asyncpg.Connection, exc: BaseException) -> bool:
    """Whether an exception was raised because the connection has ended. Not so for this package's own errors, and for a
    cancellation by the caller."""
    if not conn.is_closed() or isinstance(exc, ScoreboardError):
        return False
    return isinstance(exc, Exception) or (isinstance(exc, asyncio.CancelledError) and not _is_cancelled())


def _is_cancelled() -> bool:
    """Whether the current task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _connection_lost(exc: BaseException, seconds: float) -> StorageUnavailable:
    return StorageUnavailable("postgresql", f"no answer within {seconds:.3g} s ({type(exc).__name__})")
