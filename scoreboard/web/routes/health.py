"""Routes for orchestrators and Prometheus: whether the process is alive, whether it may be sent requests, its metrics.

Tested in tests/web/test_application.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from scoreboard.domain.errors import Store, StoreCondition
from scoreboard.domain.paths import LIVEZ_PATH, METRICS_PATH, READYZ_PATH
from scoreboard.http.handlers import RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.telemetry import metrics
from scoreboard.web.route import Route
from scoreboard.web.schemas import Alive, MetricsText

_FIELDS = b"content-type: application/json\r\ncache-control: no-store\r\n"
ALIVE = Response(200, b'{"alive":true}', _FIELDS)
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


class NodeHealth(Protocol):
    """The health of this node; app.health implements it."""

    def conditions(self) -> Mapping[Store, StoreCondition]:
        """Of each store."""

    def warnings(self) -> Sequence[str]:
        """What an operator should change."""

    def boards(self) -> Mapping[str, str]:
        """By board id: "current" or "stale"."""


class HealthRoutes:
    """The probes and the metrics. They are answered from memory: no request costs a call to a store.

    The node sets `draining` when it shuts down.
    """

    def __init__(self, health: NodeHealth) -> None:
        self.draining = False
        self._health = health

    def routes(self, *, metrics: bool) -> Iterator[Route]:
        """The probes, and `/metrics` unless that has a listener of its own. The fast handlers answer without waiting
        for a task, however busy the node is."""
        yield Route(
            method="GET",
            path=LIVEZ_PATH,
            handler=self.livez,
            fast=self.livez_fast,
            direct=True,
            response_type=Alive,
        )
        yield Route(
            method="GET",
            path=READYZ_PATH,
            handler=self.readyz,
            fast=self.readyz_fast,
            direct=True,
            response_type=Readiness,
        )
        if metrics:
            yield Route(method="GET", path=METRICS_PATH, handler=self.metrics, direct=True, response_type=MetricsText)

    async def livez(self, request: Request) -> Response:
        """Whether the process is alive."""
        return ALIVE

    async def readyz(self, request: Request) -> Response:
        """Whether requests may be sent here: migrated, not draining, and at least one store can serve reads."""
        return self._readiness()

    def livez_fast(self, _request: Request, _respond: RespondCallback) -> Response:
        """The same without a task."""
        return ALIVE

    def readyz_fast(self, _request: Request, _respond: RespondCallback) -> Response:
        """The same without a task."""
        return self._readiness()

    def _readiness(self) -> Response:
        stores = self._health.conditions()
        ready = not self.draining and any(condition is not StoreCondition.DOWN for condition in stores.values())
        body = Readiness(ready, True, self.draining, stores, self._health.warnings(), self._health.boards())
        return Response(200 if ready else 503, _encode(body), _FIELDS)

    async def metrics(self, request: Request) -> Response:
        """MetricsText for Prometheus."""
        return Response(200, metrics.render(), _METRICS)
