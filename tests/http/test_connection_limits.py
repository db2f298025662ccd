"""Limits of size and time: a request that is too large or too late gets an error if possible; the connection ends."""

import pytest
import trio
import trio.testing

from scoreboard.http import connection as connection_module
from scoreboard.http import response_writer as writer_module
from scoreboard.http import server
from scoreboard.http.parser import HEAD_BYTES, MAX_BODY_CHUNKS, MAX_FIELDS, RequestParser
from scoreboard.http.request import BODY_BYTES
from tests.http.application import Application, serving
from tests.http.raw import Client, ask, chunked, closed, connected, get, post, still_serves

pytestmark = pytest.mark.usefixtures("every_way")

SOON = 0.05  # seconds; stands for limits of ten seconds and more


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A sweeper that sweeps often."""
    monkeypatch.setattr(server, "SWEEP_INTERVAL_SECONDS", 0.01)
    return monkeypatch


async def drip(client: Client, byte: bytes) -> None:
    """Sends a byte again and again, until the server closes the connection."""
    try:
        while True:
            await client.send(byte)
            await trio.sleep(0.005)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/echo", "/app/x"])
async def test_a_body_of_the_limit(path: str) -> None:
    """16 KiB are accepted, by length and in chunks."""
    body = b"b" * BODY_BYTES
    async with serving() as server, connected(server) as client:
        assert len((await client.ask(post(path, body))).json()["body"]) == BODY_BYTES
        assert len((await client.ask(chunked(path, body[:1], body[1:]))).json()["body"]) == BODY_BYTES


async def test_a_large_body_of_a_path_that_takes_it() -> None:
    """A reservation lasts while the body comes; a byte more, another path, and chunks are refused as ever."""
    application = Application()
    application.large_body_bytes = 100_000
    body = b"b" * 100_000
    async with serving(application) as server:
        async with connected(server) as client:
            request = post("/echo", body)
            await client.send(request[:50_000])
            while not application.reserved:
                await trio.sleep(0.005)
            await client.send(request[50_000:] + get("/hello"))
            assert len((await client.answer()).json()["body"]) == 100_000
            assert (await client.answer()).status == 200
            assert application.reserved == []
        for refused in (post("/echo", body + b"b"), post("/app/x", body), chunked("/echo", *[b"b" * 1024] * 17)):
            async with connected(server) as client:
                assert (await client.ask(refused)).status == 413
        async with connected(server) as client:  # which leaves half-way
            await client.send(post("/echo", body)[:50_000])
            while not application.reserved:
                await trio.sleep(0.005)
        with trio.fail_after(5):
            while application.reserved:
                await trio.sleep(0.005)


@pytest.mark.parametrize(
    "request_", [post("/echo", b"b" * 17 * 1024), chunked("/echo", *[b"b" * 1024] * 17), post("/app/x", b"b" * 10**6)]
)
async def test_a_body_above_the_limit(request_: bytes) -> None:
    """413 arrives although the body was not read, no handler is called, and the connection ends."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/hello") + request_)
        assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert answer.header("connection") == "close"
        assert await client.rest() == b""
        assert len(application.seen) == 1


async def test_too_large_a_body_is_not_sent_for() -> None:
    """`Expect: 100-continue` with too great a length gets 413 and no 100."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(
            get("/echo", f"Content-Length: {BODY_BYTES + 1}", "Expect: 100-continue", method="POST")
        )
        assert answer.status == 413
        assert await client.rest() == b""


@pytest.mark.parametrize("junk", [b"1;" + b"x" * 10**6, b"0\r\n" + b"x" * 10**6, b"0\r\nx: " + b"x" * 10**6])
async def test_what_a_chunked_body_hides(junk: bytes) -> None:
    """Endless chunk extensions and trailers count as body."""
    async with serving() as server, connected(server) as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(suppressed, client, junk)
            assert (await client.answer()).status == 413
            nursery.cancel_scope.cancel()


async def test_a_body_in_too_many_chunks() -> None:
    """A thousand chunks are accepted, however small; more are 413."""
    async with serving() as server, connected(server) as client:
        assert (await client.ask(chunked("/echo", *[b"b"] * MAX_BODY_CHUNKS))).json()["body"] == "b" * MAX_BODY_CHUNKS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(suppressed, client, chunked("/echo", *[b"b"] * (MAX_BODY_CHUNKS + 1)))
            assert (await client.answer()).status == 413


async def suppressed(client: Client, data: bytes) -> None:
    try:
        await client.send(data)
    except trio.BrokenResourceError:
        pass


@pytest.mark.parametrize("pieces", [1, 7, 16_383, 10**6])
@pytest.mark.parametrize("over", [False, True])
async def test_a_head_of_the_limit(pieces: int, over: bool) -> None:
    """A head of nearly 16 KiB is accepted, a larger one gets 431, however it is cut."""
    empty = len(get("/hello", "X: "))
    data = get("/hello", "X: " + "x" * (HEAD_BYTES - empty + (100 if over else 0)))
    step = max(pieces, 1) if pieces > 1 else 100
    async with serving() as server, connected(server) as client:
        await client.send(*(data[at : at + step] for at in range(0, len(data), step)))
        answer = await client.answer()
        assert answer.status == (431 if over else 200)
        if over:
            assert answer.json()["code"] == "HEADERS_TOO_LARGE"
            assert await client.rest() == b""


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: t\r\nX", b"GET / HTTP/1.1\r\nHost: t\r\nX: "])
async def test_a_head_without_an_end(start: bytes) -> None:
    """A path, a name or a value that never ends is refused before it fills the memory."""
    async with serving() as server, connected(server) as client:
        await client.send(start)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(suppressed, client, b"x" * 10**6)
            assert (await client.answer()).status == 431
            nursery.cancel_scope.cancel()


async def test_many_large_heads_in_a_row() -> None:
    """Each head is counted for itself, not with its neighbours in the same read."""
    async with serving() as server, connected(server) as client:
        data = get("/hello", "X: " + "x" * 9000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, data * 20)
            assert [(await client.answer()).status for _ in range(20)] == [200] * 20


@pytest.mark.parametrize("pieces", [1, 300, 10**6])
@pytest.mark.parametrize("over", [False, True])
async def test_the_number_of_fields(pieces: int, over: bool) -> None:
    """A hundred fields are accepted and arrive in order; one more gets 431. The cuts do not matter."""
    own = MAX_FIELDS - 2 + over  # Host and Content-Length are two
    data = post("/echo", b"", *(f"X-{number}: {number}" for number in range(own)))
    async with serving() as server, connected(server) as client:
        await client.send(*(data[at : at + pieces] for at in range(0, len(data), pieces)))
        answer = await client.answer()
        assert answer.status == (431 if over else 200)
        if not over:
            seen = answer.json()["headers"]
            assert [value for name, value in seen if name.startswith("x-")] == [str(number) for number in range(own)]


async def test_fields_wait_for_a_body() -> None:
    """A request with many fields whose body comes later is the same request."""
    names = [f"X-{number}: {number}" for number in range(60)]
    async with serving() as server, connected(server) as client:
        data = post("/echo", b"body", *names)
        for piece in (data[:-3], data[-3:-1], data[-1:]):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        seen = (await client.answer()).json()
        assert seen["body"] == "body"
        assert [value for name, value in seen["headers"] if name.startswith("x-")] == [
            str(number) for number in range(60)
        ]


async def test_head_and_body_together() -> None:
    """A great head leaves less room for the body: 413, by length and in chunks."""
    head = "X: " + "x" * 10_000
    async with serving() as server:
        async with connected(server) as client:
            assert (await client.ask(post("/echo", b"b" * 10_000, head))).status == 200
            assert (await client.ask(post("/echo", b"b" * 12_000, head))).status == 413
        async with connected(server) as client:
            data = chunked("/echo", *[b"b" * 1000] * 12).replace(
                b"Host: t\r\n", b"Host: t\r\n" + head.encode() + b"\r\n"
            )
            assert (await client.ask(data)).status == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            ("t", 200),
            ("board.example:8000", 200),
            ("a_b.c-d.", 200),
            ("127.0.0.1:1", 200),
            ("[::1]:8000", 200),
            ("", 200),
            ("t:", 200),
        ),
        *(
            ("a..b", 400),
            (".a", 400),
            ("a b", 400),
            ("a/b", 400),
            ("a@b", 400),
            ("[::1", 400),
            ("a:b", 400),
            ("a:123456", 400),
        ),
        *(("ü", 400), ("a" * 64, 400), ("%41", 400), (".".join(["a" * 60] * 5), 400), ("a,b", 400), ("a?b", 400)),
    ],
)
@pytest.mark.parametrize("path", ["/hello", "/app/x"])
async def test_host(host: str, status: int, path: str) -> None:
    """A Host that is no name or address is 400 before any handler is called."""
    application = Application()
    async with serving(application) as server:
        data = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        assert (await ask(server, data)).status == status
        assert len(application.seen) == (status == 200)


async def test_the_application_gets_one_host() -> None:
    """The framework behind ASGI never sees what the client wrote as Host."""
    async with serving() as server:
        seen = (await ask(server, b"GET /app/x HTTP/1.1\r\nHost: evil.example\r\n\r\n")).json()
        assert [value for name, value in seen["headers"] if name == "host"] == ["localhost"]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//app/x",
            "/app//x",
            "/./app/x",
            "/app/../app/x",
            "/app/..",
            "/%61pp/x",
            "/app/%7E",
            "/app%2Fx",
            "/app/%2f",
            "/app/%5Cx",
        ),
        *("/app/%00", "/app/\\x", "/app/x%", "/app/%zz", "/app/x^", '/app/"x'),
    ],
)
async def test_a_path_has_one_spelling(path: str) -> None:
    """Another spelling of a path is 404 and reaches no handler: it can't get past a proxy's rules for paths."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get(path))
        assert answer.status in {404, 400}
        assert b"app" not in answer.body
        if answer.status == 404:
            assert (await client.ask(get("/hello"))).status == 200


@pytest.mark.parametrize(
    "path", ["/app/x", "/app/x/", "/app/a%20b", "/app/a%40b", "/app/~a.b-c_d", "/app/...", "/app/.x", "/app/a;b=c,d"]
)
async def test_a_path_in_its_own_spelling(path: str) -> None:
    """A path in the normal form of RFC 3986 reaches its handler unchanged."""
    async with serving() as server:
        assert (await ask(server, get(path))).status == 200


async def test_pipelined_requests_wait_as_bytes() -> None:
    """Of hundreds of requests in one read two at most are parsed ahead."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/slow") + get("/hello") * 200)
        await application.waiting.wait()
        assert len(application.seen) == 1
        (connection,) = server._connections.values()
        assert len(connection._parser.queue) <= 1
        assert connection._parser.unparsed
        application.gate.set()
        assert [(await client.answer()).body for _ in range(201)] == [b'"slow"'] + [b'"hello"'] * 200


async def test_empty_lines_are_few() -> None:
    """A client that sends nothing but empty lines gets 400, and they cost no more than other bytes."""
    async with serving() as server, connected(server) as client:
        assert (await client.ask(b"\r\n" * 30 + get("/hello") + b"\r\n" * 30 + get("/hello"))).status == 200
        assert (await client.answer()).status == 200
        await client.send(b"\r\n" * 2000)
        assert (await client.answer()).status == 400
        assert await closed(client)


@pytest.mark.parametrize("data", [b"\r\n" * 4000 + b"x", post("/echo", b"\r\n" * 4000)[:8000]])
def test_ends_of_lines_are_not_fed_one_by_one(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty lines and a body of them are parsed in few steps."""
    parser = RequestParser(None, b"/live")  # type: ignore[arg-type]
    steps: list[int] = []
    parse = RequestParser._parse
    monkeypatch.setattr(RequestParser, "_parse", lambda self, data: (steps.append(len(data)), parse(self, data))[1])
    parser.feed(data)
    assert len(steps) <= 3


async def test_a_malformed_request_is_reported_to_the_handlers() -> None:
    """Once for each, so that it can be counted."""
    application = Application()
    async with serving(application) as server:
        for data in (b"\0", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", post("/echo", b"b" * 17_000)):
            assert (await ask(server, data)).status in {400, 413}
        await ask(server, get("/hello"))
    assert application.malformed == 3


# ---- times ----------------------------------------------------------------------------------------------------------


async def test_idle(quick: pytest.MonkeyPatch) -> None:
    """A connection without a further request is closed without a response."""
    quick.setattr(connection_module, "IDLE_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        assert (await client.ask(get("/hello"))).status == 200
        assert await client.rest() == b""
        while server.connections:
            await trio.sleep(0.001)


async def test_the_first_byte(quick: pytest.MonkeyPatch) -> None:
    """A connection without any request is closed sooner than one that has had a request."""
    quick.setattr(connection_module, "FIRST_BYTE_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        assert (await client.ask(get("/hello"))).status == 200
        async with connected(server) as silent:
            assert await silent.rest() == b""
        assert (await client.ask(get("/hello"))).status == 200


async def test_empty_lines_do_not_extend_the_deadline(quick: pytest.MonkeyPatch) -> None:
    """A client that sends only empty lines is idle."""
    quick.setattr(connection_module, "FIRST_BYTE_SECONDS", SOON)
    async with serving() as server, connected(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(drip, client, b"\r\n")
        assert await closed(client)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("start", [b"G", b"GET /hello HT", b"GET /hello HTTP/1.1\r\nX: "])
async def test_a_late_head(quick: pytest.MonkeyPatch, start: bytes) -> None:
    """A head that comes too slowly gets 408, however many bytes have come; a further byte does not extend the
    deadline."""
    quick.setattr(connection_module, "HEAD_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        assert (await client.ask(get("/hello"))).status == 200
        await client.send(start)
        if start.endswith(b" "):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, client, b"x")
                await late(client)
                nursery.cancel_scope.cancel()
        else:
            await late(client)
            assert await client.rest() == b""
        await still_serves(server)


async def late(client: Client) -> None:
    answer = await client.answer()
    assert (answer.status, answer.json()["code"]) == (408, "REQUEST_TIMEOUT")
    assert answer.header("connection") == "close"


@pytest.mark.parametrize("expect", [False, True])
async def test_a_late_body(quick: pytest.MonkeyPatch, expect: bool) -> None:
    """A body that comes too slowly gets 408."""
    quick.setattr(connection_module, "BODY_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        await client.send(post("/echo", b"body", *(["Expect: 100-continue"] if expect else []))[:-4])
        if expect:
            assert (await client.answer()).status == 100
        await late(client)
        assert await client.rest() == b""


async def test_a_handler_has_its_time(quick: pytest.MonkeyPatch) -> None:
    """No read deadline runs while a request is being handled."""
    for limit in ("FIRST_BYTE_SECONDS", "IDLE_SECONDS", "HEAD_SECONDS", "BODY_SECONDS"):
        quick.setattr(connection_module, limit, SOON)
    application = Application()
    async with serving(application) as server, connected(server) as client, connected(server) as other:
        await client.send(get("/slow"))
        await application.waiting.wait()
        assert await other.rest() == b""  # its idle time has passed, so the first one's would have too
        application.gate.set()
        assert (await client.answer()).body == b'"slow"'


@pytest.mark.parametrize("path", ["/big", "/app/endless"])
async def test_nobody_reads_the_answer(quick: pytest.MonkeyPatch, path: str) -> None:
    """A client that does not read its response is closed after a while, and the handler or application ends."""
    quick.setattr(writer_module, "WRITE_TIMEOUT_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        await client.send(get(path))
        while not server.connections:
            await trio.sleep(0.001)
        while server.connections:
            await trio.sleep(0.001)
        await still_serves(server)


async def test_the_graceful_close_is_bounded(quick: pytest.MonkeyPatch) -> None:
    """A client that neither closes nor stops sending after the last response is closed after a while."""
    quick.setattr(writer_module, "CLOSE_TIMEOUT_SECONDS", SOON)
    async with serving() as server, connected(server) as client:
        assert (await client.ask(get("/hello", "Connection: close"))).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, b"x")
            while server.connections:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
