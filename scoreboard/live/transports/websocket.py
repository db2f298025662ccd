"""The WebSocket transport: from an upgrade request on a Socket to its close, with trio-websocket for the protocol.

`LiveEndpoint.serve` is what http1 calls. trio-websocket reads, and writes its handshake, its pongs and its closes;
every event of ours is a prepared frame that goes out by the hub. One task here reads messages; what they mean is
decided in `conversation`, and what the library is given to parse, too. No private part of the library is touched.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import ProtocolError

from scoreboard.domain import protocol as wire
from scoreboard.domain.errors import Refusal
from scoreboard.domain.protocol import MESSAGE_BYTES, SUBPROTOCOL, CloseCode, close_frame, reason
from scoreboard.http.request import Request
from scoreboard.live.admission import REFUSALS, LimitReached, refusal_event
from scoreboard.live.transports.conversation import Conversation, LiveDependencies, LiveLimits
from scoreboard.live.transports.query import query_token
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import CLOSE_FRAME, Socket
from scoreboard.telemetry import metrics

HANDSHAKE_SECONDS = 10.0  # for our own 101 to go out
CLOSING_SECONDS = 2.0  # for what waits, our Close and its echo
LINGER_BYTES = 1_048_576  # read and thrown away after a Close, so that a reset does not overtake it
READ_BYTES = 4_096  # at a time: a message with its head comes in two reads at most, and a flood is noticed early

# What trio-websocket finds in a payload. It says so to us alone, and closes the connection without a Close frame.
LIBRARY_CLOSES = frozenset((CloseCode.PROTOCOL, CloseCode.NOT_UTF8))

# What the handshake needs and nothing else. Cookies, tokens and the like need not be kept as long as the connection.
HEAD = (
    b"GET / HTTP/1.1\r\nhost: live\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n%b\r\n"
)
# for a client that offers it, whatever else that offers
PROTOCOL = b"sec-websocket-protocol: %b\r\n" % SUBPROTOCOL.encode()

log = structlog.get_logger()


class LiveEndpoint:
    """All WebSockets of this node. `origin_allowed` and `client_address` come from the web."""

    __slots__ = ("_client_address", "_origin_allowed", "_rules", "_services")

    def __init__(
        self,
        services: LiveDependencies,
        rules: LiveLimits,
        *,
        origin_allowed: Callable[[Request], bool],
        client_address: Callable[[Request], str],
    ) -> None:
        self._services, self._rules = services, rules
        self._origin_allowed, self._client_address = origin_allowed, client_address

    def serve(self, request: Request) -> Awaitable[None]:
        """Runs a WebSocket on the request's socket until it ends, whoever ends it. The socket is closed then.

        The request is a whole handshake (http1 sees to that), and the socket's `unread_buffer` holds its head and what
        followed it.

        Cancelling closes the connection without a Close frame. Raises nothing that a client can cause.
        """
        connection = _Connection(request.socket, self._services, self._rules)
        connection.head = HEAD % (request.header(b"sec-websocket-key"), PROTOCOL if _offers(request) else b"")
        address, token = self._client_address(request), query_token(request)
        refused, full = self._refused(request), self._services.admission.refuses(address)
        _, _, request.socket.unread_buffer = request.socket.unread_buffer.partition(b"\r\n\r\n")
        request.drop_headers()  # http1 keeps it as long as the connection
        # no coroutine of its own: there are thousands
        return connection.run(address, request.request_id, token, refused, full)

    def refusal(self, request: Request) -> Refusal | None:
        """Why a handshake from there would find no place now."""
        full = self._services.admission.refuses(self._client_address(request))
        return REFUSALS[full] if full else None

    def _refused(self, request: Request) -> CloseCode | None:
        """Why this connection is closed as soon as it is open. A code says more to a script than a failed handshake,
        which says nothing."""
        if self._services.hub.closing:
            return CloseCode.RESTART
        return None if self._origin_allowed(request) else CloseCode.ORIGIN


def _offers(request: Request) -> bool:
    """Whether the client offers our subprotocol."""
    offered = b",".join(value for name, value in request.headers if name == b"sec-websocket-protocol")
    return SUBPROTOCOL.encode() in [one.strip() for one in offered.split(b",")]


class _Connection(trio.abc.Stream):
    """One connection, and the stream that trio-websocket sees of it: our head, then, once accepted, the socket, its
    bytes counted."""

    __slots__ = (
        "_accepted",
        "_close_sent",
        "_conversation",
        "_ending",
        "_is_deaf",
        "_is_read",
        "_lingered",
        "_nursery",
        "_rules",
        "_services",
        "_socket",
        "_websocket",
        "head",
    )

    def __init__(self, socket: Socket, services: LiveDependencies, rules: LiveLimits) -> None:
        self._socket, self._services, self._rules = socket, services, rules
        self._conversation = Conversation(Viewer(socket, self.end), services, rules)
        self.head = b""  # of the handshake, until the library has read it
        self._accepted: trio.Event | None = trio.Event()
        self._close_sent = False  # by the library: ours, or the echo of the viewer's
        self._is_read = False  # somebody waits for bytes
        self._is_deaf = False  # what comes is thrown away, the echo of our Close among it
        self._lingered: trio.Event | None = None  # after our Close: set when all that still came was thrown away
        self._ending: CloseCode | None = None
        self._nursery: trio.Nursery | None = None  # from the handshake until it is being closed
        self._websocket: WebSocketConnection | None = None

    # ---- its life ---------------------------------------------------------------------------------------------------

    async def run(
        self, address: str, request_id: bytes, token: str | None, refused: CloseCode | None, full: LimitReached | None
    ) -> None:
        socket, viewer, admission = self._socket, self._conversation.viewer, self._services.admission
        admission.enter(address)
        metrics.WEBSOCKET_CONNECTIONS.inc()
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_SECONDS):
                    proposal = await trio_websocket.wrap_server_stream(nursery, self, max_message_size=MESSAGE_BYTES)
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
                    code = refused
                    if code is None and full is not None:
                        code = CloseCode.OVERLOADED
                        await socket.send_all(wire.text_frame(refusal_event(full)))
                    if code is None:
                        self._join(viewer)
                        if token is not None:
                            code, token = await self._conversation.authenticate(token), None
                        while code is None and self._ending is None:
                            code = await self._conversation.receive(await websocket.get_message())
                    if code is not None:
                        self.end(code)
                except ConnectionClosed:
                    pass  # the viewer has left, or is being told to
                finally:
                    self._services.hub.leave(viewer)
                if self._ending is None:
                    await self._close()
        except* (
            ConnectionClosed,
            ProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ) as left:
            log.debug("viewer_left", error=repr(left.exceptions[0]))
        finally:
            socket.close()
            viewer.forget()
            self._websocket = None  # which holds us
            metrics.WEBSOCKET_CONNECTIONS.dec()
            admission.leave(address, viewer.user)

    def _join(self, viewer: Viewer) -> None:
        socket = self._socket
        self._services.hub.join(viewer)
        socket.on_deadline, socket.on_behind, socket.slow_reader_timeout = (
            self._conversation.check,
            self._behind,
            self._rules.slow_reader_seconds,
        )
        self._conversation.check()
        if self._services.hub.closing:  # its good-byes have been said while hands were shaken
            self.end(CloseCode.RESTART)

    def end(self, code: CloseCode) -> None:
        """Closes it with this code, in a task of its own; the first one counts, and none once it is being closed."""
        if self._ending is None and self._nursery is not None:
            self._ending = code
            # a cancel scope round the conversation instead would cost 0.7 KiB a viewer
            self._nursery.start_soon(self._close)

    def _behind(self) -> None:
        """It reads too slowly: closed at once, since not even a Close frame would fit. Counted as 4413."""
        metrics.SLOW_READERS_CLOSED.inc()
        log.debug("viewer_too_slow", code=CloseCode.SLOW)
        self._socket.close()

    async def _close(self) -> None:
        """Says what is still to be said, then Close, waits for its echo, all within CLOSING_SECONDS; then nothing of it
        goes on."""
        socket, viewer, websocket, nursery = self._socket, self._conversation.viewer, self._websocket, self._nursery
        assert websocket is not None
        assert nursery is not None
        self._nursery = None
        self._services.hub.leave(viewer)
        socket.on_writable = socket.on_deadline = socket.on_behind = None
        if (code := self._library_close()) is not None:
            self._ending, self._is_deaf = code, True
        with trio.move_on_after(CLOSING_SECONDS):
            if self._ending is not None:
                if viewer.pending is not None:
                    await socket.send_all(b"".join(viewer.pending))
                if self._is_deaf:
                    await socket.send_all(close_frame(self._ending))
                else:
                    await websocket.aclose(self._ending, reason(self._ending))
            if socket.fd >= 0:  # a Close has gone out whose echo nobody waits for, or the viewer has just left
                self._lingered = trio.Event()
                socket.shut_writing()
                if not self._is_read:
                    await self.receive_some()
                await self._lingered.wait()
        socket.close()
        nursery.cancel_scope.cancel()  # the library's reader, and the conversation, if they still wait

    # ---- the stream -------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What may be parsed. Nothing of the viewer's before the 101 has gone out: the library would lose it."""
        if self.head:
            head, self.head = self.head, b""
            return head
        if self._accepted is not None:
            await self._accepted.wait()
        if self._is_read:  # only after our Close: `_close` lingers already
            assert self._lingered is not None
            await self._lingered.wait()
            return b""
        self._is_read = True
        try:
            while True:
                data: bytes | None = await self._socket.receive_some(READ_BYTES) if self._socket.unread_buffer else None
                while data is None:  # as the socket does, with a coroutine less for each of thousands
                    await self._socket.wait_readable()
                    data = self._socket.read_now(READ_BYTES)
                if not data:
                    return b""
                if self._lingered is not None or self._is_deaf:
                    return await self._discard()
                given = self._conversation.count_received(data)
                if isinstance(given, CloseCode):
                    self._is_deaf = True  # before `end`: nothing more is parsed, not even the echo of our Close
                    self.end(given)
                    return await self._discard()
                if given:
                    return given
        finally:
            self._is_read = False
            if self._lingered is not None:
                self._lingered.set()

    async def _discard(self) -> bytes:
        """Reads until the viewer closes, or LINGER_BYTES: the end, whichever it was."""
        last = self._socket.received + LINGER_BYTES
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
        """The library has done with it. After an error that it found and told nobody of, `_close` tells the viewer
        first."""
        if self._library_close() is None:
            await self._socket.aclose()

    def _library_close(self) -> CloseCode | None:
        """The code of an error that the library found in a payload; None for any other end.

        A viewer's own Close may have the same code. The library sends a Close frame then, or has sent one before.
        """
        if self._close_sent:
            return None
        closed = self._websocket.closed if self._websocket is not None else None
        return CloseCode(closed.code) if closed is not None and closed.code in LIBRARY_CLOSES else None
