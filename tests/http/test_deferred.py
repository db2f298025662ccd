"""Deferred responses, for which no task waits: in order, once, whatever the peer or the server does meanwhile."""

import errno
import os
from collections.abc import Callable
from math import inf

import pytest
import structlog
import trio
import trio.testing

from scoreboard.http import connection as connection_module
from scoreboard.http import server as server_module
from scoreboard.http.connection import DEFERRED, READING
from scoreboard.http.request import Request, Response
from scoreboard.http.server import Server
from tests.http.application import Application, serving
from tests.http.raw import Client, closed, connected, get, still_serves
from tests.http.test_server import reset

HELD, HELLO = get("/held"), get("/hello")
SOON = 0.05  # seconds; stands for limits of ten seconds and more


def said() -> Response:
    return Response(200, b"said")


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked(0.005)


async def asked(application: Application, client: Client, data: bytes = HELD) -> None:
    """Sends and returns once one more request waits for its response."""
    count = len(application.held)
    await client.send(data)
    while len(application.held) == count:
        await trio.sleep(0.001)
    await settled()


async def test_the_task_sleeps_on() -> None:
    """It is woken neither for the request nor for the response; the connection then waits for the next request."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        (connection,) = server._connections.values()
        for reply in range(3):
            await asked(application, client)
            assert (connection._state, connection.socket.deadline) == (DEFERRED, inf)
            assert connection._responded is None  # else the task waits for it
            application.held[reply](said)
            assert connection.socket.watcher is not None
            assert connection.socket.watcher._waiter is not None
            assert (await client.answer()).body == b"said"
            assert connection._state is READING
            assert connection.socket.deadline < inf


@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
@pytest.mark.parametrize("after", [HELLO, HELLO * 20, get("/slow"), get("/app/x"), HELLO[:9], HELD + HELLO])
async def test_what_comes_behind_waits(after: bytes, together: bool) -> None:
    """Requests sent after it, in the same packet or later, whole or not, are parsed once it is answered, and answered
    after it."""
    application = Application()
    application.gate.set()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client, HELD + after if together else HELD)
        if not together:
            await client.send(after)
            await settled()
        assert application.seen == application.seen[:1]
        assert client.buffer == b""
        application.held[0](said)
        assert (await client.answer()).body == b"said"
        if after.startswith(HELD):
            while len(application.held) < 2:
                await trio.sleep(0.001)
            application.held[1](said)
            assert (await client.answer()).body == b"said"
        if after == HELLO[:9]:
            await client.send(HELLO[9:])
        for _ in range(max(1, after.count(HELLO))):
            assert (await client.answer()).status == 200
        assert (await client.ask(HELLO)).status == 200


async def test_garbage_behind_it() -> None:
    """The deferred request is answered first, then the garbage."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client, HELD + b"\0\0\r\n\r\n")
        application.held[0](said)
        assert (await client.answer()).body == b"said"
        assert (await client.answer()).status == 400
        assert await closed(client)


@pytest.mark.parametrize("abruptly", [True, False])
async def test_the_peer_leaves(abruptly: bool) -> None:
    """The response is dropped without an error, and the connection is removed."""
    application = Application()
    async with serving(application) as server:
        async with connected(server) as client:
            await asked(application, client)
            if abruptly:
                reset(client)
        await settled()
        assert server.connections == 1  # a request that has begun is always responded to
        application.held[0](said)
        while server.connections:
            await trio.sleep(0.001)
        await still_serves(server)
        assert application.failures == []


async def test_what_makes_the_answer_raises() -> None:
    """A bug is 500, logged once, and the connection goes on."""
    application = Application()

    def fail() -> Response:
        raise ValueError("a bug")

    async with serving(application) as server, connected(server) as client:
        await asked(application, client)
        application.held[0](fail)
        assert (await client.answer()).status == 500
        assert len(application.failures) == 1
        assert (await client.ask(HELLO)).status == 200


async def test_more_than_the_kernel_takes() -> None:
    """The rest follows, under the answer's deadline, and then the next request is served."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client)
        application.held[0](lambda: Response(200, b"b" * 2_000_000))
        await settled()
        (connection,) = server._connections.values()
        assert trio.current_time() < connection.socket.deadline < inf
        await client.send(HELLO)
        assert len((await client.answer()).body) == 2_000_000
        assert (await client.answer()).body == b'"hello"'


@pytest.mark.parametrize("failure", [BlockingIOError(), OSError(errno.ENOMEM, "no buffers just now")])
async def test_the_kernel_takes_nothing(
    writes: Callable[[Callable[[int, bytes], int]], None], failure: OSError
) -> None:
    """An answer that was refused as a whole is not lost."""
    failures = [failure]

    def write(fd: int, data: bytes) -> int:
        if failures and b"said" in bytes(data):
            raise failures.pop()
        return os.write(fd, data)

    application = Application()
    async with serving(application) as server, connected(server) as client:
        writes(write)
        await asked(application, client)
        application.held[0](said)
        assert not failures
        assert (await client.answer()).body == b"said"
        assert (await client.ask(HELLO)).status == 200


async def test_a_bug_behind_the_answer_ends_this_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of `respond`, a committer or the hub, gets no exception."""
    application = Application()

    def fail(_: Request, exc: Exception) -> Response:
        raise exc

    monkeypatch.setattr(application, "error_response", fail)

    def make() -> Response:
        raise ValueError("a bug")

    with structlog.testing.capture_logs() as logs:
        async with serving(application) as server, connected(server) as client:
            await asked(application, client)
            application.held[0](make)
            assert await closed(client)
            await still_serves(server)
    assert [line["event"] for line in logs] == ["response_failed"]


async def drained(server: Server) -> None:
    with trio.move_on_after(5):
        await server.drain(grace=5)


@pytest.mark.parametrize("after", [b"", HELLO])
async def test_the_server_drains(after: bytes) -> None:
    """The response still comes, with "Connection: close", and what was sent after the request is not parsed."""
    application = Application()
    async with serving(application) as server, connected(server) as client, trio.open_nursery() as nursery:
        await asked(application, client, HELD + after)
        nursery.start_soon(drained, server)
        await settled()
        application.held[0](said)
        answer = await client.answer()
        assert (answer.body, answer.header("connection")) == (b"said", "close")
        assert await closed(client)


async def test_the_client_wants_it_to_be_the_last() -> None:
    """Such a request goes through the task, which closes after the answer."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client, get("/held", "Connection: close"))
        application.held[0](said)
        assert (await client.answer()).header("connection") == "close"
        assert await closed(client)


async def test_no_deadline_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the response there is one again."""
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", SOON)
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client)
        await trio.sleep(3 * SOON)
        application.held[0](said)
        assert (await client.answer()).body == b"said"
        assert await closed(client)


async def test_a_reply_after_the_end() -> None:
    """After the server has ended, a late response does nothing."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await asked(application, client)
    application.held[0](said)
    assert application.failures == []
