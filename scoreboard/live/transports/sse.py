"""The Server-Sent Events transport: the WebSocket's events as a text stream that never ends, over plain HTTP/1.1.

`StreamEndpoint.serve` is a handler of the express table that keeps the Socket: it writes the head, joins the hub, and
from then on the hub writes. The task reads all the while, only to notice that the viewer has left. The body ends with
the connection.
"""

import random
from collections.abc import Awaitable, Callable
from math import inf

import structlog
import trio

from scoreboard.domain import protocol as wire
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.protocol import CloseCode, Event, LiveErrorCode
from scoreboard.http.request import Request, Response
from scoreboard.live.transports.conversation import CHECK_SECONDS, Identity, LiveDependencies, LiveLimits
from scoreboard.live.transports.query import LiveRequest, Requests
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import Socket
from scoreboard.telemetry import metrics

HEAD_SECONDS = 10.0  # for the head to go out
PARTING_SECONDS = 2.0  # for the viewer to close after we have ended the stream
UNASKED_BYTES = 4096  # that a viewer may still send; a stream is not spoken to
SINCE_BYTES = 64  # of a position; ours have at most 37, so of a longer one nothing is lost
RETRY_MS = (1000, 3000)  # our advice when to reconnect, drawn for each stream, so that not all come back at once

# no-transform and X-Accel-Buffering: a proxy that compresses or collects would hold events back.
FIELDS = b"content-type: text/event-stream\r\ncache-control: no-store, no-transform\r\nx-accel-buffering: no\r\nconnection: close\r\n"
CLOSING = Refusal(Code.SERVICE_UNAVAILABLE, "This server is leaving.", retry_after=1)

log = structlog.get_logger()


class StreamEndpoint:
    """All event streams of this node. `write_head` and `problem` come from the web."""

    __slots__ = ("problem", "requests", "rules", "services", "write_head")

    def __init__(
        self,
        requests: Requests,
        services: LiveDependencies,
        rules: LiveLimits,
        *,
        write_head: Callable[[Request, int, bytes, int | None], bytes],
        problem: Callable[[Refusal, bytes], Response],
    ) -> None:
        self.requests, self.services, self.rules = requests, services, rules
        self.write_head, self.problem = write_head, problem

    def serve(self, request: Request) -> Awaitable[Response | None]:
        """Runs a stream on the request's socket until it ends, whoever ends it: None. An answer when there is none to
        be had.

        Cancelling leaves the socket for the caller to close. Raises nothing that a viewer can cause.
        """
        return _Stream(request.socket, self).run(request)  # no coroutine of its own: there are thousands

    def enter(self, asked: LiveRequest) -> None:
        self.services.admission.enter(asked.address)
        if asked.identity is not None:
            self.services.admission.identify(asked.identity.user)
        metrics.STREAM_CONNECTIONS.inc()

    def leave(self, asked: LiveRequest) -> None:
        metrics.STREAM_CONNECTIONS.dec()
        self.services.admission.leave(asked.address, asked.identity.user if asked.identity else None)


class _Stream:
    """One stream, from its head to its end."""

    __slots__ = ("_endpoint", "_expires", "_is_over", "_viewer")

    def __init__(self, socket: Socket, endpoint: StreamEndpoint) -> None:
        self._endpoint = endpoint
        self._viewer = Viewer(socket, self.end, wire.event_stream)
        self._viewer.wants_heartbeat = True  # a comment: whoever does not look for it does not see it
        self._expires = inf  # Unix seconds, of the token
        self._is_over = False

    async def run(self, request: Request) -> Response | None:
        endpoint, viewer, socket = self._endpoint, self._viewer, request.socket
        asked = CLOSING if endpoint.services.hub.closing else endpoint.requests.read(request)
        if isinstance(asked, Refusal):
            return endpoint.problem(asked, request.request_id)
        # Newer than the query's: a browser keeps the address when it reconnects. Kept as long as the stream, so a
        # longer one is not.
        since = request.header(b"last-event-id")[:SINCE_BYTES]
        asked = asked._replace(since=since.decode("latin-1") or asked.since)
        endpoint.enter(asked)  # in one step with the question whether there is room
        try:
            socket.deadline = trio.current_time() + HEAD_SECONDS
            await socket.send_all(endpoint.write_head(request, 200, FIELDS, None))
            if request.method == b"HEAD":
                return None
            request.drop_headers()  # http1 keeps it as long as the connection
            self._join(asked.identity)
            await self._begin(asked)
            enough = socket.received + UNASKED_BYTES
            while socket.received < enough:
                await socket.wait_readable()
                if socket.read_now() == b"":
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError) as left:
            log.debug("viewer_left", error=repr(left))
        finally:
            endpoint.services.hub.leave(viewer)
            viewer.forget()
            endpoint.leave(asked)
            socket.on_writable = socket.on_deadline = socket.on_behind = None
            socket.slow_reader_timeout = inf
        return None

    def _join(self, identity: Identity | None) -> None:
        viewer, socket, hub = self._viewer, self._viewer.socket, self._endpoint.services.hub
        hub.join(viewer)
        socket.on_deadline, socket.on_behind, socket.slow_reader_timeout = (
            self.check,
            self._behind,
            self._endpoint.rules.slow_reader_seconds,
        )
        if identity is not None:
            hub.identify(viewer, identity.user, identity.sid)
            self._expires = identity.expires
        self.check()
        if hub.closing:  # its good-byes have been said while the head went out
            self.end(CloseCode.RESTART)

    async def _begin(self, asked: LiveRequest) -> None:
        """What it is told first: our advice, who it is, the board."""
        viewer, services = self._viewer, self._endpoint.services
        services.hub.tell(viewer, b"retry: %d\n\n" % random.randint(*RETRY_MS))  # noqa: S311 – jitter
        if asked.identity is not None:
            await services.send_identity(viewer, asked.identity.user)
        await services.show_to(viewer, asked.board, delta=asked.delta, since=asked.since)

    def check(self) -> None:
        """Ends the stream when its token has, and sets the next deadline. Without a token there is none."""
        viewer, services = self._viewer, self._endpoint.services
        if viewer.sid is None:
            viewer.socket.deadline = inf
            return
        now, wall = trio.current_time(), services.clock()
        if wall >= self._expires or services.is_revoked(viewer.sid):
            self.end(CloseCode.TOKEN)
        else:
            viewer.socket.deadline = now + min(CHECK_SECONDS, self._expires - wall)

    def end(self, code: CloseCode) -> None:
        """Ends the body, without waiting; the reading task goes when the viewer has closed, or is closed after
        PARTING_SECONDS."""
        if self._is_over:
            return
        self._is_over = True
        viewer, socket, hub = self._viewer, self._viewer.socket, self._endpoint.services.hub
        if code is CloseCode.TOKEN:
            hub.tell(
                viewer,
                viewer.wrap(Event.ERROR, wire.error(LiveErrorCode.UNAUTHORIZED, "the token is not valid any more"), ""),
            )
        hub.leave(viewer)
        if socket.behind_since < inf or viewer.pending is not None:
            socket.close()  # it would not hear of the end either
            return
        socket.shut_writing()
        socket.on_writable = socket.on_deadline = socket.on_behind = None
        socket.deadline = trio.current_time() + PARTING_SECONDS

    def _behind(self) -> None:
        """It reads too slowly: closed at once. Counted with the WebSockets that are closed with 4413."""
        metrics.SLOW_READERS_CLOSED.inc()
        log.debug("viewer_too_slow", code=CloseCode.SLOW)
        self._viewer.socket.close()
