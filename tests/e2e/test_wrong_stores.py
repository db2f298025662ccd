"""Stores that are there and not what they seem: what clients and /readyz are told, and that a node goes on by itself
when all is right."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest
import trio

from scoreboard.embedded.stack import Endpoints
from tests.conftest import OwnValkey, execute, resp
from tests.drivers.test_postgres_pool import read_only
from tests.e2e.server_processes import Client, ServerProcess, register
from tests.storage.proxy import Fault, proxy_before

StartNode = Callable[..., ServerProcess]
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"""
PASSWORD = "a long password"
ACCOUNTS = ("users", "credentials", "sessions", "commits")  # tables


@asynccontextmanager
async def visited(node: ServerProcess) -> AsyncIterator[tuple[httpx.AsyncClient, Client]]:
    """A client of the node who has an account, and acted."""
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as http:
        user = await register(http, "known")
        assert (await user.act()).status_code == httpx.codes.OK
        yield http, user


async def until_stores(http: httpx.AsyncClient, postgresql: str, redis: str) -> None:
    """Until /readyz says so; 200 all the time. Two seconds by design, more on a busy machine."""
    with trio.fail_after(10):
        while True:
            answer = await http.get("/readyz")
            assert answer.status_code == httpx.codes.OK
            if answer.json()["stores"] == {"postgresql": postgresql, "redis": redis}:
                return
            await trio.sleep(0.05)


async def new_account(http: httpx.AsyncClient, name: str) -> httpx.Response:
    return await http.post(
        "/api/v1/auth/register", json={"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    )


async def until_registered(http: httpx.AsyncClient, name: str) -> None:
    with trio.fail_after(10):
        while (answer := await new_account(http, name)).status_code != 201:
            assert answer.status_code == 503
            await trio.sleep(0.05)


async def refused(http: httpx.AsyncClient, user: Client) -> list[httpx.Response]:
    """Log-in, profile, a new account: each with its own connection."""
    return [
        await http.post("/api/v1/auth/login", json={"username": "known", "password": PASSWORD}),
        await http.get("/api/v1/users/me", headers=user.authorization),
        await new_account(http, "other"),
    ]


def assert_out_of_service(answers: list[httpx.Response]) -> None:
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} == {"SERVICE_UNAVAILABLE"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)


def assert_no_crash(node: ServerProcess) -> None:
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"} or "exception" in line]


def subscribers(url: str) -> int:
    return int(
        resp(url, "EVAL \"return redis.call('PUBSUB', 'NUMSUB', 'scoreboard:updates')[2]\" 0").removeprefix(b":")
    )


def changes(node: ServerProcess, store: str) -> list[str]:
    return [
        line["condition"]
        for line in node.lines()
        if line["event"] == "store_condition_changed" and line["store"] == store
    ]


async def test_a_database_that_is_read_only_for_a_while(start_node: StartNode, database_url: str) -> None:
    """Reads go on, new accounts get 503 and /readyz says why; afterwards no session of that time is left to refuse
    anybody."""
    node = start_node()
    async with visited(node) as (http, user):
        read_only(database_url, "on")
        await until_stores(http, "read_only", "up")
        execute(database_url, END_SESSIONS)  # those from before might still write
        while (answer := await new_account(http, f"early-{uuid4().hex[:8]}")).status_code == httpx.codes.CREATED:
            execute(database_url, END_SESSIONS)
        assert_out_of_service([answer])
        assert (await http.get("/api/v1/users/me", headers=user.authorization)).status_code == httpx.codes.OK
        read_only(database_url, "off")
        await until_stores(http, "up", "up")
        await until_registered(http, "late")
        for _ in range(5):
            assert (
                await http.post("/api/v1/auth/login", json={"username": "late", "password": PASSWORD})
            ).status_code == 200
    assert changes(node, "postgresql") == ["read_only", "up"]
    assert_no_crash(node)


async def test_a_role_that_may_not_log_in(
    start_node: StartNode, database_url: str, embedded_servers: Endpoints
) -> None:
    """503 with Retry-After, never 500."""
    node, name = start_node(), database_url.rpartition("/")[2]
    async with visited(node) as (http, user):
        execute(database_url, f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, CURRENT_USER")
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        execute(embedded_servers.postgres_url, kill)
        await until_stores(http, "down", "up")
        execute(embedded_servers.postgres_url, kill)
        assert_out_of_service(await refused(http, user))
        execute(embedded_servers.postgres_url, f"GRANT CONNECT ON DATABASE {name} TO PUBLIC, CURRENT_USER")
        await until_stores(http, "up", "up")
        await until_registered(http, "late")
    assert_no_crash(node)


async def test_a_database_that_is_being_restored(start_node: StartNode, database_url: str) -> None:
    """Its tables are missing for a while: the same."""
    node = start_node()
    async with visited(node) as (http, user):
        execute(database_url, *(f"ALTER TABLE {table} RENAME TO {table}_away" for table in ACCOUNTS))
        await until_stores(http, "down", "up")
        assert_out_of_service(await refused(http, user))
        await trio.sleep(2)  # the node's own tasks meet it too
        execute(database_url, *(f"ALTER TABLE {table}_away RENAME TO {table}" for table in ACCOUNTS))
        await until_stores(http, "up", "up")
        await until_registered(http, "late")
    assert_no_crash(node)


async def test_swallowed_answers(start_node: StartNode, database_url: str) -> None:
    """Every request ends with 503 in the time that a client waits; the requests come at once, not one after the
    other."""
    async with proxy_before(database_url) as proxy:
        node = await trio.to_thread.run_sync(lambda: start_node(postgres=proxy.url))
        async with visited(node) as (http, user):
            proxy.fault = Fault.SWALLOW
            with trio.fail_after(4 * 3.5):
                assert_out_of_service(await refused(http, user))
            await until_stores(http, "down", "up")
            proxy.fault = None
            await until_stores(http, "up", "up")
            await until_registered(http, "late")
    assert_no_crash(node)


@pytest.mark.parametrize(
    ("command", "back", "condition"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read_only"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "full"),
    ],
)
async def test_a_redis_that_takes_no_writes(
    start_node: StartNode, fresh_valkey: OwnValkey, command: str, back: str, condition: str
) -> None:
    """/readyz says which store and why; ranks come back with it."""
    node = start_node(redis=fresh_valkey.url, limits__user_per_minute="0")
    async with visited(node) as (http, user):
        assert resp(fresh_valkey.url, command) == b"+OK"
        await until_stores(http, "up", condition)
        assert (await user.act()).status_code == httpx.codes.OK
        assert resp(fresh_valkey.url, back) == b"+OK"
        await until_stores(http, "up", "up")
        with trio.fail_after(10):
            while (await user.act()).json()["data"]["newRank"] != 1:
                await trio.sleep(0.1)
    assert changes(node, "redis") == [condition, "up"]
    assert_no_crash(node)


async def test_a_redis_that_evicts(start_node: StartNode, fresh_valkey: OwnValkey) -> None:
    """A warning at the start, once, and in /readyz."""
    resp(fresh_valkey.url, "CONFIG SET maxmemory-policy allkeys-lru")
    node = start_node(redis=fresh_valkey.url)
    async with httpx.AsyncClient(base_url=node.url) as http:
        (warning,) = (await http.get("/readyz")).json()["warnings"]
        assert "noeviction" in warning
    assert len([line for line in node.lines() if line["event"] == "redis_eviction_found"]) == 1


async def test_a_failover_behind_an_address(start_node: StartNode, fresh_valkey: OwnValkey, redis_url: str) -> None:
    """The old Valkey becomes a replica and lives on; the address leads to another. Ranks and messages come from there
    soon."""
    resp(redis_url, "ACL SETUSER default >secret")
    try:
        async with proxy_before(fresh_valkey.url) as proxy:
            node = await trio.to_thread.run_sync(lambda: start_node(redis=proxy.url, limits__user_per_minute="0"))
            async with visited(node) as (http, user):
                resp(fresh_valkey.url, "REPLICAOF 127.0.0.1 1")
                proxy.target = redis_url
                with trio.fail_after(15):
                    while (await user.act()).json()["data"]["newRank"] != 1:
                        await trio.sleep(0.1)
                await until_stores(http, "up", "up")
                with trio.fail_after(10):  # the subscription is there too
                    while subscribers(redis_url) != 1:
                        await trio.sleep(0.1)
    finally:
        resp(redis_url, "ACL SETUSER default <secret")
    assert_no_crash(node)
