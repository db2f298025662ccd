"""Single flight: concurrent callers share one PostgreSQL call, and each waits for a limited time.

For reads that can be answered without it (by an older board, an older name). Cancelling a call of the pool instead
would close its connection, and the next caller would start from the beginning.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one call at a time in its own task. The call must have a deadline of its own."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: asyncio.Task[T] | None = None

    async def run_aio(self, timeout_seconds: float, function_aio: Callable[[], Awaitable[T]]) -> T | None:
        """The call's value, or None when it takes longer than `timeout_seconds`. Then the call continues, and the next
        caller joins it.

        A caller that joins gets the value of the running call; its own `function_aio` is not called. Raises what the
        call raises. Cancelling leaves the call running.
        """
        task = self._running
        if task is None:
            task = self._running = asyncio.ensure_future(_awaited_aio(function_aio))
            task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
        return task.result() if done else None

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not report it when no caller waited


async def _awaited_aio(function_aio: Callable[[], Awaitable[T]]) -> T:
    return await function_aio()
