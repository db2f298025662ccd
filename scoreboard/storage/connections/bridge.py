"""The crossing from Trio to asyncio and back, and the edge at which library exceptions stop.

asyncpg and redis-py run on asyncio; everything above the storage runs on Trio. A crossing costs 350–700 µs of CPU, so
whatever belongs together is one asyncio function and crosses once. What comes back is a value, `StorageUnavailable`, or
an error reply of PostgreSQL that the caller wants to see (a unique violation, bad data).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import structlog
import trio_asyncio

from scoreboard.domain.errors import StorageUnavailable, Store, StoreCondition
from scoreboard.storage.connections.conditions import POOLER_ERRORS, postgres_condition, redis_condition
from scoreboard.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


class FailureListener(Protocol):
    """Learns of failures of the stores; it is storage.health, which this folder may not import."""

    def report(self, failure: StorageUnavailable) -> None:
        """A call failed. May not wait."""


_listeners: set[FailureListener] = set()  # as many as monitors run in this process: one


async def run_in_asyncio(function_aio: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a coroutine function on asyncio's side and returns its value. All that Trio code knows of asyncio is this.

    A coroutine that must run on asyncio's side has a name that ends in `_aio`; Trio code never awaits one itself.

    Cancelling cancels the asyncio task and returns when that has ended; a call whose ending must be bounded brings its
    own deadline.
    """
    return cast("T", await trio_asyncio.aio_as_trio(function_aio)(*args, **kwargs))


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """Holds the asyncio loop open. What asyncio would give to its exception handler is logged and counted; it ends
    nothing.

    (asyncpg reports a lost connection there, and trio-asyncio's default answer is to end the application.) What the
    body raises comes out as it is: the loop's own nurseries would wrap it in groups.
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
    """Reports each failure that this module makes of a library's, whoever met it, while the block runs."""
    _listeners.add(listener)
    try:
        yield
    finally:
        _listeners.discard(listener)


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Inside asyncio code: turns whatever keeps PostgreSQL from being used into StorageUnavailable; data errors
    pass."""
    try:
        yield
    except Exception as exc:
        condition = postgres_condition(exc)
        if condition is None:
            raise
        raise _unavailable("postgresql", exc, condition) from exc


@contextmanager
def redis_errors() -> Iterator[None]:
    """Inside asyncio code: turns every failure of a Redis call into StorageUnavailable: Redis refuses, is full, is
    loading, or is gone."""
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
