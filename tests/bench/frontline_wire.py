"""Raw HTTP/1.1 and WebSocket bytes for `scripts/bench front-line`, and connections that come from an address of our
choice.

Loopback is a whole network on Linux: whoever binds 127.0.2.7 before connecting is another client to the server's
limits.
"""

import json
import re
import socket
import struct
from collections import Counter

import trio

# IP_BIND_ADDRESS_NO_PORT of linux/in.h: the port is chosen at connect, so addresses do not run out of them
BIND_ADDRESS_NO_PORT = 24
READ_BYTES = 65_536
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})[ \r]")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STATUS_BYTES = 13  # "HTTP/1.1 200 ": what may be cut between two reads
NO_BODY = frozenset((204, 304))
BOARD = "/api/v1/scores/leaderboard"
LIVE = "/api/v1/scores/live"
POLL = "/api/v1/scores/poll"


# ---- pure: bytes -----------------------------------------------------------------------------------------------------


def request(
    method: str, target: str, body: bytes = b"", fields: dict[str, str] | None = None, host: str = "127.0.0.1"
) -> bytes:
    given = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    framing = f"Content-Length: {len(body)}\r\n" if body or method in {"POST", "PATCH"} else ""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{given}{framing}\r\n".encode() + body


def json_request(method: str, target: str, value: object, fields: dict[str, str] | None = None) -> bytes:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return request(method, target, body, {"Content-Type": "application/json", **(fields or {})})


def upgrade(path: str = LIVE) -> bytes:
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    return request("GET", path, fields=fields)


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame; its mask is zero."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([(0x80 if final else 0) | opcode]) + length + bytes(4) + payload


SUBSCRIBE = frame(1, b'{"action":"subscribe","channel":"leaderboard"}')


class StatusCounter:
    """Counts answers by their status lines in a stream of bytes, wherever it is cut."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self._tail = b""

    def feed(self, data: bytes) -> int:
        """How many answers began in it."""
        data, count, end = self._tail + data, 0, 0
        for found in STATUS.finditer(data):
            self.statuses[int(found[1])] += 1
            count, end = count + 1, found.end()
        self._tail = data[max(end, len(data) - STATUS_BYTES + 1) :]
        return count


# ---- I/O -------------------------------------------------------------------------------------------------------------


async def connect(port: int, address: str, receive_buffer: int = 0) -> trio.SocketStream:
    """A connection from that address. Raises OSError when it is refused."""
    sock = trio.socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.bind((address, 0))
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


class Client:
    """One honest keep-alive connection, made anew when it is gone."""

    def __init__(self, port: int, address: str) -> None:
        self._port, self._address = port, address
        self._stream: trio.SocketStream | None = None

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError, trio.BrokenResourceError or EOFError when there is no whole answer.
        Cancelling closes it."""
        try:
            if self._stream is None:
                self._stream = await connect(self._port, self._address)
            await self._stream.send_all(data)
            status, body, goes_on = await _answer(self._stream)
        except BaseException:
            self.close()
            raise
        if not goes_on:
            self.close()
        return status, body

    def close(self) -> None:
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None


async def _answer(stream: trio.SocketStream) -> tuple[int, bytes, bool]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _more(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    status, length = int(head[9:12]), LENGTH.search(head)
    size = 0 if status in NO_BODY or length is None else int(length[1])
    while len(body) < size:
        body += await _more(stream)
    return status, body, b"connection: close" not in head.lower()


async def _more(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some(READ_BYTES))
    if not data:
        raise EOFError("the server has closed the connection")
    return data
