"""The long poll: a request that is answered when its board is another than the one that the client has.

`PollEndpoint.answer_fast` is a fast handler: the request waits in the hub as a `Poll`, without a task. The hub answers
it when it publishes new frames. `answer` does the same in a task, when the board must be read first. All polls that one
tick answers share a body.

A client that ends its side of the connection while it waits counts as gone, as in nginx: the poll ends at once and its
place is free. A client that only stopped sending still gets that answer. Where the system has no epoll, only the wait
bounds the poll.
"""

import re
from collections.abc import Callable
from math import inf

import trio

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.errors import Refusal
from scoreboard.http.handlers import DEFERRED, Deferred, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.live.dependencies import LiveDependencies, WebDependencies
from scoreboard.live.transports.query import LiveRequest, LiveRequestReader
from scoreboard.telemetry import metrics

# A client that was on another node may know a newer board than this node has published. A watched board is read once a
# second, whatever messages come: a position that we don't have after that long, and a tick, is none of this board.
MAX_AHEAD_SECONDS = 1.2

FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
UNCHANGED = Response(204, b"", b"cache-control: no-store\r\n")
# The client asks again after a second, and a balancer sends it to another node.
SHUTTING_DOWN = Response(204, b"", b"cache-control: no-store\r\nretry-after: 1\r\n")

_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})").fullmatch


def is_ahead(since: str, published: Snapshot) -> bool:
    """Whether `since` names a board that is newer than the one published here."""
    position = None if published.stale else _POSITION(since)
    return position is not None and (int(position[1]), int(position[2])) > (published.epoch, published.shown_version)


class PollEndpoint:
    """All long polls of this node."""

    __slots__ = ("_live", "_reader", "_web")

    def __init__(self, reader: LiveRequestReader, live: LiveDependencies, web: WebDependencies) -> None:
        self._reader, self._live, self._web = reader, live, web

    async def answer(self, request: Request) -> Response:
        """200 with the board when it is not the one of `since`; 204 when it still is after the wait, or when the node
        shuts down.

        Cancelling ends the poll. Raises StorageUnavailable when nobody has read the board and no store gives it.
        """
        live_request = self._reader.read(request)
        if isinstance(live_request, Refusal):
            return self._web.problems.problem(live_request, request.request_id)
        if request.method == b"HEAD":
            live_request = live_request._replace(wait=0.0)
        responded, responses = trio.Event(), list[Callable[[], Response]]()

        def respond(make_response: Callable[[], Response]) -> None:
            responses.append(make_response)
            responded.set()

        poll = WaitingPoll(request, live_request, self._live)
        try:
            if poll.must_refresh:
                await self._live.batcher.refresh(live_request.board)
            response = poll.start(respond)
            if response is None:
                request.is_timed = False
                await responded.wait()
                response = responses[0]()
            return response
        finally:
            poll.release()

    def answer_fast(self, request: Request, respond: RespondCallback) -> Response | Deferred | None:
        """The same without a task. None: the board must be read first."""
        live_request = self._reader.read(request)
        if isinstance(live_request, Refusal):
            return self._web.problems.problem(live_request, request.request_id)
        if not self._live.hub.is_current(live_request.board):
            return None
        poll = WaitingPoll(request, live_request, self._live)
        response = poll.start(respond)
        if response is None:
            request.is_timed = False
            return DEFERRED
        poll.release()
        return response


class WaitingPoll:
    """One request, from its arrival to its answer: a Poll of the hub."""

    __slots__ = (
        "_began_at",
        "_is_over",
        "_is_released",
        "_live",
        "_previous_on_deadline",
        "_request",
        "_respond",
        "_socket",
        "must_refresh",
    )

    def __init__(self, request: Request, live_request: LiveRequest, live: LiveDependencies) -> None:
        request.drop_headers(b"origin")  # which the head of the answer depends on
        self._request, self._live, self._socket = live_request, live, request.socket
        self._respond: RespondCallback | None = None  # until it waits
        self._is_released = False
        self._is_over = False  # it is answered with what there is, without waiting longer
        self._began_at = trio.current_time()
        self._previous_on_deadline, self._socket.on_deadline = self._socket.on_deadline, self.end_wait
        live.admission.admit(live_request.address)
        if live_request.identity is not None:
            live.admission.identify(live_request.identity.user)
        metrics.LONG_POLLS.inc()
        self.must_refresh = live.hub.add_poll(self, live_request.board)
        if (watcher := self._socket.watcher) is not None:
            watcher.on_eof = self.end_wait
            self._is_over = watcher.at_eof

    def start(self, respond: RespondCallback) -> Response | None:
        """The answer, if there is one now. Else it waits, and is released in the step in which it responds."""
        response = self._response_if_due()
        if response is None:
            self._respond = respond
        return response

    def on_frames(self) -> None:
        """The board has new frames: responds if they are an answer."""
        if self._respond is None or self._is_released:
            # `answer` calls `start` when the board has been read; or it was answered earlier in this broadcast
            return
        response = self._response_if_due()
        if response is not None:
            self.release()
            self._respond(lambda: response)

    def close(self, _code: CloseCode) -> None:
        """The node shuts down."""
        self.end_wait()

    def end_wait(self) -> None:
        """Its time has passed, or its client has left: responds with what there is."""
        self._is_over = True
        self.on_frames()

    def release(self) -> None:
        """Gives up its place and the socket's deadline. Idempotent."""
        if self._is_released:
            return
        self._is_released = True
        metrics.LONG_POLLS.dec()
        request, live, socket = self._request, self._live, self._socket
        live.hub.remove_poll(self, request.board)
        live.admission.release(request.address, request.identity.user if request.identity else None)
        if socket.fd >= 0:  # a socket that is closed has dropped both
            socket.on_deadline, socket.deadline = self._previous_on_deadline, inf
            if socket.watcher is not None:
                socket.watcher.on_eof = None

    def _response_if_due(self) -> Response | None:
        """The answer, if it is time for one; else the socket's deadline says until when it waits."""
        request, hub = self._request, self._live.hub
        frame_set = hub.frame_set(request.board)
        assert frame_set is not None  # refreshed, or watched already
        is_unchanged = frame_set.position == request.since
        if is_unchanged or is_ahead(request.since, frame_set.snapshot):
            until = self._began_at + (request.wait if is_unchanged else min(request.wait, MAX_AHEAD_SECONDS))
            if not (self._is_over or hub.is_shutting_down or trio.current_time() >= until):
                self._socket.deadline = until  # half a second late at most: a timer each would cost a kilobyte
                return None
        if is_unchanged:
            return SHUTTING_DOWN if hub.is_shutting_down else UNCHANGED
        return Response(200, frame_set.poll_body, FIELDS)
