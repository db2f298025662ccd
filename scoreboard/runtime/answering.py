"""How one HTTP/1.1 connection's answers get out: their heads, whether one is the last, at once if the kernel has room and in time if not.

The half of http1's `Connection` that only writes; `asgi` gets nothing else of it.
"""

from math import inf

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.runtime.front import Front
from scoreboard.runtime.messages import Request, Response
from scoreboard.runtime.sockets import Socket

ANSWER_SECONDS = 30.0  # for each piece of an answer that the kernel did not take at once: 16 KiB and less, so 0.5 KiB/s will do

CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # 1.0 closes unless told


class Answering:
    """Writes answers to `socket`. One at a time."""

    __slots__ = ("_front", "last", "socket", "status")

    def __init__(self, socket: Socket, front: Front) -> None:
        self.socket = socket
        self.last = False  # the answer at hand is the last one: the server is draining, or the application wants it so
        self.status = 0  # of the newest head
        self._front = front

    def head(self, request: Request, status: int, fields: bytes, length: int | None) -> tuple[bytes, bool]:
        """The head with its Connection field, and whether the connection goes on after this answer."""
        self.status = status
        if self.last or not request.keep_alive:
            return self._front.write_head(request, status, fields + CLOSE, length), False
        if request.version == "1.0":
            fields += KEEP_ALIVE
        return self._front.write_head(request, status, fields, length), True

    def whole(self, request: Request, answer: Response) -> tuple[bytes, bool]:
        """Head and body, and whether the connection goes on after it. Joined: for a board's size that is faster than a writev."""
        status, body = answer.status, answer.body
        if status == 204 or status == 304:  # noqa: PLR1714 - twice as fast as a set here
            return self.head(request, status, answer.fields, None)
        head, going_on = self.head(request, status, answer.fields, len(body))
        return (head if request.method == b"HEAD" else head + body), going_on

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as the answer to `request`."""
        return self._front.problem(refusal, request.request_id)

    async def send(self, data: bytes) -> None:
        """`data`, at once if there is room, else within ANSWER_SECONDS or the sweeper closes. Raises as `Socket.send_all`."""
        if not self.socket.send_now(data):
            await self.wait_sent(data)
        elif self.socket.behind_since < inf:
            await self.wait_sent(b"")

    async def wait_sent(self, data: bytes) -> None:
        """Until `data`, and what was left over before it, is out."""
        socket = self.socket
        socket.deadline = trio.current_time() + ANSWER_SECONDS
        await socket.send_all(data)
        socket.deadline = inf
