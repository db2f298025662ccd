"""One HTTP/1.1 connection, request by request: a proxy mixes everything on one connection.

For each request `Front.before` is asked, then it goes through one of three doors: a handler of the express table, the live path (a
WebSocket on the same Socket; the connection ends with it), or the ASGI application (asgi). What the prompt table can answer without
waiting is answered as the bytes come in, and the connection's task sleeps on: a quarter less for a small request. The parser and what it
refuses are in messages; deadlines are compared by the server's sweeper. Nothing here knows what a scoreboard is. Read `run` first.
"""

from math import inf

import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.front import Front
from scoreboard.runtime.messages import Request, RequestParser, Response
from scoreboard.runtime.observe import ASGI, EXPRESS, FRONT, LIVE, PROMPT, REQUEST_ID, answered
from scoreboard.runtime.sockets import READ_BYTES, Socket

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


class Connection:
    """The task of one connection and what the server must know of it."""

    __slots__ = ("_draining", "_fed", "_front", "_live", "_owed", "_parser", "_serving", "_stage", "_status", "last", "socket")

    def __init__(self, socket: Socket, front: Front) -> None:
        self.socket = socket
        self.last = False  # the answer at hand is the last one: the server is draining, or the application wants it so
        self._front = front
        self._parser = RequestParser(socket, front.live_path)
        self._draining = False  # wound up
        self._serving = False  # a request is at hand, or the connection is ending
        self._stage = 0  # the parser's, when the deadline was set last
        self._fed = False  # `_at_once` has read and left the rest to the task
        self._owed = b""  # an answer of `_at_once` that the kernel did not take
        self._status = 0  # of the newest head
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
            if socket.source is not None:
                socket.source.hook = None
            self._parser.forget()  # thousands of viewers need none
        if self._live is not None:
            await self._front.live(self._live)
        await self._part()

    async def _read(self) -> bool:
        """Reads and serves until the last answer: True. False when the peer ends it."""
        socket, parser = self.socket, self._parser
        socket.deadline = trio.current_time() + IDLE_SECONDS
        if socket.source is not None:
            socket.source.hook = self._at_once
        while True:
            await socket.wait_readable()
            if self._fed:
                self._fed = False
                if self._owed or socket.behind_since < inf:
                    await self._wait(self._owed)
                    self._owed = b""
            elif data := socket.read_now():
                parser.feed(data)
            elif data is None:
                continue
            else:
                return False
            if parser.queue:
                self._serving = True
                socket.deadline = inf
                if not await self._serve():
                    return True
            if parser.refusal is not None:
                self._serving = True
                await self._refuse(parser.refusal)
                return True
            self._serving = False
            if self._draining and not parser.begun and not socket.has_unread():
                return True  # the answer was on its way when the drain began, so it did not say that it is the last
            if parser.expects:
                parser.expects = False
                await self.send(CONTINUE)
            self._buy_time()

    def _buy_time(self) -> None:
        """Only progress buys time: neither one more byte of a head nor an empty line between requests does."""
        parser = self._parser
        if parser.stage != self._stage:
            self._stage = parser.stage
            limit = IDLE_SECONDS if not parser.begun else BODY_SECONDS if parser.in_body else HEAD_SECONDS
            self.socket.deadline = trio.current_time() + limit

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
        for place, request in enumerate(parser.queue):
            if place == YIELD_EVERY or not self._prompt(request):
                del parser.queue[:place]
                break
        else:
            parser.queue.clear()
            if parser.refusal is None and not parser.expects and not self._owed and socket.behind_since == inf:
                self._buy_time()
                return True
        self._fed = self._serving = True
        return False

    def _prompt(self, request: Request) -> bool:
        """True when the request is answered."""
        front, socket = self._front, self.socket
        prompt = front.prompt.get((request.method, request.path))
        if prompt is None or self._owed or self.last or not request.keep_alive or socket.behind_since < inf:
            return False
        door = FRONT
        answer = front.before(request)
        if answer is None:
            door = PROMPT
            request.admitted = True
            try:
                answer = prompt(request)
            except Exception as exc:  # noqa: BLE001 – logged by `failed`
                answer = front.failed(request, exc)
        if answer is None:
            return False
        answered[door + answer.status // 100] += 1
        data, _ = self._bytes(request, answer)
        if not socket.send_now(data):
            self._owed = data
        return True

    # ---- in turn ----------------------------------------------------------------------------------------------------

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
        front, door = self._front, FRONT
        answer = None if request.admitted else front.before(request)
        if answer is None:
            REQUEST_ID.set(request.request_id.decode())  # for every line that is logged on this request's behalf
            if request.upgrade:
                answered[LIVE + 1] += 1
                self._go_live(request)
                return False
            handler = front.express.get((b"GET" if request.method == b"HEAD" else request.method, request.path))
            if handler is None:
                self._status = 0
                going_on = await front.asgi(self, request)
                answered[ASGI + self._status // 100] += 1
                return going_on
            door, sent = EXPRESS, self.socket.sent
            try:
                answer = await handler(request)
            except Exception as exc:
                if self.socket.sent != sent or self.socket.fd < 0:
                    answered[EXPRESS + 2] += self.socket.sent != sent
                    raise  # in the middle of a stream, where no answer fits; or it has left
                answer = front.failed(request, exc)
            if answer is None:
                answered[EXPRESS + 2] += 1
                return False
        answered[door + answer.status // 100] += 1
        data, going_on = self._bytes(request, answer)
        await self.send(data)
        return going_on

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
        self._status = status
        if self.last or not request.keep_alive:
            return self._front.write_head(request, status, fields + CLOSE, length), False
        if request.version == "1.0":
            fields += KEEP_ALIVE
        return self._front.write_head(request, status, fields, length), True

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as the answer to `request`."""
        return self._front.problem(refusal, request.request_id)

    def _bytes(self, request: Request, answer: Response) -> tuple[bytes, bool]:
        """The whole answer, and whether the connection goes on after it. Joined: for a board's size that is faster than a writev."""
        status, body = answer.status, answer.body
        if status == 204 or status == 304:  # noqa: PLR1714 - twice as fast as a set here
            return self.head(request, status, answer.fields, None)
        head, going_on = self.head(request, status, answer.fields, len(body))
        return (head if request.method == b"HEAD" else head + body), going_on

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
        self.last = self._draining = True
        if not self._serving and not self._parser.begun and not self.socket.has_unread():
            self.socket.close()

    def _late(self) -> None:
        """The sweeper's word: the deadline has passed. Half a request is told so, as far as the kernel takes it."""
        parser = self._parser
        if not self._serving and parser.begun:
            self.socket.send_now(self._refusal(Refusal(Code.REQUEST_TIMEOUT, "the rest of the request did not come in time")))
        self.socket.close()

    def _refusal(self, refusal: Refusal) -> bytes:
        """The answer to a request that is not complete and never will be: its body was not read, so the connection ends with it."""
        request = self._parser.request or Request(self.socket)  # either way it says that it does not keep the connection
        answer = self.problem(request, refusal)
        answered[FRONT + answer.status // 100] += 1
        return self._bytes(request, answer)[0]

    async def _refuse(self, refusal: Refusal) -> None:
        await self.send(self._refusal(refusal))

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
