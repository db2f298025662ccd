"""A reply that means "not here" closes its connection and all others that were opened before it."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio
import trio

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import redis_errors, run_in_asyncio
from scoreboard.drivers.generation import REPLACE_INTERVAL_SECONDS, Generation
from scoreboard.drivers.redis_pool import make_pool
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded.servers import find_binaries
from scoreboard.storage.bus import Bus, Heartbeat, decode
from tests.conftest import OwnValkey, resp
from tests.storage.proxy import Proxy, proxy_before

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # Redis alone is asked
Ask = Callable[..., Awaitable[object]]


@pytest.fixture
async def proxy(fresh_valkey: OwnValkey) -> AsyncIterator[Proxy]:
    async with proxy_before(fresh_valkey.url) as proxy:
        yield proxy


@pytest.fixture
async def stores(proxy: Proxy) -> AsyncIterator[Stores]:
    async with open_stores(NOWHERE, proxy.url) as stores:
        yield stores


async def pooled(stores: Stores, *args: object) -> object:
    return await stores.command(*args)


async def direct(stores: Stores, *args: object) -> object:
    async def run() -> object:
        with redis_errors():
            return await stores.redis_direct.execute_aio(*args)

    return await run_in_asyncio(run)


async def pipelined(stores: Stores, *args: object) -> object:
    async def run() -> object:
        with redis_errors():
            pipe = stores.redis.pipeline(transaction=False)
            for _ in range(3):
                pipe.execute_command(*args)
            return (await pipe.execute())[0]

    return await run_in_asyncio(run)


async def scripted(stores: Stores, *args: object) -> object:
    script = stores.redis_direct.register_script("return redis.call(unpack(ARGV))")

    async def run() -> object:
        with redis_errors():
            return await script([], args)

    return await run_in_asyncio(run)


async def client_id(stores: Stores, ask: Ask) -> object:
    return await ask(stores, "CLIENT", "ID") if ask is not scripted else await direct(stores, "CLIENT", "ID")


@pytest.mark.parametrize("ask", [pooled, direct, pipelined, scripted])
async def test_a_server_that_became_a_replica(stores: Stores, fresh_valkey: OwnValkey, ask: Ask) -> None:
    """READONLY closes the connection each time, so the next call connects again; writes work once the server accepts
    them."""
    await ask(stores, "SET", "x", "1")
    seen = {await client_id(stores, ask)}
    assert resp(fresh_valkey.url, "REPLICAOF 127.0.0.1 1") == b"+OK"
    for _ in range(3):
        with pytest.raises(StorageUnavailable) as raised:
            await ask(stores, "SET", "x", "2")
        assert raised.value.condition is StoreCondition.READ_ONLY
        found = await client_id(stores, ask)
        assert found not in seen
        seen.add(found)
    assert resp(fresh_valkey.url, "REPLICAOF NO ONE") == b"+OK"
    await ask(stores, "SET", "x", "3")
    assert await ask(stores, "GET", "x") == b"3"


@pytest.mark.parametrize("ask", [pooled, direct])
async def test_one_refused_connection_replaces_all(stores: Stores, fresh_valkey: OwnValkey, ask: Ask) -> None:
    """The other client's idle connections are not used again either."""
    before = {await client_id(stores, pooled), await client_id(stores, direct)}
    resp(fresh_valkey.url, "REPLICAOF 127.0.0.1 1")
    with pytest.raises(StorageUnavailable):
        await ask(stores, "SET", "x", "2")
    resp(fresh_valkey.url, "REPLICAOF NO ONE")
    assert not before & {await client_id(stores, pooled), await client_id(stores, direct)}


async def test_a_call_under_way_is_not_disturbed(stores: Stores) -> None:
    """Its connection is replaced after its answer."""
    answers: list[object] = []

    async def wait() -> None:
        answers.append(await pooled(stores, "BLPOP", "nothing", "0.1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(0.05)
        await run_in_asyncio(_replace, stores.redis_generation)
    assert answers == [None]


async def _replace(generation: Generation, count: int = 1) -> int:
    for _ in range(count):
        generation.replace("for this test")
    return generation.number


async def test_replacing_has_a_bound(stores: Stores) -> None:
    """While the address itself leads to the wrong server, connections are replaced once in an interval, not with every
    call."""
    assert await run_in_asyncio(_replace, stores.redis_generation, 5) == 1
    await trio.sleep(REPLACE_INTERVAL_SECONDS)
    assert await run_in_asyncio(_replace, stores.redis_generation, 5) == 2


@pytest.mark.parametrize(
    ("setting", "value", "back", "condition"),
    [
        ("maxmemory", "1", "0", StoreCondition.FULL),
        ("min-replicas-to-write", "1", "0", StoreCondition.READ_ONLY),
    ],
)
async def test_refused_writes(
    stores: Stores, fresh_valkey: OwnValkey, setting: str, value: str, back: str, condition: StoreCondition
) -> None:
    """A full Redis keeps its connections: it is the right one. One that misses its replicas may have been left
    behind."""
    before = await client_id(stores, pooled)
    resp(fresh_valkey.url, f"CONFIG SET {setting} {value}")
    with pytest.raises(StorageUnavailable) as raised:
        await pooled(stores, "SET", "x", "1")
    assert raised.value.condition is condition
    resp(fresh_valkey.url, f"CONFIG SET {setting} {back}")
    assert (await client_id(stores, pooled) == before) is (condition is StoreCondition.FULL)
    await pooled(stores, "SET", "x", "1")


async def test_a_changed_password_ends_no_connection_that_works(stores: Stores, fresh_valkey: OwnValkey) -> None:
    """After a change of the password new connections are refused, and open ones still work."""
    before = await client_id(stores, direct)
    resp(fresh_valkey.url, "CONFIG SET requirepass another")
    with pytest.raises(StorageUnavailable) as raised:
        await pooled(stores, "GET", "x")
    assert raised.value.condition is StoreCondition.DOWN
    assert await client_id(stores, direct) == before


async def test_the_subscription_is_made_anew(
    stores: Stores, proxy: Proxy, fresh_valkey: OwnValkey, redis_url: str
) -> None:
    """The subscription moves to the server that the address now leads to, and receives nothing from the old one."""
    other = redis_url.rpartition("@")[2]
    resp(redis_url, "ACL SETUSER default >secret")  # both servers take the proxy's password
    received: list[object] = []
    subscribed: list[float] = []
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    Bus(stores).listen,
                    lambda: subscribed.append(trio.current_time()),
                    lambda payload: received.append(decode(payload, "")),
                )
                while not subscribed:
                    await trio.sleep(0.01)
                proxy.target = redis_url
                await run_in_asyncio(_replace, stores.redis_generation)
                while len(subscribed) < 2:
                    await trio.sleep(0.01)
                assert resp(fresh_valkey.url, 'PUBLISH scoreboard:updates "beat\\n\\nold"') == b":0"
                assert resp(f"redis://:secret@{other}", 'PUBLISH scoreboard:updates "beat\\n\\nnew"') == b":1"
                while not received:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    finally:
        resp(redis_url, "ACL SETUSER default <secret")
    assert received == [Heartbeat("new")]


@pytest.fixture
def local_url(tmp_path: Path) -> str:
    """The URL of a Valkey's Unix socket."""
    return f"unix://{tmp_path}/valkey.sock?db=0"


async def test_a_unix_socket(tmp_path: Path, local_url: str) -> None:
    """The URL's scheme chooses the class; it follows the same rules."""
    process = subprocess.Popen(
        [
            find_binaries().valkey,
            "--port",
            "0",
            "--unixsocket",
            str(tmp_path / "valkey.sock"),
            "--dir",
            str(tmp_path),
            "--save",
            "",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "valkey.sock").exists():
            await trio.sleep(0.01)
        async with open_stores(NOWHERE, local_url) as stores:
            before = {await client_id(stores, pooled), await client_id(stores, direct)}
            await pooled(stores, "REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StorageUnavailable):
                await pooled(stores, "SET", "x", "2")
            await pooled(stores, "REPLICAOF", "NO", "ONE")
            await pooled(stores, "SET", "x", b"\x00\xff")
            assert await direct(stores, "GET", "x") == b"\x00\xff"
            assert not before & {await client_id(stores, pooled), await client_id(stores, direct)}
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:1/0", redis.asyncio.Connection),
        ("rediss://127.0.0.1:1/0", redis.asyncio.SSLConnection),
        ("unix:///nowhere.sock", redis.asyncio.UnixDomainSocketConnection),
    ],
)
async def test_every_scheme_has_its_class(url: str, kind: type) -> None:
    """All of them belong to the generation."""

    async def made() -> object:
        return make_pool(redis.asyncio.ConnectionPool, url, Generation("redis")).make_connection()  # type: ignore[no-untyped-call]

    async with open_stores(NOWHERE, url):
        conn = await run_in_asyncio(made)
    assert isinstance(conn, kind)
    assert hasattr(conn, "_generation")
