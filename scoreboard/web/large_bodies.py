"""Bodies of more than BODY_BYTES: which routes take them, from whom, and how many at once.

A body is held in memory while it comes, and its client decides how long that takes. So a large one is accepted only
from a caller whose token or server key is valid, within a bound for each caller and one for the node. Synchronous, so
atomic on one loop. Tested in tests/web/test_large_bodies.py.
"""

from collections.abc import Callable, Hashable, Iterable

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import out_of_service
from scoreboard.http.request import BODY_BYTES, Request
from scoreboard.web.route import Auth, Route

MAX_BYTES_AT_ONCE = 16_777_216  # of all large bodies that are coming in; full: 503
MAX_CALLER_BYTES_AT_ONCE = 2_097_152  # of one caller; full: 503

FULL = out_of_service("Too many large bodies are being received. Try again.")


class LargeBodyLimits:
    """`identify` returns who sends a request to a route with that `auth`, by a valid token or server key; a Refusal for
    nobody."""

    __slots__ = ("_at_once", "_callers", "_identify", "_reserved", "_routes")

    def __init__(self, routes: Iterable[Route], identify: Callable[[Request, Auth], Hashable | Refusal]) -> None:
        # method, path or its part before a parameter, whether it has one, bytes, auth
        self._routes = [
            (route.method.encode(), path.encode(), bool(parameter), route.max_body_bytes, route.auth)
            for route in routes
            if route.max_body_bytes > BODY_BYTES
            for path, parameter, _ in [route.path.partition("<")]
        ]
        self._identify = identify
        self._reserved: dict[Request, tuple[Hashable, int]] = {}
        self._callers: dict[Hashable, int] = {}  # bytes of each caller
        self._at_once = 0

    def reserve(self, request: Request, size: int) -> Refusal | None:
        """None: a body of `size` bytes is accepted, until `release` is called. Else why not."""
        limit, auth = self._limit(request)
        if size > limit:
            return Refusal(Code.PAYLOAD_TOO_LARGE, f"a body may have {limit} bytes")
        caller = self._identify(request, auth)
        if isinstance(caller, Refusal):
            return caller
        of_caller = self._callers.get(caller, 0) + size
        if of_caller > MAX_CALLER_BYTES_AT_ONCE or self._at_once + size > MAX_BYTES_AT_ONCE:
            return FULL
        self._reserved[request] = (caller, size)
        self._callers[caller] = of_caller
        self._at_once += size
        return None

    def release(self, request: Request) -> None:
        """The body has come, or never will. A second call for a request has no effect."""
        caller, size = self._reserved.pop(request, (None, 0))
        if not size:
            return
        self._at_once -= size
        self._callers[caller] -= size
        if not self._callers[caller]:
            del self._callers[caller]

    def _limit(self, request: Request) -> tuple[int, Auth]:
        for method, path, has_parameter, limit, auth in self._routes:
            if request.method == method and (request.path.startswith(path) if has_parameter else request.path == path):
                return limit, auth
        return BODY_BYTES, "required"
