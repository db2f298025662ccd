"""Concurrent callers share one call, and each waits for its own time at most."""

import asyncio

import pytest

from scoreboard.drivers.single_flight import SingleFlight
from tests.conftest import in_asyncio


class Call:
    """A call that ends when it is let; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()

    async def run_aio(self) -> int:
        self.begun += 1
        await self.go_on.wait()
        return self.begun


def test_callers_share_the_call_that_runs() -> None:
    """Two concurrent callers make one call; a later caller makes a new one."""

    async def run() -> tuple[list[int | None], int | None]:
        flight, call = SingleFlight[int](), Call()
        both = asyncio.gather(flight.run_aio(60, call.run_aio), flight.run_aio(60, call.run_aio))
        await asyncio.sleep(0)
        call.go_on.set()
        return list(await both), await flight.run_aio(60, call.run_aio)

    assert in_asyncio(run) == ([1, 1], 2)


def test_who_does_not_wait_leaves_the_call_running() -> None:
    """None after the time-out, and the next caller joins the same call."""

    async def run() -> tuple[int | None, int | None, int]:
        flight, call = SingleFlight[int](), Call()
        early = await flight.run_aio(0, call.run_aio)
        call.go_on.set()
        return early, await flight.run_aio(60, call.run_aio), call.begun

    assert in_asyncio(run) == (None, 1, 1)


def test_a_failure_is_raised_to_all_who_wait() -> None:
    """And is not remembered."""

    async def fail_aio() -> int:
        raise ValueError("no")

    async def succeed_aio() -> int:
        return 1

    async def run() -> int | None:
        flight = SingleFlight[int]()
        with pytest.raises(ValueError, match="no"):
            await flight.run_aio(60, fail_aio)
        return await flight.run_aio(60, succeed_aio)

    assert in_asyncio(run) == 1
