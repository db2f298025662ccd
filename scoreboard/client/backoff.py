"""When to try again, and whether: full-jitter backoff, `Retry-After`, close codes. Pure but for the random
numbers."""

from collections.abc import Callable
from random import Random

from scoreboard.domain.close_codes import RECONNECT, CloseCode

# The first wait is half of it on average: a thousand viewers of a node that restarts come spread over it.
BASE_SECONDS = 0.5
MAX_SECONDS = 30.0  # after minutes without a server a client is back half of that after it, on average

chance = Random()  # noqa: S311 – spreads reconnects, nothing secret


class Backoff:
    """The waits of one client. `draw(low, high)` gives a number between the two, as `random.uniform`."""

    def __init__(self, draw: Callable[[float, float], float] = chance.uniform) -> None:
        self._draw, self._failures = draw, 0

    def reset(self) -> None:
        """The server answered: the next wait is a first one again."""
        self._failures = 0

    def next(self, retry_after: float | None = None) -> float:
        """Seconds to wait after a failure: anything up to a bound that doubles each time, added to `retry_after`."""
        bound = min(MAX_SECONDS, BASE_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return (retry_after or 0.0) + self._draw(0.0, bound)


def seconds(retry_after: str | None) -> float | None:
    """The seconds of a `Retry-After` header; None when there is none, or a date, which our servers and proxies don't
    send."""
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None


def may_reconnect(code: int | None) -> bool:
    """Whether to connect again after a close with this code (None: without one). True for codes that this server does
    not use."""
    try:
        return code is None or RECONNECT[CloseCode(code)]
    except ValueError:
        return True
