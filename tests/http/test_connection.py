"""HTTP/1.1 as clients and proxies speak it, through a real server."""

import pytest
import trio
import trio.testing

from scoreboard.domain.errors import Code, Refusal
from tests.http.application import Application, problem, serving
from tests.http.raw import UPGRADE, ask, chunked, closed, connected, get, post, still_serves

pytestmark = pytest.mark.usefixtures("every_way")


async def test_get() -> None:
    """A GET of the direct table is answered with the shared head, its length and the handler's fields."""
    async with serving() as server:
        answer = await ask(server, get("/hello"))
    assert (answer.status, answer.body) == (200, b'"hello"')
    assert answer.header("content-length") == "7"
    assert answer.header("content-type") == "application/json"
    assert answer.header("date")
    assert answer.header("connection") is None


async def test_one_byte_at_a_time() -> None:
    """A request that comes byte by byte is the same request."""
    async with serving() as server, connected(server) as client:
        for byte in post("/echo?a=b", b"body", "X-Y:  z "):
            await client.send(bytes([byte]))
        seen = (await client.answer()).json()
    assert seen == {
        "method": "POST",
        "path": "/echo",
        "query": "a=b",
        "version": "1.1",
        "headers": [["host", "t"], ["content-length", "4"], ["x-y", "z"]],
        "body": "body",
    }


async def test_pipelined() -> None:
    """Requests that come in one piece are answered in order, whichever handlers answer them."""
    async with serving() as server, connected(server) as client:
        await client.send(
            get("/hello") + post("/echo", b"1") + get("/app/x") + chunked("/echo", b"2", b"3") + get("/hello")
        )
        answers = [await client.answer() for _ in range(5)]
    assert [a.status for a in answers] == [200] * 5
    assert [answers[1].json()["body"], answers[2].json()["app"], answers[3].json()["body"]] == ["1", "/app/x", "23"]


async def test_chunked() -> None:
    """A chunked body is joined, and the request's head has the length of the joined body."""
    async with serving() as server:
        seen = (await ask(server, chunked("/echo", b"ab", b"c" * 5000))).json()
    assert seen["body"] == "ab" + "c" * 5000
    assert seen["headers"] == [["host", "t"], ["content-length", "5002"]]


async def test_trailers_are_dropped() -> None:
    """Fields after the body are not the request's."""
    async with serving() as server, connected(server) as client:
        seen = (await client.ask(chunked("/echo", b"x", trailers=b"X-User: admin\r\nHost: other\r\n"))).json()
        assert seen["headers"] == [["host", "t"], ["content-length", "1"]]
        assert (await client.ask(get("/hello"))).status == 200


async def test_expect() -> None:
    """`Expect: 100-continue` is answered before the body comes, and not when it has come already."""
    async with serving() as server, connected(server) as client:
        request = post("/echo", b"body", "Expect: 100-continue")
        await client.send(request[:-4])
        assert (await client.answer()).status == 100
        assert (await client.ask(b"body")).json()["body"] == "body"
        assert (await client.ask(request)).json()["body"] == "body"


async def test_expect_after_a_request() -> None:
    """The interim response comes after the responses to earlier requests."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/hello") + post("/echo", b"body", "Expect: 100-continue")[:-4])
        assert [(await client.answer()).status for _ in range(2)] == [200, 100]
        assert (await client.ask(b"body")).status == 200


@pytest.mark.parametrize("path", ["/hello", "/app/x"])
async def test_head(path: str) -> None:
    """HEAD is answered as GET, without the body; the connection stays in step."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get(path, method="HEAD"), head_only=True)
        assert answer.status == 200
        assert int(answer.header("content-length") or 0) > 0
        assert (await client.ask(get("/hello"))).body == b'"hello"'


async def test_head_of_the_direct_table() -> None:
    """It is the same handler that answers, so the length is that of its body."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get("/hello", method="HEAD"), head_only=True)
        assert answer.header("content-length") == "7"


@pytest.mark.parametrize(("path", "status"), [("/none", 204), ("/same", 304), ("/app/nothing", 204)])
async def test_no_body(path: str, status: int) -> None:
    """204 and 304 have no body, no length that says otherwise, no last chunk."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get(path))
        assert answer.status == status
        assert answer.header("content-length") is None
        assert answer.header("transfer-encoding") is None
        assert (await client.ask(get("/hello"))).body == b'"hello"'


async def test_http_1_0() -> None:
    """HTTP/1.0 closes after its answer, unless it is asked to keep the connection."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get("/hello", "Connection: keep-alive", version="1.0"))
        assert answer.header("connection") == "keep-alive"
        answer = await client.ask(get("/hello", version="1.0"))
        assert answer.header("connection") == "close"
        assert await closed(client)


async def test_connection_close() -> None:
    """`Connection: close` is obeyed, and what was sent after it is not parsed."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get("/hello", "Connection: close") + get("/hello"))
        assert answer.header("connection") == "close"
        assert await client.rest() == b""


async def test_client_shuts_its_side() -> None:
    """A client that has ended its side after the request still gets the answer."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/hello"))
        await client.stream.send_eof()
        assert (await client.answer()).body == b'"hello"'
        assert await client.rest() == b""


async def test_empty_lines_between_requests() -> None:
    """Empty lines before a request are skipped, RFC 9112 section 2.2."""
    async with serving() as server, connected(server) as client:
        await client.send(b"\r\n\r\n" + get("/hello") + b"\r\n" + get("/hello"))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("http://t/echo?x=1", "/echo", "x=1"), ("HTTPS://t:1/echo", "/echo", ""), ("/echo?a=/b?c", "/echo", "a=/b?c")],
)
async def test_targets(target: str, path: str, query: str) -> None:
    """A target in absolute form, as proxies write it, is the path in it."""
    async with serving() as server:
        seen = (await ask(server, post(target, b""))).json()
    assert (seen["path"], seen["query"]) == (path, query)


async def test_absolute_target_without_a_path() -> None:
    """`http://host?query` asks for the root."""
    async with serving() as server:
        seen = (await ask(server, get("http://t?x=1/2"))).json()
    assert (seen["app"], seen["query"]) == ("/", "x=1/2")


@pytest.mark.parametrize(("given", "kept"), [("abc.DEF-1_2", True), ("a" * 129, False), ("", False), ("a b", False)])
async def test_request_id(given: str, kept: bool) -> None:
    """The caller's request id is used if it is valid; else a new one is made. Handler, application and response have
    the same id."""
    application = Application()
    async with serving(application) as server:
        answer = await ask(server, get("/app/x", f"X-Request-ID: {given}"))
    seen_ids = [value for name, value in answer.json()["headers"] if name == "x-request-id"]
    assert [answer.header("x-request-id")] == seen_ids == [application.seen[0].request_id.decode()]
    assert (seen_ids == [given]) is kept


async def test_the_first_of_a_name_counts() -> None:
    """Of a repeated field all values are in `headers`, and `header` returns the first."""
    application = Application()
    async with serving(application) as server:
        answer = await ask(server, get("/hello", "X-Request-ID: one", "X-A: 1", "X-Request-ID: two", "x-a: 2"))
    assert answer.header("x-request-id") == "one"
    (seen,) = application.seen
    assert (seen.header(b"x-a"), seen.header(b"x-b")) == (b"1", b"")
    assert [value for name, value in seen.headers if name == b"x-a"] == [b"1", b"2"]


async def test_the_middleware_runs_first() -> None:
    """A response of the middleware ends the request, whichever handler it was for; the connection goes on, but after an
    upgrade."""
    application = Application()
    application.refused = lambda request: (
        problem(Refusal(Code.RATE_LIMITED, "slowly"), request.request_id) if request.query else None
    )
    async with serving(application) as server, connected(server) as client:
        for path in ("/hello", "/app/x"):
            assert (await client.ask(get(path + "?refuse"))).status == 429
        assert (await client.ask(get("/hello"))).status == 200
        answer = await client.ask(UPGRADE.replace(b"/live", b"/live?refuse") + b"\x81\x00")
        assert (answer.status, answer.header("connection")) == (429, "close")
        assert await client.rest() == b""


async def test_other_method() -> None:
    """Another method on a direct path goes to the application."""
    async with serving() as server:
        assert (await ask(server, get("/hello", method="DELETE"))).json()["method"] == "DELETE"


async def test_a_handler_that_raises() -> None:
    """The response is that of `error_response`, and the connection goes on."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        assert (await client.ask(get("/fail"))).status == 500
        assert (await client.ask(get("/hello"))).status == 200
    assert [str(exc) for exc in application.failures] == ["a bug in a handler"]


async def test_a_stream() -> None:
    """A handler that takes the socket over ends the connection when it returns."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/stream"))
        assert await client.rest() == b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n"


async def test_a_handler_that_fails_in_the_middle_of_its_answer() -> None:
    """No second answer is written into the first: the connection ends."""
    application = Application()
    async with serving(application) as server, connected(server) as client:
        await client.send(get("/torn"))
        assert (await client.rest()).endswith(b"\r\n\r\nhalf")
        assert not application.failures
        await still_serves(server)


async def test_a_big_answer_and_a_slow_reader() -> None:
    """An answer that the kernel does not take at once arrives whole, and the connection goes on."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/big"), get("/hello"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == 2_000_000
        assert (await client.answer()).body == b'"hello"'


async def test_a_stream_that_ends_with_a_rest() -> None:
    """What a stream has written with `send_now` goes out before the connection ends."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/rest"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == 2_000_000


async def test_closing_waits_for_the_rest() -> None:
    """The last answer arrives whole however slowly it is read."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/big", "Connection: close"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == 2_000_000
        assert await client.rest() == b""
