"""The memory that a hostile client can make the server use: at most 32 KiB a connection, whatever it sends."""

import gc
import socket as stdlib_socket
import tracemalloc

import pytest
import trio
import trio.testing

from scoreboard.http.server import Server
from tests.http.application import Application, serving
from tests.http.raw import get

CONNECTIONS = 80  # so many that the process' other allocations matter little
MOST = 32 * 1024  # bytes a connection
HEAD = b"POST /echo HTTP/1.1\r\nHost: t\r\n"
TINY = b"".join(b"%x:%x\r\n" % (number, number) for number in range(4096, 4096 + 95))
FAT = b"".join(b"h%x: %b\r\n" % (number, b"v" * 150) for number in range(4096, 4096 + 95))
MANY = b"".join(b"%x:%x\r\n" % (number, number) for number in range(4096, 6500))

SHAPES = {
    "silent": [],
    "half a request line": [b"GET /" + b"a" * 16_000],
    "half a head of tiny fields": [HEAD + TINY],
    "half a head of fat fields": [HEAD + FAT],
    "half a head of one field": [HEAD + b"x: " + b"v" * 16_000],
    "half a head in many pieces": [HEAD] + [b"%x:%x\r\n" % (number, number) for number in range(4096, 4096 + 95)],
    "a fat head and half a body": [
        HEAD + FAT[:3_500].rpartition(b"\r\n")[0] + b"\r\nContent-Length: 16384\r\n\r\n" + b"b" * 16_000
    ],
    "tiny fields and half a body": [HEAD + TINY + b"Content-Length: 16384\r\n\r\n" + b"b" * 16_000],
    "half a chunked body": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n"] + [b"1\r\nb\r\n" * 1000] * 16,
    "half a chunk extension": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 60_000],
    "half of the trailers": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + MANY],
    "unread answers": [get("/kilobytes") * 300],
    "a large unread answer": [get("/big")],
    "a large unread answer of the application": [get("/app/large")],
    "unread answers of the application": [get("/app/x", "X: " + "v" * 500) * 100],
    "requests behind a slow one": [get("/slow") + get("/hello", "X: 1", "Y: 2") * 300],
    "tiny fields behind a slow one": [get("/slow") + (HEAD + TINY + b"\r\n") * 30],
}


async def connect(server: Server, pieces: list[bytes]) -> stdlib_socket.socket:
    """A client without a task or buffer in this process, that sends as far as the server takes it."""
    socket = stdlib_socket.socket()
    # what it does not read waits at our side
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 2048)
    socket.connect(("127.0.0.1", server.port))
    socket.setblocking(False)
    for piece in pieces:
        left = memoryview(piece)
        for _ in range(200):
            try:
                left = left[socket.send(left) :]
            except BlockingIOError:
                pass
            if not left:
                break
            await trio.sleep(0.001)
    return socket


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_hostile_connection_is_cheap(shape: str) -> None:
    """At most 32 KiB, as Python's allocator counts them, for each of many ways to send half of something or to read
    nothing."""
    application = Application()
    async with serving(application) as server:
        clients = [await connect(server, SHAPES[shape])]  # what the process allocates once is allocated now
        await settled()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            clients += [await connect(server, SHAPES[shape]) for _ in range(CONNECTIONS)]
            await settled()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert server.connections > CONNECTIONS // 2
        assert (after - before) / server.connections < MOST
        for client in clients:
            client.close()
        application.gate.set()


async def settled() -> None:
    """Returns when all tasks wait."""
    await trio.sleep(0.3)
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
