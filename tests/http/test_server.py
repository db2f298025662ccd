"""Listening, accepting, guarding, draining."""

import errno
import os
import socket as stdlib_socket
import struct
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from scoreboard.domain.errors import StartError
from scoreboard.http import server as server_module
from scoreboard.http.request import Request, Response
from scoreboard.http.server import SEND_BUFFER_BYTES, Server, listen
from tests.http.application import Application, serving
from tests.http.raw import HANG, UPGRADE, Client, closed, connected, get, post, still_serves

pytestmark = pytest.mark.usefixtures("every_way")


async def gone(server: Server, left: int = 0) -> None:
    """Returns when so many connections are left."""
    while server.connections != left:
        await trio.sleep(0.001)


def reset(client: Client) -> None:
    """Closes with a RST, as a crashed peer's kernel does."""
    client.stream.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.stream.socket.close()


# ---- listening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])
async def test_hosts(host: str) -> None:
    """Names, IPv4 and IPv6 addresses and both wildcards; port 0 is whatever the system chose, one for all addresses."""
    listeners = await listen(host, 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    assert len(ports) == 1
    assert ports != {0}
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(("host", "peer"), [("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")])
async def test_the_clients_address(host: str, peer: str) -> None:
    """An IPv4 client has its IPv4 address, whichever listener accepted it."""
    application = Application()
    async with serving(application, host=host) as server:
        await still_serves(server)
    assert [request.socket.peer[0] for request in application.seen] == [peer]


async def test_listeners_options() -> None:
    """Accepted sockets inherit a small send buffer and TCP_NODELAY."""
    (listener,) = await listen("127.0.0.1", 0)
    with listener, stdlib_socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        # The kernel doubles the size that is set, for its own bookkeeping.
        assert accepted.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES
        assert accepted.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY)


async def test_an_address_that_cannot_be_had() -> None:
    """A port in use and a host that is none are StartErrors of one line."""
    (listener,) = await listen("127.0.0.1", 0)
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1:{port}: Address already in use"):
            await listen("127.0.0.1", port)
    with pytest.raises(StartError, match="no-such-host"):
        await listen("no-such-host.invalid", 0)


async def test_started_with_the_address() -> None:
    """`nursery.start` returns the address."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(server.run, "127.0.0.1", 0) == ("127.0.0.1", server.port)
            nursery.cancel_scope.cancel()


# ---- accepting ------------------------------------------------------------------------------------------------------


class Scarce(stdlib_socket.socket):
    """A listener whose first accepts fail."""

    failures: list[int]

    def accept(self) -> tuple[stdlib_socket.socket, Any]:
        if self.failures:
            raise OSError(self.failures.pop(0), "scarce")
        return super().accept()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED])
async def test_nothing_left_to_accept_with(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors or memory it logs that once, waits, and goes on. A client that left before it was accepted is
    not logged."""
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(stdlib_socket, "socket", Scarce)
    Scarce.failures = [code] * 3
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            monkeypatch.undo()
            await still_serves(server)
    assert not Scarce.failures
    assert [entry["event"] for entry in logs] == ([] if code == errno.ECONNABORTED else ["accept_failed"])


async def test_hundreds_of_connections_at_once() -> None:
    """Hundreds that arrive at once are all served."""
    async with serving() as server, trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(still_serves, server)


# ---- the guard ------------------------------------------------------------------------------------------------------


async def test_a_bug_ends_one_connection() -> None:
    """What a connection's task raises, alone or in a group, is logged once and ends no other connection."""

    def before(request: Request) -> Response | None:
        if request.query == b"bug":
            raise ValueError("a bug")
        if request.query == b"bugs":
            raise ExceptionGroup("both", [ValueError("a bug"), trio.BrokenResourceError()])
        return None

    application = Application()
    application.refused = before
    async with serving(application) as server, connected(server) as other:
        assert (await other.ask(get("/hello"))).status == 200
        for query in ("bug", "bugs"):
            with structlog.testing.capture_logs() as logs:
                async with connected(server) as client:
                    await client.send(get(f"/hello?{query}"))
                    assert await closed(client)
                await gone(server, 1)
            assert [(entry["event"], entry["log_level"]) for entry in logs] == [("connection_failed", "error")]
            assert isinstance(logs[0]["exc_info"], ValueError)
        assert (await other.ask(get("/hello"))).status == 200


@pytest.mark.parametrize("cut", [0, 1, 10, 40, 60, 75])
@pytest.mark.parametrize(
    "data",
    [post("/echo", b"body" * 5), get("/app/chunks"), get("/big"), UPGRADE, get("/hello") * 10, get("/app/endless")],
)
async def test_a_reset_at_every_point(data: bytes, cut: int) -> None:
    """A reset before, in or after a request, or in the middle of the response, leaves no connection and no log line."""
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            for part in (data[:cut], data):
                async with connected(server) as client:
                    await client.send(part)
                    await gone(server, 1)
                    if part == data and cut % 2:
                        await client.stream.receive_some(10)
                    reset(client)
                await gone(server)
            await still_serves(server)
    assert logs == []


async def test_a_callback_of_the_sweeper_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It closes that connection and is logged; the sweeper goes on."""
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL_SECONDS", 0.01)

    def fail() -> None:
        raise ValueError("a bug in a callback")

    application = Application()
    with structlog.testing.capture_logs() as logs:
        async with serving(application) as server:
            for _ in range(2):
                async with connected(server) as client:
                    await client.ask(get("/hello"))
                    socket = application.seen[-1].socket
                    socket.on_deadline, socket.deadline = fail, 0.0
                    assert await closed(client)
            await gone(server)
    assert [entry["event"] for entry in logs] == ["deadline_callback_failed"] * 2


# ---- draining -------------------------------------------------------------------------------------------------------


async def test_drain() -> None:
    """Idle connections close at once, requests in flight are answered with "Connection: close", no new ones are
    accepted; then `run` returns."""
    application = Application()
    server = Server(application)
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as idle, connected(server) as busy, connected(server) as silent:
                await idle.ask(get("/hello"))
                await busy.send(get("/slow") + get("/hello"))
                await application.waiting.wait()
                await gone(server, 3)
                async with trio.open_nursery() as draining:
                    draining.start_soon(server.drain, 10)
                    assert await closed(idle)
                    assert await closed(silent)
                    with pytest.raises(OSError, match="all attempts to connect"):
                        await trio.open_tcp_stream("127.0.0.1", server.port)
                    application.gate.set()
                    answer = await busy.answer()
                    assert (answer.body, answer.header("connection")) == (b'"slow"', "close")
                    assert await busy.rest() == b""
                    await busy.stream.aclose()
    assert server.connections == 0


async def test_begin_drain() -> None:
    """`begin_drain` closes no connection and accepts new ones; each response from then on is its connection's last."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as before:
                assert (await before.ask(get("/hello"))).header("connection") is None
                server.begin_drain()
                assert (await before.ask(get("/hello"))).header("connection") == "close"
                assert await before.rest() == b""
            async with connected(server) as after:
                assert (await after.ask(get("/hello"))).header("connection") == "close"
            await server.drain(10)


async def test_a_connection_in_the_kernels_queue_is_served() -> None:
    """A connection that waits in the kernel's queue when the listener closes is answered, not reset."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            # blocking: the server's tasks have no turn
            sock = stdlib_socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(get("/hello"))
            server.stop_listening()
            sock.setblocking(False)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                assert (await Client(stream).answer()).status == 200
            await server.drain(10)


async def test_drain_in_the_middle_of_a_request() -> None:
    """A request that has begun is waited for, and is the connection's last."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as client:
                await client.ask(get("/hello"))
                await client.send(get("/hello")[:10])
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.start_soon(server.drain, 10)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert (await client.ask(get("/hello")[10:])).header("connection") == "close"


async def test_drain_with_a_request_unread() -> None:
    """A request that is in the kernel's buffer when the drain begins is answered."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)

            async def read(client: Client) -> None:
                assert (await client.answer()).header("connection") == "close"
                await client.stream.aclose()

            async with connected(server) as client:
                await client.ask(get("/hello"))
                nursery.start_soon(read, client)
                os.write(client.stream.socket.fileno(), get("/hello"))  # no task runs before the drain checks
                await server.drain(10)


async def test_drain_does_not_wait_for_ever() -> None:
    """Connections that are left after the grace, WebSockets too, are closed."""
    server = Server(Application())
    with trio.fail_after(HANG), structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as slow, connected(server) as live:
                await slow.send(get("/slow"))
                assert (await live.ask(UPGRADE)).status == 101
                await server.drain(0.05)
                assert await closed(slow)
                assert await closed(live)
    assert [(entry["event"], entry["left"]) for entry in logs] == [("drain_timed_out", 2)]


async def test_drain_without_connections() -> None:
    """It returns at once."""
    server = Server(Application())
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            await server.drain(1000)
