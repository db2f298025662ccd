"""Builds live updates: the hub, the batcher and the subscription that feed it, and the three transports.

The transports are built last: they need objects of the web. live and web do not import each other, so this module
passes these objects. Tested with whole nodes, for example in tests/e2e/test_live.py.
"""

from collections.abc import Mapping
from typing import NamedTuple

from scoreboard.http.server import viewer_places
from scoreboard.live.admission import Admission
from scoreboard.live.batcher import Batcher
from scoreboard.live.dependencies import LiveDependencies, WebDependencies
from scoreboard.live.hub import Hub
from scoreboard.live.limits import LiveLimits
from scoreboard.live.subscription import Subscription
from scoreboard.live.transports.long_poll import PollEndpoint
from scoreboard.live.transports.query import LiveRequestReader
from scoreboard.live.transports.sse import StreamEndpoint
from scoreboard.live.transports.websocket import WebSocketEndpoint
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.settings.model import Settings
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.bus import Bus
from scoreboard.web import problems
from scoreboard.web.listeners import WebParts


class LiveParts(NamedTuple):
    """The parts that bring changes to the viewers of this node."""

    hub: Hub
    batcher: Batcher
    viewer_count: ViewerCount
    subscription: Subscription


class Transports(NamedTuple):
    """The three ways to watch."""

    websocket: WebSocketEndpoint
    stream: StreamEndpoint
    poll: PollEndpoint


def build_live(
    settings: Settings, boards: Mapping[str, BoardCache], bus: Bus, authenticator: Authenticator, *, node: str
) -> LiveParts:
    """`boards`: those that may be watched, by id. `bus` brings the messages of all nodes."""
    hub = Hub(cache.board for cache in boards.values())
    batcher = Batcher(boards, hub, tick_seconds=settings.live.tick_seconds)
    viewer_count = ViewerCount(hub, node)
    subscription = Subscription(bus, boards, batcher, hub, viewer_count, node=node, authenticator=authenticator)
    return LiveParts(hub, batcher, viewer_count, subscription)


def build_transports(
    settings: Settings, live: LiveParts, authenticator: Authenticator, leaderboard: Leaderboard, web: WebParts
) -> Transports:
    """The transports share one admission, so that a limit counts connections of all three."""
    dependencies = LiveDependencies(
        hub=live.hub,
        admission=Admission(
            per_address=settings.live.connections_per_ip,
            per_user=settings.live.connections_per_user,
            per_node=viewer_places(settings.live.connections),
        ),
        batcher=live.batcher,
        authenticator=authenticator,
        standings=leaderboard,
        clock=authenticator.clock,
    )
    of_web = WebDependencies(
        origins=web.origins, addresses=web.addresses, bearer=web.bearer, heads=web.heads, problems=problems
    )
    limits = LiveLimits(anonymous=settings.live.anonymous, slow_reader_seconds=settings.live.slow_reader_seconds)
    reader = LiveRequestReader(dependencies, limits, of_web)
    return Transports(
        WebSocketEndpoint(dependencies, limits, of_web),
        StreamEndpoint(reader, dependencies, limits, of_web),
        PollEndpoint(reader, dependencies, of_web),
    )
