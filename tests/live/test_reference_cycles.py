"""A connection that has ended is freed at once, without the cyclic garbage collector: with thousands of viewers its
runs take long, so they are rare."""

import gc
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from tests.live.boards import BOARD
from tests.live.live_server import LiveServer, serve_live
from tests.live.viewers import FakeViewer

MASK = b"\0\0\0\0"
TIMES = 20


def masked(payload: bytes) -> bytes:
    return bytes([0x81, 0x80 | len(payload)]) + MASK + payload


HANDSHAKE = (
    b"GET /live HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
WAYS = {
    "websocket": (HANDSHAKE, masked(b'{"action":"subscribe","channel":"leaderboard"}')),
    "stream": (b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n",),
    "poll": (b"GET /poll HTTP/1.1\r\nHost: t\r\n\r\n",),
    "waiting poll": (b"GET /poll?since=1-1&wait=0.1 HTTP/1.1\r\nHost: t\r\n\r\n",),
    "poll that is left": (b"GET /poll?since=1-1&wait=0.3 HTTP/1.1\r\nHost: t\r\n\r\n",),
    "nothing": (b"\r\n",),
}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def come_and_go(node: LiveServer, messages: tuple[bytes, ...], *, abruptly: bool) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", node.server.port)
    for message in messages:
        await stream.send_all(message)
        with trio.move_on_after(0.15):
            await stream.receive_some(65_536)
    if abruptly:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    await stream.aclose()
    while node.server.connections:
        await trio.sleep(0.001)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("abruptly", [False, True], ids=["in order", "reset"])
@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_left_to_the_collector(way: str, abruptly: bool) -> None:
    """After many connections no object is left for the collector."""
    async with serve_live() as node:
        FakeViewer(node.hub)  # a viewer, so that polls need no task
        await node.refresh(BOARD)
        await come_and_go(node, WAYS[way], abruptly=abruptly)
        gc.collect()
        for _ in range(TIMES):
            await come_and_go(node, WAYS[way], abruptly=abruptly)
        await trio.testing.wait_all_tasks_blocked(0.005)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [
            one
            for one in gc.garbage
            if type(one).__module__.partition(".")[0] in {"scoreboard", "trio_websocket", "wsproto", "h11"}
        ]
        assert len(left) < TIMES, left[:10]
        assert node.hub.published(BOARD) is not None
