"""One HTTP/1.1 connection, request by request: a proxy sends the requests of many clients on one connection.

Each request passes `RequestHandlers.run_middleware`, and then goes to the first of these that has its route: a fast
handler, a WebSocket on the same Socket, a direct handler, the ASGI application. A fast handler runs in `_on_readable`
when bytes come in, and the connection's task is not woken. That saves a quarter of the time of a small request. The
task, `run`, answers everything else.

A connection is in one `State` at a time. `_on_readable` and `_respond` are called from outside the task.

| from | event | to | task |
|---|---|---|---|
| READING | `_on_readable`: fast handlers have answered all that came | READING | sleeps on |
| READING | `_on_readable`: a fast handler returned DEFERRED | DEFERRED | sleeps on, or is woken if more has come |
| READING | `_on_readable`: a request needs the task, or a response is not flushed | RESUMING | is woken |
| READING | `_on_readable`: the response that was written is the last one | LAST_RESPONSE | is woken |
| READING | the task has read a complete request, or a message that is refused | SERVING | runs |
| DEFERRED | `_respond`: nothing more is to be done | READING | sleeps on |
| DEFERRED | `_respond`: more requests have come, or the response is not flushed | RESUMING | is woken |
| DEFERRED | `_respond`: the response was the last one | LAST_RESPONSE | is woken |
| RESUMING | the task runs | SERVING | runs |
| SERVING | all requests are answered and flushed | READING | waits for bytes |
| SERVING | the request asks for a WebSocket | UPGRADED | runs the WebSocket |
| any but UPGRADED | the last response is flushed, the peer has left, or an error | CLOSING | waits for the peer's end |

1. Only in READING does the connection wait for its client. So only then may `_on_readable` read, and may a drain close
   the connection at once.
2. In DEFERRED more bytes or the peer's end may wake the task. It then waits for `_respond`: a request that has begun is
   always responded to.
3. `_draining` is a state of the server, not of the connection. It is checked when a connection returns to READING.

The parser and what it refuses are in `http.parser`. Nothing here knows what a scoreboard is. Read `run` first.
"""

from collections.abc import Callable
from enum import Enum
from math import inf
from time import perf_counter

import structlog
import trio

from scoreboard.domain.errors import NOT_FOUND, Code, Refusal
from scoreboard.http.handlers import DEFERRED as RESPONDS_LATER
from scoreboard.http.handlers import RequestHandlers
from scoreboard.http.parser import RequestParser
from scoreboard.http.request import NORMAL_PATH, Request, Response
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.net.sockets import Socket
from scoreboard.telemetry.logging import REQUEST_ID
from scoreboard.telemetry.metrics import ASGI, DIRECT, FAST, LIVE, MIDDLEWARE, request_counts
from scoreboard.telemetry.request_times import record

FIRST_BYTE_SECONDS = 10.0  # until the first byte of a new connection: clients connect to send a request at once
# Between requests: longer than a load balancer's own limit (60 s is common), so that the balancer closes first.
IDLE_SECONDS = 75.0
# For the whole head once its first byte is here (slowloris).
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0  # for the whole body once the head is here
YIELD_EVERY = 16  # requests; a buffer full of them must not hold the loop

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = structlog.get_logger()


class State(Enum):
    """Where a connection is in its life, see the table above."""

    READING = "reading"  # waits for bytes of the client
    DEFERRED = "deferred"  # a fast handler responds later
    RESUMING = "resuming"  # the task is woken: requests, or the rest of a response, are left to it
    LAST_RESPONSE = "last_response"  # the task is woken: it flushes the last response
    SERVING = "serving"  # the task answers
    UPGRADED = "upgraded"  # the socket is a WebSocket's
    CLOSING = "closing"  # nothing more is answered


# Module constants, because a lookup in the class of an enum takes three times as long.
READING, DEFERRED, RESUMING, LAST_RESPONSE, SERVING, UPGRADED, CLOSING = State


class Connection:
    """The task of one connection, and what the server asks of it."""

    __slots__ = (
        "_draining",
        "_handlers",
        "_parser",
        "_progress",
        "_request",
        "_responded",
        "_state",
        "socket",
        "writer",
    )

    def __init__(self, socket: Socket, handlers: RequestHandlers) -> None:
        self.socket = socket
        self.writer = ResponseWriter(socket, handlers)
        self._handlers = handlers
        self._parser = RequestParser(socket, handlers.live_path, handlers)
        self._state = READING
        self._draining = False  # the server drains: the connection ends when it would wait for bytes
        self._progress = 0  # the parser's, when the deadline was set last
        self._request: Request | None = None  # DEFERRED: to be responded to; UPGRADED: the handshake
        self._responded: trio.Event | None = None  # the task waits until a deferred request is responded to

    async def run(self) -> None:
        """Serves until either side ends the connection. The caller closes the socket, also after cancelling.

        Raises what the socket raises when the peer has left or the sweeper has closed it, and what a handler raises in
        the middle of a stream.
        """
        socket = self.socket
        socket.is_websocket = False
        socket.on_deadline = self._on_timeout
        try:
            if not await self._serve_requests():
                return
        finally:
            if self._state is not UPGRADED:
                self._state, self._request = CLOSING, None
            if socket.watcher is not None:
                socket.watcher.on_readable = None
            self._parser.close()
            del self._parser  # thousands of viewers need neither it nor the request that made them
        if self._request is not None:
            session, self._request = self._handlers.serve_websocket(self._request), None
            await session
        await self.writer.close_gracefully()

    async def _serve_requests(self) -> bool:
        """Reads and answers. True after the last response or an upgrade, False when the peer has ended."""
        socket, parser = self.socket, self._parser
        socket.deadline = trio.current_time() + self._time_limit()
        if socket.watcher is not None:
            socket.watcher.on_readable = self._on_readable
        while True:
            await socket.wait_readable()
            if self._state is DEFERRED:  # more has come, or the peer has left
                await self._wait_until_responded()
            if self._state is LAST_RESPONSE:
                await self.writer.flush()
                return True
            if self._state is RESUMING:
                self._state = SERVING
                await self.writer.flush()
            else:
                data = socket.read_now()
                if data is None:
                    continue
                if not data:
                    return False
                parser.feed(data)
                del data  # a request may take long
            if not await self._answer_parsed():
                return True
            self._state = READING
            if self._draining and not parser.begun and not socket.has_unread():
                return True  # the drain began after the head was made, which therefore lacks "Connection: close"
            if parser.awaits_continue:
                parser.awaits_continue = False
                await self.writer.send(CONTINUE)
            self._extend_deadline()

    async def _wait_until_responded(self) -> None:
        """Returns once a deferred request has its response."""
        self._responded = trio.Event()
        await self._responded.wait()
        self._responded = None

    def _extend_deadline(self) -> None:
        """Extends it after progress alone: neither one more byte of a head nor an empty line between requests is
        progress."""
        parser = self._parser
        if parser.progress != self._progress:
            self._progress = parser.progress
            limit = IDLE_SECONDS if not parser.begun else BODY_SECONDS if parser.in_body else HEAD_SECONDS
            self.socket.deadline = trio.current_time() + limit

    def _time_limit(self) -> float:
        """Seconds that the client has for what it sends next."""
        parser = self._parser
        if parser.begun:
            return BODY_SECONDS if parser.in_body else HEAD_SECONDS
        return IDLE_SECONDS if parser.progress else FIRST_BYTE_SECONDS

    # ---- fast: outside the task -------------------------------------------------------------------------------------

    def _on_readable(self) -> bool:
        """Called when bytes have come and the task waits for them: answers what fast handlers can answer.

        False wakes the task, which goes on where this stops. What this raises, the task raises.
        """
        if self._state is not READING:
            return False  # DEFERRED, or a handler has taken the socket over and reads
        socket, parser = self.socket, self._parser
        data = socket.read_now()
        if not data:
            return False  # nothing, or the end of file: the task reads again
        parser.feed(data)
        queue, count = parser.queue, 0
        while queue and count < YIELD_EVERY and self._state is READING and self._answer_fast(queue[0]):
            count += 1
            del queue[0]
            if not queue and parser.unparsed and self._state is READING:
                parser.resume()
        if not (queue or parser.unparsed or parser.refusal or parser.awaits_continue):
            if self._state is DEFERRED:
                return True
            if self._state is READING and self.writer.is_flushed:
                self._extend_deadline()
                return True
        if self._state is READING:
            self._state = RESUMING
        return False

    def _answer_fast(self, request: Request) -> bool:
        """True when the request is answered, or will be: the state is then READING, DEFERRED or LAST_RESPONSE."""
        handlers, writer = self._handlers, self.writer
        fast = handlers.fast.get((request.method, request.path))
        if fast is None or writer.close_after_response or not request.keep_alive or not writer.is_flushed:
            return False
        handled_by = MIDDLEWARE
        request.began = perf_counter()
        response = handlers.run_middleware(request)
        if response is None:
            handled_by = FAST
            request.admitted = True
            self.socket.deadline = inf
            try:
                made = fast(request, self._respond)
            except Exception as exc:  # noqa: BLE001 – logged by `error_response`
                made = handlers.error_response(request, exc)
            if made is RESPONDS_LATER:
                self._request, self._state = request, DEFERRED
                return True
            if made is None:
                return False
            response = made
        self._count(handled_by, request, response.status)
        if not writer.write_nowait(request, response):
            self._state = LAST_RESPONSE
        return True

    def _respond(self, make: Callable[[], Response]) -> None:
        """Writes the response to a deferred request, and wakes the task if there is more to do.

        Never raises, because its caller serves other connections too. Does nothing after the connection has ended.
        """
        request = self._request
        if self._state is not DEFERRED or request is None:
            return
        self._request, self._state = None, SERVING
        try:
            try:
                response = make()
            except Exception as exc:  # noqa: BLE001 – logged by `error_response`
                response = self._handlers.error_response(request, exc)
            self._count(FAST, request, response.status)
            if not self.writer.write_nowait(request, response):
                self._state = LAST_RESPONSE
            elif self._needs_task():
                self._state = RESUMING
            else:
                self._state = READING
                self._extend_deadline()
            if self._state is not READING and self.socket.watcher is not None:
                self.socket.watcher.reschedule_waiter()
        except Exception:
            log.exception("response_failed", request_id=request.request_id.decode())
            self.socket.close()
        if self._responded is not None:
            self._responded.set()

    def _needs_task(self) -> bool:
        """Whether there is more to do than to wait for bytes."""
        parser = self._parser
        return bool(
            parser.queue or parser.unparsed or parser.refusal or parser.awaits_continue or not self.writer.is_flushed
        )

    # ---- in the task ------------------------------------------------------------------------------------------------

    async def _answer_parsed(self) -> bool:
        """Answers the requests that have been parsed, in order, then a message that is refused. True when the
        connection goes on."""
        parser, queue, count = self._parser, self._parser.queue, 0
        parser.resume()
        if queue:
            self._state = SERVING
            self.socket.deadline = inf
        while queue:
            if not await self._answer(queue.pop(0)):
                return False
            count += 1
            if not count % YIELD_EVERY:
                await trio.lowlevel.checkpoint()
            parser.resume()
        if parser.refusal is None:
            return True
        self._state = SERVING
        await self.writer.send(self._refusal(parser.refusal))
        return False

    async def _answer(self, request: Request) -> bool:
        """Answers one request. True when the connection goes on."""
        handlers, handled_by, response = self._handlers, MIDDLEWARE, None
        if not request.admitted:
            request.began = perf_counter()
            response = handlers.run_middleware(request)
        if response is None:
            REQUEST_ID.set(request.request_id.decode())  # for every line that is logged on this request's behalf
            if request.upgrade:
                self._upgrade(request)
                return False
            handler = handlers.direct.get((b"GET" if request.method == b"HEAD" else request.method, request.path))
            if handler is None:
                if NORMAL_PATH(request.path):
                    return await self._answer_by_application(request)
                handler = self._not_found
            handled_by = DIRECT
            self.socket.pop_has_written()  # resets the flag: only what the handler writes counts
            try:
                response = await handler(request)
            except Exception as exc:
                wrote = self.socket.pop_has_written()
                if wrote or self.socket.fd < 0:
                    if wrote:
                        self._count_stream(request)
                    raise  # in the middle of a stream, where no response fits; or the peer has left
                response = handlers.error_response(request, exc)
            if response is None:
                self._count_stream(request)
                return False
        self._count(handled_by, request, response.status)
        keep_alive = self.writer.write_nowait(request, response)
        if not self.writer.is_flushed:  # the client may never read it: nothing else is kept for it
            request.drop_headers()
            del response
            await self.writer.flush()
        return keep_alive

    async def _answer_by_application(self, request: Request) -> bool:
        self.writer.status = 0
        keep_alive = await self._handlers.answer_by_application(self.writer, request)
        if self.writer.status:  # else the client has left before the response
            self._count(ASGI, request, self.writer.status)
        return keep_alive

    async def _not_found(self, request: Request) -> Response:
        """404 for a path that is not in normal form: a proxy's rules for paths may have missed it."""
        return self.writer.problem(request, NOT_FOUND)

    def _count(self, handled_by: int, request: Request, status: int) -> None:
        """The request is answered: for metrics and the access log. Called once a request; it costs half a
        microsecond."""
        seconds = perf_counter() - request.began
        request_counts[handled_by + status // 100] += 1
        if request.is_timed:
            record(request.path, status, seconds)
        if status >= self._handlers.access_log_from:
            self._handlers.log_access(request, status, seconds)

    def _count_stream(self, request: Request) -> None:
        """The same for a stream that has ended. The client chooses its duration, so the metrics leave that out."""
        request_counts[DIRECT + 2] += 1
        if self._handlers.access_log_from <= 200:
            self._handlers.log_access(request, 200, perf_counter() - request.began)

    def _upgrade(self, request: Request) -> None:
        """Leaves the socket to the WebSocket. The head is written anew from the parsed fields, so nothing is left that
        another parser could read differently."""
        request.is_timed = False
        self._count(LIVE, request, 101)
        socket = self.socket
        fields = b"".join(b"%b: %b\r\n" % field for field in request.headers)
        socket.unread_buffer = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (
            request.method,
            request.target,
            fields,
            self._parser.rest,
        )
        socket.is_websocket = True
        self._request, self._state = request, UPGRADED

    # ---- the end ----------------------------------------------------------------------------------------------------

    @property
    def waits_for_client(self) -> bool:
        """Whether the connection waits for its client: for a request, for the client to read the response, or for its
        close after the last response. False for WebSockets."""
        state = self._state
        return state is READING or state is CLOSING or not (self.writer.is_flushed or self.socket.is_websocket)

    @property
    def eviction_class(self) -> int:
        """Of the connections that wait for their clients the lowest class is evicted first: 0 after the last response,
        1 without a request, 2 while a response is not read."""
        return 0 if self._state is CLOSING else 1 if self._state is READING else 2

    @property
    def waiting_since(self) -> float:
        """When the client of a waiting connection did something for the last time, on trio's clock."""
        deadline = self.socket.deadline
        return deadline - self._time_limit() if self._state is READING else deadline

    def begin_drain(self) -> None:
        """The server drains: an idle connection closes now. One with a request that has begun, or with unread bytes,
        closes after its response."""
        self.writer.close_after_response = self._draining = True
        if self._state is READING and not self._parser.begun and not self.socket.has_unread():
            self.socket.close()

    def _on_timeout(self) -> None:
        """The deadline has passed: closes. A client that has sent a part of a request is sent 408, if the kernel has
        room."""
        if self._state is READING and self._parser.begun:
            self.socket.send_now(
                self._refusal(Refusal(Code.REQUEST_TIMEOUT, "the rest of the request did not come in time"))
            )
        self.socket.close()

    def _refusal(self, refusal: Refusal) -> bytes:
        """The response to a request that will never be complete. Its body was not read, so the connection ends."""
        # Either request has keep_alive False.
        request = self._parser.request or Request(self.socket)
        request.unpack()
        self._handlers.on_malformed(request)
        response = self.writer.problem(request, refusal)
        request.began = perf_counter()
        self._count(MIDDLEWARE, request, response.status)
        return self.writer.render(request, response)[0]
