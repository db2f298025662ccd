"""The composition root. READ THIS FIRST: every part of a node is made here, handed what it needs, started, and ended,
in this order.

`serve` opens the stores and runs one `Node`. A Node's tasks are siblings under one nursery: health, projector,
committers, late actions, housekeeping, session watch, the Pub/Sub reader, the batcher, the audience, pictures; inside
it the web application's own, and inside that the listener. Leaving goes the other way: readiness 503, drain delay,
listener closed, viewers told, requests finished, then the services, then the stores.
"""

import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from scoreboard import __version__
from scoreboard.domain.boards import LEADERBOARD, BoardVersion
from scoreboard.http.asgi import Asgi
from scoreboard.http.server import Server, viewer_places
from scoreboard.live.admission import Admission
from scoreboard.live.batcher import Batcher
from scoreboard.live.heartbeat import run_heartbeat
from scoreboard.live.hub import Hub
from scoreboard.live.subscription import Reader
from scoreboard.live.transports.conversation import LiveDependencies, LiveLimits
from scoreboard.live.transports.long_poll import PollEndpoint
from scoreboard.live.transports.query import Requests
from scoreboard.live.transports.sse import StreamEndpoint
from scoreboard.live.transports.websocket import LiveEndpoint
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.action_queue import Queue
from scoreboard.operations.action_rules import load_rules
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.pictures import Pictures
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.runtime.breaker import Breaker, State
from scoreboard.runtime.process import ending_signals, raise_descriptor_limit, tune_gc
from scoreboard.runtime.supervise import supervised
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.keys import Keys
from scoreboard.settings.model import Settings
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.bus import Bus
from scoreboard.storage.commit import Commit
from scoreboard.storage.connections.clock import DatabaseClock
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.open_stores import stores_of
from scoreboard.storage.profiles import Profiles
from scoreboard.storage.redis.limits import Limits
from scoreboard.storage.writer import Writer
from scoreboard.telemetry import metrics
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
from scoreboard.web.listeners import MetricsHandlers, WebParts, build_public_handlers
from scoreboard.web.openapi import Description
from scoreboard.web.pages.branding import load_branding
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.problems import problem
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.users import UserRoutes
from scoreboard.workers.committer import COMMITTERS, commit_batches, end_late
from scoreboard.workers.housekeeping import run_housekeeping
from scoreboard.workers.projector import Projector

WIND_DOWN_SECONDS = 0.5  # at least: in this time a busy client hears "Connection: close" and comes back elsewhere
METRICS_PLACES = 16  # connections at the metrics' own port, out of the process' reserve of descriptors
FINISH_SECONDS = 3.0  # for requests at hand when the node leaves: an action's own deadline

BREAKER_VALUES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}

log = structlog.get_logger()


# ---- a node ---------------------------------------------------------------------------------------------------------


class Node:
    """One process' parts, wired. Made inside open stores; `run` once."""

    def __init__(self, settings: Settings, keys: Keys, stores: Stores) -> None:
        self.settings, self.stores = settings, stores
        self.name = f"{socket.gethostname()}-{token_hex(4)}"
        self.leaving = trio.Event()
        self.monitor = HealthMonitor(stores)
        self.rules = load_rules(settings)
        self.limits = Limits(
            stores.redis_direct,
            per_minute=settings.limits.user_per_minute,
            cooldowns=settings.limits.cooldowns,
            longest_ms=1000 * max((rule.cooldown for rule in self.rules.values()), default=0),
            namespace=stores.namespace,
            may_have_forgotten=lambda: self.monitor.redis_evicts,
            reconnects=lambda: stores.redis_generation.reconnects,
        )
        self.projector = Projector(stores, LEADERBOARD, self.name, self.limits, self.hear)
        self.redis_breaker = Breaker("redis", changed=_watch_redis)
        self.profiles = Profiles(stores)
        self.board = BoardCache(
            LEADERBOARD,
            stores,
            self.profiles,
            self.redis_breaker,
            self.projector.agreement,
            self.projector.request_repair,
            lambda: stores.installation,
        )
        self.leaderboard = Leaderboard(self.board)
        self._make_accounts(keys)
        self._make_write_path()
        self._make_live()
        self._make_web()

    def hear(self, mark: BoardVersion) -> None:
        """An own commit or rebuild changed the board: whoever asks from now on is shown it."""
        self.board.note_version(mark)

    def _warnings(self) -> tuple[str, ...]:
        """What an operator should change, for /readyz."""
        return (*self.monitor.warnings, *self.projector.warnings)

    def _boards(self) -> dict[str, str]:
        """Whether each board is known to agree with PostgreSQL, for /readyz."""
        return {self.board.board.id: "stale" if self.board.is_stale else "current"}

    def _make_accounts(self, keys: Keys) -> None:
        settings = self.settings
        token_keys = TokenKeys.from_private(keys.signing, keys.current_signing)
        self.bus = Bus(self.stores)
        own_host = urlsplit(settings.server.public_url).hostname or ""
        self.pictures = Pictures(own_host)
        self.sessions = Authenticator(
            self.stores,
            token_keys,
            keys.master,
            issuer=settings.issuer,
            lifetime=settings.security.access_token_seconds,
            clock=DatabaseClock(),
        )
        self.accounts = Accounts(
            self.stores,
            self.sessions,
            keys=token_keys,
            masters=keys.master,
            master=keys.current_master,
            issuer=settings.issuer,
            on_profile_change=self.profiles.changed,
            publish_revoked=self.bus.publish_revoked,
            registration=settings.accounts.registration,
            login_per_minute=settings.limits.login_per_minute,
            login_ip_per_minute=settings.limits.login_ip,
            own_host=own_host,
            profile_changes_per_hour=settings.limits.profile_changes_per_hour,
            lifetime=settings.security.access_token_seconds,
            refresh_days=settings.security.refresh_days,
            clock=self.sessions.clock.now,
        )

    def _make_write_path(self) -> None:
        self.queue = Queue()
        agreement = self.projector.agreement
        self.commits = [
            Commit(
                Writer(self.stores.connect_committer, self.limits.judge_by_log, agreement),
                self.limits,
                self.projector.projection,
                self.redis_breaker,
                agreement,
            )
            for _ in range(COMMITTERS)
        ]
        self.projector.writers = lambda: [commit.writer.number for commit in self.commits]
        self.submit = SubmitAction(self.rules, self.queue)

    def _make_live(self) -> None:
        boards = {self.board.board.id: self.board}
        self.hub = Hub(tuple(boards))
        self.batcher = Batcher(boards, self.hub, tick=self.settings.live.tick_seconds)
        self.audience = ViewerCount(self.hub, self.name)
        self.reader = Reader(
            self.bus, boards, self.batcher, self.hub, self.audience, node=self.name, revoked=self.sessions.mark_revoked
        )

    def _make_web(self) -> None:
        """The application and both servers: each request goes by the tables here, and what is in none of them to
        Quart."""
        parts = self._make_web_parts()
        routes = self._make_routes(parts)
        application = build_application(routes)
        self.health, self.asgi = routes.health, Asgi(application)
        live, stream, poll = self._make_transports(parts)
        direct = (
            build_direct_table(routes.scores)
            | build_live_table(stream.serve, poll.answer, live.refusal)
            | build_plain_table(routes.pages, routes.description.read)
            | build_probe_table(self.health, metrics=routes.metrics)
        )
        fast = build_fast_table(routes.scores, poll.answer_fast) | build_fast_probes(self.health)
        probes = build_probe_table(self.health, metrics=True)
        paths = (
            {rule.rule for rule in application.url_map.iter_rules()}
            | {LIVE_PATH}
            | {path.decode() for _, path in direct | probes}
        )
        name_routes(paths)
        handlers = build_public_handlers(
            self.settings,
            parts,
            routes,
            paths=paths,
            direct=direct,
            fast=fast,
            websockets=live,
            application=self.asgi,
        )
        self.server = Server(handlers)
        self.metrics_server = Server(MetricsHandlers(parts.heads, probes), places=METRICS_PLACES)

    def _make_web_parts(self) -> WebParts:
        """What routes, transports and listeners share."""
        settings = self.settings.server
        origins = Origins(public_url=settings.public_url, allowed=settings.allowed_origins, names=(settings.host,))
        return WebParts(
            origins=origins,
            addresses=Addresses(settings.trusted_proxies),
            heads=ResponseHeaders(origins, public_url=settings.public_url),
            bearer=Bearer(self.sessions.authenticate, self.sessions.recall),
        )

    def _make_routes(self, parts: WebParts) -> Services:
        """What answers the requests for each path."""
        settings, bearer, snapshot = self.settings, parts.bearer, self.leaderboard.snapshot
        health = HealthRoutes(lambda: self.monitor.conditions, self._warnings, self._boards)
        health.migrated = True
        branding = load_branding(settings.page)
        pages = PageRoutes(
            self.rules if settings.page.actions else {},
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
                self.accounts, bearer, parts.origins, parts.addresses, refresh_days=settings.security.refresh_days
            ),
            UserRoutes(self.accounts, bearer, parts.addresses),
            ScoreRoutes(bearer, self.submit, snapshot, self.leaderboard.standing, self.board.fresh),
            health,
            pages,
            AvatarRoutes(snapshot, self.pictures if settings.accounts.avatars else None),
            Description(),
            ErrorPages(branding),
            metrics=not settings.server.metrics_port,
        )

    def _make_transports(self, parts: WebParts) -> tuple[LiveEndpoint, StreamEndpoint, PollEndpoint]:
        """The three ways to watch, with what they need of the web."""
        settings = self.settings.live
        origin_allowed, client_address = parts.origins.allows, parts.addresses.counted
        services = LiveDependencies(
            hub=self.hub,
            admission=Admission(
                per_address=settings.connections_per_ip,
                per_user=settings.connections_per_user,
                per_node=viewer_places(settings.connections),
            ),
            refresh=self.batcher.refresh,
            authenticate=self.sessions.authenticate,
            is_revoked=self.sessions.is_revoked,
            standing=self.leaderboard.standing,
            clock=self.sessions.clock.now,
        )
        rules = LiveLimits(anonymous=settings.anonymous, slow_reader_seconds=settings.slow_reader_seconds)
        requests = Requests(
            services,
            rules,
            origin_allowed=origin_allowed,
            client_address=client_address,
            identify=parts.bearer.identify,
        )
        return (
            LiveEndpoint(services, rules, origin_allowed=origin_allowed, client_address=client_address),
            StreamEndpoint(requests, services, rules, write_head=parts.heads.write, problem=problem),
            PollEndpoint(requests, services, problem=problem),
        )

    async def run(self, ready: Callable[[int], Awaitable[None]]) -> None:
        """Serves until `leave` is called, then takes its leave. `ready(port)` runs beside it once requests are
        answered.

        Cancelling ends everything at once; what is queued may or may not be recorded, as after a crash. Raises
        StartError, and whatever a task that may not be restarted raises.
        """
        async with trio.open_nursery() as services:
            for name, task, *args in self._tasks():
                await services.start(partial(supervised, name, task, *args, restart=True))
            async with self.asgi.lifespan(), trio.open_nursery() as front:
                if self.settings.server.metrics_port:
                    await front.start(partial(supervised, "metrics", self._listen_for_metrics, restart=False))
                address = await front.start(partial(supervised, "server", self._listen, restart=False))
                front.start_soon(ready, address[1])
                await self.leaving.wait()
                await self._shut_down()
                front.cancel_scope.cancel()
            services.cancel_scope.cancel()

    def leave(self) -> None:
        """Asks the node to take its leave."""
        self.leaving.set()

    def _tasks(self) -> list[tuple[Any, ...]]:
        """Whatever runs for ever and may be started again after a crash: each begins from the stores."""
        return [
            ("health", self.monitor.run),  # first: it learns which Redis this node's connections lead to
            ("projector", self.projector.run),
            *(("committer", commit_batches, self.queue, commit, self.hear) for commit in self.commits),
            ("late actions", end_late, self.queue),
            ("housekeeping", run_housekeeping, self.stores, LEADERBOARD),
            ("sessions", self.sessions.watch),
            ("reader", self.reader.run),
            ("batcher", self.batcher.run),
            ("audience", self.audience.run),
            ("heartbeat", run_heartbeat, self.hub),
            ("pictures", self.pictures.run),
        ]

    async def _listen(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        await self.server.run(self.settings.server.host, self.settings.server.port, task_status=task_status)

    async def _listen_for_metrics(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        server = self.settings.server
        await self.metrics_server.run(server.metrics_host or server.host, server.metrics_port, task_status=task_status)

    async def _shut_down(self) -> None:
        log.info("leaving", connections=self.server.connections)
        self.health.draining = True
        self.server.begin_drain()
        await trio.sleep(max(self.settings.server.drain_seconds, WIND_DOWN_SECONDS))
        self.server.stop_listening()
        await self.hub.leaving()
        await self.server.drain(FINISH_SECONDS)
        await self.metrics_server.drain(0)


async def serve(settings: Settings, keys: Keys, ready: Callable[["Node", int], Awaitable[None]]) -> None:
    """Runs one node on the settings' stores until SIGTERM, SIGINT or SIGHUP (a closed terminal); a second signal ends
    it at once.

    Raises SettingsError and StartError with one line each.
    """
    raise_descriptor_limit()
    async with stores_of(settings) as stores, trio.open_nursery() as root:
        node = Node(settings, keys, stores)
        began = time.monotonic()

        async def announce(port: int) -> None:
            tune_gc()  # all that is here now stays
            log.info(
                "serving",
                node=node.name,
                port=port,
                version=__version__,
                start_seconds=round(time.monotonic() - began, 3),
            )
            await ready(node, port)

        await root.start(_handle_signals, node, root.cancel_scope)
        await node.run(announce)
        root.cancel_scope.cancel()


async def _handle_signals(node: Node, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(*ending_signals()) as signals:
        task_status.started()
        async for number in signals:
            if node.leaving.is_set():
                if number == signal.SIGHUP:
                    continue  # a closed terminal sends it, and the shell in it once more
                log.warning("leaving_at_once")
                scope.cancel()
            node.leave()


def _watch_redis(state: State) -> None:
    metrics.BREAKER_STATE.labels("redis").set(BREAKER_VALUES[state])
    log.log(30 if state is State.OPEN else 20, "redis_breaker", state=state)
