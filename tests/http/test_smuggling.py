"""Framing that two parsers could read differently is refused, and what follows it is never taken for a request."""

import pytest
import trio

from scoreboard.http.request import Request
from tests.http.application import Application, serving
from tests.http.raw import UPGRADE, ask, chunked, connected, get, post, still_serves

pytestmark = pytest.mark.usefixtures("every_way")

INNER = get("/hello?smuggled")
KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = f"Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"


async def refused(data: bytes) -> None:
    """`data` is answered by 400 and the end of the connection, and no handler was called."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(data)
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json()["code"] == "INVALID_REQUEST"
        assert answer.json()["requestId"] == answer.header("x-request-id")
        assert answer.header("connection") == "close"
        assert await client.rest() == b""
        assert not application.seen
        await still_serves(server)


def head(*fields: str, line: str = "POST /echo HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: t", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    "upgrade",
    [
        WEBSOCKET,
        "Connection: Upgrade\r\nUpgrade: h2c",
        "Connection: keep-alive, Upgrade\r\nUpgrade: anything",
    ],
)
@pytest.mark.parametrize("path", ["/live", "/hello", "/app/x"])
@pytest.mark.parametrize(
    "framing", [f"Content-Length: {len(INNER)}", "Transfer-Encoding: chunked", "Content-Length: 0"]
)
async def test_an_upgrade_with_a_body(upgrade: str, path: str, framing: str) -> None:
    """The parser skips such a body, and it would come back as the next request: 400, on every path, for every
    protocol."""
    await refused(get(path, upgrade, framing) + INNER)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_upgrade_with_a_body_by_another_method(method: str) -> None:
    """The same for methods that have bodies."""
    await refused(get("/echo", WEBSOCKET, f"Content-Length: {len(INNER)}", method=method) + INNER)


async def test_connect() -> None:
    """CONNECT would make a tunnel of what follows."""
    await refused(b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n" + INNER)


@pytest.mark.parametrize("path", ["/hello", "/echo", "/app/x"])
@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_upgrade_that_nobody_offers(path: str, upgrade: str) -> None:
    """Without a body it is ignored, and what follows is the next request, whole or cut anywhere."""
    data = get(path, "Connection: Upgrade", f"Upgrade: {upgrade}") + post("/echo", b"next")
    async with serving() as server:
        for cut in (len(data), data.index(b"POST"), data.index(b"POST") + 5):
            async with connected(server) as client:
                await client.send(data[:cut], data[cut:])
                assert (await client.answer()).status == 200
                assert (await client.answer()).json()["body"] == "next"


@pytest.mark.parametrize(
    "request_",
    [
        get("/live", "Connection: Upgrade", "Upgrade: h2c"),
        get("/live", "Connection: Upgrade", "Upgrade: h2c", KEY),
        get("/live", "Upgrade: websocket", KEY),
        get("/live", "Connection: Upgrade", KEY),
        get("/live", "Connection: Upgrade", "Upgrade: websocket"),
        get("/live", WEBSOCKET.replace("13", "12")),
        get("/live", WEBSOCKET.replace("==", "")),
        get("/live", WEBSOCKET, version="1.0"),
        get("/live", WEBSOCKET, method="POST"),
        get("/live", WEBSOCKET, method="HEAD"),
        get("/live2", WEBSOCKET),
    ],
)
async def test_no_websocket(request_: bytes) -> None:
    """Only a GET of the live path in HTTP/1.1 with a whole WebSocket handshake is one; others go to the application."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.ask(request_, head_only=request_.startswith(b"HEAD"))
        assert [request.upgrade for request in application.seen] == [False]


async def test_the_head_of_an_upgrade_is_written_anew() -> None:
    """The WebSocket's parser gets what http.parser has read: names in lower case, values without padding, and what
    followed the head."""
    application = Application()
    played: list[bytes] = []

    async def live(request: Request) -> None:
        played.append(request.socket.unread_buffer)

    application.serve_websocket = live  # type: ignore[method-assign]  # of this application alone
    async with serving(application) as server, connected(server) as client:
        await client.send(
            b"GET http://t/live?a=b HTTP/1.1\r\nHOST:t\r\nConnection:  x, Upgrade \r\nUpGrade: a,WebSocket\r\n"
        )
        await client.send(KEY.encode() + b"\r\n\r\n\x81\x00")
        assert await client.rest() == b""
    key = (
        KEY.replace("Sec-WebSocket-Version", "sec-websocket-version")
        .replace("Sec-WebSocket-Key", "sec-websocket-key")
        .encode()
    )
    fields = b"host: t\r\nconnection: x, Upgrade\r\nupgrade: a,WebSocket\r\n" + key
    assert played == [b"GET /live?a=b HTTP/1.1\r\n" + fields + b"\r\n\r\n\x81\x00"]


async def test_bytes_after_an_upgrade_that_are_no_frames() -> None:
    """They end that connection only."""
    async with serving() as server:
        async with connected(server) as client:
            await client.send(UPGRADE + b"\xff" * 100)
            assert await client.stream.receive_some()
        while server.connections:
            await trio.sleep(0.001)
        await still_serves(server)


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Transfer-Encoding: identity"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5, 5"],
        ["Content-Length: +5"],
        ["Content-Length: -5"],
        ["Content-Length: 0x5"],
        ["Content-Length: 5 5"],
        ["Content-Length: "],
        ["Content-Length: five"],
        ["Content-Length: 99999999999999999999999999"],
        ["Content-Length : 5"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, gzip"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: "],
        ["Transfer-Encoding:\x0bchunked"],
        ["X: a\r\n Content-Length: 5"],  # a folded line
        ["X: a\x00b"],
        ["X: a\rContent-Length: 5"],
        ["X\x00: a"],
        [" X: a"],
        ["Host: other"],
    ],
)
async def test_bad_framing(fields: list[str]) -> None:
    """Lengths twice or beside a coding, lengths that are no number, codings but `chunked`, folded lines, a second Host:
    400 and close."""
    await refused(head(*fields) + b"5\r\nhello\r\n0\r\n\r\n" + INNER)


async def test_chunks_in_http_1_0() -> None:
    """HTTP/1.0 has no chunks: a proxy of that age would take them for the next request."""
    await refused(
        head("Transfer-Encoding: chunked", "Connection: keep-alive", line="POST /echo HTTP/1.0") + b"0\r\n\r\n" + INNER
    )


@pytest.mark.parametrize(
    "body",
    [
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX0\r\n\r\n",
        b"x\r\n",
    ],
)
async def test_bad_chunks(body: bytes) -> None:
    """Chunk sizes are hexadecimal digits and lines end in CR LF."""
    await refused(head("Transfer-Encoding: chunked") + body + INNER)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /hello HTTP/2.0\r\nHost: t\r\n\r\n",
        b"GET /hello HTTP/0.9\r\nHost: t\r\n\r\n",
        b"GET /hello HTTP/1.2\r\nHost: t\r\n\r\n",
        b"GET /hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n\r\n",
        b"GET /hello HTTP/1.1\nHost: t\n\n",
        b"GET hello HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET ftp://t/hello HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /hello#fragment HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET http://t/hello#fragment HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /h\xc3\xa9llo HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
        b"HELLO /hello HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_not_http_1(data: bytes) -> None:
    """Versions but 1.0 and 1.1, a 1.1 without Host, targets that are no path, bytes that are no HTTP: 400 and close."""
    await refused(data + INNER)


async def test_good_requests_before_a_bad_one() -> None:
    """What came before is answered; the bad one ends the connection."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/hello") + get("/hello", "Content-Length: x") + get("/hello"))
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "trailers",
    [b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n"],
)
async def test_trailers_change_nothing(trailers: bytes) -> None:
    """A trailer that would change the framing of the message has no effect."""
    async with serving() as server:
        seen = (await ask(server, chunked("/live", b"x", trailers=trailers))).json()
    assert seen["app"] == "/live"
    assert seen["body"] == "x"
    assert [name for name, _ in seen["headers"]] == ["content-length", "host", "x-request-id"]


async def test_a_trailer_with_a_length() -> None:
    """A length after a chunked body is refused."""
    await refused(chunked("/echo", b"x", trailers=b"Content-Length: 3\r\n") + INNER)
