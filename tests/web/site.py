"""The whole web on real sockets and a real PostgreSQL, with a board and a write path that tests control."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import trio

from scoreboard.app.accounts import AccountParts
from scoreboard.app.outside import build_outside_log_ins
from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.boards import LEADERBOARD, Entry, Snapshot
from scoreboard.domain.errors import Code, Refusal, Store, StoreCondition
from scoreboard.domain.outcomes import Outcome
from scoreboard.domain.paths import REGISTER_PATH
from scoreboard.drivers.https_client import HttpsClient
from scoreboard.drivers.stores import Stores
from scoreboard.http.asgi import Asgi
from scoreboard.http.handlers import FastHandler, Handler, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.http.server import Server
from scoreboard.operations.action_queue import Pending, Queue
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.held_actions import HeldActions
from scoreboard.operations.outside_log_ins import OutsideLogIns
from scoreboard.operations.pictures import Pictures
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.operations.server_keys import ServerKeys
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.operations.submit_bulk import SubmitBulk
from scoreboard.operations.transparency import TransparencyLog
from scoreboard.runtime.breaker import Breaker
from scoreboard.security.checkpoints import LogSigner
from scoreboard.settings.model import Settings
from scoreboard.storage.board_cache import Standing
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.bus import Bus
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.postgres.staff import role_of
from scoreboard.storage.redis.projection import Projection
from scoreboard.web.access_log import AccessLog
from scoreboard.web.application import AdminRoutes, WebRoutes, build_application
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses, Network
from scoreboard.web.connection_limits import ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.large_bodies import LargeBodyLimits
from scoreboard.web.listeners import PublicHandlers
from scoreboard.web.openapi import OpenApiRoutes
from scoreboard.web.pages.audit_page import AuditPage
from scoreboard.web.pages.branding import SHIPPED, Branding
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.rate_limit import RateLimitMiddleware
from scoreboard.web.route import Route, build_direct_table, build_fast_table, query_parameters
from scoreboard.web.routes.actions import ActionRoutes
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
from tests.operations.people import Node, node
from tests.storage.seeds import claim

ROOT = Path(__file__).parents[2]
ROWS = tuple(
    Entry(rank, str(UUID(int=rank)), f"Player {rank}", 1000 - rank, "https://example.org/a.png" if rank == 1 else None)
    for rank in range(1, 13)
)
SNAPSHOT = Snapshot("leaderboard", 3, 40, 38, 1_768_041_000_000, ROWS, last_modified=1_768_041_001)
LOG_SIGNER = LogSigner("scores.example", bytes(32))
NOWHERE = Standing(0, None)
UNSIGNED = Refusal(Code.INVALID_SIGNATURE, "no")


@dataclass
class WebServer:
    """A running server, with a board and a write path that tests control.

    `outcome` is what the next submit returns or raises; `board` is what a read returns or raises. It takes the place of
    operations' Leaderboard and SubmitAction.
    """

    people: Node
    http: httpx.AsyncClient
    health: HealthRoutes
    board: Snapshot | Exception = SNAPSHOT
    own_place: Standing = NOWHERE
    outcome: Outcome | Exception = UNSIGNED
    submitted: list[tuple[Identity, str, bytes, str]] = field(default_factory=list)
    other_handlers: list[httpx.AsyncClient] = field(default_factory=list)
    nursery: trio.Nursery | None = None
    server_keys: ServerKeys | None = None
    routes: tuple[Route, ...] = ()  # all that are served
    queue: Queue = field(default_factory=Queue)  # of bulk submissions; a test drains it
    cached_reads: int = 0  # how often `current_snapshot` returned a board

    async def snapshot(self) -> Snapshot:
        snapshot: Snapshot = _given(self.board)
        return snapshot

    def current_snapshot(self) -> Snapshot | None:
        if isinstance(self.board, Exception) or self.board.stale:
            return None
        self.cached_reads += 1
        return self.board

    async def standing(self, user: UUID) -> Standing:
        return self.own_place

    def submit(self, identity: Identity, signature: str, body: bytes, request_id: str) -> Pending | Refusal:
        """Returns a refusal at once; any other outcome comes later, as from the committers."""
        self.submitted.append((identity, signature, body, request_id))
        outcome: Outcome = _given(self.outcome)
        if isinstance(outcome, Refusal):
            return outcome
        pending = Pending(claim(identity.user), 0)
        assert self.nursery is not None
        self.nursery.start_soon(_end, pending, outcome)
        return pending

    async def register(self, username: str = "Ada", **headers: str) -> dict[str, Any]:
        """Registers an account; returns the response's data."""
        body = {"username": username, "email": f"{username.lower()}@example.org", "password": "correct horse battery"}
        answer = await self.http.post(REGISTER_PATH, json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        data = answer.json()["data"]
        assert isinstance(data, dict)
        return data


def _log_ins(
    people: Node, public_url: str, identity: Mapping[str, Mapping[str, Any]], https: HttpsClient | None
) -> OutsideLogIns:
    """The log-ins of these issuers, as a node builds them."""
    settings = Settings.model_validate(
        {
            "server": {"public_url": public_url},
            "outgoing": {"private_hosts": ["localhost"]},
            "identity": {name: dict(table) for name, table in identity.items()},
        }
    )
    nothing: Any = None  # neither profiles nor bus is asked for
    parts = AccountParts(people.sessions, nothing, people.accounts, nothing, nothing, None)
    return build_outside_log_ins(settings, parts, https or HttpsClient())


def _given(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


async def _end(pending: Pending, outcome: Outcome) -> None:
    await trio.lowlevel.checkpoint()
    pending.resolve(outcome)


class NodeHealth:
    """The health for /readyz, from the monitor of these stores."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor

    def conditions(self) -> Mapping[Store, StoreCondition]:
        return self._monitor.conditions

    def warnings(self) -> tuple[str, ...]:
        return tuple(self._monitor.warnings)

    def boards(self) -> dict[str, str]:
        return {"leaderboard": "current"}


class UnusedTransport:
    """A live transport that no test of the web calls."""

    async def serve(self, request: Request) -> None:
        raise AssertionError("no test of the web watches the board")

    async def answer(self, request: Request) -> Response:
        raise AssertionError("no test of the web polls")

    def answer_fast(self, request: Request, reply: RespondCallback) -> None:
        raise AssertionError("no test of the web polls")

    def refusal(self, request: Request) -> None:
        return None


def admin_routes(bearer: Bearer, stores: Stores, queue: Queue) -> AdminRoutes:
    """The routes of /admin on these stores. No board is told: tests of operations do that."""
    boards = BoardRefresh(stores, (Projection(stores.redis_direct, LEADERBOARD, lambda: None),), Breaker("redis"))
    staff = Staff(bearer, partial(role_of, stores))
    return AdminRoutes(
        AdminUserRoutes(staff, stores, boards),
        AdminCorrectionRoutes(staff, stores, boards),
        AdminFlagRoutes(staff, stores),
        AdminHeldRoutes(staff, stores, HeldActions(stores, queue, Bus(stores))),
        AdminLogRoutes(staff, stores),
    )


@asynccontextmanager
async def serve_web(
    database_url: str,
    redis_url: str,
    *,
    public_url: str = "",
    allowed: tuple[str, ...] = (),
    proxies: tuple[Network, ...] = (),
    ip_per_minute: int = 0,
    server_key_per_minute: int = 0,
    wrong_keys_per_minute: int = 0,
    all_handlers: bool = False,
    pictures: Pictures | None = None,
    branding: Branding = SHIPPED,
    actions: str = "",
    buttons: bool = True,
    identity: Mapping[str, Mapping[str, Any]] | None = None,
    https: HttpsClient | None = None,
    anonymous: bool = True,
    signer: LogSigner | None = LOG_SIGNER,
    more_routes: Callable[[Bearer], Iterable[Route]] = lambda _: (),
    **settings: Any,
) -> AsyncIterator[WebServer]:
    """Serves until the block ends. `identity`: tables of outside issuers, which are asked by `https`. `actions`: the
    text of an actions file; `buttons`: whether the page has any.

    `all_handlers`: beside the first server stand one without fast handlers, and one with Quart alone.
    """
    async with AsyncExitStack() as stack:
        people = await stack.enter_async_context(node(database_url, redis_url, **settings))
        monitor = HealthMonitor(people.stores)
        health = HealthRoutes(NodeHealth(monitor))
        queue = Queue()
        made = WebServer(people, httpx.AsyncClient(), health, queue=queue)
        origins, addresses = Origins(public_url=public_url, allowed=allowed), Addresses(proxies)
        server_keys = ServerKeys(people.stores, people.sessions.clock)
        bearer, heads = Bearer(people.sessions, server_keys), ResponseHeaders(origins, public_url=public_url)
        leaderboard, submit_action = cast("Leaderboard", made), cast("SubmitAction", made)
        unused, error_pages = UnusedTransport(), ErrorPages(branding)
        rules = read_rules(actions or (ROOT / "config/actions.toml").read_text())
        auth = AuthRoutes(people.accounts, bearer, origins, addresses, refresh_days=30)
        outside = OutsideRoutes(_log_ins(people, public_url, identity or {}, https), auth, origins, addresses)
        resources = WebRoutes(
            auth=auth,
            outside=outside,
            users=UserRoutes(people.accounts, bearer, addresses),
            sessions=SessionRoutes(people.accounts, bearer),
            personal_data=PersonalDataRoutes(people.accounts, bearer, addresses, heads),
            scores=ScoreRoutes(bearer, submit_action, leaderboard),
            actions=ActionRoutes(people.stores, bearer, rules),
            server=ServerRoutes(
                people.accounts, SubmitBulk(rules, queue, people.stores, people.sessions.clock.now), bearer
            ),
            live=LiveRoutes(unused, unused, unused),
            keys=KeyRoutes(people.accounts.sessions.issuer.public_jwks()),
            health=health,
            pages=PageRoutes(
                rules if buttons else {},
                leaderboard,
                per_minute=10,
                registration=True,
                branding=branding,
                public_url=public_url,
                log_ins=outside.buttons(),
            ),
            avatars=AvatarRoutes(leaderboard, pictures),
            audit=AuditRoutes(TransparencyLog(people.stores, signer), bearer, needs_token=not anonymous),
            audit_page=AuditPage(branding),
            document=OpenApiRoutes(),
            admin=admin_routes(bearer, people.stores, made.queue),
        )
        routes = made.routes = (*resources, *more_routes(bearer))
        asgi = Asgi(build_application(routes, resources.document, error_pages))
        await stack.enter_async_context(asgi.lifespan())
        connections = ConnectionLimits(addresses, 0)
        middleware = RateLimitMiddleware(
            heads,
            origins,
            addresses,
            connections,
            ip_per_minute,
            files=resources.pages.paths,
            parameters=query_parameters(routes),
            bearer=bearer,
            server_key_per_minute=server_key_per_minute,
            wrong_keys_per_minute=wrong_keys_per_minute,
        )

        def handlers(
            direct: Mapping[tuple[bytes, bytes], Handler], fast: Mapping[tuple[bytes, bytes], FastHandler]
        ) -> PublicHandlers:
            return PublicHandlers(
                direct=direct,
                fast=fast,
                websockets=unused,
                application=asgi,
                headers=heads,
                middleware=middleware,
                connections=connections,
                error_pages=error_pages,
                access_log=AccessLog(addresses, "off"),
                large_bodies=LargeBodyLimits(routes, bearer.caller_of),
            )

        nursery = made.nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)

        await nursery.start(monitor.run)
        await nursery.start(server_keys.watch)
        made.server_keys = server_keys

        async def serve(
            direct: Mapping[tuple[bytes, bytes], Handler], fast: Mapping[tuple[bytes, bytes], FastHandler]
        ) -> httpx.AsyncClient:
            _, port = await nursery.start(Server(handlers(direct, fast)).run, "127.0.0.1", 0)
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
            )

        direct = build_direct_table(routes)
        made.http = await serve(direct, build_fast_table(routes))
        if all_handlers:
            made.other_handlers = [await serve(direct, {}), await serve({}, {})]
        yield made
