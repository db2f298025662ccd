"""The WebSocket transport: from an upgrade request on a Socket to its close, with trio-websocket for the protocol.

http.connection calls `WebSocketEndpoint.serve`. trio-websocket reads, and writes its handshake, its pongs and its
closes. The hub writes our events, as encoded frames. One task here reads messages. `conversation` decides what they
mean, and what the library is given to parse. No private part of the library is touched.
"""

from collections.abc import Awaitable

import structlog
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import ProtocolError

from scoreboard.domain import framing
from scoreboard.domain.client_messages import MAX_MESSAGE_BYTES
from scoreboard.domain.close_codes import CloseCode, close_reason
from scoreboard.domain.errors import Refusal
from scoreboard.domain.framing import close_frame
from scoreboard.domain.protocol import SUBPROTOCOL
from scoreboard.http.request import Request
from scoreboard.live.admission import REFUSALS, LimitReached, refusal_event
from scoreboard.live.dependencies import LiveDependencies, WebDependencies
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.conversation import Conversation
from scoreboard.live.transports.query import query_token
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import CLOSE_FRAME, Socket
from scoreboard.telemetry import metrics

HANDSHAKE_TIMEOUT_SECONDS = 10.0  # for our own 101 to go out
CLOSE_TIMEOUT_SECONDS = 2.0  # for what waits, our Close and its echo
MAX_LINGER_BYTES = 1_048_576  # read and thrown away after a Close, so that a reset does not overtake it
READ_BYTES = 4_096  # at a time: a message with its head comes in two reads at most, and a flood is noticed early

# Errors that trio-websocket finds in a payload. It reports them to us only, and closes without a Close frame.
LIBRARY_CLOSES = frozenset((CloseCode.PROTOCOL, CloseCode.NOT_UTF8))

# What the handshake needs and nothing else: cookies and tokens are not kept as long as the connection.
HANDSHAKE_HEAD = (
    b"GET / HTTP/1.1\r\nhost: live\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n%b\r\n"
)
# for a client that offers our subprotocol, whatever else it offers
SUBPROTOCOL_FIELD = b"sec-websocket-protocol: %b\r\n" % SUBPROTOCOL.encode()

log = structlog.get_logger()


class WebSocketEndpoint:
    """All WebSockets of this node."""

    __slots__ = ("_limits", "_live", "_web")

    def __init__(self, live: LiveDependencies, limits: LiveLimits, web: WebDependencies) -> None:
        self._live, self._limits, self._web = live, limits, web

    def serve(self, request: Request) -> Awaitable[None]:
        """Runs a WebSocket on the request's socket until either side ends it. The socket is closed then.

        The request is a whole handshake (http.connection has checked that), and the socket's `unread_buffer` holds its
        head and what followed it.

        Cancelling closes the connection without a Close frame. Raises nothing that a client can cause.
        """
        connection = _Connection(request.socket, self._live, self._limits)
        connection.head = HANDSHAKE_HEAD % (
            request.header(b"sec-websocket-key"),
            SUBPROTOCOL_FIELD if _offers_subprotocol(request) else b"",
        )
        address, token = self._web.addresses.rate_limit_key(request), query_token(request)
        close_code, limit = self._initial_close_code(request), self._live.admission.limit_reached(address)
        _, _, request.socket.unread_buffer = request.socket.unread_buffer.partition(b"\r\n\r\n")
        request.drop_headers()  # http keeps the request as long as the connection
        # no coroutine of its own: there are thousands
        return connection.run(address, request.request_id, token, close_code, limit)

    def refusal(self, request: Request) -> Refusal | None:
        """Why a handshake from there would be refused now."""
        limit = self._live.admission.limit_reached(self._web.addresses.rate_limit_key(request))
        return REFUSALS[limit] if limit else None

    def _initial_close_code(self, request: Request) -> CloseCode | None:
        """Why this connection is closed as soon as it is open. A script can read a close code, but not why a handshake
        failed."""
        if self._live.hub.is_shutting_down:
            return CloseCode.RESTART
        return None if self._web.origins.allows(request) else CloseCode.ORIGIN


def _offers_subprotocol(request: Request) -> bool:
    """Whether the client offers our subprotocol."""
    offered = b",".join(value for name, value in request.headers if name == b"sec-websocket-protocol")
    return SUBPROTOCOL.encode() in [one.strip() for one in offered.split(b",")]


class _Connection(trio.abc.Stream):
    """One connection: its viewer's Transport, and the stream that trio-websocket reads. That stream is our head and
    then, once the connection is accepted, the socket's bytes, counted."""

    __slots__ = (
        "_accepted",
        "_close_code",
        "_close_sent",
        "_conversation",
        "_discards_input",
        "_is_reading",
        "_limits",
        "_lingered",
        "_live",
        "_nursery",
        "_socket",
        "_websocket",
        "head",
    )

    def __init__(self, socket: Socket, live: LiveDependencies, limits: LiveLimits) -> None:
        self._socket, self._live, self._limits = socket, live, limits
        self._conversation = Conversation(Viewer(socket, self), live, limits)
        self.head = b""  # of the handshake, until the library has read it
        self._accepted: trio.Event | None = trio.Event()
        self._close_sent = False  # by the library: ours, or the echo of the viewer's
        self._is_reading = False  # a task is in `receive_some`
        self._discards_input = False  # what comes is thrown away, the echo of our Close too
        self._lingered: trio.Event | None = None  # after our Close: set when the rest of the input was thrown away
        self._close_code: CloseCode | None = None
        self._nursery: trio.Nursery | None = None  # from the handshake until the close begins
        self._websocket: WebSocketConnection | None = None

    # ---- its life ---------------------------------------------------------------------------------------------------

    async def run(
        self, address: str, request_id: bytes, token: str | None, code: CloseCode | None, limit: LimitReached | None
    ) -> None:
        socket, viewer, admission = self._socket, self._conversation.viewer, self._live.admission
        admission.admit(address)
        metrics.WEBSOCKET_CONNECTIONS.inc()
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_TIMEOUT_SECONDS):
                    proposal = await trio_websocket.wrap_server_stream(
                        nursery, self, max_message_size=MAX_MESSAGE_BYTES
                    )
                    subprotocol = next(iter(proposal.proposed_subprotocols), None)
                    websocket = await proposal.accept(
                        subprotocol=subprotocol, extra_headers=[(b"x-request-id", request_id)]
                    )
                del proposal
                if self._accepted is not None:
                    self._accepted.set()
                    self._accepted = None
                self._nursery, self._websocket = nursery, websocket
                try:
                    if code is None and limit is not None:
                        code = CloseCode.OVERLOADED
                        await socket.send_all(framing.text_frame(refusal_event(limit)))
                    if code is None:
                        self._join(viewer)
                        if token is not None:
                            code, token = await self._conversation.authenticate(token), None
                        while code is None and self._close_code is None:
                            code = await self._conversation.receive(await websocket.get_message())
                    if code is not None:
                        self.close(code)
                except ConnectionClosed:
                    pass  # the viewer has left, or the connection is being closed
                finally:
                    self._live.hub.remove(viewer)
                if self._close_code is None:
                    await self._closing_handshake()
        except* (
            ConnectionClosed,
            ProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ) as errors:
            log.debug("viewer_left", error=repr(errors.exceptions[0]))
        finally:
            socket.close()
            viewer.detach()
            self._websocket = None  # which holds us
            metrics.WEBSOCKET_CONNECTIONS.dec()
            admission.release(address, viewer.user)

    def _join(self, viewer: Viewer) -> None:
        socket = self._socket
        self._live.hub.add(viewer)
        socket.on_deadline, socket.on_behind = self._conversation.check_deadlines, self._close_slow_reader
        socket.slow_reader_timeout = self._limits.slow_reader_seconds
        self._conversation.check_deadlines()
        if self._live.hub.is_shutting_down:  # shutdown began during the handshake
            self.close(CloseCode.RESTART)

    def close(self, code: CloseCode) -> None:
        """Starts a task that closes the connection with this code, unless it is being closed already."""
        if self._close_code is None and self._nursery is not None:
            self._close_code = code
            # A cancel scope for the conversation would cost 0.7 KiB a viewer.
            self._nursery.start_soon(self._closing_handshake)

    def _close_slow_reader(self) -> None:
        """Closes at once a viewer that reads too slowly: its socket has no room for a Close frame. Counted as 4413."""
        metrics.SLOW_READERS_CLOSED.inc()
        log.debug("slow_reader_closed", code=CloseCode.SLOW)
        self._socket.close()

    async def _closing_handshake(self) -> None:
        """Sends pending events, then Close, and waits for its echo, all within CLOSE_TIMEOUT_SECONDS. Then it ends the
        tasks of the connection."""
        socket, viewer, websocket, nursery = self._socket, self._conversation.viewer, self._websocket, self._nursery
        assert websocket is not None
        assert nursery is not None
        self._nursery = None
        self._live.hub.remove(viewer)
        socket.on_writable = socket.on_deadline = socket.on_behind = None
        if (code := self._library_close()) is not None:
            self._close_code, self._discards_input = code, True
        with trio.move_on_after(CLOSE_TIMEOUT_SECONDS):
            if self._close_code is not None:
                if viewer.pending is not None:
                    await socket.send_all(b"".join(viewer.pending))
                if self._discards_input:
                    await socket.send_all(close_frame(self._close_code))
                else:
                    await websocket.aclose(self._close_code, close_reason(self._close_code))
            if socket.fd >= 0:  # we sent a Close and nobody waits for its echo, or the viewer has just left
                self._lingered = trio.Event()
                socket.shut_writing()
                if not self._is_reading:
                    await self.receive_some()
                await self._lingered.wait()
        socket.close()
        nursery.cancel_scope.cancel()  # the library's reader, and the conversation, if they still wait

    # ---- the stream -------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What may be parsed. The viewer's bytes come only after the 101 has gone out: the library would lose them."""
        if self.head:
            head, self.head = self.head, b""
            return head
        if self._accepted is not None:
            await self._accepted.wait()
        if self._is_reading:  # only after our Close: `_closing_handshake` lingers already
            assert self._lingered is not None
            await self._lingered.wait()
            return b""
        self._is_reading = True
        try:
            while True:
                data: bytes | None = await self._socket.receive_some(READ_BYTES) if self._socket.unread_buffer else None
                while data is None:  # as Socket.receive_some does, with a coroutine less for each of thousands
                    await self._socket.wait_readable()
                    data = self._socket.read_now(READ_BYTES)
                if not data:
                    return b""
                if self._lingered is not None or self._discards_input:
                    return await self._discard()
                parseable = self._conversation.count_received(data)
                if isinstance(parseable, CloseCode):
                    # Set before `close`: nothing more is parsed, not even the echo of our Close.
                    self._discards_input = True
                    self.close(parseable)
                    return await self._discard()
                if parseable:
                    return parseable
        finally:
            self._is_reading = False
            if self._lingered is not None:
                self._lingered.set()

    async def _discard(self) -> bytes:
        """Reads and drops what comes until the viewer closes, or MAX_LINGER_BYTES. Returns b"", the stream's end."""
        last = self._socket.received + MAX_LINGER_BYTES
        while self._socket.received < last and await self._socket.receive_some():
            pass
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if data[:1] == CLOSE_FRAME:
            self._close_sent = True
        await self._socket.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._socket.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Called by the library at the end. After an error that the library found but sent no Close for,
        `_closing_handshake` sends it first."""
        if self._library_close() is None:
            await self._socket.aclose()

    def _library_close(self) -> CloseCode | None:
        """The code of an error that the library found in a payload; None for any other end.

        A viewer's own Close may have the same code. The library then echoes it, or has sent its own Close already.
        """
        if self._close_sent:
            return None
        closed = self._websocket.closed if self._websocket is not None else None
        return CloseCode(closed.code) if closed is not None and closed.code in LIBRARY_CLOSES else None
