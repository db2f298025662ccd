"""Writes the responses of one HTTP/1.1 connection: heads, keep-alive or close, the rest that the kernel did not take.

All that `http.connection` and `http.asgi` write goes through here.

Tested in tests/http/test_connection.py.
"""

from math import inf
from typing import Protocol

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.http.request import Request, Response
from scoreboard.net.reading import READ_BYTES
from scoreboard.net.sockets import Socket

# For each piece of a response that the kernel did not take at once: 16 KiB at most, so 0.5 KiB/s is enough.
WRITE_TIMEOUT_SECONDS = 30.0
# A larger response is copied piece by piece: its body may be shared, and a second whole copy would waste memory.
PIECE_BYTES = 16_384
# After the last response, what the peer still sends is read. Without that the kernel resets, and the response is lost.
CLOSE_TIMEOUT_SECONDS = 2.0
MAX_CLOSE_BYTES = 1_048_576  # the most that is read then; a peer that sends more does not read our response

CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # HTTP/1.0 closes without it


class ResponseFormat(Protocol):
    """The part of `RequestHandlers` that makes the bytes of responses."""

    def write_head(self, request: Request, status: int, fields: bytes, length: int | None, /) -> bytes:
        """The whole head with its blank line. `fields`: ready lines; `length`: None for no Content-Length."""

    def problem(self, refusal: Refusal, request_id: bytes, /) -> Response:
        """A refusal as problem+json."""

    def error_page(self, request: Request, response: Response, /) -> Response:
        """What is sent in place of a response of 400 and more: a page, or the response itself."""


class ResponseWriter:
    """Writes responses to `socket`, one at a time."""

    __slots__ = ("_format", "_unwritten", "close_after_response", "socket", "status")

    def __init__(self, socket: Socket, response_format: ResponseFormat) -> None:
        self.socket = socket
        self.close_after_response = False  # the next response says "Connection: close": the server is draining
        self.status = 0  # of the newest head
        self._format = response_format
        # The part of a response that neither the kernel nor the socket has; a view of the shared body if that is large.
        self._unwritten: bytes | memoryview = b""

    # ---- bytes ------------------------------------------------------------------------------------------------------

    def head(self, request: Request, status: int, fields: bytes, length: int | None) -> tuple[bytes, bool]:
        """The head with its Connection field, and whether the connection goes on after this response."""
        self.status = status
        if self.close_after_response or not request.keep_alive:
            return self._format.write_head(request, status, fields + CLOSE, length), False
        if request.version == "1.0":
            fields += KEEP_ALIVE
        return self._format.write_head(request, status, fields, length), True

    def render(self, request: Request, response: Response) -> tuple[bytes, bool]:
        """Head and body, and whether the connection goes on. They are joined: for a board that is faster than
        writev."""
        status, body = response.status, response.body
        if status == 204 or status == 304:  # noqa: PLR1714 - twice as fast as a set here
            return self.head(request, status, response.fields, None)
        head, keep_alive = self.head(request, status, response.fields, len(body))
        return (head if request.method == b"HEAD" else head + body), keep_alive

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as the response to `request`."""
        return self._format.problem(refusal, request.request_id)

    # ---- writing without waiting ------------------------------------------------------------------------------------

    def write_nowait(self, request: Request, response: Response) -> bool:
        """Writes what the kernel takes; `flush` writes the rest. True when the connection goes on after it."""
        if response.status >= 400:
            response = self._format.error_page(request, response)
        if len(response.body) > PIECE_BYTES and request.method != b"HEAD":
            head, keep_alive = self.head(request, response.status, response.fields, len(response.body))
            if self.socket.send_now(head):
                self._write_pieces(response.body)
            else:
                self._unwritten = head + response.body
            return keep_alive
        data, keep_alive = self.render(request, response)
        if not self.socket.send_now(data):
            self._unwritten = data
        return keep_alive

    def _write_pieces(self, data: bytes) -> None:
        """Writes pieces until the kernel takes no more."""
        left = memoryview(data)
        while left and self.socket.behind_since == inf and self.socket.send_now(bytes(left[:PIECE_BYTES])):
            left = left[PIECE_BYTES:]
        self._unwritten = left

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has all that was written."""
        return not self._unwritten and self.socket.behind_since == inf

    # ---- writing and waiting ----------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Returns when the kernel has all that was written. Raises as `Socket.send_all`."""
        while not self.is_flushed:
            if self.socket.behind_since < inf:
                await self._send_all(b"")  # the socket's rest goes first, so that there are never two pieces
            piece, self._unwritten = bytes(self._unwritten[:PIECE_BYTES]), self._unwritten[PIECE_BYTES:]
            await self._send_all(piece)

    async def send(self, data: bytes) -> None:
        """Writes `data`; the sweeper closes if a piece of it takes longer than WRITE_TIMEOUT_SECONDS.

        Raises as `Socket.send_all`.
        """
        if len(data) > PIECE_BYTES:
            self._write_pieces(data)
            del data
            await self.flush()
        elif not self.socket.send_now(data):
            await self._send_all(data)
        elif self.socket.behind_since < inf:
            await self._send_all(b"")

    async def _send_all(self, data: bytes) -> None:
        """Returns when the kernel has the socket's rest and `data`."""
        socket = self.socket
        socket.deadline = trio.current_time() + WRITE_TIMEOUT_SECONDS
        await socket.send_all(data)
        socket.deadline = inf

    async def close_gracefully(self) -> None:
        """Writes the rest, then waits until the peer ends the connection, CLOSE_TIMEOUT_SECONDS at most.

        The caller closes the socket, also after cancelling. Raises as `Socket.send_all` and `Socket.receive_some`.
        """
        socket = self.socket
        if socket.fd < 0:
            return
        socket.on_deadline = None
        await self._send_all(b"")
        socket.shut_writing()
        socket.deadline = trio.current_time() + CLOSE_TIMEOUT_SECONDS
        enough = socket.received + MAX_CLOSE_BYTES
        while socket.received < enough and await socket.receive_some(READ_BYTES):
            pass
