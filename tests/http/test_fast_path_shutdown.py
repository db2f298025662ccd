"""Drain, cancelling and faults, at the moments at which fast handlers could interfere."""

import errno
import socket as stdlib_socket

import pytest
import structlog
import trio
import trio.testing

from scoreboard.http import response_writer as writer_module
from scoreboard.http.request import Request, Response
from scoreboard.http.server import Server
from scoreboard.net.poller import Poller
from tests.http.application import Application, serving
from tests.http.raw import HANG, Client, closed, connected, get, post, still_serves

HELLO = get("/hello")


# ---- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [HELLO * 20, get("/app/x"), post("/echo", b"x", "Expect: 100-continue")[:-1]])
async def test_a_drain_before_the_task_has_its_turn(left_over: list[object], what: bytes) -> None:
    """A connection whose requests were read but not answered yet is not idle: they are answered, the last with
    `Connection: close`."""
    left_over.append(lambda connection: connection.begin_drain())
    async with serving() as server, connected(server) as client:
        await client.send(what)
        answer = await client.answer()
        while answer.header("connection") != "close":
            answer = await client.ask(b"x") if answer.status == 100 else await client.answer()
        assert answer.status == 200
        assert await client.rest() == b""


async def test_begin_drain(left_over: list[object]) -> None:
    """From then on each response, a fast one too, has "Connection: close"; what was sent after its request is not
    parsed."""
    application, started = Application(), list[Server]()
    left_over.append(lambda _: started[0].begin_drain())
    async with serving(application) as server, connected(server) as client, connected(server) as idle:
        await idle.ask(HELLO)
        started.append(server)
        await client.send(HELLO * 20)
        answers = [await client.answer() for _ in range(17)]
        assert [answer.header("connection") for answer in answers] == [None] * 16 + ["close"]
        assert await client.rest() == b""
        assert (await idle.ask(HELLO)).header("connection") == "close"


async def test_a_drain_while_an_answer_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response without "Connection: close" may be the last one: the connection ends after it and does not delay the
    drain."""
    monkeypatch.setattr(writer_module, "CLOSE_TIMEOUT_SECONDS", 10.0)
    application = Application()
    server = Server(application)
    with trio.fail_after(HANG), structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as client:
                await client.send(get("/big"))
                while not application.seen:
                    await trio.sleep(0.001)
                await trio.testing.wait_all_tasks_blocked(0.005)
                nursery.start_soon(server.drain, 10 * HANG)
                await trio.testing.wait_all_tasks_blocked(0.005)
                assert len((await client.answer()).body) == 2_000_000
                while not application.seen[0].socket.deadline < trio.current_time() + 11:  # the graceful close
                    await trio.sleep(0.001)
                await client.send(HELLO)
                assert await client.rest() == b""
    assert (logs, len(application.seen)) == ([], 1)


@pytest.mark.parametrize("leave", ["wind_down", "drain"])
async def test_asked_while_an_answer_is_on_its_way(leave: str) -> None:
    """A request that comes meanwhile is answered with "Connection: close"; `begin_drain` closes no connection between
    two requests."""
    application = Application()
    server = Server(application)
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as client:
                await client.send(get("/big"))
                while not application.seen:
                    await trio.sleep(0.001)
                await trio.testing.wait_all_tasks_blocked(0.005)
                if leave == "drain":
                    await client.send(HELLO)
                    nursery.start_soon(server.drain, 10 * HANG)
                else:
                    server.begin_drain()
                await trio.testing.wait_all_tasks_blocked(0.005)
                assert len((await client.answer()).body) == 2_000_000
                if leave == "wind_down":
                    await trio.testing.wait_all_tasks_blocked(0.005)
                    await client.send(HELLO)
                answer = await client.answer()
                assert (answer.body, answer.header("connection")) == (b'"hello"', "close")
                assert await client.rest() == b""
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", [HELLO, b""])
async def test_a_drain_of_a_connection_that_is_not_accepted_yet(data: bytes) -> None:
    """A connection in the kernel's queue is answered, even if the drain finds no other; one without a request does not
    delay the drain."""
    server = Server(Application())
    with trio.fail_after(HANG), structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            # blocking: the server's tasks have no turn
            sock = stdlib_socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(data)
            nursery.start_soon(server.drain, 10 * HANG)
            sock.setblocking(False)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                client = Client(stream)
                if data:
                    assert (await client.answer()).header("connection") == "close"
                assert await client.rest() == b""
    assert logs == []


async def test_cancelled_before_a_connections_task_has_run() -> None:
    """A connection whose task begins when the server has been cancelled ends quietly."""
    for _ in range(10):  # Trio chooses at random whether the poller or the connection runs first
        with structlog.testing.capture_logs() as logs:
            async with serving() as server:
                sock = stdlib_socket.create_connection(("127.0.0.1", server.port))
                server.stop_listening()
                server._scope.cancel()
            sock.close()
        assert (logs, server.connections) == ([], 0)
        assert server._poller is not None
        assert server._poller._epoll.closed


# ---- faults ----------------------------------------------------------------------------------------------------------


async def test_a_bug_before_the_answer() -> None:
    """What `run_middleware` raises ends that connection, is logged once, and does not reach the poller."""

    def before(request: Request) -> Response | None:
        if request.query:
            raise ValueError("a bug")
        return None

    application = Application()
    application.refused = before
    with structlog.testing.capture_logs() as logs:
        async with serving(application) as server, connected(server) as other:
            await other.ask(HELLO)
            async with connected(server) as client:
                await client.send(HELLO + get("/hello?bug"))
                assert (await client.answer()).status == 200
                assert await closed(client)
            assert (await other.ask(HELLO)).status == 200
            await still_serves(server)
    assert [(entry["event"], type(entry["exc_info"])) for entry in logs] == [("connection_failed", ValueError)]


async def test_a_connection_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """When epoll can watch no more, a new connection is closed, and the open ones stay."""

    def full(_poller: Poller, _fd: int) -> None:
        raise OSError(errno.ENOSPC, "too many are watched")

    with structlog.testing.capture_logs() as logs:
        async with serving() as server, connected(server) as other:
            await other.ask(HELLO)
            with monkeypatch.context() as patch:
                patch.setattr(Poller, "watch", full)
                async with connected(server) as client:
                    assert await closed(client)
            assert (await other.ask(HELLO)).status == 200
            await still_serves(server)
    assert [entry["event"] for entry in logs] == ["connection_failed"]
