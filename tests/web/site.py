"""The whole web on real sockets and a real PostgreSQL, with a board and a write path that tests control."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import trio

from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.errors import Code, Refusal, Store, StoreCondition
from scoreboard.domain.outcomes import Outcome
from scoreboard.domain.paths import REGISTER_PATH
from scoreboard.domain.scoring import read_rules
from scoreboard.http.asgi import Asgi
from scoreboard.http.handlers import FastHandler, Handler, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.http.server import Server
from scoreboard.operations.action_queue import Pending
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.pictures import Pictures
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.storage.board_cache import Standing
from scoreboard.storage.health import HealthMonitor
from scoreboard.web.access_log import AccessLog
from scoreboard.web.application import WebRoutes, build_application
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses, Network
from scoreboard.web.connection_limits import ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.listeners import PublicHandlers
from scoreboard.web.openapi import OpenApiRoutes
from scoreboard.web.pages.branding import SHIPPED, Branding
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.rate_limit import RateLimitMiddleware
from scoreboard.web.route import Route, build_direct_table, build_fast_table, query_parameters
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.keys import KeyRoutes
from scoreboard.web.routes.live import LiveRoutes
from scoreboard.web.routes.personal_data import PersonalDataRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.sessions import SessionRoutes
from scoreboard.web.routes.users import UserRoutes
from tests.operations.people import Node, node
from tests.storage.seeds import claim

ROOT = Path(__file__).parents[2]
ROWS = tuple(
    Entry(rank, str(UUID(int=rank)), f"Player {rank}", 1000 - rank, "https://example.org/a.png" if rank == 1 else None)
    for rank in range(1, 13)
)
SNAPSHOT = Snapshot("leaderboard", 3, 40, 38, 1_768_041_000_000, ROWS, last_modified=1_768_041_001)
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


@asynccontextmanager
async def serve_web(
    database_url: str,
    redis_url: str,
    *,
    public_url: str = "",
    allowed: tuple[str, ...] = (),
    proxies: tuple[Network, ...] = (),
    ip_per_minute: int = 0,
    all_handlers: bool = False,
    pictures: Pictures | None = None,
    branding: Branding = SHIPPED,
    actions: str = "",
    buttons: bool = True,
    more_routes: Callable[[Bearer], Iterable[Route]] = lambda _: (),
    **settings: Any,
) -> AsyncIterator[WebServer]:
    """Serves until the block ends. `actions`: the text of an actions file; `buttons`: whether the page has any.

    `all_handlers`: beside the first server stand one without fast handlers, and one with Quart alone.
    """
    async with AsyncExitStack() as stack:
        people = await stack.enter_async_context(node(database_url, redis_url, **settings))
        monitor = HealthMonitor(people.stores)
        health = HealthRoutes(NodeHealth(monitor))
        made = WebServer(people, httpx.AsyncClient(), health)
        origins, addresses = Origins(public_url=public_url, allowed=allowed), Addresses(proxies)
        bearer, heads = Bearer(people.sessions), ResponseHeaders(origins, public_url=public_url)
        leaderboard, submit_action = cast("Leaderboard", made), cast("SubmitAction", made)
        unused, error_pages = UnusedTransport(), ErrorPages(branding)
        resources = WebRoutes(
            auth=AuthRoutes(people.accounts, bearer, origins, addresses, refresh_days=30),
            users=UserRoutes(people.accounts, bearer, addresses),
            sessions=SessionRoutes(people.accounts, bearer),
            personal_data=PersonalDataRoutes(people.accounts, bearer, addresses, heads),
            scores=ScoreRoutes(bearer, submit_action, leaderboard),
            live=LiveRoutes(unused, unused, unused),
            keys=KeyRoutes(people.accounts.sessions.issuer.public_jwks()),
            health=health,
            pages=PageRoutes(
                read_rules(actions or (ROOT / "config/actions.toml").read_text()) if buttons else {},
                leaderboard,
                per_minute=10,
                registration=True,
                branding=branding,
                public_url=public_url,
            ),
            avatars=AvatarRoutes(leaderboard, pictures),
            document=OpenApiRoutes(),
        )
        routes = (*resources, *more_routes(bearer))
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
            )

        nursery = made.nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)

        await nursery.start(monitor.run)

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
