"""`Application`: request handlers that record their requests, an ASGI application, and a server that runs them."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
import trio
import trio_websocket
from hypercorn.typing import Scope

from scoreboard.domain.errors import STATUS, Code, Refusal
from scoreboard.http import server as server_module
from scoreboard.http.asgi import Asgi
from scoreboard.http.handlers import DEFERRED, Deferred, FastHandler, Handler, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.http.server import Server
from tests.http.raw import HANG

LIVE = b"/live"
BIG = b"b" * 2_000_000  # one body for all responses, as a board or a file is
LARGE = b"l" * 200_000
JSON = b"content-type: application/json\r\n"


class HandledBy(Enum):
    """How the requests of plain handlers are answered. Responses must not depend on it."""

    FAST = "fast"  # a fast handler, as the bytes come in
    SOMETIMES_FAST = "sometimes_fast"  # the fast handler returns None for every other request
    DEFERRED = "deferred"  # the fast handler responds a little later
    TASK = "task"  # the connection's task, which the poller wakes
    TRIO = "trio"  # the same, woken by Trio: without epoll


async def respond_soon(respond: RespondCallback, make: Callable[[], Response]) -> None:
    """Responds after three turns of the loop."""
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    respond(make)


class Application:
    """The `RequestHandlers` of a test, and what they have seen."""

    handled_by = HandledBy.FAST  # of those that are given none: the fixture `every_way` sets it
    live_path = LIVE
    access_log_from = 1000

    def __init__(self, handled_by: HandledBy | None = None) -> None:
        self.handled_by = handled_by or Application.handled_by
        self.fast_requests: list[Request] = []  # for which a fast handler was called
        self.seen: list[Request] = []  # every complete request, in order
        self.failures: list[Exception] = []
        self.malformed = 0
        self.gate = trio.Event()  # /slow waits for it
        self.waiting = trio.Event()  # somebody is in /slow
        self.disconnected = trio.Event()  # the ASGI application has received http.disconnect
        self.nursery: trio.Nursery | None = None  # of `serving`; without one nothing is deferred
        self.held: list[RespondCallback] = []  # of /held, which the test responds to
        self.refused: Callable[[Request], Response | None] = lambda _: None
        self.peer_group: Callable[[str], str] = lambda address: address
        self.released: list[str] = []  # groups of connections that have ended
        self.large_body_bytes = 0  # that /echo takes; fewer than BODY_BYTES: as all other paths
        self.reserved: list[Request] = []  # whose large bodies are coming
        self.application = Asgi(self.asgi)
        self.direct: Mapping[tuple[bytes, bytes], Handler]
        self.fast: Mapping[tuple[bytes, bytes], FastHandler]
        self.direct, self.fast = self.build_tables()

    def build_tables(
        self,
    ) -> tuple[dict[tuple[bytes, bytes], Handler], dict[tuple[bytes, bytes], FastHandler]]:
        plain: dict[tuple[bytes, bytes], Callable[[Request], Response]] = {
            (b"GET", b"/hello"): self.hello,
            (b"POST", b"/echo"): self.echo,
            (b"GET", b"/fail"): self.fail,
            (b"GET", b"/kilobytes"): self.kilobytes,
            (b"GET", b"/big"): self.big,
            (b"GET", b"/none"): self.none,
            (b"GET", b"/same"): self.same,
        }
        direct: dict[tuple[bytes, bytes], Handler] = {
            (b"GET", b"/slow"): self.slow,
            (b"GET", b"/held"): self.held_by_task,
            (b"GET", b"/stream"): lambda request: self.stream(request),  # a test may replace it
            (b"GET", b"/torn"): self.torn,
            (b"GET", b"/rest"): self.rest,
        }
        fast: dict[tuple[bytes, bytes], FastHandler] = {(b"GET", b"/held"): self.hold}
        for route, handler in plain.items():
            direct[route] = waiting(handler)
            if self.handled_by not in {HandledBy.TASK, HandledBy.TRIO}:
                fast[route] = self.make_fast(handler)
        return direct, fast

    # ---- RequestHandlers --------------------------------------------------------------------------------------------

    def run_middleware(self, request: Request) -> Response | None:
        self.seen.append(request)
        return self.refused(request)

    def error_response(self, request: Request, exc: Exception) -> Response:
        self.failures.append(exc)
        return problem(Refusal(Code.INTERNAL, "a bug"), request.request_id)

    def write_head(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        return write_head(request, status, fields, length)

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        return problem(refusal, request_id)

    def error_page(self, _: Request, response: Response) -> Response:
        return response

    def log_access(self, request: Request, status: int, seconds: float) -> None:
        raise AssertionError("there is no access log here")

    async def answer_by_application(self, writer: ResponseWriter, request: Request) -> bool:
        return await self.application.answer(writer, request)

    def admit_connection(self, _: str) -> bool:
        return True

    def release_connection(self, peer_group: str) -> None:
        self.released.append(peer_group)

    def on_malformed(self, _: Request) -> None:
        self.malformed += 1

    def reserve_large_body(self, request: Request, size: int) -> Refusal | None:
        if request.path != b"/echo" or size > self.large_body_bytes:
            return Refusal(Code.PAYLOAD_TOO_LARGE, "too large")
        self.reserved.append(request)
        return None

    def release_large_body(self, request: Request) -> None:
        self.reserved.remove(request)

    # ---- handlers of routes -----------------------------------------------------------------------------------------

    def hold(self, _: Request, respond: RespondCallback) -> Deferred:
        self.held.append(respond)
        return DEFERRED

    async def held_by_task(self, request: Request) -> Response:
        responded, made = trio.Event(), list[Callable[[], Response]]()

        def respond(make: Callable[[], Response]) -> None:
            made.append(make)
            responded.set()

        self.hold(request, respond)
        await responded.wait()
        return made[0]()

    def make_fast(self, handler: Callable[[Request], Response]) -> FastHandler:
        def fast(request: Request, respond: RespondCallback) -> Response | Deferred | None:
            self.fast_requests.append(request)
            if self.handled_by is HandledBy.DEFERRED and self.nursery is not None:
                self.nursery.start_soon(respond_soon, respond, partial(handler, request))
                return DEFERRED
            return (
                None
                if self.handled_by is HandledBy.SOMETIMES_FAST and len(self.fast_requests) % 2
                else handler(request)
            )

        return fast

    def hello(self, _: Request) -> Response:
        return Response(200, b'"hello"', JSON)

    def echo(self, request: Request) -> Response:
        return Response(200, json.dumps(described(request)).encode(), JSON)

    async def slow(self, _: Request) -> Response:
        self.waiting.set()
        await self.gate.wait()
        return Response(200, b'"slow"', JSON)

    def kilobytes(self, _: Request) -> Response:
        return Response(200, b"b" * 15_000)

    def fail(self, _: Request) -> Response:
        raise ValueError("a bug in a handler")

    def big(self, _: Request) -> Response:
        return Response(200, BIG)

    def none(self, _: Request) -> Response:
        return Response(204, b"")

    def same(self, _: Request) -> Response:
        return Response(304, b"", b'etag: "1"\r\n')

    async def stream(self, request: Request) -> None:
        await request.socket.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await request.socket.send_all(b"data: 1\n\n")

    async def rest(self, request: Request) -> None:
        assert request.socket.send_now(b"HTTP/1.1 200 OK\r\n\r\n" + b"r" * 2_000_000)

    async def torn(self, request: Request) -> Response:
        await request.socket.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        raise ValueError("in the middle of an answer")

    async def serve_websocket(self, request: Request) -> None:
        """Echoes until the client closes."""
        try:
            async with trio.open_nursery() as nursery:
                handshake = await trio_websocket.wrap_server_stream(nursery, request.socket)
                websocket = await handshake.accept()
                while True:
                    await websocket.send_message(await websocket.get_message())
        except* (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError):
            pass

    async def asgi(
        self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Takes the place of Quart: the path says how it answers."""
        assert scope["type"] == "http"
        assert scope["client"] is not None
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path = scope["path"]

        async def start(status: int, *headers: tuple[bytes, bytes]) -> None:
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})

        async def piece(data: bytes = b"", more: bool = False) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        if path == "/app/chunks":
            await start(200, (b"content-type", b"text/plain"))
            for data in (b"one", b"", b"two"):
                await piece(data, more=True)
            await piece()
        elif path == "/app/binary":
            await start(200, (b"content-length", b"4"))
            for data in (b"a", b"\x88b", b"c"):
                await piece(data, more=True)
            await piece()
        elif path == "/app/half":  # fails in the middle of its answer
            await start(200)
            await piece(b"half", more=True)
            raise ValueError("a bug in the application")
        elif path == "/app/great-half":  # the same when much of it is out
            await start(200)
            for _ in range(100):
                await piece(b"half" * 1024, more=True)
            raise ValueError("a bug in the application")
        elif path == "/app/large":
            await start(200, (b"content-length", b"%d" % len(LARGE)))
            await piece(LARGE)
        elif path == "/app/fail":
            raise ValueError("a bug in the application")
        elif path == "/app/begun":  # fails before the first byte is out
            await start(200, (b"content-length", b"10"))
            raise ValueError("a bug in the application")
        elif path == "/app/short":
            await start(200, (b"content-length", b"10"))
            await piece(b"short")
        elif path == "/app/long":
            await start(200, (b"content-length", b"4"))
            await piece(b"longer than that")
        elif path == "/app/nothing":
            await start(204, (b"content-length", b"0"))
            await piece()
        elif path == "/app/endless":
            await start(200)
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    self.disconnected.set()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wait)
                while True:
                    await piece(b"x" * 8192, more=True)
                    await trio.lowlevel.checkpoint()
        else:
            answer = json.dumps(
                {
                    "app": path,
                    "method": scope["method"],
                    "query": scope["query_string"].decode(),
                    "client": scope["client"][0],
                    "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
                    "body": body.decode("latin-1"),
                }
            ).encode()
            # Those that write_head writes come from here too, and must not go out twice.
            await start(
                200,
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(answer)),
                (b"date", b"never"),
                (b"x-request-id", b"the-apps-own"),
                (b"vary", b"accept"),
                (b"set-cookie", b"a=1"),
                (b"set-cookie", b"b=2"),
            )
            await piece(answer)


def waiting(handler: Callable[[Request], Response]) -> Handler:
    """A plain handler for the direct table."""

    async def handle(request: Request) -> Response:
        return handler(request)

    return handle


def described(request: Request) -> dict[str, object]:
    """A request as JSON, all of it that a test compares."""
    return {
        "method": request.method.decode(),
        "path": request.path.decode(),
        "query": request.query.decode(),
        "version": request.version,
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.headers],
        "body": request.body.decode("latin-1"),
    }


def write_head(request: Request, status: int, fields: bytes, length: int | None) -> bytes:
    """As that of the web: shared fields, the caller's fields, the length."""
    line = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
    shared = b"date: %b\r\nx-request-id: %b\r\nvary: origin\r\n" % (
        formatdate(time.time(), usegmt=True).encode(),
        request.request_id,
    )
    return line + shared + fields + (b"\r\n" if length is None else b"content-length: %d\r\n\r\n" % length)


def problem(refusal: Refusal, request_id: bytes) -> Response:
    body = msgspec.json.encode({"code": refusal.code, "detail": refusal.detail, "requestId": request_id.decode()})
    return Response(STATUS[refusal.code], body, b"content-type: application/problem+json\r\n")


@asynccontextmanager
async def serving(application: Application | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """A server on a free port, closed at the end."""
    application = application or Application()
    server = Server(application)
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            application.nursery = nursery
            with pytest.MonkeyPatch.context() as patch:
                if application.handled_by is HandledBy.TRIO:
                    patch.setattr(server_module, "HAS_EPOLL", False)
                await nursery.start(server.run, host, 0)
            yield server
            nursery.cancel_scope.cancel()
