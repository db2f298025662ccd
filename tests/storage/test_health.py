"""The monitor: it learns the condition of each store within two seconds, and what follows from a change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded import stack as embedded
from scoreboard.embedded.stack import Endpoints
from scoreboard.storage import health
from scoreboard.storage.bus import Bus
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.telemetry.metrics import REGISTRY
from tests.conftest import OwnValkey, execute, resp
from tests.drivers.test_postgres_pool import INSERT, at_once, read_only
from tests.storage.proxy import Fault, Proxy, proxy_before

UP, DOWN, READ_ONLY, FULL = StoreCondition.UP, StoreCondition.DOWN, StoreCondition.READ_ONLY, StoreCondition.FULL
KNOWN_WITHIN_SECONDS = 10  # two by design; a test must not fail because the machine is busy
NO_SPACE = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; END $$"


@asynccontextmanager
async def monitoring(stores: Stores) -> AsyncIterator[HealthMonitor]:
    monitor = HealthMonitor(stores)
    async with trio.open_nursery() as nursery:
        await nursery.start(monitor.run)
        yield monitor
        nursery.cancel_scope.cancel()


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Proxy]:
    await migrate(database_url)
    async with proxy_before(database_url) as proxy:
        yield proxy


@pytest.fixture
async def valkey(fresh_valkey: OwnValkey) -> AsyncIterator[Proxy]:
    async with proxy_before(fresh_valkey.url) as proxy:
        yield proxy


@pytest.fixture
async def stores(postgres: Proxy, valkey: Proxy) -> AsyncIterator[Stores]:
    async with open_stores(postgres.url, valkey.url, pool_size=3) as stores:
        yield stores


@pytest.fixture
async def monitor(stores: Stores) -> AsyncIterator[HealthMonitor]:
    async with monitoring(stores) as monitor:
        yield monitor


async def until(monitor: HealthMonitor, *, postgresql: StoreCondition = UP, redis: StoreCondition = UP) -> None:
    with trio.fail_after(KNOWN_WITHIN_SECONDS):
        while monitor.conditions != {"postgresql": postgresql, "redis": redis}:
            await trio.sleep(0.02)


def condition_metric(store: str) -> set[str]:
    """The conditions that the metrics show for a store."""
    every = [condition.value for condition in (UP, DOWN, READ_ONLY, FULL)]
    return {
        name
        for name in every
        if REGISTRY.get_sample_value("scoreboard_store_condition", {"store": store, "condition": name}) == 1
    }


async def test_both_are_there(monitor: HealthMonitor) -> None:
    """Known when the task has started."""
    assert monitor.conditions == {"postgresql": UP, "redis": UP}
    assert (monitor.warnings, monitor.redis_evicts) == ((), False)
    assert condition_metric("postgresql") == condition_metric("redis") == {"up"}


async def test_a_node_may_start_before_its_stores(stores: Stores, postgres: Proxy, fresh_valkey: OwnValkey) -> None:
    """The first check says so, and ends in its time; later ones find them."""
    fresh_valkey.kill()
    postgres.fault = Fault.SWALLOW
    with trio.fail_after(KNOWN_WITHIN_SECONDS):
        async with monitoring(stores) as monitor:
            assert monitor.conditions == {"postgresql": DOWN, "redis": DOWN}
            postgres.fault = None
            await until(monitor, redis=DOWN)
            await trio.to_thread.run_sync(fresh_valkey.start)
            await until(monitor)


# ---- Redis ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "back", "expected"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", READ_ONLY),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", FULL),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", READ_ONLY),
        ("CONFIG SET requirepass another", "CONFIG SET requirepass secret", DOWN),
        ("ACL SETUSER default -lpushx", "ACL SETUSER default +@all", UP),
    ],
)
async def test_what_redis_says(
    monitor: HealthMonitor, stores: Stores, command: str, back: str, expected: StoreCondition
) -> None:
    """It is found without a write; each change is one log line and changes the metric; no key changes."""
    await run_in_asyncio(stores.redis_direct.execute_aio, "PING")  # a connection that is logged in
    with capture_logs() as lines:
        await stores.command(*command.split())
        await until(monitor, redis=expected)
        assert condition_metric("redis") == {expected.value}
        await trio.sleep(2 * health.CHECK_INTERVAL_SECONDS)
        assert monitor.conditions["redis"] is expected
        await run_in_asyncio(stores.redis_direct.execute_aio, *back.split())
        await until(monitor)
    changes = [(line["before"], line["condition"]) for line in lines if line["event"] == "store_condition_changed"]
    assert changes == ([] if expected is UP else [(UP, expected), (expected, UP)])
    assert await stores.command("DBSIZE") == 0


async def test_a_writable_replica_is_no_primary(monitor: HealthMonitor, fresh_valkey: OwnValkey) -> None:
    """A replica that accepts writes loses them, so its role decides."""
    resp(fresh_valkey.url, "CONFIG SET replica-read-only no")
    resp(fresh_valkey.url, "REPLICAOF 127.0.0.1 1")
    await until(monitor, redis=READ_ONLY)


async def test_valkey_dies_and_comes_back(monitor: HealthMonitor, fresh_valkey: OwnValkey) -> None:
    """Down, then up."""
    fresh_valkey.kill()
    await until(monitor, redis=DOWN)
    await trio.to_thread.run_sync(fresh_valkey.start)
    await until(monitor)


async def test_valkey_is_silent_for_a_while(monitor: HealthMonitor, stores: Stores, valkey: Proxy) -> None:
    """Down; when it answers again no connection from before is used, since one may be half-open: the subscription is
    made anew as well."""
    before = await stores.command("CLIENT", "ID")
    subscribed: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Bus(stores).listen, lambda: subscribed.append(trio.current_time()), lambda _: None)
        with trio.fail_after(KNOWN_WITHIN_SECONDS):
            while not subscribed:
                await trio.sleep(0.01)
        valkey.fault = Fault.SWALLOW
        await until(monitor, redis=DOWN)
        valkey.fault = None
        await until(monitor)
        with trio.fail_after(KNOWN_WITHIN_SECONDS):
            while len(subscribed) < 2:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert await stores.command("CLIENT", "ID") != before


async def test_a_full_redis_is_reported_by_the_first_call(
    stores: Stores, fresh_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without waiting for the next check."""
    monkeypatch.setattr(health, "CHECK_INTERVAL_SECONDS", 1000.0)
    async with monitoring(stores) as monitor:
        resp(fresh_valkey.url, "CONFIG SET maxmemory 1")
        with pytest.raises(StorageUnavailable):
            await stores.command("SET", "x", "1")
        assert monitor.conditions["redis"] is FULL


async def test_an_address_that_moves(
    monitor: HealthMonitor, stores: Stores, valkey: Proxy, fresh_valkey: OwnValkey, redis_url: str
) -> None:
    """The old server still answers every call happily; within seconds no connection leads there any more."""
    await stores.command("SET", "server", "old")
    assert await run_in_asyncio(stores.redis_direct.execute_aio, "GET", "server") == b"old"
    resp(redis_url, "ACL SETUSER default >secret")
    resp(redis_url, "SET server new")
    try:
        valkey.target = redis_url
        with trio.fail_after(KNOWN_WITHIN_SECONDS):
            for ask in (stores.command, lambda *args: run_in_asyncio(stores.redis_direct.execute_aio, *args)):
                while await ask("GET", "server") != b"new":
                    await trio.sleep(0.05)
        assert await _others(fresh_valkey) == 0
        assert monitor.conditions["redis"] is UP
    finally:
        resp(redis_url, "ACL SETUSER default <secret")


async def _others(valkey: OwnValkey) -> int:
    """How many connections a server has besides the one that asks."""
    async with open_stores("postgresql://nobody@127.0.0.1:1/none", valkey.url) as own:
        with trio.move_on_after(2):
            while (count := len((await own.command("CLIENT", "LIST")).splitlines()) - 1) > 0:
                await trio.sleep(0.05)
    return count


async def test_eviction_is_warned_of(fresh_valkey: OwnValkey, stores: Stores) -> None:
    """Once in the log, in /readyz as long as it is so, and others may ask."""
    resp(fresh_valkey.url, "CONFIG SET maxmemory-policy allkeys-lru")
    with capture_logs() as lines:
        async with monitoring(stores) as monitor:
            assert (monitor.redis_evicts, monitor.warnings) == (True, (health.EVICTION_WARNING.format("allkeys-lru"),))
            await trio.sleep(2 * health.CHECK_INTERVAL_SECONDS)
            resp(fresh_valkey.url, "CONFIG SET maxmemory-policy noeviction")
            with trio.fail_after(KNOWN_WITHIN_SECONDS):
                while monitor.warnings:
                    await trio.sleep(0.02)
            assert not monitor.redis_evicts
    assert [line["event"] for line in lines].count("redis_eviction_found") == 1


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


async def test_read_only_for_new_sessions(monitor: HealthMonitor, stores: Stores, database_url: str) -> None:
    """Known though old sessions can still write; when it is off again, the sessions opened meanwhile are gone before
    they are used."""
    read_only(database_url, "on")
    await until(monitor, postgresql=READ_ONLY)
    opened = await at_once(stores)
    read_only(database_url, "off")
    await until(monitor)
    assert not await at_once(stores) & opened
    for _ in range(5):
        await stores.execute(INSERT)


async def test_an_address_of_postgresql_that_moves(
    monitor: HealthMonitor, stores: Stores, postgres: Proxy, database_url: str, tmp_path: Path
) -> None:
    """The old server would still record: connections in the pool and outside end, and new ones lead to the other
    server."""
    outside = await run_in_asyncio(stores.connect_aio)
    old = await stores.fetchval("SELECT pg_postmaster_start_time()")
    assert await run_in_asyncio(outside.fetchval, "SELECT pg_postmaster_start_time()") == old
    async with embedded.running(tmp_path / "other") as endpoints:
        name, password = database_url.rpartition("/")[2], urlsplit(database_url).password
        execute(endpoints.postgres_url, f"ALTER ROLE CURRENT_USER PASSWORD '{password}'")
        parts = urlsplit(endpoints.postgres_url)
        there = parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}")
        execute(there.geturl(), f"CREATE DATABASE {name}")
        there = there._replace(path=f"/{name}")
        await migrate(there.geturl())
        postgres.target = there.geturl()
        with trio.fail_after(KNOWN_WITHIN_SECONDS):
            while not outside.is_closed() or await stores.fetchval("SELECT pg_postmaster_start_time()") == old:
                await trio.sleep(0.05)
        await until(monitor)


async def test_missing_tables(monitor: HealthMonitor, database_url: str) -> None:
    """A database that is being restored can't be used, and says so for as long as it is so."""
    execute(database_url, "ALTER TABLE commits RENAME TO commits_elsewhere")
    await until(monitor, postgresql=DOWN)
    await trio.sleep(health.CHECK_INTERVAL_SECONDS)
    assert monitor.conditions["postgresql"] is DOWN
    execute(database_url, "ALTER TABLE commits_elsewhere RENAME TO commits")
    await until(monitor)


async def test_a_role_that_may_not_connect(
    monitor: HealthMonitor, database_url: str, embedded_servers: Endpoints
) -> None:
    """Sessions that are open still work; a new one is refused, and that counts."""
    name = database_url.rpartition("/")[2]
    execute(database_url, f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, CURRENT_USER")
    await until(monitor, postgresql=DOWN)
    execute(embedded_servers.postgres_url, f"GRANT CONNECT ON DATABASE {name} TO PUBLIC, CURRENT_USER")
    await until(monitor)


@pytest.mark.parametrize("fault", [Fault.SWALLOW, None])
async def test_out_of_reach(monitor: HealthMonitor, postgres: Proxy, fault: Fault | None) -> None:
    """Silent or refusing: down."""
    postgres.fault, postgres.refuse = fault, fault is None
    await until(monitor, postgresql=DOWN)
    postgres.fault, postgres.refuse = None, False
    await until(monitor)


async def test_a_full_disk_is_reported_by_the_first_call(monitor: HealthMonitor, stores: Stores) -> None:
    """The store is full at once, and up again when a write that needs space succeeds."""
    with capture_logs() as lines:
        with pytest.raises(StorageUnavailable) as raised:
            await stores.execute(NO_SPACE)
        assert raised.value.condition is FULL
        assert monitor.conditions["postgresql"] is FULL
        await until(monitor)
    changes = [(line["before"], line["condition"]) for line in lines if line["event"] == "store_condition_changed"]
    assert changes == [(UP, FULL), (FULL, UP)]


async def test_a_disk_that_stays_full(monitor: HealthMonitor, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the write that needs space is refused for want of it."""
    monkeypatch.setattr(health, "SPACE_SQL", NO_SPACE)
    with pytest.raises(StorageUnavailable):
        await stores.execute(NO_SPACE)
    await trio.sleep(2.5 * health.CHECK_INTERVAL_SECONDS)
    assert monitor.conditions["postgresql"] is FULL
    monkeypatch.undo()
    await until(monitor)


async def test_a_role_without_temporary_tables(monitor: HealthMonitor, stores: Stores, database_url: str) -> None:
    """A role without temporary tables can't test the space; its store does not stay full for ever."""
    name = database_url.rpartition("/")[2]
    execute(database_url, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC, CURRENT_USER")
    with pytest.raises(StorageUnavailable):
        await stores.execute(NO_SPACE)
    await until(monitor)


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55P03'; END $$",
    ],
)
async def test_a_busy_store_is_up(monitor: HealthMonitor, stores: Stores, statement: str) -> None:
    """A lock or a cancelled statement changes no condition and causes no check."""
    with pytest.raises(StorageUnavailable):
        await stores.execute(statement)
    assert monitor.conditions["postgresql"] is UP
    assert not monitor._reported.is_set()


async def test_a_failure_makes_the_next_check_come_at_once(
    stores: Stores, postgres: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever meets it first."""
    monkeypatch.setattr(health, "CHECK_INTERVAL_SECONDS", 1000.0)
    async with monitoring(stores) as monitor:
        postgres.refuse = True
        with pytest.raises(StorageUnavailable):
            await stores.execute(INSERT)
        await until(monitor, postgresql=DOWN)
