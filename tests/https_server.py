"""A small HTTPS server on loopback that answers what a test tells it to, and keeps what it was asked.

For what a node asks of others: keys of outside issuers, webhooks, alerts.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h11
import trio

from tests.certificates import make_certificate

READ_BYTES = 65536


class Asked(NamedTuple):
    """One request that the server got. Names of `headers` are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """What the server answers."""

    body: bytes = b"{}"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)


Responder = Callable[[Asked], Awaitable[Reply | None]]
"""Answers a request; None: the connection is closed without an answer."""


@dataclass
class HttpsServer:
    """`replies`: what is answered by path (without the query), else 404. `asked`: all requests so far, in order."""

    replies: dict[str, Reply | Responder] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    ca_file: Path = Path()
    name: str = "localhost"
    tls: bool = True

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A client's context that knows this server's certificate, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return context

    async def serve(self, stream: trio.abc.Stream) -> None:
        try:
            connection = h11.Connection(h11.SERVER)
            while await self._answer(connection, stream):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, h11.ProtocolError):
            pass  # the client has gone

    async def _answer(self, connection: h11.Connection, stream: trio.abc.Stream) -> bool:
        """Answers one request; whether another may follow on the connection."""
        request, body = None, bytearray()
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            match event:
                case h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))
                case h11.Request():
                    request = event
                case h11.Data():
                    body += event.data
                case _:
                    return False
        assert request is not None
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        asked = Asked(request.method.decode(), request.target.decode(), headers, bytes(body))
        self.asked.append(asked)
        reply = self.replies.get(asked.target.partition("?")[0], Reply(b"", 404))
        if not isinstance(reply, Reply):
            answered = await reply(asked)
            if answered is None:
                return False
            reply = answered
        fields = [*reply.headers, ("content-length", str(len(reply.body)))]
        for answer in (
            h11.Response(status_code=reply.status, headers=fields),
            h11.Data(reply.body),
            h11.EndOfMessage(),
        ):
            if sent := connection.send(answer):
                await stream.send_all(sent)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


@asynccontextmanager
async def https_server(folder: Path, name: str = "localhost", *, tls: bool = True) -> AsyncIterator[HttpsServer]:
    """Serves until the block ends, with a certificate for `name` in `ca_file`, which is in `folder`."""
    made = HttpsServer(name=name, tls=tls)
    async with trio.open_nursery() as nursery:
        if tls:
            made.ca_file = make_certificate(folder, (name,))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(made.ca_file)
            serve = partial(trio.serve_ssl_over_tcp, made.serve, 0, context, host="127.0.0.1", https_compatible=True)
            (listener,) = await nursery.start(serve)
            made.port = listener.transport_listener.socket.getsockname()[1]
        else:
            (plain,) = await nursery.start(partial(trio.serve_tcp, made.serve, 0, host="127.0.0.1"))
            made.port = plain.socket.getsockname()[1]
        yield made
        nursery.cancel_scope.cancel()
