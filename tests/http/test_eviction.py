"""When no place is free: connections that wait for their clients are closed, and new ones are served."""

import resource
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from scoreboard.http import server as server_module
from scoreboard.http.server import Server, connection_places, viewer_places
from tests.http.application import Application, serving
from tests.http.raw import UPGRADE, Client, closed, connected, get, still_serves

pytestmark = pytest.mark.usefixtures("every_way")


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with descriptors for eight connections."""
    monkeypatch.setattr(server_module, "connection_places", lambda: 8)


async def opened(server: Server, stack: AsyncExitStack, *data: bytes) -> Client:
    client = await stack.enter_async_context(connected(server))
    await client.send(*data)
    await trio.testing.wait_all_tasks_blocked()
    return client


async def from_address(server: Server, stack: AsyncExitStack, address: str) -> Client:
    """A connection that comes from that address of the loopback network."""
    sock = trio.socket.socket()
    await sock.bind((address, 0))
    await sock.connect(("127.0.0.1", server.port))
    return Client(await stack.enter_async_context(trio.SocketStream(sock)))


async def test_silent_connections_keep_nobody_out() -> None:
    """However many connections are opened and stay silent, requests are answered, and there are never more connections
    than places."""
    async with serving() as server, AsyncExitStack() as stack:
        for _ in range(30):
            await opened(server, stack)
            assert server.connections <= 8
        for _ in range(20):
            await still_serves(server)


async def test_the_longest_idle_goes_first() -> None:
    """Of clients that were answered, that are silent, and that have sent half a request, the longest idle are closed
    first."""
    async with serving() as server, AsyncExitStack() as stack:
        first = [
            await opened(server, stack),
            await opened(server, stack, b"GET /hello HTTP/1.1\r\n"),
            await opened(server, stack),
        ]
        known = await opened(server, stack)
        for _ in range(4):
            await opened(server, stack)
        # it was silent for as long as the others, but is not any more
        assert (await known.ask(get("/hello"))).status == 200
        for _ in range(3):
            await opened(server, stack)
        for client in first:
            assert await closed(client)
        assert (await known.ask(get("/hello"))).status == 200


async def test_a_crowd_from_one_address_evicts_no_other_address() -> None:
    """Connections of the address that has most are closed first, however new they are."""
    async with serving(host="0.0.0.0") as server, AsyncExitStack() as stack:
        client = await from_address(server, stack, "127.0.0.9")
        assert (await client.ask(get("/hello"))).status == 200
        for _ in range(30):
            await opened(server, stack)
        assert (await client.ask(get("/hello"))).status == 200


async def test_a_crowd_of_one_network_evicts_no_other_network() -> None:
    """A network's addresses count together, as those of an IPv6 /64 do, although each of the crowd has its own."""
    application = Application()
    application.peer_group = lambda address: address.rpartition(".")[0]
    async with serving(application, host="0.0.0.0") as server, AsyncExitStack() as stack:
        client = await from_address(server, stack, "127.0.1.1")
        assert (await client.ask(get("/hello"))).status == 200
        for number in range(30):
            await from_address(server, stack, f"127.0.2.{number + 1}")
            await trio.testing.wait_all_tasks_blocked()
        # which take turns
        assert {socket.watcher.group for socket in server._connections if socket.watcher} <= {"127.0.1", "127.0.2"}
        assert (await client.ask(get("/hello"))).status == 200
    assert set(application.released) == {"127.0.1", "127.0.2"}
    assert len(application.released) == 31


async def test_connections_after_their_last_response_are_evicted_first() -> None:
    """Connections that have had their last response give their places to new ones."""
    async with serving() as server, AsyncExitStack() as stack:
        for _ in range(8):
            await opened(server, stack, b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n")
        for _ in range(20):
            await still_serves(server)


async def test_requests_in_flight_and_viewers_are_not_evicted() -> None:
    """A request that is being handled and a WebSocket outlast any number of new connections. If no connection waits for
    its client, new ones wait."""
    application = Application()
    async with serving(application) as server, AsyncExitStack() as stack:
        viewer = await opened(server, stack, UPGRADE)
        assert (await viewer.answer()).status == 101
        busy = [await opened(server, stack, get("/slow")) for _ in range(6)]
        for _ in range(10):
            await opened(server, stack)
        await still_serves(server)
        last = await opened(server, stack, get("/slow"))
        late = await opened(server, stack, get("/hello"))
        application.gate.set()
        for client in (*busy, last, late):
            assert (await client.answer()).status == 200
        await viewer.send(b"\x81\x82\0\0\0\0hi")
        assert await viewer._exactly(4) == b"\x81\x02hi"


async def test_clients_that_do_not_read_are_evicted() -> None:
    """Connections whose clients do not read their responses are closed before new ones have to wait."""
    async with serving() as server, AsyncExitStack() as stack:
        for _ in range(8):
            await opened(server, stack, get("/big"))
        for _ in range(10):
            await still_serves(server)


def test_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process reserves descriptors for itself, and viewers leave places for short requests."""
    monkeypatch.undo()
    for limit, places in ((256, 192), (100, 50), (1024, 960), (resource.RLIM_INFINITY, 1_000_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert connection_places() == places
        assert 0 < viewer_places(0) < places
        assert viewer_places(10) == 10
        assert viewer_places(10**7) == viewer_places(0)
