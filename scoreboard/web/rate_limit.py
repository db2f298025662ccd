"""What every request passes before any door: its number, which page asks, its form, and the answer to a browser's
preflight.

Requests are counted under their address, by kind, so that what comes in numbers with each page view does not use up
what people do:

| kind | most a minute of an address |
|---|---|
| all requests that are none of the below | `limits.ip_per_minute` |
| of a logged-in user, whose token this node has verified before | the same of the user; USERS_TIMES as many of all users of the address |
| files of the page, which are at hand | FILES_TIMES |
| long polls of those who are not logged in | POLLS_TIMES |
| pictures of users | PICTURES_TIMES |
| probes; `/metrics` | PROBES_PER_MINUTE each |
| what a foreign page has a browser ask | always refused; beyond `limits.ip_per_minute` of them, counted apart, the connection ends too |
"""

from collections.abc import Callable, Collection, Iterable
from uuid import UUID

import trio

from scoreboard.domain.errors import ORIGIN_NOT_ALLOWED, Code, Refusal
from scoreboard.domain.paths import (
    AVATAR_PREFIX,
    LEADERBOARD_PATH,
    LIVE_PATH,
    LIVEZ_PATH,
    METRICS_PATH,
    POLL_PATH,
    READYZ_PATH,
    STREAM_PATH,
)
from scoreboard.domain.queries import check_parameters
from scoreboard.domain.sliding_window import SlidingWindow
from scoreboard.http.request import Request, Response
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import PROBES_PER_MINUTE, ConnectionLimits
from scoreboard.web.cors import API, Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.problems import problem

# have a limit of their own: the orchestrator's address must not use up its requests, or ours
PROBES = frozenset({LIVEZ_PATH.encode(), READYZ_PATH.encode()})
# the same: Prometheus may ask for many rules from one address, and a scrape costs more than a probe
METRICS = METRICS_PATH.encode()
# times `per_minute`: a page view asks for fifteen files, and a school may have one address. From memory, 30 µs each
FILES_TIMES = 30
PICTURES_TIMES = 10  # times: a page view shows ten; browsers keep them for an hour
USERS_TIMES = 20  # times: 250 people of one address who each act ten times a minute and look where they are leave room
POLLS_TIMES = 20  # times: 250 viewers of one address without WebSocket and streams ask up to sixty times a minute each
PICTURES = AVATAR_PREFIX.encode()
POLL = POLL_PATH.encode()
# What each route of the API may be asked in its query; every other route: nothing. What is no route is asked nothing:
# it is not found.
PARAMETERS = {
    LEADERBOARD_PATH.encode(): frozenset({"limit"}),
    LIVE_PATH.encode(): frozenset({"token"}),
    STREAM_PATH.encode(): frozenset({"channel", "mode", "since", "token"}),
    POLL: frozenset({"channel", "since", "token", "wait"}),
}
NO_PARAMETERS = frozenset[str]()


class RateLimitMiddleware:
    """`per_minute`: requests of one address, 0 for no limit (and none of probes). `clock` gives seconds and never goes
    back.

    `files`: paths of files that are at hand. `routes`: all paths that lead somewhere; parameters are checked on those
    of the API. `recall`: the user whose token a request carries, if that was verified before.
    """

    __slots__ = (
        "_addresses",
        "_clock",
        "_connections",
        "_files",
        "_files_window",
        "_foreign",
        "_heads",
        "_limit",
        "_metrics",
        "_origins",
        "_pictures",
        "_polls",
        "_probes",
        "_recall",
        "_routes",
        "_users",
        "_users_of_address",
        "_window",
    )

    def __init__(
        self,
        heads: ResponseHeaders,
        origins: Origins,
        addresses: Addresses,
        connections: ConnectionLimits,
        per_minute: int,
        *,
        files: Collection[str] = (),
        routes: Iterable[str] = (),
        recall: Callable[[Request], UUID | None] = lambda _request: None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._heads, self._origins, self._addresses, self._connections, self._clock = (
            heads,
            origins,
            addresses,
            connections,
            clock,
        )
        self._limit, self._window = per_minute, SlidingWindow(per_minute)
        self._probes, self._metrics, self._foreign = (
            SlidingWindow(PROBES_PER_MINUTE),
            SlidingWindow(PROBES_PER_MINUTE),
            SlidingWindow(per_minute),
        )
        self._files, self._recall = frozenset(path.encode() for path in files), recall
        self._routes = {path.encode(): NO_PARAMETERS for path in routes if path.encode().startswith(API)} | PARAMETERS
        self._files_window, self._pictures = (
            SlidingWindow(FILES_TIMES * per_minute),
            SlidingWindow(PICTURES_TIMES * per_minute),
        )
        self._polls = SlidingWindow(POLLS_TIMES * per_minute)
        self._users, self._users_of_address = SlidingWindow(per_minute), SlidingWindow(USERS_TIMES * per_minute)

    def before(self, request: Request) -> Response | None:
        """The answer that ends this request here, or None: it may go on. In a flood it ends the connection too; see
        `_refuse`.

        What a foreign page has a browser ask is counted apart: it costs the browser's owner neither his requests nor
        his connections. The client's address is noted with the request, whose fields may be gone when the access log
        asks.
        """
        request.client_address = self._addresses.client(request)
        if request.has(b"sec-fetch-site") and self._origins.refuses_site(request):
            if self._limit and self._foreign.admit(self._addresses.counted(request), self._clock()):
                request.keep_alive = False
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        if self._limit:
            key = self._addresses.counted(request)
            wait, user = self._count(request, key)
            if wait:
                self._refuse(request, key, user)
                whose = "from this address" if user is None else "of this account"
                return problem(limited("ip", f"Too many requests {whose}.", wait), request.request_id)
        if request.method == b"OPTIONS":
            return self._heads.preflight(request)
        if request.query and (known := self._routes.get(request.path)) is not None:
            refusal = check_parameters(request.query, known)
            if refusal is not None:
                return problem(refusal, request.request_id)
        return None

    def malformed(self, request: Request) -> None:
        """What is no request counts as one, and as many connections."""
        if self._limit:
            key = self._addresses.counted(request)
            self._connections.charge(key)
            if self._window.admit(key, self._clock()):
                self._refuse(request, key)

    def _count(self, request: Request, key: str) -> tuple[int, UUID | None]:
        """Counts a request as one of its kind: 0. Or, if there were too many of these: the seconds until the next, and
        whose they were: the user's, or None: the address'."""
        path, now = request.path, self._clock()
        if path in PROBES:
            return self._probes.admit(key, now), None
        if path == METRICS:
            return self._metrics.admit(key, now), None
        if path in self._files:
            return self._files_window.admit(key, now), None
        if path.startswith(PICTURES):
            return self._pictures.admit(key, now), None
        if request.has(b"authorization") and (user := self._recall(request)) is not None:
            wait = self._users.admit(str(user), now)
            return (wait, user) if wait else (self._users_of_address.admit(key, now), None)
        if path == POLL:
            return self._polls.admit(key, now), None
        return self._window.admit(key, now), None

    def _refuse(self, request: Request, key: str, user: UUID | None = None) -> None:
        """Counts a refusal: of `user`, or of the address. In a flood the connection ends with it, unless it is a
        trusted proxy's, which carries others' requests too.

        One user's flood does not block the address, which others may share: it costs the user a connection for each
        request, and these have a rate (ConnectionLimits).
        """
        connections = self._connections
        is_flood = connections.count_refusal(key) if user is None else connections.count_user_refusal(str(user), key)
        if is_flood and not self._addresses.trusts(request.socket.peer[0]):
            request.keep_alive = False


def limited(layer: str, what: str, seconds: int) -> Refusal:
    """429 of that layer."""
    return Refusal(Code.RATE_LIMITED, f"{what} Next in {seconds} s.", retry_after=seconds, layer=layer)
