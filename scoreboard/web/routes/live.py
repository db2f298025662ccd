"""The routes of the three live transports: WebSocket, event stream, long poll. live.transports implements them.

Web and live do not import each other, so the transports are named by Protocols here. Quart serves none of them: a
stream keeps its socket, and thousands of long polls wait at the same time. Tested in tests/web/test_openapi.py.
"""

from collections.abc import Awaitable, Iterator
from typing import Protocol

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.paths import LIVE_PATH, POLL_PATH, STREAM_PATH
from scoreboard.http.handlers import Deferred, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.web.problems import problem
from scoreboard.web.route import Route
from scoreboard.web.schemas import (
    EventStream,
    LiveQuery,
    PolledAnswer,
    PollQuery,
    StreamHeaders,
    StreamQuery,
    Unchanged,
)

UPGRADE_REQUIRED = Refusal(
    Code.UPGRADE_REQUIRED, f"This is a WebSocket, version 13. {STREAM_PATH} has the same as plain HTTP."
)
# RFC 9110 section 15.5.22, RFC 6455 section 4.4
UPGRADE_FIELDS = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"


class WebSocketTransport(Protocol):
    """live.transports.websocket."""

    def refusal(self, request: Request) -> Refusal | None:
        """Why a handshake would be refused now; None: there is room."""


class StreamTransport(Protocol):
    """live.transports.sse."""

    def serve(self, request: Request) -> Awaitable[Response | None]:
        """Serves an event stream until it ends; a Response when it is refused."""


class PollTransport(Protocol):
    """live.transports.long_poll."""

    def answer(self, request: Request) -> Awaitable[Response]:
        """Waits for the board to change."""

    def answer_fast(self, request: Request, reply: RespondCallback) -> Response | Deferred | None:
        """The same without a task."""


class LiveRoutes:
    """The routes of the live transports."""

    def __init__(self, websocket: WebSocketTransport, stream: StreamTransport, poll: PollTransport) -> None:
        self._websocket, self._stream, self._poll = websocket, stream, poll

    def routes(self) -> Iterator[Route]:
        """All three; Quart serves none of them."""
        yield Route(
            method="GET",
            path=STREAM_PATH,
            handler=self._stream.serve,
            direct=True,
            quart=False,
            summary="Watch the board as a stream of events.",
            auth="optional",
            query_type=StreamQuery,
            headers_type=StreamHeaders,
            response_type=EventStream,
            errors=(401, 403),
        )
        yield Route(
            method="GET",
            path=POLL_PATH,
            handler=self._poll.answer,
            fast=self._poll.answer_fast,
            direct=True,
            quart=False,
            summary="Wait for the board to change.",
            auth="optional",
            query_type=PollQuery,
            response_type=PolledAnswer,
            other_responses=((204, Unchanged),),
            errors=(401, 403),
        )
        yield Route(
            method="GET",
            path=LIVE_PATH,
            handler=self.upgrade_required,
            direct=True,
            quart=False,
            auth="optional",
            query_type=LiveQuery,
        )

    async def upgrade_required(self, request: Request) -> Response:
        """The response to a request for the WebSocket's path that is no handshake; http.connection upgrades handshakes.

        A page whose handshake failed sends such a request to find the reason: its script can't read the response to a
        handshake.
        """
        refusal = self._websocket.refusal(request)
        return problem(refusal or UPGRADE_REQUIRED, request.request_id, fields=b"" if refusal else UPGRADE_FIELDS)
