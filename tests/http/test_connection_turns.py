"""One connection with requests of all kinds, and several connections at once."""

import pytest
import trio
import wsproto
from wsproto.events import AcceptConnection, Message, Request, TextMessage

from scoreboard.http.connection import YIELD_EVERY
from tests.http.application import Application, serving
from tests.http.raw import chunked, connected, get, post

pytestmark = pytest.mark.usefixtures("every_way")


async def test_everything_on_one_connection() -> None:
    """Direct, application and an upgrade on one connection, as through a proxy that reuses it."""
    async with serving() as server, connected(server) as client:
        assert (await client.ask(get("/hello"))).status == 200
        assert (await client.ask(post("/app/x", b"body"))).json()["body"] == "body"
        assert (await client.ask(chunked("/echo", b"x"))).status == 200
        assert (await client.ask(get("/app/chunks"))).body == b"onetwo"
        websocket = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        handshake = websocket.send(Request(host="t", target="/live"))
        await client.send(get("/hello") + handshake)
        assert (await client.answer()).body == b'"hello"'
        received: list[object] = []
        while not any(isinstance(event, Message) for event in received):
            websocket.receive_data(client.buffer or await client.stream.receive_some())
            client.buffer = b""
            for event in websocket.events():
                received.append(event)
                if isinstance(event, AcceptConnection):
                    await client.send(websocket.send(TextMessage("hi")))
        assert received[-1] == TextMessage("hi", frame_finished=True, message_finished=True)


async def test_others_have_their_turn() -> None:
    """Of the requests in one read at most sixteen are answered in one pass of the loop; other tasks run in each."""
    application, turns, when = Application(), 0, []
    application.refused = lambda _: when.append(turns)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with serving(application) as server, connected(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await client.send(get("/hello") * 400)
        assert [(await client.answer()).status for _ in range(400)] == [200] * 400
        nursery.cancel_scope.cancel()
    # Last in one pass and first in the next: between two turns of the other task there are two passes at most.
    assert max(when.count(turn) for turn in set(when)) <= 2 * YIELD_EVERY


async def test_twenty_thousand_requests_in_one_buffer() -> None:
    """Another client is served while one connection's buffer is full of requests."""
    many = 20_000
    async with (
        serving() as server,
        connected(server) as greedy,
        connected(server) as other,
        trio.open_nursery() as nursery,
    ):
        request_counts = 0

        async def read() -> None:
            nonlocal request_counts
            while request_counts < many:
                request_counts += (await greedy.stream.receive_some(1 << 20)).count(b'"hello"')

        nursery.start_soon(greedy.send, get("/hello") * many)
        nursery.start_soon(read)
        meanwhile = 0
        while request_counts < many:
            assert (await other.ask(get("/hello"))).status == 200
            meanwhile += 1
        # One each time the loop goes round: were the buffer answered in one go, the other client would wait for all of
        # it.
        assert meanwhile > 50
