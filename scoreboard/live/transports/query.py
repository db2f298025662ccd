"""Reads and checks the request of a stream or a long poll: what it asks for, and which user it is of.

`LiveRequestReader.read` is called once, before the response begins. It returns a `LiveRequest` or a Refusal, which the
caller answers as a problem. A token may come as `?token=`, since an EventSource of a browser can't set headers; the
header counts when both are there.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD, Board
from scoreboard.domain.errors import ORIGIN_NOT_ALLOWED, UNAUTHORIZED, Refusal, invalid_request
from scoreboard.domain.queries import OUT_OF_BOUNDS, parse_query
from scoreboard.http.request import Request
from scoreboard.live.admission import REFUSALS
from scoreboard.live.dependencies import Identity, LiveDependencies, WebDependencies
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.conversation import MODES

DEFAULT_WAIT_SECONDS = 25.0  # of a long poll: below the 30 s after which many proxies give up
MAX_WAIT_SECONDS = 30.0  # contract
MAX_CACHED_QUERY_BYTES = 128  # a longer query is rarely sent twice
CACHED_QUERIES = 256  # at most 0.2 MB; full: the least recently used one goes

_SECONDS = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?").fullmatch


class LiveQuery(NamedTuple):
    """What a query string says. There may be no such channel."""

    channel: str
    since: str  # the position that the client has; "" for none
    delta: bool
    wait: float  # seconds
    token: str | None

    def __repr__(self) -> str:
        return f"LiveQuery({self.channel!r}, {self.since!r})"  # never the token


class LiveRequest(NamedTuple):
    """A request that may be served."""

    board: Board
    since: str
    delta: bool
    wait: float
    identity: Identity | None
    address: str  # the key under which the client is counted


class LiveRequestReader:
    """Reads and checks requests; one for both transports."""

    __slots__ = ("_limits", "_live", "_web")

    def __init__(self, live: LiveDependencies, limits: LiveLimits, web: WebDependencies) -> None:
        self._live, self._limits, self._web = live, limits, web

    def read(self, request: Request) -> LiveRequest | Refusal:
        """What is asked for, or why it is refused: a foreign page, a bad value, no valid token, no room, in this
        order."""
        # CORS would hide the answer from that page, but not keep it from holding connections
        if not self._web.origins.allows(request):
            return ORIGIN_NOT_ALLOWED
        query = read_query(request.query)
        if isinstance(query, Refusal):
            return query
        board = self._live.hub.find_board(query.channel)
        if board is None:
            return invalid_request("channel", "there is no such channel")
        identity = self._web.bearer.identify(request)
        if identity is None and query.token is not None:
            identity = self._live.authenticator.authenticate(query.token) or UNAUTHORIZED
        if isinstance(identity, Refusal):
            return identity
        if identity is None and not self._limits.anonymous:
            return UNAUTHORIZED
        address, admission = self._web.addresses.rate_limit_key(request), self._live.admission
        limit = admission.limit_reached(address) or (admission.user_limit_reached(identity.user) if identity else None)
        if limit:
            return REFUSALS[limit]
        return LiveRequest(board, query.since, query.delta, query.wait, identity, address)


def read_query(query: bytes) -> LiveQuery | Refusal:
    """What a query string asks for. web.rate_limit has already refused unknown parameters."""
    if len(query) > MAX_CACHED_QUERY_BYTES or b"token" in query:
        return _read_query(query)
    return _read_query_cached(query)


def _read_query(query: bytes) -> LiveQuery | Refusal:
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    for name in ("channel", "mode", "since", "token", "wait"):
        if len(values.get(name, ())) > 1:
            return invalid_request(name, "may be given once")
    channel, since, mode, wait = (
        values.get(name, [default])[0]
        for name, default in (("channel", LEADERBOARD.id), ("since", ""), ("mode", "full"), ("wait", ""))
    )
    if mode not in MODES:
        return invalid_request("mode", "must be full or delta")
    if "wait" in values and (not _SECONDS(wait) or float(wait) > MAX_WAIT_SECONDS):
        return invalid_request("wait", f"must be a number of seconds from 0 to {MAX_WAIT_SECONDS:.0f}")
    token = values["token"][0] if "token" in values else None
    return LiveQuery(channel, since, mode == "delta", float(wait) if wait else DEFAULT_WAIT_SECONDS, token)


# Clients that wait for the same change send the same query, and reading one costs as much as a write to a socket.
_read_query_cached = lru_cache(maxsize=CACHED_QUERIES)(_read_query)


def query_token(request: Request) -> str | None:
    """The query's token; None without one. "", which is never valid, when it is empty, when there are two, and when the
    query is out of bounds."""
    if b"token" not in request.query:
        return None
    parsed = parse_query(request.query)
    if parsed is None:
        return ""
    values = parsed.get("token", [])
    return None if not values else values[0] if len(values) == 1 else ""
