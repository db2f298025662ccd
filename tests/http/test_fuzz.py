"""The HTTP server under any split of valid requests, and under any bytes at all."""

import itertools
import json

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.application import Application, HandledBy, serving
from tests.http.raw import Answer, chunked, connected, get, post, still_serves

bodies = st.binary(max_size=300)
fields = st.lists(
    st.sampled_from(["X-A: b", "Accept:  */* ", "Upgrade: h2c", "Connection: keep-alive", "X-Empty:"]), max_size=3
)
requests = st.one_of(
    st.builds(
        lambda path, more: get(path, *more),
        st.sampled_from(["/hello", "/app/x?a=b", "/app/chunks", "/none", "/same", "/fail"]),
        fields,
    ),
    st.builds(
        lambda path, body, more: post(path, body, *more),
        st.sampled_from(["/echo", "/echo?a", "/app/y"]),
        bodies,
        fields,
    ),
    st.builds(lambda parts: chunked("/echo", *parts), st.lists(st.binary(min_size=1, max_size=50), max_size=4)),
    st.builds(
        lambda parts: chunked("/echo", *parts, trailers=b"X-T: y\r\n"),
        st.lists(st.binary(min_size=1, max_size=50), max_size=4),
    ),
    st.just(get("/hello", method="HEAD")),
    st.just(get("/hello", "Connection: Upgrade, keep-alive", "Upgrade: h2c")),
    st.just(b"\r\n" + get("/hello")),
    st.just(get("/hello", "Connection: keep-alive", version="1.0")),
)
snippets = st.sampled_from(
    [
        b"GET /hello HTTP/1.1\r\n", b"POST /echo HTTP/1.1\r\n", b"Host: t\r\n", b"\r\n", b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
        b"Expect: 100-continue\r\n", b"hello",
        b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"GET /live HTTP/1.1\r\n",
        b"\x81\x85\0\0\0\0hello",
        b"GET /app/chunks HTTP/1.0\r\n", b"Connection: close\r\n", b"HTTP/1.1 200 OK\r\n", b"\x88\x80\0\0\0\0",
    ]
)  # fmt: skip
ways = st.sampled_from(HandledBy)
hostile = st.lists(st.one_of(snippets, snippets, st.binary(max_size=40)), max_size=25).map(b"".join)


async def answers(data: bytes, cuts: list[int], expected: list[bytes], way: HandledBy) -> list[tuple[object, ...]]:
    """What `expected` are answered when `data` is sent cut like that. However it is handled, middleware is run once for
    each."""
    application = Application(way)
    async with serving(application) as server, connected(server) as client:
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for start, end in itertools.pairwise(edges):
                    await client.send(data[start:end])
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(send)
            found = [comparable(await client.answer(head_only=request.startswith(b"HEAD"))) for request in expected]
        await client.stream.send_eof()
        assert await client.rest() == b""
    assert len(application.seen) == len(expected)
    return found


def comparable(answer: Answer) -> tuple[object, ...]:
    """An answer without what differs from time to time: the date and the ids made for it."""
    body: object = answer.body
    if answer.body.startswith(b"{"):
        seen = json.loads(answer.body)
        seen.pop("requestId", None)
        seen["headers"] = [field for field in seen.get("headers", []) if field[0] != "x-request-id"]
        body = seen
    return answer.status, [field for field in answer.headers if field[0] not in {"date", "x-request-id"}], body


@settings(max_examples=150, deadline=None)
@given(sequence=st.lists(requests, min_size=1, max_size=8), cuts=st.lists(st.integers(0, 5000), max_size=12), way=ways)
def test_any_split_of_valid_requests(sequence: list[bytes], cuts: list[int], way: HandledBy) -> None:
    """However the bytes are cut, and however the requests are handled, the same requests get the same responses, in
    order, one each."""
    data = b"".join(sequence)
    expected = [one for request in sequence for one in trio.run(answers, request, [], [request], HandledBy.TRIO)]
    assert trio.run(answers, data, [], sequence, way) == expected
    assert trio.run(answers, data, cuts, sequence, way) == expected


@settings(max_examples=30, deadline=None)
@given(sequence=st.lists(requests, min_size=1, max_size=3), way=ways)
def test_byte_by_byte(sequence: list[bytes], way: HandledBy) -> None:
    """The same when every byte comes by itself."""
    data = b"".join(sequence)
    assert trio.run(answers, data, list(range(len(data))), sequence, way) == trio.run(answers, data, [], sequence, way)


async def endure(pieces: list[bytes], way: HandledBy) -> None:
    """A server that is sent `pieces`, each on a connection of its own, and serves another client afterwards."""
    application = Application(way)
    application.gate.set()
    async with serving(application) as server, trio.open_nursery() as nursery:

        async def send(data: bytes) -> None:
            async with connected(server) as client:
                try:
                    await client.send(data)
                    await client.stream.send_eof()
                    await client.rest()
                except trio.BrokenResourceError:
                    pass

        for data in pieces:
            nursery.start_soon(send, data)
        await still_serves(server)
        while server.connections:
            await trio.sleep(0.001)
        await still_serves(server)


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(hostile, min_size=1, max_size=5), way=ways)
def test_any_bytes_at_all(pieces: list[bytes], way: HandledBy) -> None:
    """No bytes end the server, reach its nursery, or keep a connection once the peer has left."""
    trio.run(endure, pieces, way)
