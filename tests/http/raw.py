"""Requests and clients in raw bytes: every byte on the wire is the test's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from scoreboard.http.server import Server

HANG = 20  # seconds; a bound on hangs, not a measure
UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def get(path: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: t", *fields, "", ""]).encode()


def post(path: str, body: bytes, *fields: str) -> bytes:
    """A request with a length."""
    return (
        "\r\n".join([f"POST {path} HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *fields, "", ""]).encode()
        + body
    )


def chunked(path: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    """A request whose body comes in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST %b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (
        path.encode(),
        body,
        trailers,
    )


# ---- clients -------------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct):
    """One response as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A connection on which every byte is the test's."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send_all(piece)

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            more = await self.stream.receive_some()
            if not more:
                raise EOFError(self.buffer)
            self.buffer += more
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            more = await self.stream.receive_some()
            if not more:
                raise EOFError(self.buffer)
            self.buffer += more
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def rest(self) -> bytes:
        """Everything until the server ends it; an orderly end, a reset raises."""
        while more := await self.stream.receive_some():
            self.buffer += more
        found, self.buffer = self.buffer, b""
        return found

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next response, by its own framing."""
        line, *fields = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
        found = Answer(int(line.split(" ")[1]), headers, b"")
        if head_only or found.status in {100, 101, 204, 304}:
            return found
        if found.header("transfer-encoding") == "chunked":
            while size := int(await self._until(b"\r\n"), 16):
                found.body += await self._exactly(size)
                assert await self._exactly(2) == b"\r\n"
            assert await self._exactly(2) == b"\r\n"
        elif (length := found.header("content-length")) is not None:
            found.body = await self._exactly(int(length))
        else:
            found.body = await self.rest()
        return found

    async def ask(self, data: bytes, *, head_only: bool = False) -> Answer:
        await self.send(data)
        return await self.answer(head_only=head_only)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        yield Client(stream)


async def ask(server: Server, data: bytes) -> Answer:
    """One request on a connection of its own."""
    async with connected(server) as client:
        return await client.ask(data)


async def closed(client: Client) -> bool:
    """Whether the server has ended the connection, in order or by a reset."""
    try:
        return await client.rest() == b""
    except trio.BrokenResourceError:
        return True


async def still_serves(server: Server) -> None:
    """Another client is served as if nothing had happened."""
    assert (await ask(server, get("/hello"))).body == b'"hello"'
