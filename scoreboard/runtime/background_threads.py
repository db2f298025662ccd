"""Threads for work that takes a whole core, at a lower priority than the event loop, which goes on meanwhile.

On Linux each thread has its own priority. Threads that it starts inherit it (argon2 starts four), and it can't be
raised again, so these threads do no other work. Elsewhere they are ordinary threads.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import trio

NICENESS = 10  # about a ninth of the event loop's share of a core, when both want it

T = TypeVar("T")


class BackgroundThreads:
    """At most `count` threads, made when they are needed."""

    __slots__ = ("_executor", "_limiter")

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, "background", initializer=_lower_priority)
        self._limiter = trio.CapacityLimiter(count)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls `function(*arguments)` in one of the threads, and returns or raises what it does.

        Cancelling while the call waits for a thread drops it. Later, cancelling has no effect until it has ended.
        """
        return await trio.to_thread.run_sync(
            lambda: self._executor.submit(function, *arguments).result(), limiter=self._limiter
        )


def _lower_priority() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
