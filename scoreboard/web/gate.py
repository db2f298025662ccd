"""What every request passes before any door: its number, which page asks, its form, and the answer to a browser's preflight."""

from collections.abc import Callable

import trio

from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.domain.queries import QUERY_BYTES
from scoreboard.domain.sliding_window import SlidingWindow
from scoreboard.runtime.messages import Request, Response
from scoreboard.web.addresses import Addresses
from scoreboard.web.connection_limits import PROBES_PER_MINUTE, ConnectionLimits
from scoreboard.web.heads import Heads
from scoreboard.web.origins import FOREIGN, Origins
from scoreboard.web.problems import problem

PROBES = frozenset({b"/livez", b"/readyz"})  # have a limit of their own: the orchestrator's address must not use up its requests, or ours
METRICS = b"/metrics"  # has none: Prometheus asks from one address for all its rules, and the balancers close it to the world
API = b"/api/"
QUERY_TOO_LONG = Refusal(
    Code.INVALID_REQUEST, f"query may have {QUERY_BYTES} bytes", (FieldError("query", f"may have {QUERY_BYTES} bytes"),)
)


class Gate:
    """`per_minute`: requests of one address, 0 for no limit (and none of probes). `clock` gives seconds and never goes back."""

    __slots__ = ("_addresses", "_clock", "_connections", "_foreign", "_heads", "_limit", "_origins", "_probes", "_window")

    def __init__(
        self,
        heads: Heads,
        origins: Origins,
        addresses: Addresses,
        connections: ConnectionLimits,
        per_minute: int,
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._heads, self._origins, self._addresses, self._connections, self._clock = heads, origins, addresses, connections, clock
        self._limit, self._window = per_minute, SlidingWindow(per_minute)
        self._probes, self._foreign = SlidingWindow(PROBES_PER_MINUTE), SlidingWindow(per_minute)

    def before(self, request: Request) -> Response | None:
        """The answer that ends this request here, or None: it may go on. In a flood it ends the connection too, and blocks the address.

        What a foreign page has a browser ask is counted apart: it costs the browser's owner neither his requests nor his connections.
        """
        if request.has(b"sec-fetch-site") and self._origins.refuses_site(request):
            if self._limit and self._foreign.admit(self._addresses.counted(request), self._clock()):
                request.keep_alive = False
            return problem(FOREIGN, request.request_id)
        if self._limit and request.path != METRICS:
            key = self._addresses.counted(request)
            wait = (self._probes if request.path in PROBES else self._window).admit(key, self._clock())
            if wait:
                self._refuse(request, key)
                return problem(limited("ip", "Too many requests from this address.", wait), request.request_id)
        if len(request.query) > QUERY_BYTES and request.path.startswith(API):
            return problem(QUERY_TOO_LONG, request.request_id)
        if request.method == b"OPTIONS":
            return self._heads.preflight(request)
        return None

    def malformed(self, request: Request) -> None:
        """What is no request counts as one."""
        if self._limit:
            key = self._addresses.counted(request)
            if self._window.admit(key, self._clock()):
                self._refuse(request, key)

    def _refuse(self, request: Request, key: str) -> None:
        """Counts a refusal; in a flood the connection ends with it. A proxy's is others' too."""
        if self._connections.count_refusal(key) and not self._addresses.trusts(request.socket.peer[0]):
            request.keep_alive = False


def limited(layer: str, what: str, seconds: int) -> Refusal:
    """429 of that layer."""
    return Refusal(Code.RATE_LIMITED, f"{what} Next in {seconds} s.", retry_after=seconds, layer=layer)
