"""A Trio loop in a thread of its own, beside a test: for servers and proxies that outlive a test or its loop."""

import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
import trio

T = TypeVar("T")


class BackgroundLoop:
    """The loop, to which any other loop may hand work."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    async def do(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Awaits `work(*args)` over there."""
        return await anyio.to_thread.run_sync(partial(trio.from_thread.run, work, *args, trio_token=self._token))


@contextmanager
def in_background(manager: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, BackgroundLoop]]:
    """Holds an async context manager open in a background loop: what it gives, and the loop."""
    started: queue.SimpleQueue[tuple[T, BackgroundLoop] | BaseException] = queue.SimpleQueue()
    finished = threading.Event()

    async def hold() -> None:
        try:
            async with manager() as given:
                started.put((given, BackgroundLoop(trio.lowlevel.current_trio_token())))
                await trio.to_thread.run_sync(finished.wait)
        except BaseException as exc:
            started.put(exc)
            raise

    thread = threading.Thread(target=trio.run, args=(hold,), name="background loop")
    thread.start()
    try:
        given = started.get()
        if isinstance(given, BaseException):
            raise given
        yield given
    finally:
        finished.set()
        thread.join()
