"""One HTTP/1.1 connection, request by request: a proxy mixes everything on one connection.

For each request `Front.before` is asked, then it goes through one of three doors: a handler of the express table, the
live path (a WebSocket on the same Socket; the connection ends with it), or the ASGI application (asgi). What the prompt
table can answer without waiting is answered as the bytes come in, and the connection's task sleeps on: a quarter less
for a small request; so it does if the prompt table replies later. The parser and what it refuses are in parser, writing
is in answering; deadlines are compared by the server's sweeper. Nothing here knows what a scoreboard is. Read `run`
first.
"""

from collections.abc import Callable
from math import inf
from time import perf_counter

import structlog
import trio

from scoreboard.domain.errors import NOT_FOUND, Code, Refusal
from scoreboard.http.handlers import DEFERRED, Handlers
from scoreboard.http.parser import RequestParser
from scoreboard.http.request import NORMAL_PATH, Request, Response
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.net.sockets import Socket
from scoreboard.telemetry.logging import REQUEST_ID
from scoreboard.telemetry.metrics import ASGI, DIRECT, FAST, LIVE, MIDDLEWARE, answered
from scoreboard.telemetry.request_times import record

FIRST_SECONDS = 10.0  # for the first byte of a new connection: whoever connects has something to ask
# between requests: longer than a load balancer's own limit (60 s is common), so that it closes first
IDLE_SECONDS = 75.0
# for the whole head once its first byte is here: a slow sender holds a connection, not a place for ever
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0  # for the whole body once the head is here
YIELD_EVERY = 16  # requests; a buffer full of them must not hold the loop

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = structlog.get_logger()


class Connection:
    """The task of one connection and what the server must know of it."""

    __slots__ = (
        "_draining",
        "_ended",
        "_fed",
        "_front",
        "_later",
        "_live",
        "_parser",
        "_parting",
        "_replied",
        "_serving",
        "_stage",
        "answers",
        "socket",
    )

    def __init__(self, socket: Socket, front: Handlers) -> None:
        self.socket = socket
        self.answers = ResponseWriter(socket, front)
        self._front = front
        self._parser = RequestParser(socket, front.live_path)
        self._draining = False  # wound up
        self._serving = False  # a request is at hand, or the connection is ending
        self._stage = 0  # the parser's, when the deadline was set last
        self._fed = False  # what was read without the task was left to it, or what became of it
        self._ended = False  # the last answer was written without it
        self._parting = False  # the last answer is out, the peer's end is waited for
        self._later: Request | None = None  # the prompt table replies to it later
        self._replied: trio.Event | None = None  # the task waits for that
        self._live: Request | None = None  # becomes a WebSocket

    async def run(self) -> None:
        """Serves until either side ends it. Leaves the socket for the caller to close.

        Raises what the socket raises when the peer has left or the sweeper closed it, and what a handler raises in the
        middle of a stream.
        """
        socket = self.socket
        socket.is_websocket = False
        socket.on_deadline = self._late
        try:
            if not await self._read():
                return
        finally:
            self._serving = True  # the connection is ending, or not ours any more
            if socket.watcher is not None:
                socket.watcher.on_readable = None
            self._later = None
            self._parser.forget()
            del self._parser  # thousands of viewers need none, nor the request that made them
        if self._live is not None:
            session, self._live = self._front.live(self._live), None
            await session
        self._parting = not socket.is_websocket
        await self.answers.part()

    async def _read(self) -> bool:
        """Reads and serves until the last answer: True. False when the peer ends it."""
        socket, parser = self.socket, self._parser
        socket.deadline = trio.current_time() + self._time_limit()
        if socket.watcher is not None:
            socket.watcher.on_readable = self._at_once
        while True:
            await socket.wait_readable()
            if self._later is not None:  # more has come, or the peer has left: what was begun is not taken back
                self._replied = trio.Event()
                await self._replied.wait()
                self._replied = None
            if self._fed:
                self._fed = False
                await self.answers.finish()
                if self._ended:
                    return True
            else:
                data = socket.read_now()
                if data is None:
                    continue
                if not data:
                    return False
                parser.feed(data)
                del data  # a request may take long
            if not await self._serve():
                return True
            if parser.refusal is not None:
                self._serving = True
                await self.answers.send(self._refusal(parser.refusal))
                return True
            self._serving = False
            if self._draining and not parser.begun and not socket.has_unread():
                return True  # the answer was on its way when the drain began, so it did not say that it is the last
            if parser.awaits_continue:
                parser.awaits_continue = False
                await self.answers.send(CONTINUE)
            self._extend_deadline()

    def _extend_deadline(self) -> None:
        """Only progress buys time: neither one more byte of a head nor an empty line between requests does."""
        parser = self._parser
        if parser.stage != self._stage:
            self._stage = parser.stage
            limit = IDLE_SECONDS if not parser.begun else BODY_SECONDS if parser.in_body else HEAD_SECONDS
            self.socket.deadline = trio.current_time() + limit

    def _time_limit(self) -> float:
        """Seconds that the client has for what is next."""
        parser = self._parser
        if parser.begun:
            return BODY_SECONDS if parser.in_body else HEAD_SECONDS
        return IDLE_SECONDS if parser.stage else FIRST_SECONDS

    # ---- at once ----------------------------------------------------------------------------------------------------

    def _at_once(self) -> bool:
        """Called when bytes have come and the task waits for them: answers what can be answered without waiting.

        False wakes the task, which goes on where this leaves off; what this raises, the task raises.
        """
        if self._serving:
            return False  # a handler has taken the socket over and reads itself
        socket, parser = self.socket, self._parser
        data = socket.read_now()
        if not data:
            return False  # nothing after all, or the end: the task reads again and sees
        parser.feed(data)
        queue, answered_here = parser.queue, 0
        while queue and answered_here < YIELD_EVERY and self._later is None and self._prompt(queue[0]):
            answered_here += 1
            del queue[0]
            if self._ended:
                break
            if not queue and parser.unparsed and self._later is None:
                parser.resume()
        if not (queue or parser.unparsed or parser.refusal or parser.awaits_continue or self._ended):
            if self._later is not None:
                self._serving = True
                return True
            if self.answers.is_flushed:
                self._extend_deadline()
                return True
        self._fed = self._serving = True
        return False

    def _is_done(self) -> bool:
        """Whether the next thing to do is to wait for bytes."""
        parser = self._parser
        return (
            not (parser.queue or parser.unparsed or parser.refusal or parser.awaits_continue or self._later)
            and self.answers.is_flushed
        )

    def _prompt(self, request: Request) -> bool:
        """True when the request is answered, or will be."""
        front, answers = self._front, self.answers
        fast = front.fast.get((request.method, request.path))
        if fast is None or answers.last or not request.keep_alive or not answers.is_flushed:
            return False
        handled_by = MIDDLEWARE
        request.began = perf_counter()
        answer = front.before(request)
        if answer is None:
            handled_by = FAST
            request.admitted = True
            self.socket.deadline = inf
            try:
                made = fast(request, self._reply)
            except Exception as exc:  # noqa: BLE001 – logged by `failed`
                made = front.failed(request, exc)
            if made is DEFERRED:
                self._later = request
                return True
            if made is None:
                return False
            answer = made
        self._count(handled_by, request, answer.status)
        self._ended = not answers.put(request, answer)
        return True

    def _reply(self, make: Callable[[], Response]) -> None:
        """The prompt table's reply to `_later`, called by whoever has it, who serves others too. Wakes the task if
        there is more to do."""
        request, self._later = self._later, None
        if request is None:
            return  # the connection has ended
        try:
            try:
                answer = make()
            except Exception as exc:  # noqa: BLE001 – logged by `failed`
                answer = self._front.failed(request, exc)
            self._count(FAST, request, answer.status)
            self._ended = not self.answers.put(request, answer)
            if self._fed or self._ended or not self._is_done():
                self._fed = True
                if self.socket.watcher is not None:
                    self.socket.watcher.reschedule_waiter()
            else:
                self._serving = False
                self._extend_deadline()
        except Exception:
            log.exception("reply failed", request_id=request.request_id.decode())
            self.socket.close()
        if self._replied is not None:
            self._replied.set()

    # ---- in turn ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> bool:
        """Answers what one read completed, in order. True when the connection goes on."""
        parser, queue, answered_here = self._parser, self._parser.queue, 0
        parser.resume()
        if queue:
            self._serving = True
            self.socket.deadline = inf
        while queue:
            if not await self._answer(queue.pop(0)):
                return False
            answered_here += 1
            if not answered_here % YIELD_EVERY:
                await trio.lowlevel.checkpoint()
            parser.resume()
        return True

    async def _answer(self, request: Request) -> bool:
        front, handled_by, answer = self._front, MIDDLEWARE, None
        if not request.admitted:
            request.began = perf_counter()
            answer = front.before(request)
        if answer is None:
            REQUEST_ID.set(request.request_id.decode())  # for every line that is logged on this request's behalf
            if request.upgrade:
                request.is_timed = False
                self._count(LIVE, request, 101)
                self._upgrade(request)
                return False
            handler = front.direct.get((b"GET" if request.method == b"HEAD" else request.method, request.path))
            if handler is None:
                if NORMAL_PATH(request.path):
                    self.answers.status = 0
                    going_on = await front.asgi(self.answers, request)
                    if self.answers.status:  # else it has left before its answer
                        self._count(ASGI, request, self.answers.status)
                    return going_on
                handler = self._not_found
            handled_by = DIRECT
            self.socket.has_written()  # from here on
            try:
                answer = await handler(request)
            except Exception as exc:
                wrote = self.socket.has_written()
                if wrote or self.socket.fd < 0:
                    if wrote:
                        self._count_stream(request)
                    raise  # in the middle of a stream, where no answer fits; or it has left
                answer = front.failed(request, exc)
            if answer is None:
                self._count_stream(request)
                return False
        self._count(handled_by, request, answer.status)
        going_on = self.answers.put(request, answer)
        if not self.answers.is_flushed:  # the client may never read it: nothing else is kept for it
            request.drop_headers()
            del answer
            await self.answers.finish()
        return going_on

    async def _not_found(self, request: Request) -> Response:
        """A path has one spelling: another one, which a proxy may have let through, leads nowhere."""
        return self.answers.problem(request, NOT_FOUND)

    def _count(self, handled_by: int, request: Request, status: int) -> None:
        """The request is answered: for metrics and the access log. Once a request; it costs a read of the board half a
        microsecond."""
        seconds = perf_counter() - request.began
        answered[handled_by + status // 100] += 1
        if request.is_timed:
            record(request.path, status, seconds)
        if status >= self._front.access_from:
            self._front.access(request, status, seconds)

    def _count_stream(self, request: Request) -> None:
        """The same for a stream that has ended. Its duration is not the server's doing, so the metrics leave it out."""
        answered[DIRECT + 2] += 1
        if self._front.access_from <= 200:
            self._front.access(request, 200, perf_counter() - request.began)

    def _upgrade(self, request: Request) -> None:
        """The head is written anew from the parsed fields: what another parser could read differently is gone."""
        socket = self.socket
        fields = b"".join(b"%b: %b\r\n" % field for field in request.headers)
        socket.unread_buffer = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (
            request.method,
            request.target,
            fields,
            self._parser.rest,
        )
        socket.is_websocket = True
        self._live = request

    # ---- the end ----------------------------------------------------------------------------------------------------

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: it has asked nothing, or not all, or does not read the answer, or does not
        close after the last.

        Not of WebSockets."""
        return not self._serving or self._parting or not (self.answers.is_flushed or self.socket.is_websocket)

    @property
    def eviction_class(self) -> int:
        """Of connections that wait for their clients those of the lowest go first: after the last answer, without a
        request, unread."""
        return 0 if self._parting else 1 + self._serving

    @property
    def waiting_since(self) -> float:
        """Of one that waits for its client: when that last did something, on trio's clock."""
        return self.socket.deadline if self._serving else self.socket.deadline - self._time_limit()

    def begin_drain(self) -> None:
        """The server drains: an idle connection closes now, one with a request at hand, or in the kernel's hands, after
        its answer."""
        self.answers.last = self._draining = True
        if not self._serving and not self._parser.begun and not self.socket.has_unread():
            self.socket.close()

    def _late(self) -> None:
        """The sweeper's word: the deadline has passed. Half a request is told so, as far as the kernel takes it."""
        if not self._serving and self._parser.begun:
            self.socket.send_now(
                self._refusal(Refusal(Code.REQUEST_TIMEOUT, "the rest of the request did not come in time"))
            )
        self.socket.close()

    def _refusal(self, refusal: Refusal) -> bytes:
        """The answer to a request that is not complete and never will be: its body was not read, so the connection ends
        with it."""
        # either way it says that it does not keep the connection
        request = self._parser.request or Request(self.socket)
        request.unpack()
        self._front.malformed(request)
        answer = self.answers.problem(request, refusal)
        request.began = perf_counter()
        self._count(MIDDLEWARE, request, answer.status)
        return self.answers.whole(request, answer)[0]
