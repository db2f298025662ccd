"""The pool: one deadline over a call, and no connection that leads to the wrong server."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers import postgres_pool
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.postgres_pool import CALL_SECONDS
from scoreboard.drivers.stores import Stores, open_stores
from tests.conftest import execute
from tests.storage.proxy import Fault, Proxy, proxy_before

POOL = 3
BACKEND = "SELECT pg_backend_pid()"
INSERT = "INSERT INTO users (username, email) VALUES (gen_random_uuid()::text, gen_random_uuid()::text)"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with proxy_before(database_url) as proxy:
        yield proxy


@pytest.fixture
async def stores(proxy: Proxy, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(proxy.url, redis_url, pool_size=POOL) as stores:
        yield stores


async def at_once(stores: Stores, count: int = POOL) -> set[int]:
    """As many connections as calls at the same time; the sessions that answered."""
    found: set[int] = set()

    async def ask() -> None:
        found.add((await stores.fetch("SELECT pg_backend_pid(), pg_sleep(0.2)"))[0][0])

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
    return found


def read_only(database_url: str, value: str) -> None:
    name = database_url.rpartition("/")[2]
    execute(
        database_url,
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name} SET default_transaction_read_only = {value}",
    )


async def test_connections_are_kept_and_bounded(stores: Stores, proxy: Proxy) -> None:
    """The one used last comes first; more calls than connections wait."""
    first = await stores.fetchval(BACKEND)
    assert [await stores.fetchval(BACKEND) for _ in range(5)] == [first] * 5
    assert len(await at_once(stores, 3 * POOL)) == POOL
    assert proxy.connections == POOL


async def test_unused_connections_are_closed(
    stores: Stores, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst leaves none behind for ever."""
    monkeypatch.setattr(postgres_pool, "IDLE_SECONDS", 0.1)
    sessions = await at_once(stores)

    async def there() -> int:
        conn = await asyncpg.connect(database_url)
        try:
            return int(await conn.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", list(sessions)))
        finally:
            conn.terminate()

    with trio.fail_after(10):
        while await run_in_asyncio(there):
            await trio.sleep(0.05)
    assert await stores.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("warm", [False, True])
async def test_swallowed_answers(stores: Stores, proxy: Proxy, warm: bool) -> None:
    """A read, a write and a transaction end within the call's deadline, connected before or not; all is well when
    answers come again."""
    if warm:
        await at_once(stores)
    proxy.fault = Fault.SWALLOW

    async def insert(conn: asyncpg.Connection) -> None:
        await conn.execute(INSERT)

    async def fails(call: object) -> None:
        with pytest.raises(StorageUnavailable) as raised:
            await call  # type: ignore[misc]
        assert raised.value.condition is StoreCondition.DOWN

    with trio.fail_after(CALL_SECONDS + 1.5):
        async with trio.open_nursery() as nursery:
            for call in (stores.fetchrow(BACKEND), stores.execute(INSERT), stores.in_transaction(insert)):
                nursery.start_soon(fails, call)
    proxy.fault = None
    with trio.fail_after(2):
        assert len(await at_once(stores)) == POOL


async def test_a_slow_statement_costs_its_own_connection_alone(stores: Stores) -> None:
    """A slow statement replaces no other connection."""
    before = await at_once(stores)
    with trio.fail_after(CALL_SECONDS + 1.5), pytest.raises(StorageUnavailable):
        await stores.fetchval("SELECT pg_sleep(30)")
    assert len(await at_once(stores) & before) == POOL - 1


async def test_no_free_connection(stores: Stores) -> None:
    """A caller that waits for a connection has the same deadline, and the condition is BUSY, not DOWN."""

    async def sleep() -> None:
        await run_in_asyncio(stores.pool.call_aio, lambda conn: conn.fetchval("SELECT pg_sleep(30)"), seconds=30)

    async with trio.open_nursery() as nursery:
        for _ in range(POOL):
            nursery.start_soon(sleep)
        await trio.sleep(0.5)
        with trio.fail_after(CALL_SECONDS + 1.5), pytest.raises(StorageUnavailable) as raised:
            await stores.fetchval(BACKEND)
        nursery.cancel_scope.cancel()
    assert raised.value.condition is StoreCondition.BUSY
    assert len(await at_once(stores)) == POOL  # cancelled calls gave their places back


async def test_read_only_sessions_do_not_stay(stores: Stores, database_url: str) -> None:
    """Opened while default_transaction_read_only was on: the first that is refused takes the idle ones along, after it
    is off again."""
    read_only(database_url, "on")
    old = await at_once(stores)
    with pytest.raises(StorageUnavailable) as raised:
        await stores.execute(INSERT)
    assert raised.value.condition is StoreCondition.READ_ONLY
    old |= await at_once(stores)  # opened anew, read-only as well
    read_only(database_url, "off")
    await trio.sleep(1)  # REPLACE_INTERVAL_SECONDS: the next refusal replaces all again
    with pytest.raises(StorageUnavailable):
        await stores.execute(INSERT)
    for _ in range(3 * POOL):
        await stores.execute(INSERT)
    assert not await at_once(stores) & old


async def test_a_refusal_inside_a_transaction(stores: Stores, database_url: str) -> None:
    """Costs the connection just the same."""
    read_only(database_url, "on")
    old = await at_once(stores)
    read_only(database_url, "off")

    async def insert(conn: asyncpg.Connection) -> int:
        await conn.execute(INSERT)
        return int(await conn.fetchval(BACKEND))

    with pytest.raises(StorageUnavailable):
        await stores.in_transaction(insert)
    assert await stores.in_transaction(insert) not in old


async def test_a_session_in_use_is_replaced_after_its_call(stores: Stores) -> None:
    """Its answer still arrives."""
    async with trio.open_nursery() as nursery:
        answers: set[int] = set()

        async def slow() -> None:
            answers.add((await stores.fetch("SELECT pg_backend_pid(), pg_sleep(0.5)"))[0][0])

        nursery.start_soon(slow)
        await trio.sleep(0.2)
        stores.pool.replace("for this test", at_once=True)
    assert await stores.fetchval(BACKEND) not in answers


async def test_errors_of_the_data_keep_the_connection(stores: Stores) -> None:
    """Alone and in a transaction, which is rolled back."""
    session = await stores.fetchval(BACKEND)

    async def broken(conn: asyncpg.Connection) -> None:
        await conn.execute(INSERT)
        await conn.execute("SELECT 1 / 0")

    for call in (stores.execute("SELECT 1 / 0"), stores.in_transaction(broken)):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await call
    assert await stores.fetchval(BACKEND) == session
    assert await stores.fetchval("SELECT count(*) FROM users") == 0


async def test_a_terminated_session_is_a_failure_of_the_store(stores: Stores) -> None:
    """57P01: the call fails as what it is, the next one works."""
    with pytest.raises(StorageUnavailable):
        await stores.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await stores.fetchval("SELECT 1") == 1


async def test_a_session_that_was_exchanged_is_a_failure_of_the_store(stores: Stores) -> None:
    """A pooler that came before PostgreSQL while the node runs: the statement that was prepared is not there. No start
    is decided any more: the call fails, the log names the setting, and the next one has a new connection."""
    first = await stores.fetchval(BACKEND)
    assert await stores.fetchval(BACKEND) == first
    await stores.execute("DEALLOCATE ALL")
    with pytest.raises(StorageUnavailable, match=r"postgres\.pgbouncer must be true") as caught:
        await stores.fetchval(BACKEND)
    assert isinstance(caught.value.__cause__, asyncpg.InvalidSQLStatementNameError)
    assert caught.value.condition is StoreCondition.DOWN
    assert await stores.fetchval(BACKEND) != first


async def test_missing_tables_are_a_failure_of_the_store(stores: Stores, database_url: str) -> None:
    """As while a dump is being restored."""
    execute(database_url, "ALTER TABLE users RENAME TO users_elsewhere")
    with pytest.raises(StorageUnavailable) as raised:
        await stores.execute(INSERT)
    assert raised.value.condition is StoreCondition.DOWN
    execute(database_url, "ALTER TABLE users_elsewhere RENAME TO users")
    await stores.execute(INSERT)


@pytest.mark.parametrize("change", ["password", "user", "database"])
async def test_a_refused_log_in(database_url: str, redis_url: str, change: str) -> None:
    """28P01, 28000, 3D000: the store can't be used."""
    head, _, name = database_url.rpartition("/")
    scheme, _, address = head.partition("://")
    place = address.rpartition("@")[2]
    credentials = address.rpartition("@")[0]
    url = {
        "password": f"{scheme}://{credentials.partition(':')[0]}:wrong@{place}/{name}",
        "user": f"{scheme}://nobody_of_this_name:wrong@{place}/{name}",
        "database": f"{head}/nothing_of_this_name",
    }[change]
    async with open_stores(url, redis_url) as stores:
        with pytest.raises(StorageUnavailable) as raised:
            await stores.fetchval("SELECT 1")
    assert raised.value.condition is StoreCondition.DOWN
