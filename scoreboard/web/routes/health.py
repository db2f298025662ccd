"""What orchestrators and Prometheus ask: is the process alive, may it be sent requests, how is it doing."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from scoreboard.domain.errors import Store, StoreCondition
from scoreboard.http.request import Request, Response
from scoreboard.telemetry import metrics

ALIVE = b'{"alive":true}'

_FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
_METRICS = b"content-type: %b\r\ncache-control: no-store\r\n" % metrics.CONTENT_TYPE.encode()

_encode = msgspec.json.Encoder().encode


class Readiness(msgspec.Struct, frozen=True):
    """The body of /readyz."""

    ready: bool
    migrated: bool  # always true: nothing listens before the database is migrated
    draining: bool
    stores: Mapping[Store, StoreCondition]
    warnings: Sequence[str]  # what an operator should change
    boards: Mapping[str, str]  # "current" or "stale", by board id


class HealthRoutes:
    """Answers from what this node knows: no question costs a store a call.

    `conditions`, `warnings` and `boards` are asked for each answer. The node sets `draining` when it shuts down.
    """

    def __init__(
        self,
        conditions: Callable[[], Mapping[Store, StoreCondition]],
        warnings: Callable[[], Sequence[str]],
        boards: Callable[[], Mapping[str, str]],
    ) -> None:
        self.draining = False
        self._conditions, self._warnings, self._boards = conditions, warnings, boards

    async def livez(self, request: Request) -> Response:
        """Whether the process is alive."""
        return self.alive()

    async def readyz(self, request: Request) -> Response:
        """Whether requests may be sent here: not draining, and at least one store can serve reads."""
        return self.ready()

    def alive(self) -> Response:
        """The answer of /livez."""
        return Response(200, ALIVE, _FIELDS)

    def ready(self) -> Response:
        """The answer of /readyz."""
        stores = self._conditions()
        ready = not self.draining and any(condition is not StoreCondition.DOWN for condition in stores.values())
        body = Readiness(ready, True, self.draining, stores, self._warnings(), self._boards())
        return Response(200 if ready else 503, _encode(body), _FIELDS)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(200, metrics.render(), _METRICS)
