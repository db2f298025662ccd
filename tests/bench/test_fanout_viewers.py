"""The raw client against a server that sends known bytes: `tests/bench/fanout_viewers.py`, by way of
`fanout_crowd.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from scoreboard.domain.framing import text_frame
from tests.bench import fanout_lag
from tests.bench.fanout_crowd import crowd

VIEWERS = 20
PING = b"\x89\x00"


class Sender:
    """Greets WebSockets, sends all of them what the test says, and hears what they say."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.streams: list[trio.SocketStream] = []
        self.heard = b""
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(self.greeting)
        self.streams.append(stream)
        try:
            async for data in stream:
                self.heard += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # a viewer was killed, or the test has closed it
        self.streams.remove(stream)

    async def send(self, *pieces: bytes) -> None:
        for stream in list(self.streams):
            for piece in pieces:
                await stream.send_all(piece)
                await trio.lowlevel.checkpoint()

    async def until(self, viewers: int) -> None:
        while len(self.streams) != viewers:
            await trio.sleep(0.01)


@asynccontextmanager
async def sender(greeting: bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n") -> AsyncIterator[Sender]:
    made = Sender(greeting)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, made.serve, 0, host="127.0.0.1"))
            made.port = listeners[0].socket.getsockname()[1]
            yield made
            nursery.cancel_scope.cancel()


def message(sent: float) -> bytes:
    return text_frame(b'{"filling":"%b","sent":%.3f}' % (b"x" * 1000, sent))


async def test_every_message_is_counted_once_for_each_viewer() -> None:
    """However the bytes come; pings are answered, and are not messages."""
    async with sender() as server, crowd(server.port) as viewers:
        await viewers.open(VIEWERS)
        await server.until(VIEWERS)
        await viewers.begin()
        first, second, third = message(1000), message(1100), message(1200)
        await server.send(first[:500], first[500:] + PING + second, third)
        while len(server.heard) < 6 * VIEWERS:
            await trio.sleep(0.01)
        (report,) = await viewers.end()
        while fanout_lag.deliveries(report.rows) < 3 * VIEWERS:
            (report,) = await viewers.end()
    assert fanout_lag.deliveries(report.rows) == 3 * VIEWERS
    assert [shown.sent_ms for shown in report.shown] == [1000, 1100, 1200]
    assert report.bytes == 3 * len(first) * VIEWERS
    assert (report.gone, report.open) == (0, VIEWERS)


async def test_all_come_back_at_once() -> None:
    """`again` closes every connection and opens as many, and says how long it took."""
    async with sender() as server, crowd(server.port) as viewers:
        await viewers.open(VIEWERS)
        await server.until(VIEWERS)
        old = list(server.streams)
        assert 0 < await viewers.again() < 30
        while set(old) & set(server.streams) or len(server.streams) != VIEWERS:
            await trio.sleep(0.01)


async def test_a_closed_viewer_is_noticed() -> None:
    """It counts as gone, and the others go on."""
    async with sender() as server, crowd(server.port) as viewers:
        await viewers.open(VIEWERS)
        await server.until(VIEWERS)
        await viewers.begin()
        await server.streams[0].aclose()
        gone = 0
        while not gone:
            (report,) = await viewers.end()
            gone = report.gone
        assert (gone, report.open) == (1, VIEWERS - 1)


async def test_a_refused_viewer_ends_the_run() -> None:
    """An answer other than the expected one is an error with that answer in it, never a smaller crowd."""
    async with sender(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as server, crowd(server.port) as viewers:
        with pytest.raises(ExceptionGroup) as caught:
            await viewers.open(VIEWERS)
        assert caught.group_contains(RuntimeError, match="503 Service Unavailable")
