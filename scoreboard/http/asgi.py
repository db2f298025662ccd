"""The door to the ASGI application (Quart-Trio): Hypercorn's `HTTPStream` over our sockets, and the application's
lifespan.

http1 has parsed the request; `HTTPStream` speaks ASGI with the application and hands back events, which are framed
here: by length, by chunks, or by closing (HTTP/1.0). An answer is collected and written when the application has ended:
a client that reads slowly holds the bytes and nothing else. Heads go through `Front.write_head` like all others. Only
here is Hypercorn imported.

The application finds http1's Request as `scope["state"]["request"]`. Its own `Host` field is always HOST: a framework
that builds addresses from what the client wrote there can be made to fail, or to point elsewhere.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol import events
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from scoreboard.domain.errors import Code, Refusal, StartError
from scoreboard.http.request import Request
from scoreboard.http.response_writer import PIECE_BYTES, ResponseWriter
from scoreboard.runtime.supervise import leaves

STREAM_ID = 1  # HTTP/1.1 has one stream at a time
HOST = b"localhost"
# of an answer; what is longer is written as it comes, and the application waits for its client
COLLECTED_BYTES = 262_144

# How a body is framed and whether the connection stays is decided here, so the application's word on it is dropped.
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"content-length"))
# with 500: the application ended without an answer
_HYPERCORN_FAILED = [(b"content-length", b"0"), (b"connection", b"close")]
_REPLACED = frozenset((b"host", b"x-request-id"))
_REPEATABLE = frozenset((b"vary", b"set-cookie"))  # the application's stand beside ours


class Asgi:
    """One application, and what Hypercorn wants to know of its surroundings."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = ASGIWrapper(app)
        self._config = Config()
        self._config.errorlog = logging.getLogger("scoreboard.hypercorn")  # no handlers of its own, no access log
        self._context = WorkerContext(None)

    async def answer(self, answers: ResponseWriter, request: Request) -> bool:
        """Has the application answer; True when the connection can go on. Returns once the application's task has
        ended.

        Never raises because the client has left: the application is told by `http.disconnect`.
        """
        pieces, going_on = await self._ask(answers, request)
        request.drop_headers()  # the answer may wait for a client that does not read
        try:
            while pieces:
                await answers.send(pieces.pop(0))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return going_on

    async def _ask(self, answers: ResponseWriter, request: Request) -> tuple[list[bytes], bool]:
        """What is left to be written when the application has ended, and whether the connection can go on after it."""
        exchange = _Exchange(answers, request)
        headers = [field for field in request.headers if field[0] not in _REPLACED]
        headers += ((b"host", HOST), (b"x-request-id", request.request_id))
        async with TaskGroup() as tasks:
            stream = HTTPStream(
                self._app,
                self._config,
                self._context,
                tasks,
                False,
                request.socket.peer,
                None,
                exchange.take,
                STREAM_ID,
            )
            await stream.handle(
                events.Request(
                    stream_id=STREAM_ID,
                    headers=headers,
                    http_version=request.version,
                    method=request.method.decode("ascii"),
                    raw_path=request.target,
                    state=ConnectionState({"request": request}),
                )
            )
            if request.body:
                await stream.handle(events.Body(stream_id=STREAM_ID, data=request.body))
            await stream.handle(events.EndBody(stream_id=STREAM_ID))
            await exchange.over.wait()
            await stream.handle(events.StreamClosed(stream_id=STREAM_ID))
        return exchange.collected(), exchange.going_on

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Runs the application's start-up, then the block, then its shutdown, also when the block is cancelled or
        raises.

        Everything of it lives in a nursery of its own: Quart's shutdown puts a deadline on the nursery that it was
        started in. Raises StartError when the start-up fails or takes longer than Hypercorn's limit (60 s).
        """
        life = Lifespan(self._app, self._config, {})
        shield = trio.CancelScope(shield=True)  # the application's side outlives the block, to hear of the shutdown
        started, why = False, "it raised; see the log"

        async def run() -> None:
            with shield:
                await life.handle_lifespan()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                try:
                    await life.wait_for_startup()
                    started = life.supported and not life.shutdown.is_set()
                    if started:
                        try:
                            yield
                        finally:
                            with trio.CancelScope(shield=True):  # bounded by Hypercorn's shutdown_timeout
                                await life.wait_for_shutdown()
                finally:
                    if not life.shutdown.is_set():  # else it is ending by itself, maybe with the reason of a failure
                        shield.cancel()
        except* (LifespanFailureError, LifespanTimeoutError) as group:
            if started:
                raise
            why = str(next(leaves(group)))
        if not started:
            raise StartError(f"the web application's start-up failed: {why}")


class _Exchange:
    """One answer on its way from Hypercorn's events to bytes."""

    def __init__(self, answers: ResponseWriter, request: Request) -> None:
        self.over = trio.Event()
        self.going_on = False  # until the answer's end is known to be on the wire as its head said
        self._answers = answers
        self._request = request
        self._held: list[bytes] = []
        self._size = 0  # bytes held
        self._written = False  # some of the answer is out
        self._chunked = False
        self._left: int | None = None  # bytes that the head promised and that have not come yet
        self._keep = False
        self._ended = False
        self._gone = False

    async def take(self, event: events.Event) -> None:
        """Hypercorn's `send`. Never raises into it."""
        match event:
            case events.Response():
                self._begin(event.status_code, event.headers)
            case events.Body():
                self._piece(event.data)
                if self._size > COLLECTED_BYTES:
                    await self._write()
            case events.EndBody():
                if self._chunked:
                    self._hold(b"0\r\n\r\n")
                self._ended = True
                self.going_on = self._keep and not self._left and not self._gone
            case events.StreamClosed():  # without an EndBody the answer has failed half-way, and the connection ends
                if not self._ended and not self._written:
                    self._fail()
                self.over.set()
            case _:
                pass  # informational responses and pushes are not for HTTP/1.1

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        request, answers = self._request, self._answers
        if status == 500 and headers == _HYPERCORN_FAILED:
            self._fail()
            return
        given = dict(headers)
        length = int(given[b"content-length"]) if given.get(b"content-length", b"").isdigit() else None
        bodiless = request.method == b"HEAD" or status in {204, 304}
        if status == 204:
            length = None
        if b"close" in given.get(b"connection", b"").lower():
            request.keep_alive = False
        framing = b""
        if length is None and not bodiless:
            if request.version == "1.1":
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
            else:
                request.keep_alive = False
        ours = {
            line.partition(b":")[0].lower() for line in answers.head(request, status, b"", None)[0].split(b"\r\n")[1:]
        } - _REPEATABLE
        fields = b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in ours
        )
        head, self._keep = answers.head(request, status, fields + framing, length)
        self._hold(head)
        self._left = None if bodiless else length

    def _fail(self) -> None:
        """The application has ended without an answer."""
        request = self._request
        request.keep_alive = False
        answer = self._answers.problem(request, Refusal(Code.INTERNAL, "the request could not be answered"))
        head, _ = self._answers.head(request, answer.status, answer.fields, len(answer.body))
        self._held, self._ended = [head if request.method == b"HEAD" else head + answer.body], True

    def _piece(self, data: bytes) -> None:
        if self._left is not None:
            if len(data) > self._left:  # more than promised would be read as the next answer
                data, self._keep = data[: self._left], False
            self._left -= len(data)
        self._hold(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)

    def collected(self) -> list[bytes]:
        """What has not been written, in one piece if it is small. It is not kept here any longer."""
        held = [] if self._gone else [piece for piece in self._held if piece]
        self._held, size, self._size = [], self._size, 0
        return [b"".join(held)] if held and size <= PIECE_BYTES else held

    async def _write(self) -> None:
        pieces, self._written = self.collected(), True
        try:
            while pieces:
                await self._answers.send(pieces.pop(0))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone, self.going_on = True, False
            self.over.set()  # the application is told by StreamClosed; what it still sends is dropped
