"""The ASGI adapter: framing, fields that are written once, clients that leave, the lifespan."""

import logging

import pytest
import trio
import trio.lowlevel
from quart import request as quart_request
from quart_trio import QuartTrio

from scoreboard.domain.errors import StartError
from scoreboard.http.asgi import Asgi
from scoreboard.http.server import Server
from tests.http.application import Application, serving
from tests.http.raw import HANG, ask, chunked, connected, get, post, still_serves


async def test_a_request() -> None:
    """The application sees method, path, query, body, client and fields as they were sent."""
    async with serving() as server:
        seen = (await ask(server, post("/app/a%20b?c=d", b"\x00body", "X-Y: z"))).json()
    assert seen["app"] == "/app/a b"
    assert (seen["method"], seen["query"], seen["body"], seen["client"]) == ("POST", "c=d", "\x00body", "127.0.0.1")
    assert ["x-y", "z"] in seen["headers"]


async def test_a_chunked_request() -> None:
    """The application gets a length instead of chunks."""
    async with serving() as server:
        seen = (await ask(server, chunked("/app/x", b"a", b"b"))).json()
    assert seen["body"] == "ab"
    assert ["content-length", "2"] in seen["headers"]
    assert not any(name == "transfer-encoding" for name, _ in seen["headers"])


async def test_bytes_that_look_like_a_close_frame() -> None:
    """A body may have any bytes, also that with which a WebSocket's Close begins."""
    async with serving() as server, connected(server) as client:
        for _ in range(2):
            assert (await client.ask(get("/app/binary"))).body == b"a\x88bc"


async def test_shared_fields_are_written_once() -> None:
    """What `write_head` writes in every head is not written again by the application; what may stand twice does."""
    async with serving() as server:
        answer = await ask(server, get("/app/x"))
    for name in ("date", "x-request-id", "content-length", "content-type"):
        assert [known for known, _ in answer.headers].count(name) == 1, name
    assert answer.header("date") != "never"
    assert answer.header("x-request-id") != "the-apps-own"
    assert [value for name, value in answer.headers if name == "vary"] == ["origin", "accept"]
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2"]


async def test_an_answer_without_a_length() -> None:
    """It comes in chunks, and the connection goes on; in HTTP/1.0 it ends with the connection; HEAD has neither."""
    async with serving() as server, connected(server) as client:
        answer = await client.ask(get("/app/chunks"))
        assert (answer.body, answer.header("transfer-encoding")) == (b"onetwo", "chunked")
        answer = await client.ask(get("/app/chunks", method="HEAD"), head_only=True)
        assert answer.header("transfer-encoding") is None
        answer = await client.ask(get("/app/chunks", "Connection: keep-alive", version="1.0"))
        assert (answer.body, answer.header("transfer-encoding"), answer.header("connection")) == (
            b"onetwo",
            None,
            "close",
        )


@pytest.mark.parametrize("path", ["/app/fail", "/app/begun", "/app/half"])
async def test_an_application_that_fails(caplog: pytest.LogCaptureFixture, path: str) -> None:
    """Without a whole answer it is a 500 in the usual form, and the log has the traceback, under our name for
    Hypercorn."""
    async with serving() as server:
        answer = await ask(server, get(path))
        assert (answer.status, answer.json()["code"]) == (500, "INTERNAL")
        assert answer.header("connection") == "close"
        await still_serves(server)
    assert [(record.name, record.levelno) for record in caplog.records] == [("scoreboard.hypercorn", logging.ERROR)]


async def test_an_application_that_fails_in_the_middle() -> None:
    """After a part of a response was sent, no last chunk follows: a client must not take it for a complete one."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/app/great-half"))
        data = await client.rest()
        assert b"half" in data
        assert not data.endswith(b"\r\n0\r\n\r\n")
        await still_serves(server)


@pytest.mark.parametrize(("path", "body"), [("/app/short", b"short"), ("/app/long", b"long")])
async def test_a_length_that_is_not_kept(path: str, body: bytes) -> None:
    """A body shorter or longer than its head says ends the connection, and no byte too many goes out."""
    async with serving() as server, connected(server) as client:
        await client.send(get(path))
        assert (await client.rest()).partition(b"\r\n\r\n")[2] == body


async def test_a_client_that_leaves() -> None:
    """The application receives http.disconnect when its client has left, and the server goes on."""
    application = Application()
    async with serving(application) as server:
        async with connected(server) as client:
            await client.send(get("/app/endless"))
            assert await client.stream.receive_some(1000)
        await application.disconnected.wait()
        while server.connections:
            await trio.sleep(0.001)
        await still_serves(server)


async def test_the_application_takes_its_turn() -> None:
    """The next request waits until the application has ended, teardown and all."""
    async with serving() as server, connected(server) as client:
        await client.send(get("/app/x") * 20 + get("/hello"))
        assert [(await client.answer()).status for _ in range(21)] == [200] * 21


# ---- Quart-Trio -----------------------------------------------------------------------------------------------------


async def test_quart() -> None:
    """A Quart-Trio application answers through the adapter, with its background tasks in the lifespan's nursery."""
    app = QuartTrio(__name__)
    ran = trio.Event()

    @app.post("/quart")
    async def view() -> dict[str, object]:
        app.add_background_task(background)
        return {"body": (await quart_request.data).decode(), "id": quart_request.headers["X-Request-ID"]}

    async def background() -> None:
        ran.set()

    application = Application()
    application.direct, application.fast = {}, {}
    asgi = application.application = Asgi(app)
    server = Server(application)
    with trio.fail_after(HANG):
        async with asgi.lifespan(), trio.open_nursery() as nursery:
            await nursery.start(server.run, "127.0.0.1", 0)
            async with connected(server) as client:
                for body in (b"one", b"two"):
                    answer = await client.ask(post("/quart", body, "X-Request-ID: mine"))
                    assert answer.json() == {"body": body.decode(), "id": "mine"}
                assert (await client.ask(get("/nowhere"))).status == 404
                assert (await client.ask(get("/quart", method="OPTIONS"))).status == 200
                await ran.wait()
            nursery.cancel_scope.cancel()


async def test_lifespan() -> None:
    """Start-up has ended when the block begins; shutdown runs after the block, also when the block is cancelled."""
    app, steps = QuartTrio(__name__), []

    @app.before_serving
    async def start() -> None:
        steps.append("start")

    @app.after_serving
    async def stop() -> None:
        await trio.lowlevel.checkpoint()
        steps.append("stop")

    with trio.fail_after(HANG), trio.CancelScope() as scope:
        async with Asgi(app).lifespan():
            steps.append("block")
            scope.cancel()
            await trio.sleep_forever()
    assert steps == ["start", "block", "stop"]


async def test_a_start_up_that_fails() -> None:
    """It raises StartError with the reason, and the block is never entered."""
    app = QuartTrio(__name__)

    @app.before_serving
    async def start() -> None:
        raise RuntimeError("no templates")

    with trio.fail_after(HANG), pytest.raises(StartError, match="no templates"):
        async with Asgi(app).lifespan():
            pytest.fail("entered")


async def test_an_application_without_a_lifespan() -> None:
    """An application that raises on start-up, without saying why, is a failed start too."""

    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise RuntimeError("no lifespan here")

    with trio.fail_after(HANG), pytest.raises(StartError):
        async with Asgi(app).lifespan():
            pytest.fail("entered")
