"""`LiveServer`: a listener with the real WebSocket path, event stream and long poll; and clients of it."""

import socket as stdlib_socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

import trio
from trio_websocket import WebSocketConnection

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.http.handlers import FastHandler, Handler
from scoreboard.http.request import Request, Response
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.http.server import Server
from scoreboard.live.admission import Admission
from scoreboard.live.dependencies import LiveDependencies
from scoreboard.live.hub import Hub
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.long_poll import PollEndpoint
from scoreboard.live.transports.query import LiveRequestReader
from scoreboard.live.transports.sse import StreamEndpoint
from scoreboard.live.transports.websocket import WebSocketEndpoint
from scoreboard.storage.board_cache import Standing
from tests.live.boards import BOARD, snapshot
from tests.live.dependencies import FakeAuthenticator, FakeWeb, SystemClock
from tests.websockets import open_websocket

HANG_TIMEOUT_SECONDS = 20  # a bound on hangs, not a measure
UPGRADE = (
    "GET /live{query} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class LiveHandlers:
    """The `RequestHandlers` of a listener that serves live paths and nothing else, without limits."""

    live_path = b"/live"
    access_log_from = 1000

    def __init__(
        self,
        direct: dict[tuple[bytes, bytes], Handler],
        fast: dict[tuple[bytes, bytes], FastHandler],
        endpoint: WebSocketEndpoint,
        web: FakeWeb,
    ) -> None:
        self.direct: Mapping[tuple[bytes, bytes], Handler] = direct
        self.fast: Mapping[tuple[bytes, bytes], FastHandler] = fast
        self._endpoint, self._web = endpoint, web

    def run_middleware(self, _: Request) -> Response | None:
        return None

    def write_head(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        return self._web.write(request, status, fields, length)

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        return self._web.problem(refusal, request_id)

    def error_page(self, _: Request, response: Response) -> Response:
        return response

    def error_response(self, _: Request, exc: Exception) -> Response:
        return Response(503 if isinstance(exc, StorageUnavailable) else 500, repr(exc).encode())

    def log_access(self, request: Request, status: int, seconds: float) -> None:
        raise AssertionError("there is no access log here")

    def on_malformed(self, _: Request) -> None:
        pass

    def reserve_large_body(self, _: Request, size: int) -> Refusal | None:
        return Refusal(Code.PAYLOAD_TOO_LARGE, f"{size} bytes are too many")

    def release_large_body(self, _: Request) -> None:
        pass

    async def serve_websocket(self, request: Request) -> None:
        await self._endpoint.serve(request)

    async def answer_by_application(self, _: ResponseWriter, request: Request) -> bool:
        raise AssertionError(f"{request.path!r} goes to the live path")

    def peer_group(self, address: str) -> str:
        return address

    def admit_connection(self, _: str) -> bool:
        return True

    def release_connection(self, _: str) -> None:
        pass


class LiveServer:
    """A listener with the real WebSocket path, event stream and long poll. A test sets its board."""

    has_fast_polls = True  # False: each poll has its task

    def __init__(self, limits: LiveLimits, admission: Admission | None = None) -> None:
        self.hub, self.board, self.shown_version = Hub((BOARD,)), "abc", 1
        self.authenticator, self.admission = FakeAuthenticator(), admission or Admission()
        self.tokens = self.authenticator.tokens
        self.refreshed, self.away = 0, False
        self.streams: list[trio.SocketStream] = []  # raw clients, closed at the end
        live = LiveDependencies(
            hub=self.hub,
            admission=self.admission,
            batcher=self,  # type: ignore[arg-type]  # `refresh` is all that is asked of it
            authenticator=self.authenticator,
            standings=self,
            clock=SystemClock(),
        )
        fake_web = FakeWeb(self.authenticator)
        web = fake_web.dependencies()
        reader = LiveRequestReader(live, limits, web)
        poll = PollEndpoint(reader, live, web)
        self.server = Server(
            LiveHandlers(
                {
                    (b"GET", b"/stream"): StreamEndpoint(reader, live, limits, web).serve,
                    (b"GET", b"/poll"): poll.answer,
                },
                {(b"GET", b"/poll"): poll.answer_fast} if self.has_fast_polls else {},
                WebSocketEndpoint(live, limits, web),
                fake_web,
            )
        )

    async def refresh(self, board: Board) -> None:
        self.refreshed += 1
        if self.away:
            raise StorageUnavailable("postgresql", "away")
        await self.hub.publish(board, snapshot(self.board, self.shown_version))

    async def publish(self, users: str) -> None:
        self.board, self.shown_version = users, self.shown_version + 1
        await self.hub.publish(BOARD, snapshot(users, self.shown_version))

    async def standing(self, user: UUID) -> Standing:
        return Standing(40, 7)

    async def until(self, viewers: int) -> None:
        while len(self.hub) != viewers or self.admission.total != viewers:
            await trio.sleep(0.005)

    @asynccontextmanager
    async def client(self, query: str = "", **headers: str) -> AsyncIterator[WebSocketConnection]:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        async with open_websocket(self.server.port, f"/live{query}", headers=fields) as client:
            yield client

    async def ask(self, target: str, *fields: str, method: str = "GET", receive_buffer: int = 0) -> trio.SocketStream:
        """A connection that has sent one request."""
        stream = await self.connect(receive_buffer)
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: t", *fields, "", ""])
        await stream.send_all(head.encode())
        return stream

    async def raw(
        self, query: str = "", fields: str = "", *, receive_buffer: int = 0, behind: bytes = b""
    ) -> trio.SocketStream:
        """A connection that has sent the handshake; `behind` follows in the same segment."""
        stream = await self.connect(receive_buffer)
        head = UPGRADE.format(query=query, fields=fields)
        await stream.send_all(head.encode() + behind)
        return stream

    async def connect(self, receive_buffer: int = 0) -> trio.SocketStream:
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.server.port))
        stream = trio.SocketStream(sock)
        self.streams.append(stream)
        return stream


@asynccontextmanager
async def serve_live(limits: LiveLimits | None = None, admission: Admission | None = None) -> AsyncIterator[LiveServer]:
    node = LiveServer(limits or LiveLimits(), admission)
    with trio.fail_after(HANG_TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.server.run, "127.0.0.1", 0)
            try:
                yield node
            finally:
                for stream in node.streams:
                    stream.socket.close()
                nursery.cancel_scope.cancel()
