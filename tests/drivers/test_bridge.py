"""The crossing between the two event loops. Which failure becomes what: test_conditions.py."""

import asyncio

import pytest
import trio

from scoreboard.drivers.bridge import asyncio_loop, run_in_asyncio


async def double_aio(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_a_value_and_an_error_come_back() -> None:
    """As they are, not in a group."""

    async def fail_aio() -> None:
        raise ValueError("no")

    async with asyncio_loop():
        assert await run_in_asyncio(double_aio, number=2) == 4
        with pytest.raises(ValueError, match="no"):
            await run_in_asyncio(fail_aio)


async def test_cancelling_ends_the_asyncio_task() -> None:
    """It returns when the task has ended."""
    ended = []

    async def wait_aio() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async with asyncio_loop():
        with trio.move_on_after(0.01):
            await run_in_asyncio(wait_aio)
        assert ended == [True]


async def test_what_the_body_raises_is_no_group() -> None:
    """The loop's own nurseries are not seen."""
    with pytest.raises(ValueError, match="body"):
        async with asyncio_loop():
            raise ValueError("body")


async def test_an_error_in_a_callback_ends_nothing() -> None:
    """asyncpg reports a lost connection in this way."""

    async def report_aio() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "connection lost"})

    async with asyncio_loop():
        await run_in_asyncio(report_aio)
        assert await run_in_asyncio(double_aio, 1) == 2
