"""Runs a test of the client once on Trio and once on asyncio, and servers beside it on a Trio loop of their own.

`@on_both_loops` makes of an async test a plain one that runs on the loop of its `client`, the module under test (a
fixture of conftest). Such a test waits with anyio, which is for both. With `jumping=True` time jumps to whatever is
waited for.
"""

import asyncio
import functools
import queue
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, overload

import anyio.to_thread
import trio
from trio.testing import MockClock

import scoreboard.client.asyncio
from tests.conftest import in_thread

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait for time to pass, but says how much would have."""

    skipped = 0.0  # seconds

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0 if timeout else timeout)
        if not events and timeout:
            self.skipped += timeout
        return events


class _JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's counterpart of Trio's MockClock."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.skipped


def is_trio(client: ModuleType) -> bool:
    return client is not scoreboard.client.asyncio


def run(client: ModuleType, work: Callable[[], Awaitable[T]], *, jumping: bool = False) -> T:
    """Runs a coroutine on the loop that this client is for, in a thread where no other loop can be."""
    options: dict[str, Any] = {}
    if jumping:
        options = {"clock": MockClock(autojump_threshold=0)} if is_trio(client) else {"loop_factory": _JumpingLoop}
    return in_thread(
        partial(anyio.run, work, backend="trio" if is_trio(client) else "asyncio", backend_options=options)
    )


Test = Callable[..., Coroutine[Any, Any, None]]


@overload
def on_both_loops(test: Test) -> Callable[..., None]: ...


@overload
def on_both_loops(*, jumping: bool) -> Callable[[Test], Callable[..., None]]: ...


def on_both_loops(test: Test | None = None, *, jumping: bool = False) -> Any:
    """The test takes `client` among its fixtures."""
    if test is None:
        return partial(on_both_loops, jumping=jumping)

    @functools.wraps(test)
    def run_test(*, client: ModuleType, **fixtures: Any) -> None:
        run(client, partial(test, client=client, **fixtures), jumping=jumping)

    return run_test


class TrioThread:
    """A Trio loop in another thread, of which any loop may ask something."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    async def do(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Awaits `work(*args)` over there."""
        return await anyio.to_thread.run_sync(partial(trio.from_thread.run, work, *args, trio_token=self._token))


@contextmanager
def beside(manager: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, TrioThread]]:
    """Holds an async context manager open on a Trio loop of its own: what it gives, and the loop."""
    started: queue.SimpleQueue[tuple[T, TrioThread] | BaseException] = queue.SimpleQueue()
    finished = threading.Event()

    async def hold() -> None:
        try:
            async with manager() as given:
                started.put((given, TrioThread(trio.lowlevel.current_trio_token())))
                await trio.to_thread.run_sync(finished.wait)
        except BaseException as exc:
            started.put(exc)
            raise

    thread = threading.Thread(target=trio.run, args=(hold,), name="beside")
    thread.start()
    try:
        given = started.get()
        if isinstance(given, BaseException):
            raise given
        yield given
    finally:
        finished.set()
        thread.join()
