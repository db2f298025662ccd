"""The long poll: a request that is answered when its board is another than the one that the client has.

`PollEndpoint.answer` is a handler of the express table. It waits as a `Poll` in the hub and does not watch the socket: its wait is bounded,
and the connection goes on after it. All who wait for one tick share its body.
"""

import re
from collections.abc import Callable
from math import inf

import trio

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.errors import Refusal
from scoreboard.live.conversation import Services
from scoreboard.live.requests import Asked, Requests
from scoreboard.live.viewer import Poll
from scoreboard.runtime import observe
from scoreboard.runtime.messages import Request, Response
from scoreboard.runtime.sockets import Socket

# A client that was on another node may know a newer board than this node has shown. A watched board is read once a second, whatever is
# heard of it: after that long, and a tick, a position that we still don't have is none of this board.
AHEAD_SECONDS = 1.2

FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
NOTHING = Response(204, b"", b"cache-control: no-store\r\n")
LEAVING = Response(204, b"", b"cache-control: no-store\r\nretry-after: 1\r\n")  # it comes back elsewhere, and not at once

_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})").fullmatch


def is_ahead(since: str, shown: Snapshot) -> bool:
    """Whether `since` names a board that is newer than the one shown here."""
    position = None if shown.stale else _POSITION(since)
    return position is not None and (int(position[1]), int(position[2])) > (shown.epoch, shown.top)


class PollEndpoint:
    """All long polls of this node. `problem` comes from the web."""

    __slots__ = ("_problem", "_requests", "_services")

    def __init__(self, requests: Requests, services: Services, *, problem: Callable[[Refusal, bytes], Response]) -> None:
        self._requests, self._services, self._problem = requests, services, problem

    async def answer(self, request: Request) -> Response:
        """200 with the board when it is not the one of `since`, 204 when it still is after the wait, or when the node is leaving.

        Cancelling forgets the poll. Raises StorageUnavailable when nobody has read the board and no store gives it.
        """
        asked = self._requests.read(request)
        if isinstance(asked, Refusal):
            return self._problem(asked, request.request_id)
        if request.method == b"HEAD":
            asked = asked._replace(wait=0.0)
        services, socket, poll = self._services, request.socket, Poll()
        user = asked.identity.user if asked.identity else None
        request.forget(b"origin")  # which the head of the answer depends on
        services.admission.enter(asked.address)
        if user is not None:
            services.admission.identify(user)
        late, socket.on_deadline = socket.on_deadline, poll.end
        observe.LONG_POLLS.inc()
        try:
            if services.hub.wait(poll, asked.board):
                await services.refresh(asked.board)
            return await self._news(poll, asked, socket)
        finally:
            observe.LONG_POLLS.dec()
            services.hub.forget(poll, asked.board)
            services.admission.leave(asked.address, user)
            if socket.fd >= 0:
                socket.on_deadline, socket.deadline = late, inf

    async def _news(self, poll: Poll, asked: Asked, socket: Socket) -> Response:
        hub, begun = self._services.hub, trio.current_time()
        while True:
            prepared = hub.prepared(asked.board)
            assert prepared is not None  # refreshed, or watched already
            is_current = prepared.position == asked.since
            if not is_current and not is_ahead(asked.since, prepared.snapshot):
                break
            until = begun + (asked.wait if is_current else min(asked.wait, AHEAD_SECONDS))
            if poll.over or hub.closing or trio.current_time() >= until:
                break
            socket.deadline = until  # the sweeper's, half a second late at most: a scope a poll would cost a kilobyte
            await poll.wait()
        if is_current:
            return LEAVING if hub.closing else NOTHING
        return Response(200, prepared.answer, FIELDS)
