"""The crossing from Trio to asyncio and back, and the edge at which library exceptions stop.

asyncpg and redis-py live on asyncio; everything above this folder lives on Trio. A crossing costs 350–700 µs of CPU, so whatever belongs
together is one asyncio function and crosses once. What comes back is a value, `StorageUnavailable`, or an error reply of PostgreSQL that
the caller wants to see (a unique violation, bad data).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import asyncpg
import redis.exceptions
import structlog
import trio_asyncio

from scoreboard.domain.errors import StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()

# Error replies that say nothing of the statement but "not now": classes 08 (connection), 53 (resources), 57 (shutdown, cancel), 58 (its
# system), 25 (transaction_timeout, read-only standby), and the two of locks. https://www.postgresql.org/docs/current/errcodes-appendix.html
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


async def crossing(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs an asyncio-flavoured coroutine function from Trio and returns its value.

    Cancelling cancels the asyncio task and returns when that has ended; a call whose ending must be bounded brings its own deadline.
    """
    return cast("T", await trio_asyncio.aio_as_trio(function)(*args, **kwargs))


@asynccontextmanager
async def asyncio_loop(on_error: Callable[[], None]) -> AsyncIterator[None]:
    """Holds the asyncio loop open. What asyncio would hand to its exception handler is logged and counted, and ends nothing.

    (asyncpg reports a lost connection there, and trio-asyncio's default answer is to end the application.) What the body raises comes out
    as it is: the loop's own nurseries would wrap it in groups.
    """
    failure: Exception | None = None

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        on_error()
        log.warning("asyncio_exception", detail=context.get("message"), error=repr(context.get("exception")))

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(handle)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised again below
            failure = exc
    if failure is not None:
        raise failure


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Inside asyncio code: turns "PostgreSQL is out of reach or too slow" into StorageUnavailable; data errors pass."""
    try:
        yield
    except PASSING as exc:
        raise StorageUnavailable("postgresql", f"{type(exc).__name__}: {exc}") from exc
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError) as exc:
        if isinstance(exc, ValueError):  # asyncpg's own DataError: an argument that can't be sent
            raise
        raise StorageUnavailable("postgresql", f"{type(exc).__name__}: {exc}") from exc


@contextmanager
def redis_errors() -> Iterator[None]:
    """Inside asyncio code: turns every failure of a Redis call into StorageUnavailable: Redis refuses, is full, is loading, or is gone."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError, TimeoutError) as exc:
        raise StorageUnavailable("redis", f"{type(exc).__name__}: {exc}") from exc


def must_reconnect(exc: StorageUnavailable) -> bool:
    """Whether the store's answer means "not here": the connection leads to a server that can't do what is asked."""
    return isinstance(
        exc.__cause__,
        asyncpg.ReadOnlySQLTransactionError | asyncpg.AdminShutdownError | asyncpg.CrashShutdownError | asyncpg.CannotConnectNowError,
    )
