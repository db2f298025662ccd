"""The write path's Redis client: one deadline over a call, and no answer that belongs to another call."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio
import redis.exceptions
import trio

from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.redis_client import DirectClient
from scoreboard.drivers.stores import REDIS_SECONDS, open_stores
from tests.storage.proxy import Fault, Proxy, proxy_before

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # Redis alone is asked


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[DirectClient]:
    async with open_stores(NOWHERE, proxy.url) as stores:
        yield stores.redis_direct


async def call(client: DirectClient, *args: object) -> object:
    return await run_in_asyncio(client.execute_aio, *args)


async def test_one_connection_for_calls_in_turn_and_more_for_calls_at_once(client: DirectClient, proxy: Proxy) -> None:
    """Each gets its own answer."""
    for number in range(5):
        assert await call(client, "ECHO", str(number)) == str(number).encode()
    assert proxy.connections == 1
    answers: list[tuple[int, object]] = []

    async def ask(number: int) -> None:
        answers.append((number, await call(client, "ECHO", str(number))))

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [(number, str(number).encode()) for number in range(9)]
    assert proxy.connections <= 9


@pytest.mark.parametrize("cancelled", [False, True])
async def test_no_answer(client: DirectClient, proxy: Proxy, cancelled: bool) -> None:
    """TimeoutError within the deadline, or Cancelled; the answer that comes late is nobody else's."""
    assert await call(client, "ECHO", "first") == b"first"
    proxy.fault = Fault.SWALLOW
    begun = trio.current_time()
    with trio.move_on_after(REDIS_SECONDS / 4 if cancelled else 10) as scope:
        with pytest.raises(TimeoutError):
            await call(client, "ECHO", "lost")
    assert scope.cancelled_caught is cancelled
    assert trio.current_time() - begun < 10 * REDIS_SECONDS
    proxy.fault = None
    assert await call(client, "ECHO", "second") == b"second"
    assert proxy.connections == 2


async def test_a_connection_that_ended_while_idle_is_made_anew(
    client: DirectClient, redis_url: str, proxy: Proxy
) -> None:
    """As after a restart of Redis: the next call does not fail for it."""
    assert await call(client, "ECHO", "first") == b"first"

    async def kill() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as other:
            await other.execute_command("CLIENT", "KILL", "TYPE", "normal")  # type: ignore[no-untyped-call]

    await run_in_asyncio(kill)
    await trio.sleep(0.05)
    assert await call(client, "ECHO", "second") == b"second"


async def test_an_error_reply_keeps_the_connection(client: DirectClient, proxy: Proxy) -> None:
    """It is raised as redis-py's."""
    with pytest.raises(redis.exceptions.ResponseError):
        await call(client, "NONSENSE")
    assert await call(client, "ECHO", "x") == b"x"
    assert proxy.connections == 1


async def test_scripts(client: DirectClient) -> None:
    """A script's text is sent when Redis does not have the script, and again after Redis has lost it."""
    script = client.register_script("return {KEYS[1], ARGV[1], ARGV[2]}")
    for _ in range(2):
        assert await run_in_asyncio(script, keys=["k"], args=[b"\x00\xff", 7]) == [b"k", b"\x00\xff", b"7"]
        await call(client, "SCRIPT", "FLUSH")
