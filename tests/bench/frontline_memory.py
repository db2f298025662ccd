"""What one hostile connection costs a node in memory: the second half of `scripts/bench front-line`.

Each shape meets a node that was just started, since memory that one shape has left to the interpreter would be counted
for the next. A few connections of the shape come and go first: code, caches and buffers that are there only once are no
connection's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.lowlevel

from tests.bench import machine
from tests.bench.frontline_attacks import HALF_CHUNKED, is_open
from tests.bench.frontline_report import Shape
from tests.bench.frontline_wire import BOARD, POLL, SUBSCRIBE, connect, frame, request, upgrade

CONNECTIONS = 200
NETWORK = 20  # connections an address: no limit by address is what is measured here
WARM_UP = 20  # connections that come and go before
SETTLE_SECONDS = 1.0  # for the node to read what was sent, and to forget who has left
SMALL_BUFFER = 2_048  # bytes that a client takes who does not read
HEAD = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MESSAGE = b"x" * 4_000  # a frame of a message that is nearly as long as one may be
FRAGMENTS = [frame(1, b"x" * 60, final=False)] + [frame(0, b"x" * 60, final=False)] * 60

# By name: what it is, what is sent at once, and what is sent after the answer has begun, if the connection must be
# upgraded first.
SHAPES: dict[str, tuple[str, bytes, list[bytes]]] = {
    "silent": ("nothing", b"", []),
    "request-line": ("half a request line", b"GET /" + b"a" * 4_000, []),
    "tiny-fields": ("half a head of 100 tiny fields", b"GET / HTTP/1.1\r\nHost: t\r\n" + b"a: b\r\n" * 100, []),
    "huge-field": ("half a head of one huge field", b"GET / HTTP/1.1\r\nHost: t\r\nA: " + b"a" * 15_000, []),
    "fat-head": (
        "a head of 15 kB and half a body of 16",
        HEAD + b"A: " + b"a" * 15_000 + b"\r\nContent-Length: 16000\r\n\r\n" + b"x" * 8_000,
        [],
    ),
    "byte-chunks": ("half a body in chunks of a byte", HALF_CHUNKED, []),
    "extensions": ("chunk extensions", CHUNKED + (b"1;" + b"e" * 500 + b"\r\nx\r\n") * 100, []),
    "trailers": ("trailers", CHUNKED + b"1\r\nx\r\n0\r\n" + b"t: x\r\n" * 2_000, []),
    "pipelined": ("650 requests whose answers are not read", request("GET", "/livez") * 650, []),
    "unread-page": ("requests of the page, not read", request("GET", "/") * 50, []),
    "unread-file": ("requests of a script, not read", request("GET", "/static/scoreboard.js") * 50, []),
    "unread-board": ("requests of a board of 100, not read", request("GET", f"{BOARD}?limit=100") * 50, []),
    "half-frame": ("WebSocket: half a frame", upgrade(), [frame(1, MESSAGE)[:-1]]),
    "fragments": (
        "WebSocket: a message in fragments",
        upgrade(),
        [frame(1, b"x" * 60, final=False)] + [frame(0, b"x" * 60, final=False)] * 60,
    ),
    "unread-frames": ("WebSocket: subscribed, never reads", upgrade(), [SUBSCRIBE]),
    "unread-events": ("event stream that is not read", request("GET", "/api/v1/scores/stream"), []),
    "unread-poll": ("long polls that are not read", request("GET", f"{POLL}?wait=30") * 50, []),
}


@asynccontextmanager
async def opened(port: int, data: bytes, after: list[bytes], count: int) -> AsyncIterator[list[trio.SocketStream]]:
    """So many connections of a shape; those that were refused are missing."""
    streams: list[trio.SocketStream] = []

    async def one(place: int) -> None:
        try:
            stream = await connect(port, f"127.0.3.{1 + place // NETWORK}", SMALL_BUFFER)
            streams.append(stream)
            with trio.move_on_after(SETTLE_SECONDS):
                await stream.send_all(data)
                if after:
                    await stream.receive_some(1_024)
                    for part in after:
                        await stream.send_all(part)
                        await trio.lowlevel.checkpoint()
        except OSError:
            pass
        except trio.BrokenResourceError:
            pass  # it was closed; it holds nothing

    async with trio.open_nursery() as nursery:
        for place in range(count):
            nursery.start_soon(one, place)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.socket.close()


async def measure(name: str, port: int, pid: int, move: Callable[[], Awaitable[None]]) -> Shape:
    """One shape. `move` moves the board a few times, for those who never read it."""
    title, data, after = SHAPES[name]
    async with opened(port, data, after, WARM_UP):
        await move()
    await trio.sleep(SETTLE_SECONDS)
    before = machine.pss_kib(pid)
    async with opened(port, data, after, CONNECTIONS) as streams:
        await move()
        await trio.sleep(SETTLE_SECONDS)
        used = machine.pss_kib(pid) - before
        still = sum(is_open(stream) for stream in streams)
    return Shape(name, title, max(0.0, used / CONNECTIONS), CONNECTIONS, still)
