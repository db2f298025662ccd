"""A response that is written piece by piece, for bodies that would take too much memory.

For direct handlers, which keep the socket.

The body is chunked, so that a client notices one that was cut off; for HTTP/1.0 it ends with the connection. A client
has WRITE_TIMEOUT_SECONDS for each piece of 16 KiB. The connection ends with the response.

Tested in tests/web/routes/test_personal_data.py.
"""

from math import inf

import trio

from scoreboard.http.request import Request
from scoreboard.http.response_writer import CLOSE, PIECE_BYTES, WRITE_TIMEOUT_SECONDS
from scoreboard.web.headers import ResponseHeaders

CHUNKED = b"transfer-encoding: chunked\r\n"


class StreamedResponse:
    """One response to `request`. Its methods raise trio.BrokenResourceError or ClosedResourceError when the client has
    left; the caller lets them pass."""

    __slots__ = ("_fields", "_heads", "_is_begun", "_is_chunked", "_request")

    def __init__(self, request: Request, heads: ResponseHeaders, fields: bytes) -> None:
        """`fields`: ready lines of its head."""
        self._request, self._heads, self._fields = request, heads, fields
        self._is_chunked, self._is_begun = request.version == "1.1", False

    async def write(self, data: bytes) -> None:
        """Writes a piece of the body; the first one with the head. Returns when the kernel has it."""
        if not self._is_begun:
            self._is_begun = True
            fields = self._fields + CLOSE + (CHUNKED if self._is_chunked else b"")
            await self._send(self._heads.write(self._request, 200, fields, None))
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            await self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)

    async def end(self) -> None:
        """The body is complete."""
        if self._is_chunked:
            await self._send(b"0\r\n\r\n")

    async def _send(self, data: bytes) -> None:
        socket = self._request.socket
        socket.deadline = trio.current_time() + WRITE_TIMEOUT_SECONDS
        await socket.send_all(data)
        socket.deadline = inf
