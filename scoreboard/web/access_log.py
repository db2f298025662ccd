"""The access log: a line for each request, or for some requests, as the setting `log.access` says.

`http.connection` calls `write` for responses whose status is `lowest_status` or above, so a log that is switched off
costs one comparison. A failing store makes thousands of errors a second. So unless all requests are logged, no more
than ERRORS_PER_SECOND are written, and the next line has the number of those that were not (`omitted`).
"""

from collections.abc import Callable

import structlog
import trio

from scoreboard.domain.errors import STATUS, Code
from scoreboard.http.request import Request
from scoreboard.telemetry.request_times import OTHER, route_of
from scoreboard.web.client_address import Addresses

ERRORS_PER_SECOND = 20
PATH_SHOWN = 200  # bytes of a path that is no route's
ANY, SERVER_ERRORS, NONE = 0, 500, 1000  # lowest status that is written

log = structlog.get_logger("access")


class AccessLog:
    """`wanted`: "off", "errors" (5xx), "all", or N: one request in N, and errors. `clock` gives seconds."""

    __slots__ = ("_addresses", "_clock", "_every", "_omitted", "_second", "_seen", "_written", "lowest_status")

    def __init__(
        self, addresses: Addresses, wanted: str | int, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._addresses, self._clock = addresses, clock
        self._every = {"off": 0, "errors": 0, "all": 1}[wanted] if isinstance(wanted, str) else wanted
        self.lowest_status = NONE if wanted == "off" else ANY if self._every else SERVER_ERRORS
        self._seen = 0  # requests, for one in N
        self._second, self._written, self._omitted = 0, 0, 0  # errors in this second

    def write(self, request: Request, status: int, seconds: float) -> None:
        """Writes the line of a request that was answered, if the setting asks for it."""
        is_error = status >= SERVER_ERRORS
        self._seen += 1
        is_turn = self._every > 0 and self._seen % self._every == 0
        if not is_turn and not (is_error and self._has_room()):
            return
        fields: dict[str, object] = {
            "method": request.method.decode("latin-1"),
            "route": route_of(request.path),
            "status": status,
        }
        if fields["route"] == OTHER:
            fields["path"] = request.path[:PATH_SHOWN].decode("latin-1")
        fields |= {
            "ms": round(seconds * 1000, 2),
            "request_id": request.request_id.decode(),
            "address": self._addresses.client(request),
        }
        if request.user is not None:
            fields["user"] = str(request.user)
        if self._omitted:
            fields["omitted"], self._omitted = self._omitted, 0
        # 503 is an outage of a store, and logged as a warning; 500 is a bug.
        write_line = log.error if status == STATUS[Code.INTERNAL] else log.warning if is_error else log.info
        write_line("request", **fields)

    def _has_room(self) -> bool:
        """Whether one more error may be written in this second."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        if self._written > ERRORS_PER_SECOND:
            self._omitted += 1
            return False
        return True
