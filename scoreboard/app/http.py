"""The web: what routes share, the routes themselves, the tables that lead to them, and the two servers.

A request goes by the tables that are built here. What is in none of them goes to Quart.
Tested with a whole node in tests/e2e.
"""

from typing import NamedTuple

from scoreboard.app.accounts import AccountParts, own_host
from scoreboard.app.live import Transports
from scoreboard.app.reads import ReadParts
from scoreboard.app.writes import WriteParts
from scoreboard.http.asgi import Asgi
from scoreboard.http.server import Server
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.pictures import Pictures
from scoreboard.settings.model import Settings
from scoreboard.storage.health import HealthMonitor
from scoreboard.telemetry.request_times import name_routes
from scoreboard.web.application import Services, build_application
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.cors import Origins
from scoreboard.web.direct import (
    LIVE_PATH,
    build_direct_table,
    build_fast_probes,
    build_fast_table,
    build_live_table,
    build_plain_table,
    build_probe_table,
)
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.listeners import WebParts, build_metrics_handlers, build_public_handlers
from scoreboard.web.openapi import Description
from scoreboard.web.pages.branding import load_branding
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.users import UserRoutes

METRICS_PLACES = 16  # connections at the metrics' own port, out of the process' reserve of descriptors


class HttpParts(NamedTuple):
    """What the node starts, drains and stops. `health.draining` is set when the drain begins."""

    health: HealthRoutes
    asgi: Asgi
    server: Server
    metrics_server: Server


def build_web_parts(settings: Settings, authenticator: Authenticator) -> WebParts:
    """What routes, transports and listeners share."""
    server = settings.server
    origins = Origins(public_url=server.public_url, allowed=server.allowed_origins, names=(server.host,))
    return WebParts(
        origins=origins,
        addresses=Addresses(server.trusted_proxies),
        heads=ResponseHeaders(origins, public_url=server.public_url),
        bearer=Bearer(authenticator.authenticate, authenticator.recall),
    )


def build_pictures(settings: Settings) -> Pictures:
    """The proxy for users' pictures: it asks no picture of this server itself."""
    return Pictures(own_host(settings))


def build_routes(
    settings: Settings,
    web: WebParts,
    monitor: HealthMonitor,
    accounts: AccountParts,
    writes: WriteParts,
    reads: ReadParts,
    pictures: Pictures,
) -> Services:
    """What answers the requests for each path."""
    snapshot, projector = reads.leaderboard.snapshot, writes.projector
    branding = load_branding(settings.page)
    health = HealthRoutes(
        lambda: monitor.conditions,
        lambda: (*monitor.warnings, *projector.warnings),
        lambda: {board_id: "stale" if board.is_stale else "current" for board_id, board in reads.boards.items()},
    )
    pages = PageRoutes(
        writes.rules if settings.page.actions else {},
        snapshot,
        per_minute=settings.limits.user_per_minute,
        registration=settings.accounts.registration,
        cooldowns=settings.limits.cooldowns,
        avatars=settings.accounts.avatars,
        branding=branding,
        public_url=settings.server.public_url,
    )
    return Services(
        AuthRoutes(
            accounts.accounts, web.bearer, web.origins, web.addresses, refresh_days=settings.security.refresh_days
        ),
        UserRoutes(accounts.accounts, web.bearer, web.addresses),
        ScoreRoutes(web.bearer, writes.submit_action, snapshot, reads.leaderboard.standing, reads.board.fresh),
        health,
        pages,
        AvatarRoutes(snapshot, pictures if settings.accounts.avatars else None),
        Description(),
        ErrorPages(branding),
        metrics=not settings.server.metrics_port,
    )


def build_http(settings: Settings, web: WebParts, routes: Services, transports: Transports) -> HttpParts:
    """The application and both servers. Nothing listens before the node starts them."""
    application = build_application(routes)
    asgi = Asgi(application)
    direct = (
        build_direct_table(routes.scores)
        | build_live_table(transports.stream.serve, transports.poll.answer, transports.websocket.refusal)
        | build_plain_table(routes.pages, routes.description.read)
        | build_probe_table(routes.health, metrics=routes.metrics)
    )
    fast = build_fast_table(routes.scores, transports.poll.answer_fast) | build_fast_probes(routes.health)
    probes = build_probe_table(routes.health, metrics=True)
    paths = (
        {rule.rule for rule in application.url_map.iter_rules()}
        | {LIVE_PATH}
        | {path.decode() for _, path in direct | probes}
    )
    name_routes(paths)
    serve_websocket = transports.websocket.serve
    handlers = build_public_handlers(
        settings, web, routes, paths=paths, direct=direct, fast=fast, live=serve_websocket, asgi=asgi.answer
    )
    return HttpParts(
        routes.health,
        asgi,
        Server(handlers),
        Server(build_metrics_handlers(web, probes, serve_websocket), places=METRICS_PLACES),
    )
