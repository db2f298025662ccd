"""The long poll: a request that is answered when its board is another than the one that the client has.

`PollEndpoint.answer_fast` is of the prompt table: it waits as a `Poll` in the hub, without a task, and is replied to
by whoever brings the news. `answer` does the same for whoever must have the board read first. All who wait for one tick
share its body.

A client that ends its side of the connection while it waits has left, as it has for nginx: the poll is over at once,
and its place is another's. Whoever only stopped sending gets the answer of a wait that is over. Where the system has no
epoll the wait alone is the bound.
"""

import re
from collections.abc import Callable
from math import inf

import trio

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.errors import Refusal
from scoreboard.http.handlers import DEFERRED, Deferred, Respond
from scoreboard.http.request import Request, Response
from scoreboard.live.transports.conversation import LiveDependencies
from scoreboard.live.transports.query import LiveRequest, Requests
from scoreboard.live.viewer import Poll
from scoreboard.telemetry import metrics

# A client that was on another node may know a newer board than this node has shown. A watched board is read once a
# second, whatever is heard of it: after that long, and a tick, a position that we still don't have is none of this
# board.
AHEAD_SECONDS = 1.2

FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
NOTHING = Response(204, b"", b"cache-control: no-store\r\n")
# it comes back elsewhere, and not at once
LEAVING = Response(204, b"", b"cache-control: no-store\r\nretry-after: 1\r\n")

_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})").fullmatch


def is_ahead(since: str, shown: Snapshot) -> bool:
    """Whether `since` names a board that is newer than the one shown here."""
    position = None if shown.stale else _POSITION(since)
    return position is not None and (int(position[1]), int(position[2])) > (shown.epoch, shown.top)


class PollEndpoint:
    """All long polls of this node. `problem` comes from the web."""

    __slots__ = ("_problem", "_requests", "_services")

    def __init__(
        self, requests: Requests, services: LiveDependencies, *, problem: Callable[[Refusal, bytes], Response]
    ) -> None:
        self._requests, self._services, self._problem = requests, services, problem

    async def answer(self, request: Request) -> Response:
        """200 with the board when it is not the one of `since`, 204 when it still is after the wait, or when the node
        is leaving.

        Cancelling forgets the poll. Raises StorageUnavailable when nobody has read the board and no store gives it.
        """
        asked = self._requests.read(request)
        if isinstance(asked, Refusal):
            return self._problem(asked, request.request_id)
        if request.method == b"HEAD":
            asked = asked._replace(wait=0.0)
        replied, made = trio.Event(), list[Callable[[], Response]]()

        def reply(make: Callable[[], Response]) -> None:
            made.append(make)
            replied.set()

        waiting = _Waiting(request, asked, self._services)
        try:
            if waiting.is_cold:
                await self._services.refresh(asked.board)
            answer = waiting.begin(reply)
            if answer is None:
                request.is_timed = False
                await replied.wait()
                answer = made[0]()
            return answer
        finally:
            waiting.leave()

    def answer_fast(self, request: Request, reply: Respond) -> Response | Deferred | None:
        """The same without a task. None: the board must be read first."""
        asked = self._requests.read(request)
        if isinstance(asked, Refusal):
            return self._problem(asked, request.request_id)
        if not self._services.hub.is_warm(asked.board):
            return None
        waiting = _Waiting(request, asked, self._services)
        answer = waiting.begin(reply)
        if answer is None:
            request.is_timed = False
            return DEFERRED
        waiting.leave()
        return answer


class _Waiting:
    """One poll, from its coming to its answer."""

    __slots__ = ("_asked", "_begun", "_has_left", "_late", "_poll", "_reply", "_services", "_socket", "is_cold")

    def __init__(self, request: Request, asked: LiveRequest, services: LiveDependencies) -> None:
        request.drop_headers(b"origin")  # which the head of the answer depends on
        self._asked, self._services, self._socket = asked, services, request.socket
        self._reply: Respond | None = None  # until it waits
        self._has_left = False
        self._poll = Poll(self._wake)
        self._begun = trio.current_time()
        self._late, self._socket.on_deadline = self._socket.on_deadline, self._poll.end
        services.admission.enter(asked.address)
        if asked.identity is not None:
            services.admission.identify(asked.identity.user)
        metrics.LONG_POLLS.inc()
        self.is_cold = services.hub.wait(self._poll, asked.board)  # what is shown may be out of date
        if (watcher := self._socket.watcher) is not None:
            watcher.on_eof = self._poll.end
            self._poll.over = watcher.at_eof

    def begin(self, reply: Respond) -> Response | None:
        """The answer, if there is one now; else it waits, and leaves with its reply."""
        answer = self._look()
        if answer is None:
            self._reply = reply
        return answer

    def _look(self) -> Response | None:
        """The answer, if it is time for one; else the sweeper is told until when to wait."""
        asked, hub = self._asked, self._services.hub
        prepared = hub.prepared(asked.board)
        assert prepared is not None  # refreshed, or watched already
        is_current = prepared.position == asked.since
        if is_current or is_ahead(asked.since, prepared.snapshot):
            until = self._begun + (asked.wait if is_current else min(asked.wait, AHEAD_SECONDS))
            if not (self._poll.over or hub.closing or trio.current_time() >= until):
                self._socket.deadline = until  # half a second late at most: a timer each would cost a kilobyte
                return None
        if is_current:
            return LEAVING if hub.closing else NOTHING
        return Response(200, prepared.answer, FIELDS)

    def leave(self) -> None:
        """Counts no more, and gives the socket's deadline back. Idempotent."""
        if self._has_left:
            return
        self._has_left = True
        metrics.LONG_POLLS.dec()
        asked, services, socket = self._asked, self._services, self._socket
        services.hub.forget(self._poll, asked.board)
        self._poll.forget()
        services.admission.leave(asked.address, asked.identity.user if asked.identity else None)
        if socket.fd >= 0:
            socket.on_deadline, socket.deadline = self._late, inf
            if socket.watcher is not None:
                socket.watcher.on_eof = None

    def _wake(self) -> None:
        if self._reply is None or self._has_left:
            # it looks for itself when the board has been read; or was answered while the hub was on its way to it
            return
        answer = self._look()
        if answer is not None:
            self.leave()
            self._reply(lambda: answer)
