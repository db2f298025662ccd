"""The web: what routes share, the routes themselves, and the servers.

web.listeners makes tables of the routes; a request that is in none of them goes to Quart.
Tested with whole nodes, for example in tests/e2e/test_two_nodes.py.
"""

from functools import partial
from typing import NamedTuple

from scoreboard.app.accounts import AccountParts, own_host
from scoreboard.app.health import NodeHealth
from scoreboard.app.live import Transports
from scoreboard.app.reads import ReadParts
from scoreboard.app.writes import WriteParts
from scoreboard.drivers.stores import Stores
from scoreboard.http.asgi import Asgi
from scoreboard.http.server import Server
from scoreboard.operations.outside_log_ins import OutsideLogIns
from scoreboard.operations.pictures import Pictures
from scoreboard.operations.submit_bulk import SubmitBulk
from scoreboard.operations.transparency import TransparencyLog
from scoreboard.settings.model import Settings
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.postgres.staff import role_of
from scoreboard.telemetry.request_times import name_routes
from scoreboard.web.application import AdminRoutes, WebRoutes, build_application
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.console_routes import split
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.listeners import MetricsHandlers, WebParts, build_public_handlers
from scoreboard.web.openapi import OpenApiRoutes
from scoreboard.web.pages.audit_page import AuditPage
from scoreboard.web.pages.branding import Branding, load_branding
from scoreboard.web.pages.console_page import ConsolePage
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.route import build_direct_table, paths
from scoreboard.web.routes.actions import ActionRoutes
from scoreboard.web.routes.admin.console import AdminConsoleRoutes
from scoreboard.web.routes.admin.corrections import AdminCorrectionRoutes
from scoreboard.web.routes.admin.flags import AdminFlagRoutes
from scoreboard.web.routes.admin.held import AdminHeldRoutes
from scoreboard.web.routes.admin.log import AdminLogRoutes
from scoreboard.web.routes.admin.users import AdminUserRoutes
from scoreboard.web.routes.audit import AuditRoutes
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.keys import KeyRoutes
from scoreboard.web.routes.live import LiveRoutes
from scoreboard.web.routes.outside import OutsideRoutes
from scoreboard.web.routes.personal_data import PersonalDataRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.server import ServerRoutes
from scoreboard.web.routes.sessions import SessionRoutes
from scoreboard.web.routes.users import UserRoutes
from scoreboard.web.staff import Staff

METRICS_PLACES = 16  # connections at the metrics' own port, out of the process' reserve of descriptors
CONSOLE_PLACES = 24  # the same at the console's own port: four browsers, of six connections each


class ConsoleParts(NamedTuple):
    """The console's own port."""

    asgi: Asgi
    server: Server


class HttpParts(NamedTuple):
    """What the node starts, drains and stops. `health.draining` is set when the drain begins. `console`: None where the
    public port serves it."""

    health: HealthRoutes
    asgi: Asgi
    server: Server
    metrics_server: Server
    console: ConsoleParts | None


def build_web_parts(settings: Settings, accounts: AccountParts) -> WebParts:
    """What routes, transports and listeners share."""
    server = settings.server
    console = settings.console
    origins = Origins(
        public_url=server.public_url,
        console_url=console.public_url,
        allowed=server.allowed_origins,
        names=(server.host, console.host),
    )
    return WebParts(
        origins=origins,
        addresses=Addresses(server.trusted_proxies),
        heads=ResponseHeaders(origins, public_url=server.public_url),
        bearer=Bearer(accounts.authenticator, accounts.server_keys),
    )


def build_pictures(settings: Settings) -> Pictures:
    """The proxy for users' pictures. It never fetches from this server's own host."""
    return Pictures(own_host(settings))


def build_http(
    settings: Settings,
    web: WebParts,
    stores: Stores,
    monitor: HealthMonitor,
    accounts: AccountParts,
    outside: OutsideLogIns,
    writes: WriteParts,
    reads: ReadParts,
    pictures: Pictures,
    transports: Transports,
    transparency: TransparencyLog,
) -> HttpParts:
    """The applications and the servers. Nothing listens before the node starts them."""
    branding = load_branding(settings.page)
    error_pages = ErrorPages(branding)
    health = NodeHealth(monitor, writes.projectors, reads.boards)
    routes = _build_routes(
        settings, web, stores, health, accounts, outside, writes, reads, pictures, transports, transparency, branding
    )
    apart = split(routes) if settings.console.port else None
    public = apart.public if apart else tuple(routes)
    asgi = Asgi(build_application(public, routes.document, error_pages))
    metrics_routes = tuple(routes.health.routes(metrics=True))
    name_routes(paths((*routes, *metrics_routes)))
    files = routes.pages.paths
    handlers = build_public_handlers(
        settings, web, public, error_pages, files=files, websockets=transports.websocket, application=asgi
    )
    console = None
    if apart:
        console_asgi = Asgi(
            build_application(apart.console, OpenApiRoutes(), error_pages)
        )  # its document is not served
        console_handlers = build_public_handlers(
            settings, web, apart.console, error_pages, files=files, websockets=None, application=console_asgi
        )
        console = ConsoleParts(console_asgi, Server(console_handlers, places=CONSOLE_PLACES))
    metrics_handlers = MetricsHandlers(web.heads, build_direct_table(metrics_routes))
    return HttpParts(
        routes.health,
        asgi,
        Server(handlers),
        Server(metrics_handlers, places=METRICS_PLACES),
        console,
    )


def _build_routes(
    settings: Settings,
    web: WebParts,
    stores: Stores,
    health: NodeHealth,
    accounts: AccountParts,
    outside: OutsideLogIns,
    writes: WriteParts,
    reads: ReadParts,
    pictures: Pictures,
    transports: Transports,
    transparency: TransparencyLog,
    branding: Branding,
) -> WebRoutes:
    """The objects that have routes."""
    leaderboard = reads.leaderboard
    auth = AuthRoutes(
        accounts.accounts,
        web.bearer,
        web.origins,
        web.addresses,
        refresh_days=settings.security.refresh_days,
        networks=accounts.networks,
        login_per_minute=settings.limits.login_per_minute,
    )
    outside_routes = OutsideRoutes(outside, auth, web.origins, web.addresses)
    return WebRoutes(
        auth,
        outside_routes,
        UserRoutes(accounts.accounts, web.bearer, web.addresses),
        SessionRoutes(accounts.accounts, web.bearer),
        PersonalDataRoutes(accounts.accounts, web.bearer, web.addresses, web.heads),
        ScoreRoutes(web.bearer, writes.submit_action, leaderboard, per_minute=settings.limits.user_per_minute),
        ActionRoutes(stores, web.bearer, writes.rules),
        ServerRoutes(
            accounts.accounts,
            SubmitBulk(writes.rules, writes.queue, stores, accounts.authenticator.clock.now),
            web.bearer,
        ),
        LiveRoutes(transports.websocket, transports.stream, transports.poll),
        KeyRoutes(accounts.accounts.sessions.issuer.public_jwks()),
        HealthRoutes(health),
        PageRoutes(
            writes.rules if settings.page.actions else {},
            leaderboard,
            per_minute=settings.limits.user_per_minute,
            registration=settings.accounts.registration,
            guests=settings.accounts.guests,
            cooldowns=settings.limits.cooldowns,
            avatars=settings.accounts.avatars,
            branding=branding,
            public_url=settings.server.public_url,
            log_ins=outside_routes.buttons(),
        ),
        AvatarRoutes(leaderboard, pictures if settings.accounts.avatars else None),
        AuditRoutes(transparency, web.bearer, needs_token=not settings.live.anonymous),
        AuditPage(branding),
        ConsolePage(branding, links_to_board=bool(outside_routes.buttons()) and not settings.console.port),
        OpenApiRoutes(),
        _build_admin_routes(web.bearer, stores, writes),
        metrics=not settings.server.metrics_port,
    )


def _build_admin_routes(bearer: Bearer, stores: Stores, writes: WriteParts) -> AdminRoutes:
    """The objects that have routes for users with a role."""
    boards = writes.board_refresh
    staff = Staff(bearer, partial(role_of, stores))
    return AdminRoutes(
        AdminUserRoutes(staff, stores, boards),
        AdminCorrectionRoutes(staff, stores, boards),
        AdminFlagRoutes(staff, stores),
        AdminHeldRoutes(staff, stores, writes.held_actions),
        AdminLogRoutes(staff, stores),
        AdminConsoleRoutes(staff, stores),
    )
