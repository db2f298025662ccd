"""A PostgreSQL call that nobody waits for longer than they can afford, and that is never made twice at once.

For reads that have an answer without it (an older board, an older name). Cancelling a pool call instead would cost its
connection, and the next caller would begin anew. asyncio-flavoured throughout.
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

    async def run_aio(self, timeout_seconds: float, function: Callable[[], Awaitable[T]]) -> T | None:
        """The call's value, or None when it takes longer than `timeout_seconds` seconds; then it runs on, and the next caller
        joins it.

        Whoever joins gets the value of the call that runs, whatever `function` they bring. Raises what the call raises.
        Cancelling leaves the call running.
        """
        task = self._running
        if task is None:
            task = self._running = asyncio.ensure_future(_awaited_aio(function))
            task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
        return task.result() if done else None

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not report it when nobody waited


async def _awaited_aio(function: Callable[[], Awaitable[T]]) -> T:
    return await function()
