"""What every request passes before any door: the limit per address, and the answer to a browser's preflight."""

from collections.abc import Callable

import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.messages import Request, Response
from scoreboard.web.addresses import Addresses
from scoreboard.web.heads import Heads
from scoreboard.web.limits import SlidingWindow
from scoreboard.web.problems import problem

UNCOUNTED = frozenset({b"/livez", b"/readyz"})  # a flood from the orchestrator's address must not make the node look dead


class Gate:
    """`per_minute`: requests of one address, 0 for no limit. `clock` gives seconds and never goes back."""

    __slots__ = ("_addresses", "_clock", "_heads", "_limit", "_window")

    def __init__(self, heads: Heads, addresses: Addresses, per_minute: int, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._heads, self._addresses, self._clock = heads, addresses, clock
        self._limit, self._window = per_minute, SlidingWindow(per_minute)

    def before(self, request: Request) -> Response | None:
        """The answer that ends this request here, or None: it may go on."""
        if self._limit and request.path not in UNCOUNTED:
            wait = self._window.admit(self._addresses.counted(request), self._clock())
            if wait:
                return problem(limited("ip", "Too many requests from this address.", wait), request.request_id)
        if request.method == b"OPTIONS":
            return self._heads.preflight(request)
        return None


def limited(layer: str, what: str, seconds: int) -> Refusal:
    """429 of that layer."""
    return Refusal(Code.RATE_LIMITED, f"{what} Next in {seconds} s.", retry_after=seconds, layer=layer)
