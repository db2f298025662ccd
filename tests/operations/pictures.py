"""A server of pictures with TLS on loopback, under names of our own, that does what a test tells it to."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from scoreboard.operations.picture_fetch import Fetcher
from tests.certificates import make_certificate

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + b"\x00\x00\x00\x40" * 2 + b"\x00" * 100  # 64 × 64
NAMES = ("pictures.example.org", "other.example.org")

Handler = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]


def ok(content: bytes, *fields: str) -> bytes:
    """A whole answer."""
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(content)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + content


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


@dataclass
class PictureServer:
    """`answers`: bytes, or what is done with the connection, by path. `addresses`: of each name; others can't be
    resolved."""

    answers: dict[str, bytes | Handler] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=lambda: {name: ["127.0.0.1"] for name in NAMES})
    requests: list[bytes] = field(default_factory=list)  # heads
    connections: int = 0
    resolved: list[str] = field(default_factory=list)
    port: int = 0
    trusted: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    @property
    def fetcher(self) -> Fetcher:
        """One for which 127.0.0.1, and only that, is an address of the Internet."""
        return Fetcher(
            resolve=self.resolve,
            is_allowed=lambda address: address == "127.0.0.1",
            port=self.port,
            ssl_context=self.trusted,
        )

    async def resolve(self, host: str) -> list[str]:
        self.resolved.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := await stream.receive_some()):
                    return
                head += part
            self.requests.append(head)
            answer = self.answers.get(head.split()[1].decode(), b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            if isinstance(answer, bytes):
                await stream.send_all(answer)
            else:
                await answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass  # the client has gone


@asynccontextmanager
async def picture_server(folder: Path, *names: str) -> AsyncIterator[PictureServer]:
    """Serves until the block ends, with a certificate for `names` (else for NAMES) that its `trusted` context knows the
    authority of."""
    made = PictureServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(folder, names or NAMES))
    made.trusted.load_verify_locations(folder / "server.pem")
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, made.serve, 0, context, host="127.0.0.1", https_compatible=True)
        (listener,) = await nursery.start(serve)
        made.port = listener.transport_listener.socket.getsockname()[1]
        yield made
        nursery.cancel_scope.cancel()
