"""The crossing from Trio to asyncio and back. Exceptions of the store libraries are translated here.

asyncpg and redis-py run on asyncio; everything above the storage runs on Trio. A crossing costs 350–700 µs of CPU, so
work that belongs together is one asyncio function and crosses once. The result is a value, `StorageUnavailable`, or an
error reply of PostgreSQL that the caller handles (a unique violation, bad data).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import structlog
import trio_asyncio

from scoreboard.domain.errors import StorageUnavailable, Store, StoreCondition
from scoreboard.drivers.conditions import POOLER_ERRORS, postgres_condition, redis_condition
from scoreboard.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


class FailureListener(Protocol):
    """Receives failures of the stores. It is implemented by storage.health, which this folder may not import."""

    def report(self, failure: StorageUnavailable) -> None:
        """A call failed. Must not wait."""


_listeners: set[FailureListener] = set()  # as many as monitors run in this process: one


async def run_in_asyncio(function_aio: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a coroutine function in asyncio and returns its value. This is the only way from Trio code to asyncio.

    A coroutine that must run in asyncio has a name that ends in `_aio`. Trio code never awaits one itself.

    Cancelling cancels the asyncio task and returns when that has ended. A call whose end must be bounded needs a
    deadline of its own.
    """
    return cast("T", await trio_asyncio.aio_as_trio(function_aio)(*args, **kwargs))


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """Holds the asyncio loop open. Exceptions for asyncio's exception handler are logged and counted, and end nothing.

    asyncpg reports a lost connection there, and trio-asyncio would end the application by default. An exception of the
    body is raised as it is: the loop's own nurseries would wrap it in groups.
    """
    failure: Exception | None = None

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        metrics.ASYNCIO_EXCEPTIONS.inc()
        log.warning("asyncio_callback_failed", detail=context.get("message"), error=repr(context.get("exception")))

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(handle)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised again below
            failure = exc
    if failure is not None:
        raise failure


@contextmanager
def failures_reported_to(listener: FailureListener) -> Iterator[None]:
    """While the block runs, reports each StorageUnavailable that this module raises, on any caller's behalf."""
    _listeners.add(listener)
    try:
        yield
    finally:
        _listeners.discard(listener)


@contextmanager
def postgres_errors() -> Iterator[None]:
    """In asyncio code: translates every failure that keeps PostgreSQL from being used into StorageUnavailable. Errors
    of the data are raised as they are."""
    try:
        yield
    except Exception as exc:
        condition = postgres_condition(exc)
        if condition is None:
            raise
        raise _unavailable("postgresql", exc, condition) from exc


@contextmanager
def redis_errors() -> Iterator[None]:
    """In asyncio code: translates every failure of a Redis call into StorageUnavailable: Redis refuses, is full, is
    loading, or can't be reached."""
    try:
        yield
    except Exception as exc:
        condition = redis_condition(exc)
        if condition is None:
            raise
        raise _unavailable("redis", exc, condition) from exc


def _unavailable(store: Store, exc: Exception, condition: StoreCondition) -> StorageUnavailable:
    hint = (
        " (behind a pooler such as PgBouncer, postgres.pgbouncer must be true)"
        if isinstance(exc, POOLER_ERRORS)
        else ""
    )
    failure = StorageUnavailable(store, f"{type(exc).__name__}: {exc}{hint}", condition)
    for listener in tuple(_listeners):
        listener.report(failure)
    return failure
