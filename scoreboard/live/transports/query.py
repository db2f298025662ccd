"""What a stream or a long poll is asked for, and by whom; what is refused becomes a problem like everywhere else.

Read once, before anything is promised: `Requests.read` gives what was `LiveRequest`, or a Refusal. A token may come as
`?token=`, since an EventSource of a browser can't set headers; the header counts when both are there.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import ORIGIN_NOT_ALLOWED, UNAUTHORIZED, Refusal, invalid_request
from scoreboard.domain.queries import OUT_OF_BOUNDS, parse_query
from scoreboard.http.request import Request
from scoreboard.live.admission import REFUSALS
from scoreboard.live.transports.conversation import MODES, Identity, LiveDependencies, LiveLimits

WAIT = 25.0  # seconds a long poll waits unless it says otherwise: below the 30 s after which many proxies give up
LONGEST_WAIT = 30.0  # seconds; contract
SAME = 128  # bytes of a query that others may send too

_SECONDS = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?").fullmatch


class Query(NamedTuple):
    """What a query string says; its board may be unknown."""

    board: str
    since: str  # the position that the client has; "" for none
    delta: bool
    wait: float  # seconds
    token: str | None

    def __repr__(self) -> str:
        return f"Query({self.board!r}, {self.since!r})"  # never the token


class LiveRequest(NamedTuple):
    """A request that may be served."""

    board: str
    since: str
    delta: bool
    wait: float
    identity: Identity | None
    address: str  # under which the client is counted


class Requests:
    """`origin_allowed`, `client_address` and `identify` (of the Authorization header; None: there is none) come from
    the web."""

    __slots__ = ("_client_address", "_identify", "_origin_allowed", "_rules", "_services")

    def __init__(
        self,
        services: LiveDependencies,
        rules: LiveLimits,
        *,
        origin_allowed: Callable[[Request], bool],
        client_address: Callable[[Request], str],
        identify: Callable[[Request], Identity | Refusal | None],
    ) -> None:
        self._services, self._rules = services, rules
        self._origin_allowed, self._client_address, self._identify = origin_allowed, client_address, identify

    def read(self, request: Request) -> LiveRequest | Refusal:
        """What is asked for, or why it is refused: a foreign page, a bad value, no valid token, no room, in this
        order."""
        # CORS would hide the answer from that page, but not keep it from holding connections
        if not self._origin_allowed(request):
            return ORIGIN_NOT_ALLOWED
        asked = read_query(request.query)
        if isinstance(asked, Refusal):
            return asked
        if not self._services.hub.knows(asked.board):
            return invalid_request("channel", "there is no such channel")
        identity = self._identify(request)
        if identity is None and asked.token is not None:
            identity = self._services.authenticate(asked.token) or UNAUTHORIZED
        if isinstance(identity, Refusal):
            return identity
        if identity is None and not self._rules.anonymous:
            return UNAUTHORIZED
        address, admission = self._client_address(request), self._services.admission
        full = admission.refuses(address) or (admission.refuses_user(identity.user) if identity else None)
        return (
            REFUSALS[full]
            if full
            else LiveRequest(asked.board, asked.since, asked.delta, asked.wait, identity, address)
        )


def read_query(query: bytes) -> Query | Refusal:
    """What a query string asks for. Unknown parameters were refused before, by web.rate_limit."""
    if len(query) > SAME or b"token" in query:
        return _read_query(query)  # nobody else's
    return _read_same(query)


def _read_query(query: bytes) -> Query | Refusal:
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    for name in ("channel", "mode", "since", "token", "wait"):
        if len(values.get(name, ())) > 1:
            return invalid_request(name, "may be given once")
    board, since, mode, wait = (
        values.get(name, [default])[0]
        for name, default in (("channel", LEADERBOARD.id), ("since", ""), ("mode", "full"), ("wait", ""))
    )
    if mode not in MODES:
        return invalid_request("mode", "must be full or delta")
    if "wait" in values and (not _SECONDS(wait) or float(wait) > LONGEST_WAIT):
        return invalid_request("wait", f"must be a number of seconds from 0 to {LONGEST_WAIT:.0f}")
    return Query(
        board, since, mode == "delta", float(wait) if wait else WAIT, values["token"][0] if "token" in values else None
    )


# Who wait for the same change ask alike, and reading costs as much as a write to a socket. At most 0.2 MB.
_read_same = lru_cache(maxsize=256)(_read_query)


def query_token(request: Request) -> str | None:
    """The query's token; None without one. An empty one is one, and not valid; so are two, and any in a query beyond
    its bounds."""
    if b"token" not in request.query:
        return None
    parsed = parse_query(request.query)
    if parsed is None:
        return ""
    values = parsed.get("token", [])
    return None if not values else values[0] if len(values) == 1 else ""
