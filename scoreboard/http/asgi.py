"""The adapter to the ASGI application (Quart-Trio): Hypercorn's `HTTPStream` over our sockets, and the lifespan.

1. `http.connection` has parsed the request. `HTTPStream` runs the application and calls `_Exchange.on_event`.
2. `_Exchange` frames the response: by length, by chunks, or by closing (HTTP/1.0).
3. A response of up to MAX_BUFFERED_RESPONSE_BYTES is written when the application's task has ended, so a client that
   reads slowly keeps bytes in memory and no task. What is longer is written as it comes.
4. Heads are written by `RequestHandlers.write_head`, as for every other response.
5. The application finds http's Request as `scope["state"]["request"]`. The field `Host` that it sees is always HOST: a
   framework that builds addresses from what the client wrote there can be made to fail, or to link elsewhere.

No other module imports Hypercorn.
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
from scoreboard.runtime.supervise import flatten_exceptions

STREAM_ID = 1  # HTTP/1.1 has one stream at a time
HOST = b"localhost"
MAX_BUFFERED_RESPONSE_BYTES = (
    262_144  # of a response; while a longer one is written the application waits for its client
)

# Framing and keep-alive are decided here, so these fields of the application are dropped.
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"content-length"))
# With status 500: the application ended without a response.
_HYPERCORN_FAILED = [(b"content-length", b"0"), (b"connection", b"close")]
_REPLACED = frozenset((b"host", b"x-request-id"))
_REPEATABLE = frozenset((b"vary", b"set-cookie"))  # those of the application are sent beside ours


class Asgi:
    """One application, with the configuration that Hypercorn asks for."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = ASGIWrapper(app)
        self._config = Config()
        self._config.errorlog = logging.getLogger("scoreboard.hypercorn")  # no handlers of its own, no access log
        self._context = WorkerContext(None)

    async def answer(self, writer: ResponseWriter, request: Request) -> bool:
        """Runs the application for one request. True when the connection can go on.

        Returns once the application's task has ended and the response is written. When the client has left it does not
        raise: the application receives `http.disconnect`.
        """
        pieces, keep_alive = await self._run_application(writer, request)
        request.drop_headers()  # the response may wait for a client that does not read
        try:
            while pieces:
                await writer.send(pieces.pop(0))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return keep_alive

    async def _run_application(self, writer: ResponseWriter, request: Request) -> tuple[list[bytes], bool]:
        """What is still to be written when the application has ended, and whether the connection can go on after it."""
        exchange = _Exchange(writer, request)
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
                exchange.on_event,
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
            await exchange.finished.wait()
            await stream.handle(events.StreamClosed(stream_id=STREAM_ID))
        return exchange.collected(), exchange.keep_alive

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Runs the application's start-up, the block, and the application's shutdown, also after a failed block.

        It has a nursery of its own, because Quart's shutdown puts a deadline on the nursery that it was started in.
        Raises StartError when the start-up fails or takes longer than Hypercorn's limit (60 s).
        """
        life = Lifespan(self._app, self._config, {})
        shield = trio.CancelScope(shield=True)  # a cancelled block must not cancel the application's shutdown
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
                    if not life.shutdown.is_set():  # else it ends by itself, maybe with the reason of a failure
                        shield.cancel()
        except* (LifespanFailureError, LifespanTimeoutError) as group:
            if started:
                raise
            why = str(next(flatten_exceptions(group)))
        if not started:
            raise StartError(f"the web application's start-up failed: {why}")


class _Exchange:
    """One response, from Hypercorn's events to bytes."""

    def __init__(self, writer: ResponseWriter, request: Request) -> None:
        self.finished = trio.Event()
        self.keep_alive = False  # True once the response is complete as its head said
        self._writer = writer
        self._request = request
        self._pieces: list[bytes] = []
        self._size = 0  # bytes in `_pieces`
        self._written = False  # a part of the response has been written
        self._chunked = False
        self._missing: int | None = None  # bytes that must still come, by Content-Length; None: unknown
        self._head_keep_alive = False
        self._ended = False
        self._disconnected = False

    async def on_event(self, event: events.Event) -> None:
        """Called by Hypercorn with each event of the response. Never raises."""
        match event:
            case events.Response():
                self._begin(event.status_code, event.headers)
            case events.Body():
                self._add_body(event.data)
                if self._size > MAX_BUFFERED_RESPONSE_BYTES:
                    await self._write()
            case events.EndBody():
                if self._chunked:
                    self._hold(b"0\r\n\r\n")
                self._ended = True
                self.keep_alive = self._head_keep_alive and not self._missing and not self._disconnected
            case events.StreamClosed():  # without an EndBody the response failed half-way
                if not self._ended and not self._written:
                    self._write_failure()
                self.finished.set()
            case _:
                pass  # informational responses and pushes

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        request, writer = self._request, self._writer
        if status == 500 and headers == _HYPERCORN_FAILED:
            self._write_failure()
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
            line.partition(b":")[0].lower() for line in writer.head(request, status, b"", None)[0].split(b"\r\n")[1:]
        } - _REPEATABLE
        fields = b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in ours
        )
        head, self._head_keep_alive = writer.head(request, status, fields + framing, length)
        self._hold(head)
        self._missing = None if bodiless else length

    def _write_failure(self) -> None:
        """The application has ended without a response."""
        request = self._request
        request.keep_alive = False
        response = self._writer.problem(request, Refusal(Code.INTERNAL, "the request could not be answered"))
        head, _ = self._writer.head(request, response.status, response.fields, len(response.body))
        self._pieces, self._ended = [head if request.method == b"HEAD" else head + response.body], True

    def _add_body(self, data: bytes) -> None:
        if self._missing is not None:
            if len(data) > self._missing:  # more would be read as the next response
                data, self._head_keep_alive = data[: self._missing], False
            self._missing -= len(data)
        self._hold(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _hold(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def collected(self) -> list[bytes]:
        """Removes and returns what has not been written, in one piece if it is small."""
        pieces = [] if self._disconnected else [piece for piece in self._pieces if piece]
        self._pieces, size, self._size = [], self._size, 0
        return [b"".join(pieces)] if pieces and size <= PIECE_BYTES else pieces

    async def _write(self) -> None:
        pieces, self._written = self.collected(), True
        try:
            while pieces:
                await self._writer.send(pieces.pop(0))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._disconnected, self.keep_alive = True, False
            self.finished.set()  # the application then gets http.disconnect; what it still sends is dropped
