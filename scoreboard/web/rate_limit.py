"""The checks before any handler: rate limits per address, foreign pages, a browser's preflight, unknown parameters.

http calls `check_request` (through web.listeners) for every request. Requests are counted by kind under the client's
address, so that the many requests of a page view do not use up the limit of a person's actions:

| kind of request | limit per minute and address |
|---|---|
| of a user whose token this node has verified | a user: `limits.ip_per_minute`; all users: USERS_LIMIT_FACTOR that |
| with a valid server key | `limits.server_key_per_minute` of the key, and nothing of the address |
| with a server key that is not valid | as many as log-ins: `limits.login_ip_per_minute` |
| file of the page, from memory | FILES_LIMIT_FACTOR |
| long poll without a token | POLLS_LIMIT_FACTOR |
| picture of a user | PICTURES_LIMIT_FACTOR |
| probe; `/metrics` | PROBES_PER_MINUTE each |
| sent by a foreign page's browser | always refused; beyond `limits.ip_per_minute` the connection is closed too |
| any other | `limits.ip_per_minute` |
"""

from collections.abc import Callable, Collection, Mapping
from uuid import UUID

import trio

from scoreboard.domain.errors import ORIGIN_NOT_ALLOWED, LimitLayer, rate_limited
from scoreboard.domain.paths import AVATAR_PREFIX, LIVEZ_PATH, METRICS_PATH, POLL_PATH, READYZ_PATH
from scoreboard.domain.queries import check_parameters
from scoreboard.domain.sliding_window import SlidingWindow
from scoreboard.http.request import Request, Response
from scoreboard.operations.server_keys import ServerIdentity
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import PROBES_PER_MINUTE, ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.problems import problem

# Factors of `limits.ip_per_minute`.
FILES_LIMIT_FACTOR = 30  # a page view loads fifteen files, and a school may have one address; a file costs 30 µs
PICTURES_LIMIT_FACTOR = 10  # a page view shows ten, and browsers keep them for an hour
USERS_LIMIT_FACTOR = 20  # room for 250 people of one address who each act ten times a minute and read the board
POLLS_LIMIT_FACTOR = 20  # room for 250 viewers of one address who have long polls alone: up to sixty a minute each

# Probes and metrics have limits of their own: they must not use up the limit of the orchestrator's or Prometheus'
# address.
PROBES = frozenset({LIVEZ_PATH.encode(), READYZ_PATH.encode()})
METRICS = METRICS_PATH.encode()
PICTURES = AVATAR_PREFIX.encode()
POLL = POLL_PATH.encode()


# A user or a server key, LOGIN for wrong server keys of an address, None for its other requests.
_Whose = UUID | ServerIdentity | LimitLayer | None


class RateLimitMiddleware:
    """`per_minute`: requests of one address, 0 for no limit (and none of probes). `clock` gives seconds and never goes
    back.

    `files`: paths of files in memory. `parameters`: what the query of each path of the API may have
    (route.query_parameters). `bearer`: recalls the user of a token that was verified before; None: all requests count
    under their address. `server_key_per_minute`: requests of a server key. `wrong_keys_per_minute`: requests of an
    address with keys that are not valid. 0 for no limit.
    """

    __slots__ = (
        "_addresses",
        "_bearer",
        "_clock",
        "_connections",
        "_files",
        "_files_window",
        "_foreign",
        "_heads",
        "_key_requests",
        "_limit",
        "_metrics",
        "_origins",
        "_parameters",
        "_pictures",
        "_polls",
        "_probes",
        "_users",
        "_users_of_address",
        "_window",
        "_wrong_keys",
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
        parameters: Mapping[bytes, frozenset[str]],
        bearer: Bearer | None = None,
        server_key_per_minute: int = 0,
        wrong_keys_per_minute: int = 0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._heads, self._origins, self._addresses, self._connections = heads, origins, addresses, connections
        self._files, self._parameters = frozenset(path.encode() for path in files), parameters
        self._bearer, self._clock, self._limit = bearer, clock, per_minute
        self._key_requests = SlidingWindow(server_key_per_minute)
        self._wrong_keys = SlidingWindow(wrong_keys_per_minute)
        self._window, self._foreign = SlidingWindow(per_minute), SlidingWindow(per_minute)
        probes = PROBES_PER_MINUTE if per_minute else 0
        self._probes, self._metrics = SlidingWindow(probes), SlidingWindow(probes)
        self._files_window = SlidingWindow(FILES_LIMIT_FACTOR * per_minute)
        self._pictures = SlidingWindow(PICTURES_LIMIT_FACTOR * per_minute)
        self._polls = SlidingWindow(POLLS_LIMIT_FACTOR * per_minute)
        self._users, self._users_of_address = SlidingWindow(per_minute), SlidingWindow(USERS_LIMIT_FACTOR * per_minute)

    def check_request(self, request: Request) -> Response | None:
        """The response that ends this request here; None: it goes on to its handler.

        A refusal in a flood also closes the connection (`_refuse`). Requests of foreign pages are counted apart, since
        the browser's user did not mean to send them. The client's address is stored with the request: its header fields
        may have been dropped when the access log needs it.
        """
        request.client_address = self._addresses.client(request)
        if request.has(b"sec-fetch-site") and self._origins.refuses_cross_site(request):
            if self._limit and self._foreign.admit(self._addresses.rate_limit_key(request), self._clock()):
                request.keep_alive = False
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        if self._limit or self._has_server_key(request):
            key = self._addresses.rate_limit_key(request)
            wait, whose = self._count(request, key)
            if wait:
                return self._too_many(request, key, wait, whose)
        if request.method == b"OPTIONS":
            return self._heads.preflight(request)
        if request.query and (known := self._parameters.get(request.path)) is not None:
            refusal = check_parameters(request.query, known)
            if refusal is not None:
                return problem(refusal, request.request_id)
        return None

    def count_malformed(self, request: Request) -> None:
        """Counts bytes that are no HTTP request: as one request, and as several connections."""
        if self._limit:
            key = self._addresses.rate_limit_key(request)
            self._connections.count_malformed(key)
            if self._window.admit(key, self._clock()):
                self._refuse(request, key)

    def _has_server_key(self, request: Request) -> bool:
        return self._bearer is not None and bool(self._bearer.presented_key(request))

    def _count(self, request: Request, key: str) -> tuple[int, _Whose]:
        """Counts a request under its kind. Returns the seconds until one is allowed, 0 when this one is; and whose
        limit was used up."""
        path, now = request.path, self._clock()
        if path in PROBES:
            return self._probes.admit(key, now), None
        if path == METRICS:
            return self._metrics.admit(key, now), None
        if path in self._files:
            return self._files_window.admit(key, now), None
        if path.startswith(PICTURES):
            return self._pictures.admit(key, now), None
        if self._bearer is not None and request.has(b"authorization"):
            if user := self._bearer.cached_identity(request):
                wait = self._users.admit(str(user), now)
                return (wait, user) if wait else (self._users_of_address.admit(key, now), None)
            if presented := self._bearer.presented_key(request):
                server = self._bearer.server_identity(presented)
                if server is not None:
                    return self._key_requests.admit(server.id, now), server
                wait = self._wrong_keys.admit(key, now)
                return (wait, LimitLayer.LOGIN) if wait or not self._limit else (self._window.admit(key, now), None)
        if path == POLL:
            return self._polls.admit(key, now), None
        return self._window.admit(key, now), None

    def _too_many(self, request: Request, key: str, wait: int, whose: _Whose) -> Response:
        """The answer to a request above its limit."""
        layer, what, account = LimitLayer.IP, "Too many requests from this address.", ""
        if isinstance(whose, UUID):
            what, account = "Too many requests of this account.", str(whose)
        elif isinstance(whose, ServerIdentity):
            layer, what, account = LimitLayer.SERVER_KEY, "Too many requests of this server key.", whose.actor
        elif whose is not None:
            layer, what = whose, "Too many wrong server keys from this address."
        self._refuse(request, key, account)
        return problem(rate_limited(layer, what, wait), request.request_id)

    def _refuse(self, request: Request, key: str, account: str = "") -> None:
        """Counts a refusal, of `account` (a user or a server key) or else of the address. In a flood it closes the
        connection, unless that is a trusted proxy's, which carries requests of others too.

        One user's flood does not block the address, which others may share. It costs the user a connection for each
        request, and connections have a rate (ConnectionLimits).
        """
        connections = self._connections
        is_flood = connections.count_refusal(key) if not account else connections.count_user_refusal(account, key)
        if is_flood and not self._addresses.trusts(request.socket.peer[0]):
            request.keep_alive = False
