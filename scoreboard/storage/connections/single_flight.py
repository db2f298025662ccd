"""One PostgreSQL call for all who ask at the same time (single flight), and a limit to how long each of them waits.

For reads that have an answer without it (an older board, an older name). Cancelling a call of the pool instead would
cost its connection, and the next caller would begin anew.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one call at a time in a task of its own, which ends by the call's own deadline."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: asyncio.Task[T] | None = None

    async def run_aio(self, timeout_seconds: float, function_aio: Callable[[], Awaitable[T]]) -> T | None:
        """The call's value, or None when it takes longer than `timeout_seconds`. Then the call runs on, and the next
        caller joins it.

        Who joins gets the value of the call that runs; the own `function_aio` is not called then. Raises what the call
        raises. Cancelling leaves the call running.
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
            task.exception()  # asked for, so that asyncio does not report it when nobody waited


async def _awaited_aio(function_aio: Callable[[], Awaitable[T]]) -> T:
    return await function_aio()
