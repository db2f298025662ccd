"""Runs a test of the client once on Trio and once on asyncio.

`@on_both_loops` makes of an async test a plain one that runs on the loop of its `client`, the module under test (a
fixture of conftest). Such a test waits with anyio, which is for both. With `jumping=True` time jumps to whatever is
waited for.
"""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, overload

import anyio.to_thread
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
