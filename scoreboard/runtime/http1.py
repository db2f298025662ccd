"""One HTTP/1.1 connection, request by request: a proxy mixes everything on one connection.

For each request `Front.before` is asked, then it goes through one of three doors: a handler of the express table, the live path (a
WebSocket on the same Socket; the connection ends with it), or the ASGI application (asgi). The parser and what it refuses are in messages;
deadlines are compared by the server's sweeper. Nothing here knows what a scoreboard is. Read `Connection.run` first.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import inf

import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.messages import Request, RequestParser, Response
from scoreboard.runtime.sockets import READ_BYTES, Socket

__all__ = ["Connection", "Front", "Handler", "Request", "Response"]

IDLE_SECONDS = 75.0  # between requests: longer than a load balancer's own limit (60 s is common), so that it closes first
HEAD_SECONDS = 10.0  # for the whole head once its first byte is here: a slow sender holds a connection, not a place for ever
BODY_SECONDS = 10.0  # for the whole body once the head is here
ANSWER_SECONDS = 30.0  # for each piece of an answer that the kernel did not take at once: 16 KiB and less, so 0.5 KiB/s will do
PARTING_SECONDS = 2.0  # after the last answer: what the peer still sends is read, else the kernel resets and the answer is lost
PARTING_BYTES = 1_048_576  # of that, so much: whoever sends more is not listening
YIELD_EVERY = 16  # requests; a buffer full of them must not hold the loop

CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # 1.0 closes unless told
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request of the express table. None: it has taken `request.socket` over (a stream); when it returns the connection ends.

A handler of GET is asked for HEAD too, its body is left out; one that takes the socket over looks at `request.method` itself.
"""


@dataclass(frozen=True, slots=True)
class Front:
    """What the composition root hands in: who answers what, and who writes heads."""

    express: Mapping[tuple[bytes, bytes], Handler]  # (method, path without query)
    live_path: bytes
    live: Callable[[Request], Awaitable[None]]  # a WebSocket on request.socket, whose `played_back` holds the head and what followed it
    asgi: Callable[["Connection", Request], Awaitable[bool]]  # the rest: `asgi.Asgi.answer`; True when the connection can go on
    write_head: Callable[[Request, int, bytes, int | None], bytes]  # request, status, fields, length → the whole head with its blank line
    before: Callable[[Request], Response | None]  # asked first; an answer ends it
    problem: Callable[[Refusal, bytes], Response]  # a refusal and the request id → problem+json
    failed: Callable[[Request, Exception], Response]  # an express handler raised


class Connection:
    """The task of one connection and what the server must know of it."""

    __slots__ = ("_front", "_live", "_parser", "_serving", "last", "socket")

    def __init__(self, socket: Socket, front: Front) -> None:
        self.socket = socket
        self.last = False  # the answer at hand is the last one: the server is draining, or the application wants it so
        self._front = front
        self._parser = RequestParser(socket, front.live_path)
        self._serving = False  # a request is at hand, or the connection is ending
        self._live: Request | None = None  # becomes a WebSocket

    async def run(self) -> None:
        """Serves until either side ends it. Leaves the socket for the caller to close.

        Raises what the socket raises when the peer has left or the sweeper closed it, and what a handler raises in the middle of a stream.
        """
        socket = self.socket
        socket.frames = False
        socket.on_deadline = self._late
        try:
            if not await self._read():
                return
        finally:
            self._parser.forget()  # thousands of viewers need none
        if self._live is not None:
            await self._front.live(self._live)
        await self._part()

    async def _read(self) -> bool:
        """Reads and serves until the last answer: True. False when the peer ends it."""
        socket, parser = self.socket, self._parser
        socket.deadline = trio.current_time() + IDLE_SECONDS
        stage = 0
        while data := await socket.receive_some(READ_BYTES):
            parser.feed(data)
            if parser.queue:
                self._serving = True
                socket.deadline = inf
                if not await self._serve():
                    return True
                self._serving = False
            if parser.refusal is not None:
                self._serving = True
                await self._refuse(parser.refusal)
                return True
            if parser.expects:
                parser.expects = False
                await self.send(CONTINUE)
            if parser.stage != stage:  # only progress buys time: neither one more byte of a head nor an empty line between requests does
                stage = parser.stage
                limit = IDLE_SECONDS if not parser.begun else BODY_SECONDS if parser.in_body else HEAD_SECONDS
                socket.deadline = trio.current_time() + limit
        return False

    async def _serve(self) -> bool:
        """Answers what one read completed, in order. True when the connection goes on."""
        queue = self._parser.queue
        for place, request in enumerate(queue, 1):
            if not await self._answer(request):
                return False
            if not place % YIELD_EVERY:
                await trio.lowlevel.checkpoint()
        queue.clear()
        return True

    async def _answer(self, request: Request) -> bool:
        front = self._front
        answer = front.before(request)
        if answer is None:
            if request.upgrade:
                self._go_live(request)
                return False
            handler = front.express.get((b"GET" if request.method == b"HEAD" else request.method, request.path))
            if handler is None:
                return await front.asgi(self, request)
            sent = self.socket.sent
            try:
                answer = await handler(request)
            except Exception as exc:
                if self.socket.sent != sent or self.socket.fd < 0:
                    raise  # in the middle of a stream, where no answer fits; or it has left
                answer = front.failed(request, exc)
            if answer is None:
                return False
        return await self._write(request, answer)

    def _go_live(self, request: Request) -> None:
        """The head is written anew from the parsed fields: what another parser could read differently is gone."""
        socket = self.socket
        lines = [
            b"%b %b HTTP/1.1" % (request.method, request.target),
            *(b"%b: %b" % field for field in request.headers),
            b"",
            self._parser.rest,
        ]
        socket.played_back = b"\r\n".join(lines)
        socket.frames = True
        self._live = request

    # ---- writing ----------------------------------------------------------------------------------------------------

    def head(self, request: Request, status: int, fields: bytes, length: int | None) -> tuple[bytes, bool]:
        """The head with its Connection field, and whether the connection goes on after this answer."""
        if self.last or not request.keep_alive:
            return self._front.write_head(request, status, fields + CLOSE, length), False
        if request.version == "1.0":
            fields += KEEP_ALIVE
        return self._front.write_head(request, status, fields, length), True

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as the answer to `request`."""
        return self._front.problem(refusal, request.request_id)

    async def _write(self, request: Request, answer: Response) -> bool:
        status, body = answer.status, answer.body
        if status == 204 or status == 304:  # noqa: PLR1714 - twice as fast as a set here
            head, going_on = self.head(request, status, answer.fields, None)
            body = b""
        else:
            head, going_on = self.head(request, status, answer.fields, len(body))
            if request.method == b"HEAD":
                body = b""
        if not self.socket.writev_now(head, body):
            await self._wait(head + body)
        elif self.socket.behind_since < inf:
            await self._wait(b"")
        return going_on

    async def send(self, data: bytes) -> None:
        """`data`, at once if there is room, else within ANSWER_SECONDS or the sweeper closes. Raises as `Socket.send_all`."""
        if not self.socket.send_now(data):
            await self._wait(data)
        elif self.socket.behind_since < inf:
            await self._wait(b"")

    async def _wait(self, data: bytes) -> None:
        """Until `data`, and what was left over before it, is out."""
        socket = self.socket
        socket.deadline = trio.current_time() + ANSWER_SECONDS
        await socket.send_all(data)
        socket.deadline = inf

    # ---- the end ----------------------------------------------------------------------------------------------------

    def wind_up(self) -> None:
        """The server drains: an idle connection closes now, one with a request at hand, or in the kernel's hands, after its answer."""
        self.last = True
        if not self._serving and not self._parser.begun and not self.socket.has_unread():
            self.socket.close()

    def _late(self) -> None:
        """The sweeper's word: the deadline has passed. Half a request is told so, as far as the kernel takes it."""
        parser = self._parser
        if not self._serving and parser.begun:
            head, body = self._refusal(Refusal(Code.REQUEST_TIMEOUT, "the rest of the request did not come in time"))
            self.socket.writev_now(head, body)
        self.socket.close()

    def _refusal(self, refusal: Refusal) -> tuple[bytes, bytes]:
        """The answer to a request that is not complete and never will be: its body was not read, so the connection ends with it."""
        request = self._parser.request or Request(self.socket)  # either way it says that it does not keep the connection
        answer = self.problem(request, refusal)
        head, _ = self.head(request, answer.status, answer.fields, len(answer.body))
        return head, b"" if request.method == b"HEAD" else answer.body

    async def _refuse(self, refusal: Refusal) -> None:
        head, body = self._refusal(refusal)
        await self.send(head + body)

    async def _part(self) -> None:
        """Closing after an answer waits for its rest, then for the peer's end, for two seconds at most."""
        socket = self.socket
        if socket.fd < 0:
            return
        socket.on_deadline = None
        socket.deadline = trio.current_time() + ANSWER_SECONDS
        await socket.send_all(b"")
        socket.shut_writing()
        socket.deadline = trio.current_time() + PARTING_SECONDS
        enough = socket.received + PARTING_BYTES
        while socket.received < enough and await socket.receive_some(READ_BYTES):
            pass
