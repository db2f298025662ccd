"""What the two listeners do with a request: the public one with limits and an access log, the metrics' own one without
either.

Called by the composition root, which has made the tables of direct handlers and whatever stands behind them. Nothing is
started here.

Tested in tests/e2e/test_front_line.py.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from scoreboard.domain.errors import NOT_FOUND
from scoreboard.domain.paths import LIVE_PATH
from scoreboard.http.handlers import Handlers
from scoreboard.http.request import Request
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.settings.model import Settings
from scoreboard.web.access_log import AccessLog
from scoreboard.web.application import WebRoutes
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.problems import error_response, problem
from scoreboard.web.rate_limit import USERS_TIMES, RateLimitMiddleware
from scoreboard.web.route import DirectTable, build_direct_table, build_fast_table, query_parameters

Live = Callable[[Request], Awaitable[None]]
"""Runs a WebSocket on the request's socket."""


class WebParts(NamedTuple):
    """What everything in the web asks about a request: whose page sent it, from where, for whom; and what heads its
    answer."""

    origins: Origins
    addresses: Addresses
    heads: ResponseHeaders
    bearer: Bearer


def build_public_handlers(
    settings: Settings,
    parts: WebParts,
    routes: WebRoutes,
    error_pages: ErrorPages,
    *,
    live: Live,
    asgi: Callable[[Any, Request], Awaitable[bool]],
) -> Handlers:
    """Of the port that everybody asks."""
    per_minute = settings.limits.ip_per_minute
    most = settings.server.most_connections_per_ip(settings.live.connections_per_ip)
    connections = ConnectionLimits(parts.addresses, most, USERS_TIMES * per_minute)
    gate = RateLimitMiddleware(
        parts.heads,
        parts.origins,
        parts.addresses,
        connections,
        per_minute,
        files=routes.pages.paths,
        parameters=query_parameters(routes),
        bearer=parts.bearer,
    )
    access = AccessLog(parts.addresses, settings.log.access)
    return Handlers(
        direct=build_direct_table(routes),
        fast=build_fast_table(routes),
        live_path=LIVE_PATH.encode(),
        live=live,
        asgi=asgi,
        write_head=parts.heads.write,
        before=gate.check_request,
        problem=problem,
        failed=error_response,
        error_page=error_pages.of,
        malformed=gate.count_malformed,
        access=access.write,
        access_from=access.lowest_status,
        peer_group=connections.peer_group,
        admit=connections.admit,
        released=connections.released,
    )


def build_metrics_handlers(parts: WebParts, probes: DirectTable, live: Live) -> Handlers:
    """Of the metrics' own port, where the world does not ask: `probes` and nothing else."""
    return Handlers(
        direct=probes,
        fast={},
        live_path=b"",
        live=live,
        asgi=_nothing_else,
        write_head=parts.heads.write,
        before=lambda _request: None,
        problem=problem,
        failed=error_response,
    )


async def _nothing_else(answers: ResponseWriter, request: Request) -> bool:
    """What the metrics' listener answers to all other paths."""
    going_on = answers.put(request, problem(NOT_FOUND, request.request_id))
    await answers.finish()
    return going_on
