"""The WebSocket transport: from an upgrade request on a Socket to its close, with trio-websocket for the protocol.

`LiveEndpoint.serve` is what http1 calls. trio-websocket reads, and writes its handshake, its pongs and its closes; every event of ours is a
prepared frame that goes out by the hub. One task here reads messages; what they mean is decided in `conversation`. No private part of the
library is touched.
"""

from collections.abc import Callable
from urllib.parse import parse_qs

import structlog
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import ProtocolError

from scoreboard.domain.wire import MESSAGE_BYTES, CloseCode, reason
from scoreboard.live.conversation import Conversation, Rules, Services
from scoreboard.live.hub import Viewer
from scoreboard.runtime import observe
from scoreboard.runtime.messages import Request
from scoreboard.runtime.sockets import Socket

HANDSHAKE_SECONDS = 10.0  # for our own 101 to go out
CLOSING_SECONDS = 2.0  # for what waits, our Close and its echo
LINGER_BYTES = 1_048_576  # read and thrown away after a Close, so that a reset does not overtake it
FLOOD_PAUSE = 0.05  # seconds between reads from a viewer over its budget, until it is closed: 80 kB/s at most

# What the handshake needs and nothing else. Cookies, tokens and the like need not be kept as long as the connection.
HEAD = (
    b"GET / HTTP/1.1\r\nhost: live\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n\r\n"
)

log = structlog.get_logger()


class LiveEndpoint:
    """All WebSockets of this node. `origin_allowed` and `client_address` come from the web."""

    __slots__ = ("_client_address", "_origin_allowed", "_rules", "_services", "connections")

    def __init__(
        self,
        services: Services,
        rules: Rules,
        *,
        origin_allowed: Callable[[Request], bool],
        client_address: Callable[[Request], str],
    ) -> None:
        self._services, self._rules = services, rules
        self._origin_allowed, self._client_address = origin_allowed, client_address
        self.connections: dict[str, int] = {}  # open ones by client address; bounded by the descriptors of the process

    async def serve(self, request: Request) -> None:
        """Runs a WebSocket on the request's socket until it ends, whoever ends it. The socket is closed then.

        The request is a whole handshake (http1 sees to that), and the socket's `played_back` holds its head and what followed it.

        Cancelling closes the connection without a Close frame. Raises nothing that a client can cause.
        """
        socket, key = request.socket, request.header(b"sec-websocket-key")
        address, token = self._client_address(request), _token(request.query)
        refused = self._refused(request, address)
        extra = [(b"x-request-id", request.request_id)]
        _, _, socket.played_back = socket.played_back.partition(b"\r\n\r\n")
        request.headers, request.target, request.query = [], b"", b""  # kept by http1 as long as the connection, for nothing
        self.connections[address] = self.connections.get(address, 0) + 1
        observe.WEBSOCKET_CONNECTIONS.inc()
        try:
            await _Connection(socket, self._services, self._rules).run(HEAD % key, extra, token, refused)
        except* (ConnectionClosed, ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as left:
            log.debug("viewer_left", error=repr(left.exceptions[0]))
        finally:
            socket.close()
            observe.WEBSOCKET_CONNECTIONS.dec()
            self.connections[address] -= 1
            if not self.connections[address]:
                del self.connections[address]

    def _refused(self, request: Request, address: str) -> CloseCode | None:
        """Why this connection is closed as soon as it is open. A code says more to a script than a failed handshake, which says nothing."""
        if self._services.hub.closing:
            return CloseCode.RESTART
        if not self._origin_allowed(request):
            return CloseCode.ORIGIN
        if 0 < self._rules.connections_per_ip <= self.connections.get(address, 0):
            return CloseCode.OVERLOADED
        return None


def _token(query: bytes) -> str | None:
    """The query's token; None without one. An empty one is one, and not valid."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("token") if b"token" in query else None
    return values[0] if values else None


class _Connection(trio.abc.Stream):
    """One connection, and the stream that trio-websocket sees of it: our head, then, once accepted, the socket, its bytes counted."""

    __slots__ = (
        "_accepted",
        "_conversation",
        "_ending",
        "_head",
        "_is_over",
        "_is_read",
        "_lingered",
        "_rules",
        "_scope",
        "_services",
        "_socket",
    )

    def __init__(self, socket: Socket, services: Services, rules: Rules) -> None:
        self._socket, self._services, self._rules = socket, services, rules
        self._conversation = Conversation(Viewer(socket, self.end), services, rules)
        self._head = b""
        self._accepted: trio.Event | None = trio.Event()
        self._is_read = False  # somebody waits for bytes
        self._lingered: trio.Event | None = None  # after our Close: set when all that still came was thrown away
        self._ending: CloseCode | None = None
        self._scope = trio.CancelScope()  # of the conversation; closing comes after it

    # ---- its life ---------------------------------------------------------------------------------------------------

    async def run(self, head: bytes, extra: list[tuple[bytes, bytes]], token: str | None, refused: CloseCode | None) -> None:
        viewer, self._head = self._conversation.viewer, head
        async with trio.open_nursery() as nursery:
            with trio.fail_after(HANDSHAKE_SECONDS):
                proposal = await trio_websocket.wrap_server_stream(nursery, self, max_message_size=MESSAGE_BYTES)
                websocket = await proposal.accept(extra_headers=extra)
            del proposal
            if self._accepted is not None:
                self._accepted.set()
                self._accepted = None
            try:
                if refused is None:
                    self._join(viewer)
                    with self._scope:
                        self._ending = self._ending or await self._converse(websocket, token)
                else:
                    self._ending = refused
            finally:
                self._services.hub.leave(viewer)
            await self._close(websocket, viewer)
            self._socket.close()
            nursery.cancel_scope.cancel()  # the library's reader, if it still waits

    def _join(self, viewer: Viewer) -> None:
        socket = self._socket
        self._services.hub.join(viewer)
        socket.on_deadline, socket.on_behind, socket.patience = self._conversation.check, self._behind, self._rules.slow_reader_seconds
        self._conversation.check()

    async def _converse(self, websocket: WebSocketConnection, token: str | None) -> CloseCode | None:
        """Until the viewer leaves (None) or must (the code)."""
        try:
            code = None if token is None else await self._conversation.authenticate(token)
            while code is None:
                code = await self._conversation.receive(await websocket.get_message())
        except ConnectionClosed:
            return None
        return code

    def end(self, code: CloseCode) -> None:
        """Closes it with this code; the first one counts."""
        if self._ending is None:
            self._ending = code
            self._scope.cancel()

    def _behind(self) -> None:
        """It reads too slowly: closed at once, since not even a Close frame would fit. Counted as 4413."""
        observe.SLOW_READERS_CLOSED.inc()
        log.debug("viewer_too_slow", code=CloseCode.SLOW)
        self._socket.close()

    async def _close(self, websocket: WebSocketConnection, viewer: Viewer) -> None:
        """Says what is still to be said, then Close, waits for its echo, all within CLOSING_SECONDS."""
        socket = self._socket
        socket.drained = socket.on_deadline = socket.on_behind = None
        with trio.move_on_after(CLOSING_SECONDS):
            if self._ending is not None:
                if viewer.pending is not None:
                    await socket.send_all(b"".join(viewer.pending))
                await websocket.aclose(self._ending, reason(self._ending))
            if socket.fd >= 0:  # the library has closed a message that was too big, or the viewer has just left
                self._lingered = trio.Event()
                socket.shut_writing()
                if not self._is_read:
                    await self.receive_some()
                await self._lingered.wait()

    # ---- the stream -------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Nothing of the viewer's before the 101 has gone out: the library would lose it."""
        if self._head:
            data, self._head = self._head, b""
            return data
        if self._accepted is not None:
            await self._accepted.wait()
        if self._is_read:  # only after our Close: `_close` lingers already
            assert self._lingered is not None
            await self._lingered.wait()
            return b""
        self._is_read = True
        try:
            data = await self._socket.receive_some(max_bytes)
            if not self._conversation.heard(len(data)) and self._lingered is None:
                self.end(CloseCode.POLICY)
                while data:  # a flood is not parsed, not even for the echo of our Close
                    await trio.sleep(FLOOD_PAUSE)
                    data = await self._socket.receive_some(max_bytes)
            if self._lingered is not None:  # what still comes is thrown away
                last = self._socket.received + LINGER_BYTES
                while data and self._socket.received < last:
                    data = await self._socket.receive_some()
                data = b""
        finally:
            self._is_read = False
            if self._lingered is not None:
                self._lingered.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._socket.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._socket.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._socket.aclose()
