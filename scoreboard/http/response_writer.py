"""How one HTTP/1.1 connection's answers get out: their heads, whether one is the last, at once if the kernel has room
and in time if not.

All that http1's `Connection` and asgi write goes through here.

Tested in tests/http/test_connection.py.
"""

from math import inf

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.http.handlers import Handlers
from scoreboard.http.request import Request, Response
from scoreboard.net.reading import READ_BYTES
from scoreboard.net.sockets import Socket

# for each piece of an answer that the kernel did not take at once: 16 KiB and less, so 0.5 KiB/s will do
ANSWER_SECONDS = 30.0
# of a large answer are copied at a time: its body is shared with others, or need not be kept twice
PIECE_BYTES = 16_384
# after the last answer: what the peer still sends is read, else the kernel resets and the answer is lost
PARTING_SECONDS = 2.0
PARTING_BYTES = 1_048_576  # of that, so much: whoever sends more is not listening

CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # 1.0 closes unless told


class ResponseWriter:
    """Writes answers to `socket`. One at a time."""

    __slots__ = ("_front", "_owed", "last", "socket", "status")

    def __init__(self, socket: Socket, front: Handlers) -> None:
        self.socket = socket
        self.last = False  # the answer at hand is the last one: the server is draining, or the application wants it so
        self.status = 0  # of the newest head
        self._front = front
        # what the kernel did not take of an answer; of a large one a view of what is shared
        self._owed: bytes | memoryview = b""

    # ---- what is written --------------------------------------------------------------------------------------------

    def head(self, request: Request, status: int, fields: bytes, length: int | None) -> tuple[bytes, bool]:
        """The head with its Connection field, and whether the connection goes on after this answer."""
        self.status = status
        if self.last or not request.keep_alive:
            return self._front.write_head(request, status, fields + CLOSE, length), False
        if request.version == "1.0":
            fields += KEEP_ALIVE
        return self._front.write_head(request, status, fields, length), True

    def whole(self, request: Request, answer: Response) -> tuple[bytes, bool]:
        """Head and body, and whether the connection goes on after it. Joined: for a board's size that is faster than a
        writev."""
        status, body = answer.status, answer.body
        if status == 204 or status == 304:  # noqa: PLR1714 - twice as fast as a set here
            return self.head(request, status, answer.fields, None)
        head, going_on = self.head(request, status, answer.fields, len(body))
        return (head if request.method == b"HEAD" else head + body), going_on

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as the answer to `request`."""
        return self._front.problem(refusal, request.request_id)

    # ---- without waiting --------------------------------------------------------------------------------------------

    def put(self, request: Request, answer: Response) -> bool:
        """Writes the answer as far as that goes now; `finish` does the rest. True when the connection goes on after
        it."""
        if answer.status >= 400:
            answer = self._front.error_page(request, answer)
        if len(answer.body) > PIECE_BYTES and request.method != b"HEAD":
            head, going_on = self.head(request, answer.status, answer.fields, len(answer.body))
            if self.socket.send_now(head):
                self._put_large(answer.body)
            else:
                self._owed = head + answer.body
            return going_on
        data, going_on = self.whole(request, answer)
        if not self.socket.send_now(data):
            self._owed = data
        return going_on

    def _put_large(self, data: bytes) -> None:
        """Writes pieces until the kernel takes no more."""
        left = memoryview(data)
        while left and self.socket.behind_since == inf and self.socket.send_now(bytes(left[:PIECE_BYTES])):
            left = left[PIECE_BYTES:]
        self._owed = left

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has all that was written."""
        return not self._owed and self.socket.behind_since == inf

    # ---- and waiting ------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Until all that was put is out. Raises as `Socket.send_all`."""
        while not self.is_flushed:
            if self.socket.behind_since < inf:
                await self._wait(b"")  # what is left over goes first, so that there are never two pieces
            piece, self._owed = bytes(self._owed[:PIECE_BYTES]), self._owed[PIECE_BYTES:]
            await self._wait(piece)

    async def send(self, data: bytes) -> None:
        """`data`, at once if there is room, else each piece within ANSWER_SECONDS or the sweeper closes. Raises as
        `Socket.send_all`."""
        if len(data) > PIECE_BYTES:
            self._put_large(data)
            del data
            await self.finish()
        elif not self.socket.send_now(data):
            await self._wait(data)
        elif self.socket.behind_since < inf:
            await self._wait(b"")

    async def _wait(self, data: bytes) -> None:
        """Until `data`, and what was left over before it, is out."""
        socket = self.socket
        socket.deadline = trio.current_time() + ANSWER_SECONDS
        await socket.send_all(data)
        socket.deadline = inf

    async def part(self) -> None:
        """Closing after an answer waits for its rest, then for the peer's end, for two seconds at most."""
        socket = self.socket
        if socket.fd < 0:
            return
        socket.on_deadline = None
        await self._wait(b"")
        socket.shut_writing()
        socket.deadline = trio.current_time() + PARTING_SECONDS
        enough = socket.received + PARTING_BYTES
        while socket.received < enough and await socket.receive_some(READ_BYTES):
            pass
