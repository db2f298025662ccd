"""Deadlines that bind: a call on a PostgreSQL connection (`bounded_aio`), or work of many calls, is ended by ending the
connection.

A time-out round a call cancels it, and asyncpg then waits until PostgreSQL has received the cancellation: 43.9 s were
seen when answers were lost on the way. Terminating a connection waits for nothing.

When a connection ends under a call, asyncpg raises what its own code meets: AttributeError, InterfaceError,
CancelledError and others. So every call is made inside `bounded_aio`, a `ConnectionDeadline` or, without a deadline,
`ended_connection`: what is raised once the connection has ended means that PostgreSQL is unavailable, whoever ended it.
All of this runs in asyncio code.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import asyncpg

from scoreboard.domain.errors import ScoreboardError, StorageUnavailable
from scoreboard.storage.connections.conditions import postgres_condition

T = TypeVar("T")


async def bounded_aio(conn: asyncpg.Connection, seconds: float, call: Awaitable[T]) -> T:
    """The call's value. After `seconds` the connection is terminated, and the call ends with StorageUnavailable.

    Error replies of PostgreSQL and asyncpg's own DataError are raised as they are, and the connection stays open. After
    anything else, cancelling among it, the connection is terminated. Then what says that it was lost becomes
    StorageUnavailable.
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
        if was_closed and not _is_cancelled():  # asyncpg's own, not our caller's
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
    """Round calls of one connection: it is terminated unless the block ends, or `extend` is called, within so many
    seconds.

    What is raised because of that becomes StorageUnavailable.
    """

    __slots__ = ("_conn", "_timer", "seconds")

    def __init__(self, conn: asyncpg.Connection, seconds: float) -> None:
        self._conn, self.seconds = conn, seconds
        self._timer: asyncio.TimerHandle | None = None

    def extend(self) -> None:
        """The block is making progress: it has `seconds` from now on."""
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
    """Round calls of one connection that may take as long as they like: what is raised because it has ended becomes
    StorageUnavailable."""
    try:
        yield
    except BaseException as exc:
        if _is_lost_connection(conn, exc):
            raise StorageUnavailable("postgresql", f"the connection has ended ({type(exc).__name__})") from exc
        raise


def _is_lost_connection(conn: asyncpg.Connection, exc: BaseException) -> bool:
    """Whether an exception is there because the connection has ended. Our own errors are raised on purpose, a caller
    may cancel."""
    if not conn.is_closed() or isinstance(exc, ScoreboardError):
        return False
    return isinstance(exc, Exception) or (isinstance(exc, asyncio.CancelledError) and not _is_cancelled())


def _is_cancelled() -> bool:
    """Whether somebody cancels the present task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _connection_lost(exc: BaseException, seconds: float) -> StorageUnavailable:
    return StorageUnavailable("postgresql", f"no answer within {seconds:.3g} s ({type(exc).__name__})")
