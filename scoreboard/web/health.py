"""What orchestrators and Prometheus ask: is the process alive, may it be sent requests, how is it doing."""

from collections.abc import Awaitable, Callable
from math import inf

import msgspec
import trio

from scoreboard.runtime import observe
from scoreboard.runtime.messages import Request, Response

REMEMBERED = 0.5  # seconds; many balancers ask at once, and each question costs the stores a round trip

_FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
_METRICS = b"content-type: %b\r\ncache-control: no-store\r\n" % observe.CONTENT_TYPE.encode()

_encode = msgspec.json.Encoder().encode


class Readiness(msgspec.Struct, frozen=True):
    """The body of /readyz."""

    ready: bool
    migrated: bool
    draining: bool
    stores: dict[str, str]  # "up" or "down"


class HealthRoutes:
    """`probe` tells which stores answer; it must bound its own time. `migrated` and `draining` are set by the composition root."""

    def __init__(self, probe: Callable[[], Awaitable[dict[str, bool]]], *, clock: Callable[[], float] = trio.current_time) -> None:
        self.migrated = False
        self.draining = False
        self._probe, self._clock = probe, clock
        self._asking = trio.Lock()
        self._stores: dict[str, bool] = {}
        self._until = -inf

    async def livez(self, request: Request) -> Response:
        """Whether the process is alive."""
        return Response(200, b'{"alive":true}', _FIELDS)

    async def readyz(self, request: Request) -> Response:
        """Whether requests may be sent here: migrated, not draining, and at least one store answers."""
        async with self._asking:  # whoever comes meanwhile shares the answer
            if self._clock() >= self._until:
                self._stores = await self._probe()
                self._until = self._clock() + REMEMBERED
        ready = self.migrated and not self.draining and any(self._stores.values())
        body = Readiness(ready, self.migrated, self.draining, {store: "up" if up else "down" for store, up in self._stores.items()})
        return Response(200 if ready else 503, _encode(body), _FIELDS)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(200, observe.render(), _METRICS)
