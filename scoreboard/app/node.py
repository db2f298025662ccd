"""One node of the server. READ THIS FIRST: it shows what a node consists of, and how it starts and ends.

`serve` opens the stores and runs one `Node`. Its constructor lists the parts in the order in which they are built; each
part has a module beside this one. `Node.run` starts the workers, then the web application, then the listeners.

A shutdown goes the other way:

1. /readyz answers 503 and every response closes its connection.
2. The drain delay passes, so that load balancers notice.
3. The listeners close.
4. Viewers' connections are closed with 1012, which has them reconnect.
5. Requests in flight finish.
6. The workers end, then the stores.

Tested by tests/e2e/test_operating.py and test_two_nodes.py.
"""

import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from logging import INFO, WARNING
from secrets import token_hex

import structlog
import trio

from scoreboard import __version__
from scoreboard.app.accounts import build_accounts, build_log_signer
from scoreboard.app.anomalies import build_anomaly_workers
from scoreboard.app.http import build_http, build_pictures, build_web_parts
from scoreboard.app.live import build_live, build_transports
from scoreboard.app.outside import build_https_client, build_outside_log_ins
from scoreboard.app.reads import build_reads
from scoreboard.app.workers import build_workers, start_workers
from scoreboard.app.writes import build_writes
from scoreboard.domain.boards import BOARDS, Board, BoardVersion
from scoreboard.drivers.stores import Stores
from scoreboard.operations.transparency import TransparencyLog
from scoreboard.runtime.breaker import Breaker, State
from scoreboard.runtime.process import ending_signals, raise_descriptor_limit, tune_gc
from scoreboard.runtime.supervise import supervised
from scoreboard.settings.keys import Keys
from scoreboard.settings.model import Settings
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.start_stores import start_stores
from scoreboard.telemetry import metrics

# the shortest drain delay: a busy client reads "Connection: close" in this time, and connects to another node
MIN_DRAIN_SECONDS = 0.5
FINISH_TIMEOUT_SECONDS = 3.0  # for requests in flight when the listeners are closed: an action's own deadline

BREAKER_VALUES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}

log = structlog.get_logger()


class Node:
    """The parts of one process. Made while the stores are open; `run` is called once."""

    def __init__(self, settings: Settings, keys: Keys, stores: Stores) -> None:
        self.name = node_name()
        self.stopping = trio.Event()
        self._settings = settings
        monitor = HealthMonitor(stores)
        redis_breaker = Breaker("redis", on_state_change=_on_redis_breaker_changed)
        self.account_parts = build_accounts(settings, keys, stores)
        authenticator = self.account_parts.authenticator
        self.https = build_https_client(settings.outgoing)
        outside = build_outside_log_ins(settings, self.account_parts, self.https)
        self.writes = build_writes(
            settings,
            stores,
            BOARDS,
            redis_breaker,
            bus=self.account_parts.bus,
            node=self.name,
            on_board_changed=self.on_board_changed,
        )
        self.reads = build_reads(stores, self.account_parts.profiles, redis_breaker, self.writes.projectors)
        self.live = build_live(settings, self.reads.by_id, self.account_parts.bus, authenticator, node=self.name)
        pictures = build_pictures(settings)
        signer = build_log_signer(settings, keys)
        web = build_web_parts(settings, self.account_parts)
        transports = build_transports(settings, self.live, authenticator, self.reads.leaderboard, web)
        self.http = build_http(
            settings,
            web,
            stores,
            monitor,
            self.account_parts,
            outside,
            self.writes,
            self.reads,
            pictures,
            transports,
            TransparencyLog(stores, signer),
        )
        self.workers = build_workers(
            stores,
            monitor,
            self.account_parts,
            self.writes,
            self.live,
            pictures,
            signer.sign if signer else None,
            session_days=settings.retention.ended_session_days,
            on_board_changed=self.on_board_changed,
        )
        self.workers += build_anomaly_workers(settings, stores, self.account_parts, self.writes, self.https)

    def on_board_changed(self, board: Board, version: BoardVersion) -> None:
        """Reads that begin after this show that version or a newer one. Called by committers and projectors. It is a
        method of the node because they are built before the reads."""
        self.reads.boards[board].note_version(version)

    def request_shutdown(self) -> None:
        """Asks the node to shut down. Returns at once; may be called again."""
        self.stopping.set()

    async def run(self, ready: Callable[[int], Awaitable[None]]) -> None:
        """Serves until `request_shutdown` is called, then shuts down. `ready(port)` runs beside it once requests are
        answered.

        Cancelling ends everything at once; what is queued may or may not be recorded, as after a crash. Raises
        StartError, and whatever a task that may not be restarted raises.
        """
        async with trio.open_nursery() as workers:
            await start_workers(workers, self.workers)
            async with self.http.asgi.lifespan(), trio.open_nursery() as listeners:
                if self._settings.server.metrics_port:
                    await listeners.start(partial(supervised, "metrics", self._listen_for_metrics, restart=False))
                address = await listeners.start(partial(supervised, "server", self._listen, restart=False))
                listeners.start_soon(ready, address[1])
                await self.stopping.wait()
                await self._shut_down()
                listeners.cancel_scope.cancel()
            if self.writes.webhook_client is not None:
                await self.writes.webhook_client.aclose()
            workers.cancel_scope.cancel()
        await self.https.aclose()

    async def _listen(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        server = self._settings.server
        await self.http.server.run(server.host, server.port, task_status=task_status)

    async def _listen_for_metrics(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        server = self._settings.server
        host = server.metrics_host or server.host
        await self.http.metrics_server.run(host, server.metrics_port, task_status=task_status)

    async def _shut_down(self) -> None:
        log.info("shutdown_started", connections=self.http.server.connections)
        self.http.health.draining = True
        self.http.server.begin_drain()
        await trio.sleep(max(self._settings.server.drain_seconds, MIN_DRAIN_SECONDS))
        self.http.server.stop_listening()
        await self.live.hub.shut_down()
        await self.http.server.drain(FINISH_TIMEOUT_SECONDS)
        await self.http.metrics_server.drain(0)


def node_name() -> str:
    """A name that no other node has, now or after a restart."""
    return f"{socket.gethostname()}-{token_hex(4)}"


# ---- a process ------------------------------------------------------------------------------------------------------


async def serve(settings: Settings, keys: Keys, ready: Callable[[Node, Stores, int], Awaitable[None]]) -> None:
    """Runs one node on the settings' stores until SIGTERM, SIGINT or SIGHUP (a closed terminal).

    A second signal ends it at once. `ready(node, stores, port)` runs beside it once requests are answered. Raises
    SettingsError and StartError with one line each.
    """
    raise_descriptor_limit()
    async with start_stores(settings) as stores, trio.open_nursery() as root:
        node = Node(settings, keys, stores)
        began = time.monotonic()

        async def announce(port: int) -> None:
            tune_gc()  # after start-up: the objects that exist now live as long as the process
            log.info(
                "node_started",
                node=node.name,
                port=port,
                version=__version__,
                start_seconds=round(time.monotonic() - began, 3),
            )
            await ready(node, stores, port)

        await root.start(_handle_signals, node, root.cancel_scope)
        await node.run(announce)
        root.cancel_scope.cancel()


async def _handle_signals(node: Node, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """The first signal asks for a shutdown; the next one cancels the scope."""
    with trio.open_signal_receiver(*ending_signals()) as signals:
        task_status.started()
        async for number in signals:
            if node.stopping.is_set():
                if number == signal.SIGHUP:
                    continue  # a closed terminal sends SIGHUP, and its shell sends a second one
                log.warning("shutdown_forced")
                scope.cancel()
            node.request_shutdown()


def _on_redis_breaker_changed(state: State) -> None:
    metrics.BREAKER_STATE.labels("redis").set(BREAKER_VALUES[state])
    log.log(WARNING if state is State.OPEN else INFO, "redis_breaker_changed", state=state)
