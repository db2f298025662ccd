"""The Server-Sent Events transport: the WebSocket's events as a text stream that never ends, over plain HTTP/1.1.

`StreamEndpoint.serve` is a direct handler that keeps the Socket. It writes the head and adds a viewer to the hub; from
then on the hub writes. The task reads only to notice that the viewer has left. The body ends with the connection.
"""

import random
from collections.abc import Awaitable
from math import inf

import structlog
import trio

from scoreboard.domain import framing, protocol
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.protocol import Event, LiveErrorCode
from scoreboard.http.request import Request, Response
from scoreboard.live.dependencies import Identity, LiveDependencies, WebDependencies
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.conversation import CHECK_INTERVAL_SECONDS
from scoreboard.live.transports.query import LiveRequest, LiveRequestReader
from scoreboard.live.transports.subscribing import send_identity, subscribe
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import Socket
from scoreboard.telemetry import metrics

HEAD_TIMEOUT_SECONDS = 10.0  # for the head to go out
CLOSE_TIMEOUT_SECONDS = 2.0  # for the viewer to close after we have ended the stream
MAX_DISCARDED_BYTES = 4096  # that a viewer may send after its request; they are thrown away, and more ends the stream
MAX_SINCE_BYTES = 64  # of a position; ours have at most 37, so a longer one that is cut is none of ours either way
RETRY_RANGE_MS = (1000, 3000)  # our advice when to reconnect, drawn for each stream: no thundering herd

# no-transform and X-Accel-Buffering: a proxy that compresses or collects would hold events back.
FIELDS = (
    b"content-type: text/event-stream\r\n"
    b"cache-control: no-store, no-transform\r\n"
    b"x-accel-buffering: no\r\n"
    b"connection: close\r\n"
)
SHUTTING_DOWN = Refusal(Code.SERVICE_UNAVAILABLE, "This server is leaving.", retry_after=1)

log = structlog.get_logger()


class StreamEndpoint:
    """All event streams of this node."""

    __slots__ = ("limits", "live", "reader", "web")

    def __init__(
        self, reader: LiveRequestReader, live: LiveDependencies, limits: LiveLimits, web: WebDependencies
    ) -> None:
        self.reader, self.live, self.limits, self.web = reader, live, limits, web

    def serve(self, request: Request) -> Awaitable[Response | None]:
        """Runs a stream on the request's socket until either side ends it; then None. A Response when it is refused.

        Cancelling leaves the socket for the caller to close. Raises nothing that a viewer can cause.
        """
        return _Stream(request.socket, self).run(request)  # no coroutine of its own: there are thousands

    def admit(self, request: LiveRequest) -> None:
        self.live.admission.admit(request.address)
        if request.identity is not None:
            self.live.admission.identify(request.identity.user)
        metrics.STREAM_CONNECTIONS.inc()

    def release(self, request: LiveRequest) -> None:
        metrics.STREAM_CONNECTIONS.dec()
        self.live.admission.release(request.address, request.identity.user if request.identity else None)


class _Stream:
    """One stream, from its head to its end: its viewer's Transport."""

    __slots__ = ("_endpoint", "_expires", "_is_closing", "_viewer")

    def __init__(self, socket: Socket, endpoint: StreamEndpoint) -> None:
        self._endpoint = endpoint
        self._viewer = Viewer(socket, self, framing.event_stream)
        self._viewer.wants_heartbeat = True  # sent as an SSE comment, which clients ignore
        self._expires = inf  # Unix seconds, of the token
        self._is_closing = False

    async def run(self, request: Request) -> Response | None:
        endpoint, viewer, socket = self._endpoint, self._viewer, request.socket
        live_request = SHUTTING_DOWN if endpoint.live.hub.is_shutting_down else endpoint.reader.read(request)
        if isinstance(live_request, Refusal):
            return endpoint.web.problems.problem(live_request, request.request_id)
        # A browser keeps the address when it reconnects, so this position is newer than the query's. It is kept as long
        # as the stream, so a longer one is cut.
        since = request.header(b"last-event-id")[:MAX_SINCE_BYTES]
        live_request = live_request._replace(since=since.decode("latin-1") or live_request.since)
        endpoint.admit(live_request)  # in one step with the check whether there is room
        try:
            socket.deadline = trio.current_time() + HEAD_TIMEOUT_SECONDS
            await socket.send_all(endpoint.web.heads.write(request, 200, FIELDS, None))
            if request.method == b"HEAD":
                return None
            request.drop_headers()  # http keeps the request as long as the connection
            self._join(live_request.identity)
            await self._send_first_events(live_request)
            max_received = socket.received + MAX_DISCARDED_BYTES
            while socket.received < max_received:
                await socket.wait_readable()
                if socket.read_now() == b"":
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug("viewer_left", error=repr(exc))
        finally:
            endpoint.live.hub.remove(viewer)
            viewer.detach()
            endpoint.release(live_request)
            socket.on_writable = socket.on_deadline = socket.on_behind = None
            socket.slow_reader_timeout = inf
        return None

    def _join(self, identity: Identity | None) -> None:
        viewer, socket, hub = self._viewer, self._viewer.socket, self._endpoint.live.hub
        hub.add(viewer)
        socket.on_deadline, socket.on_behind = self.check_deadlines, self._close_slow_reader
        socket.slow_reader_timeout = self._endpoint.limits.slow_reader_seconds
        if identity is not None:
            hub.identify(viewer, identity.user, identity.sid)
            self._expires = identity.expires
        self.check_deadlines()
        if hub.is_shutting_down:  # shutdown began while the head went out
            self.close(CloseCode.RESTART)

    async def _send_first_events(self, request: LiveRequest) -> None:
        """Our advice when to reconnect, who the viewer is, the board."""
        viewer, live = self._viewer, self._endpoint.live
        live.hub.send(viewer, b"retry: %d\n\n" % random.randint(*RETRY_RANGE_MS))  # noqa: S311 – jitter
        if request.identity is not None:
            await send_identity(live, viewer, request.identity.user)
        await subscribe(live, viewer, request.board, delta=request.delta, since=request.since)

    def check_deadlines(self) -> None:
        """Closes the stream when its token is not valid any more, and sets the next deadline: none without a token."""
        viewer, live = self._viewer, self._endpoint.live
        if viewer.sid is None:
            viewer.socket.deadline = inf
            return
        now, wall = trio.current_time(), live.clock.now()
        if wall >= self._expires or live.authenticator.is_revoked(viewer.sid):
            self.close(CloseCode.TOKEN)
        else:
            viewer.socket.deadline = now + min(CHECK_INTERVAL_SECONDS, self._expires - wall)

    def close(self, code: CloseCode) -> None:
        """Ends the body, without waiting. The reading task ends when the viewer has closed, or after
        CLOSE_TIMEOUT_SECONDS."""
        if self._is_closing:
            return
        self._is_closing = True
        viewer, socket, hub = self._viewer, self._viewer.socket, self._endpoint.live.hub
        if code is CloseCode.TOKEN:
            error = protocol.error(LiveErrorCode.UNAUTHORIZED, "the token is not valid any more")
            hub.send(viewer, viewer.encode(Event.ERROR, error, ""))
        hub.remove(viewer)
        if socket.behind_since < inf or viewer.pending is not None:
            socket.close()  # it is behind, and would not read the end either
            return
        socket.shut_writing()
        socket.on_writable = socket.on_deadline = socket.on_behind = None
        socket.deadline = trio.current_time() + CLOSE_TIMEOUT_SECONDS

    def _close_slow_reader(self) -> None:
        """Closes at once a viewer that reads too slowly. Counted with the WebSockets that are closed with 4413."""
        metrics.SLOW_READERS_CLOSED.inc()
        log.debug("slow_reader_closed", code=CloseCode.SLOW)
        self._viewer.socket.close()
