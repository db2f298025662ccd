"""A call on a PostgreSQL connection ends at its deadline, whatever PostgreSQL does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.deadline import bounded_aio
from scoreboard.drivers.stores import Stores, open_stores
from tests.storage.proxy import Fault, Proxy, proxy_before
from tests.storage.seeds import connection

SECONDS = 0.3
FAR = 60.0  # a deadline that no test reaches


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(database_url) as proxy:
        yield proxy


@pytest.fixture
async def conn(proxy: Proxy, redis_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with open_stores(proxy.url, redis_url) as stores, connection(stores) as conn:
        yield conn


async def plain(conn: asyncpg.Connection) -> object:
    return await conn.fetchval("SELECT 1")


async def in_transaction(conn: asyncpg.Connection) -> object:
    async with conn.transaction():
        return await conn.fetch("SELECT n, 'x' FROM generate_series(1, 10) n")


async def by_cursor(conn: asyncpg.Connection) -> object:
    async with conn.transaction():
        return [row async for row in conn.cursor("SELECT generate_series(1, 100)", prefetch=10)]


async def by_statement(conn: asyncpg.Connection) -> object:
    return await (await conn.prepare("SELECT $1::uuid[]")).fetch([])


@pytest.mark.parametrize("call", [plain, in_transaction, by_cursor, by_statement])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
async def test_swallowed_answers(
    conn: asyncpg.Connection, proxy: Proxy, call: Callable[[asyncpg.Connection], Awaitable[object]], after: int
) -> None:
    """From any answer on: StorageUnavailable, soon after the deadline, and the connection is closed. Nothing else of
    asyncpg comes out."""
    proxy.swallow_after = after
    failure: StorageUnavailable | None = None
    with trio.fail_after(5):
        try:
            await run_in_asyncio(lambda: bounded_aio(conn, SECONDS, call(conn)))
        except StorageUnavailable as exc:
            failure = exc
    assert conn.is_closed() is (failure is not None)  # some calls need no more answers than came
    if after == 0:
        assert failure is not None
    if failure is not None:
        assert (failure.store, failure.condition) == ("postgresql", StoreCondition.DOWN)


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.CUT_REQUEST, Fault.CUT_WAITING])
@pytest.mark.parametrize("call", [plain, in_transaction, by_cursor, by_statement])
async def test_a_connection_that_ends(
    conn: asyncpg.Connection, proxy: Proxy, fault: Fault, call: Callable[[asyncpg.Connection], Awaitable[object]]
) -> None:
    """An error reply is raised at once and unchanged."""
    proxy.fault = fault
    with trio.fail_after(5), pytest.raises((StorageUnavailable, asyncpg.PostgresConnectionError)):
        await run_in_asyncio(lambda: bounded_aio(conn, FAR, call(conn)))
    assert conn.is_closed()


@pytest.mark.parametrize(
    ("sql", "args", "error"),
    [
        ("SELECT 1 / $1::int", (0,), asyncpg.DivisionByZeroError),
        ("SELECT $1::int", ("no number",), asyncpg.DataError),
        ("SELECT $1::text", ("\udcff",), asyncpg.DataError),
    ],
)
async def test_errors_of_the_data(
    conn: asyncpg.Connection, sql: str, args: tuple[object, ...], error: type[Exception]
) -> None:
    """Pass as they are, and the connection stays open."""
    with pytest.raises(error):
        await run_in_asyncio(lambda: bounded_aio(conn, FAR, conn.fetchval(sql, *args)))
    assert await run_in_asyncio(lambda: bounded_aio(conn, FAR, conn.fetchval("SELECT 7"))) == 7


async def test_cancelling(conn: asyncpg.Connection) -> None:
    """A cancelled call returns at once and closes the connection, whose answer may still come."""
    with trio.fail_after(5), trio.move_on_after(SECONDS) as scope:
        await run_in_asyncio(lambda: bounded_aio(conn, FAR, conn.fetchval("SELECT pg_sleep(60)")))
    assert scope.cancelled_caught
    assert conn.is_closed()


async def test_a_deadline_that_has_passed(conn: asyncpg.Connection) -> None:
    """Is the same."""
    with pytest.raises(StorageUnavailable):
        await run_in_asyncio(lambda: bounded_aio(conn, -1, conn.fetchval("SELECT pg_sleep(60)")))


async def test_a_bug_stays_a_bug(conn: asyncpg.Connection) -> None:
    """What the call raises of itself is not called a failure of the store; the connection goes, since nobody knows its
    state."""

    async def broken() -> None:
        await conn.fetchval("SELECT 1")
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await run_in_asyncio(lambda: bounded_aio(conn, FAR, broken()))
    assert conn.is_closed()


async def test_many_at_once(proxy: Proxy, redis_url: str) -> None:
    """Each connection ends by its own deadline, and no other call notices."""
    async with open_stores(proxy.url, redis_url) as stores:
        await _many(stores)


async def _many(stores: Stores) -> None:
    async def run() -> list[object]:
        conns = [await stores.connect_aio() for _ in range(6)]
        try:
            calls: list[Awaitable[object]] = [
                bounded_aio(conn, SECONDS if n % 2 else FAR, conn.fetchval("SELECT pg_sleep(1), $1::int", n))
                for n, conn in enumerate(conns)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            for conn in conns:
                conn.terminate()

    ended = await run_in_asyncio(run)
    assert [isinstance(one, StorageUnavailable) for one in ended] == [n % 2 == 1 for n in range(6)]
