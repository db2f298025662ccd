"""The whole web on real sockets and a real PostgreSQL, with a board and a write path that tests hold in their hands."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import trio

from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import Outcome
from scoreboard.domain.scoring import read_rules
from scoreboard.http.asgi import Asgi
from scoreboard.http.handlers import FastHandler, Handler, Respond
from scoreboard.http.request import Request
from scoreboard.http.server import Server
from scoreboard.operations.action_queue import Pending
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.pictures import Pictures
from scoreboard.storage.board_cache import Standing
from scoreboard.storage.health import HealthMonitor
from scoreboard.web.access_log import AccessLog
from scoreboard.web.application import Services, build_application
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses, Network
from scoreboard.web.connection_limits import ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.direct import (
    build_direct_table,
    build_fast_probes,
    build_fast_table,
    build_plain_table,
    build_probe_table,
)
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.listeners import PublicHandlers
from scoreboard.web.openapi import Description
from scoreboard.web.pages.branding import SHIPPED, Branding
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.rate_limit import RateLimitMiddleware
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.users import UserRoutes
from tests.operations.people import Node, node
from tests.storage.worlds import claim

ROOT = Path(__file__).parents[2]
ROWS = tuple(
    Entry(rank, str(UUID(int=rank)), f"Player {rank}", 1000 - rank, "https://example.org/a.png" if rank == 1 else None)
    for rank in range(1, 13)
)
SNAPSHOT = Snapshot("leaderboard", 3, 40, 38, 1_768_041_000_000, ROWS, last_modified=1_768_041_001)
NOWHERE = Standing(0, None)
UNSIGNED = Refusal(Code.INVALID_SIGNATURE, "no")


@dataclass
class Site:
    """A running site. `answer` is what the next submit leads to, or raises; `board` what a read gives, or raises."""

    people: Node
    http: httpx.AsyncClient
    health: HealthRoutes
    board: Snapshot | Exception = SNAPSHOT
    standing: Standing = NOWHERE
    outcome: Outcome | Exception = UNSIGNED
    submitted: list[tuple[Identity, str, bytes, str]] = field(default_factory=list)
    other_handlers: list[httpx.AsyncClient] = field(default_factory=list)
    nursery: trio.Nursery | None = None
    at_once: int = 0  # how often a board was at hand

    async def read(self) -> Snapshot:
        snapshot: Snapshot = _given(self.board)
        return snapshot

    def fresh(self) -> Snapshot | None:
        if isinstance(self.board, Exception) or self.board.stale:
            return None
        self.at_once += 1
        return self.board

    async def stand(self, user: UUID) -> Standing:
        return self.standing

    def submit(self, identity: Identity, signature: str, body: bytes, request_id: str) -> Pending | Refusal:
        """A refusal at once; all else as the committers give it, later."""
        self.submitted.append((identity, signature, body, request_id))
        outcome: Outcome = _given(self.outcome)
        if isinstance(outcome, Refusal):
            return outcome
        pending = Pending(claim(identity.user), 0)
        assert self.nursery is not None
        self.nursery.start_soon(_end, pending, outcome)
        return pending

    async def register(self, username: str = "Ada", **headers: str) -> dict[str, Any]:
        """A new account's answer."""
        body = {"username": username, "email": f"{username.lower()}@example.org", "password": "correct horse battery"}
        answer = await self.http.post("/api/v1/auth/register", json=body, headers=headers)
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
    pending.end(outcome)


def _no_poll(request: Request, respond: Respond) -> None:
    raise AssertionError("nobody polls here")


class NoWebSockets:
    """A live path that no test here asks for."""

    async def serve(self, request: Request) -> None:
        raise AssertionError("nobody asks for a WebSocket here")


@asynccontextmanager
async def site(
    database_url: str,
    redis_url: str,
    *,
    public_url: str = "",
    allowed: tuple[str, ...] = (),
    proxies: tuple[Network, ...] = (),
    ip_per_minute: int = 0,
    all_doors: bool = False,
    pictures: Pictures | None = None,
    branding: Branding = SHIPPED,
    actions: str = "",
    buttons: bool = True,
    **settings: Any,
) -> AsyncIterator[Site]:
    """Serves until the block ends. `actions`: the text of an actions file; `buttons`: whether the page has any.

    `all_doors`: a server without a prompt table stands beside the first, and one without any.
    """
    async with AsyncExitStack() as stack:
        people = await stack.enter_async_context(node(database_url, redis_url, **settings))
        monitor = HealthMonitor(people.stores)
        health = HealthRoutes(lambda: monitor.conditions, lambda: monitor.warnings, lambda: {"leaderboard": "current"})
        health.migrated = True
        made = Site(people, httpx.AsyncClient(), health)
        origins, addresses = Origins(public_url=public_url, allowed=allowed), Addresses(proxies)
        bearer, heads = (
            Bearer(people.sessions.authenticate, people.sessions.recall),
            ResponseHeaders(origins, public_url=public_url),
        )
        scores = ScoreRoutes(bearer, made.submit, made.read, made.stand, made.fresh)
        services = Services(
            auth=AuthRoutes(people.accounts, bearer, origins, addresses, refresh_days=30),
            users=UserRoutes(people.accounts, bearer, addresses),
            scores=scores,
            health=health,
            pages=PageRoutes(
                read_rules(actions or (ROOT / "config/actions.toml").read_text()) if buttons else {},
                made.read,
                per_minute=10,
                registration=True,
                branding=branding,
                public_url=public_url,
            ),
            avatars=AvatarRoutes(made.read, pictures),
            description=Description(),
            error_pages=ErrorPages(branding),
        )
        application = build_application(services)
        asgi = Asgi(application)
        await stack.enter_async_context(asgi.lifespan())
        connections = ConnectionLimits(addresses, 0)
        middleware = RateLimitMiddleware(
            heads,
            origins,
            addresses,
            connections,
            ip_per_minute,
            files=services.pages.paths,
            routes=[rule.rule for rule in application.url_map.iter_rules()],
            recall=bearer.recall,
        )

        def handlers(
            direct: Mapping[tuple[bytes, bytes], Handler], fast: Mapping[tuple[bytes, bytes], FastHandler]
        ) -> PublicHandlers:
            return PublicHandlers(
                direct=direct,
                fast=fast,
                websockets=NoWebSockets(),
                application=asgi,
                headers=heads,
                middleware=middleware,
                connections=connections,
                error_pages=services.error_pages,
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

        files = build_plain_table(services.pages, services.description.read)
        direct = build_direct_table(scores) | files | build_probe_table(health, metrics=True)
        made.http = await serve(direct, build_fast_table(scores, _no_poll) | build_fast_probes(health))
        if all_doors:
            made.other_handlers = [await serve(direct, {}), await serve({}, {})]
        yield made
