"""Fast handlers, which answer without the connection's task: the same responses in the same order, and the middleware
runs once for each request."""

import errno
import os
import socket as stdlib_socket
from collections.abc import Callable
from math import inf

import pytest
import structlog
import trio
import trio.testing

from scoreboard.domain.errors import Code, Refusal
from scoreboard.http import server as server_module
from scoreboard.http.connection import READING, YIELD_EVERY
from scoreboard.http.request import Request
from scoreboard.net.reading import READ_BYTES
from tests.http.application import Application, HandledBy, problem, serving
from tests.http.raw import UPGRADE, Client, connected, get, post, still_serves
from tests.net.pairs import Write

HELLO = get("/hello")


# ---- order -----------------------------------------------------------------------------------------------------------


async def test_without_waking_the_task() -> None:
    """A request of the fast table is answered without the task, one or several, whole or in pieces."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO[:10])
        await trio.testing.wait_all_tasks_blocked(0.005)
        await client.send(HELLO[10:] + HELLO + post("/echo", b"x"))
        assert [(await client.answer()).status for _ in range(3)] == [200] * 3
        assert application.fast_requests == application.seen
        (connection,) = server._connections.values()
        assert connection._state is READING


@pytest.mark.parametrize("more", [-1, 0, 1, READ_BYTES])
async def test_requests_that_fill_a_read(more: int) -> None:
    """All of them are answered, and the connection goes on when nothing follows."""
    large = get("/hello", "X: " + "x" * 6000)
    pieces = [large] * ((READ_BYTES + more) // len(large) - 1)
    pieces.append(get("/hello", "X: " + "x" * (READ_BYTES + more - len(b"".join(pieces)) - len(get("/hello", "X: ")))))
    data = b"".join(pieces)
    assert len(data) == READ_BYTES + more
    async with serving() as server, connected(server) as client:
        for _ in range(3):
            await client.send(data)
            assert [(await client.answer()).status for _ in pieces] == [200] * len(pieces)


async def test_everything_pipelined() -> None:
    """Fast responses keep their place before, between and after requests that wait: for a handler, Quart, or a
    WebSocket."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO + get("/slow") + HELLO + get("/app/x") + HELLO + post("/echo", b"1") + HELLO + UPGRADE)
        assert (await client.answer()).body == b'"hello"'
        await application.waiting.wait()
        assert client.buffer == b""
        application.gate.set()
        assert [(await client.answer()).body[:7] for _ in range(3)] == [b'"slow"', b'"hello"', b'{"app":']
        assert [(await client.answer()).status for _ in range(4)] == [200, 200, 200, 101]
        await client.send(b"\x89\x80\0\0\0\0")
        assert await client.stream.receive_some() == b"\x8a\x00"
        assert len(application.seen) == 8


async def test_while_a_request_is_being_handled() -> None:
    """A request that comes while the task answers another waits, and is answered after it."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/slow"))
        await application.waiting.wait()
        await client.send(HELLO)
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert len(application.seen) == 1
        application.gate.set()
        assert [(await client.answer()).body for _ in range(2)] == [b'"slow"', b'"hello"']


async def test_while_a_handler_reads() -> None:
    """A handler that has taken the socket over reads all that comes: nothing is answered into its stream."""
    application, received = Application(), []

    async def stream(request: Request) -> None:
        await request.socket.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while more := await request.socket.receive_some():
            received.append(more)

    application.stream = stream  # type: ignore[method-assign]
    async with serving(application) as server, connected(server) as client:
        assert (await client.ask(get("/hello"))).status == 200
        await client.send(get("/stream"))
        assert await client.stream.receive_some() == b"HTTP/1.1 200 OK\r\n\r\n"
        await client.send(HELLO)
        await client.stream.send_eof()
        assert await client.rest() == b""
    assert (b"".join(received), len(application.seen)) == (HELLO, 2)


async def test_a_fast_handler_that_returns_none() -> None:
    """The handler of the direct table is called, and `run_middleware` is not called again."""
    application = Application(HandledBy.SOMETIMES_FAST)
    async with serving(application) as server, connected(server) as client:
        await client.send(*[HELLO * 3] * 5)
        assert [(await client.answer()).body for _ in range(15)] == [b'"hello"'] * 15
        assert len(application.seen) == 15
        assert application.fast_requests


async def test_refused_by_the_middleware() -> None:
    """A response of `run_middleware` goes out at once too, and no handler is called."""
    application = Application()
    application.refused = lambda request: (
        problem(Refusal(Code.RATE_LIMITED, "slowly"), request.request_id) if request.query else None
    )
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO + get("/hello?refuse") + HELLO)
        assert [(await client.answer()).status for _ in range(3)] == [200, 429, 200]
        assert (len(application.seen), len(application.fast_requests)) == (3, 2)


async def test_a_handler_that_raises() -> None:
    """500, `error_response` is called once, and the next request is answered."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/fail") + HELLO)
        assert [(await client.answer()).status for _ in range(2)] == [500, 200]
        assert (len(application.failures), len(application.fast_requests)) == (1, 2)


async def test_a_bad_request_after_good_ones() -> None:
    """It is refused after them, and the connection ends."""
    async with serving() as server, connected(server) as client:
        await client.send(HELLO * 2 + b"GET nowhere HTTP/1.1\r\n\r\n" + HELLO)
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.rest() == b""


async def test_at_most_sixteen_at_once(left_over: list[object]) -> None:
    """Of a buffer full of requests sixteen are answered at once, the others by the task, which takes turns."""
    application = Application()
    request_counts: list[int] = []
    left_over.append(lambda _: request_counts.append(len(application.seen)))
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO * 50)
        assert [(await client.answer()).status for _ in range(50)] == [200] * 50
    assert request_counts == [YIELD_EVERY]


# ---- slow readers ----------------------------------------------------------------------------------------------------


async def test_the_kernel_takes_a_part() -> None:
    """The rest goes out before the next response, and the connection does not count as idle meanwhile."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO + get("/big") + HELLO * 2)
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert len(application.fast_requests) == 2  # not while the previous response is unflushed
        assert [len((await client.answer()).body) for _ in range(4)] == [7, 2_000_000, 7, 7]
        assert (await client.ask(HELLO)).body == b'"hello"'
        assert len(application.fast_requests) == 3


@pytest.mark.parametrize("failure", [BlockingIOError(), OSError(errno.ENOMEM, "no buffers just now")])
async def test_the_kernel_takes_nothing(writes: Callable[[Write], None], failure: OSError) -> None:
    """The response goes out later, before those that follow it."""
    failures = [failure]

    def write(fd: int, data: bytes) -> int:
        if failures and b"body" in bytes(data):
            raise failures.pop()
        return os.write(fd, data)

    async with serving() as server, connected(server) as client:
        writes(write)
        await client.send(HELLO + post("/echo", b"body") + HELLO)
        assert [(await client.answer()).body[:8] for _ in range(3)] == [b'"hello"', b'{"method', b'"hello"']
        failures.append(failure)
        await client.send(post("/echo", b"body"))
        assert (await client.answer()).status == 200
        assert (await client.ask(HELLO)).status == 200


@pytest.mark.parametrize("after", [b"", HELLO])
async def test_nobody_reads(after: bytes) -> None:
    """A client that does not read a fast response has the write time-out, not the longer one between requests."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/big") + after)
        while not application.seen:
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.005)
        socket = application.seen[0].socket
        assert trio.current_time() + 10 < socket.deadline < trio.current_time() + 31
        assert len((await client.answer()).body) == 2_000_000
        if after:
            await client.answer()
        while socket.behind_since < inf or socket.deadline < trio.current_time() + 31:  # and now it is between requests
            await trio.sleep(0.001)


async def test_a_client_that_has_left() -> None:
    """A response to a client that has left ends the connection, without a line in the log."""
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            async with connected(server) as client:
                await client.ask(HELLO)
                client.stream.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await client.send(HELLO * 3)
            while server.connections:
                await trio.sleep(0.001)
            await still_serves(server)
    assert logs == []


async def test_a_request_and_the_end() -> None:
    """A client that ends its side with its request gets the answer, and the end at once."""
    async with serving() as server:
        sock = stdlib_socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(HELLO * 2)
        sock.shutdown(stdlib_socket.SHUT_WR)
        sock.setblocking(False)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
            client = Client(stream)
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]
            assert await client.rest() == b""


# ---- time ------------------------------------------------------------------------------------------------------------


async def test_a_response_extends_the_deadline() -> None:
    """The idle time begins anew with each response. Half a head has a shorter deadline, which further bytes do not
    extend."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.ask(HELLO)
        socket = application.seen[0].socket
        deadlines = [socket.deadline]
        await client.ask(HELLO)
        deadlines.append(socket.deadline)
        assert deadlines[0] < deadlines[1]
        for part in (HELLO[:5], HELLO[5:10]):
            await client.send(part)
            await trio.testing.wait_all_tasks_blocked(0.005)
            deadlines.append(socket.deadline)
        assert trio.current_time() < deadlines[2] == deadlines[3] < deadlines[0] - 60
        assert (await client.ask(HELLO[10:])).status == 200
        assert socket.deadline > deadlines[1]


async def test_half_a_request_after_a_fast_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request after a fast response gets 408 when its time has passed."""
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL_SECONDS", 0.005)
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(HELLO + HELLO[:10])
        assert (await client.answer()).status == 200
        application.seen[0].socket.deadline = 0.0
        assert (await client.answer()).status == 408
        assert await client.rest() == b""
