"""Live updates: the hub with what feeds it, and the three transports that viewers come by.

The transports are built later than the rest: they need what the web knows about a request. live and web do not import
each other, so this module hands the one to the other. Tested with a whole node in tests/e2e.
"""

from collections.abc import Mapping
from typing import NamedTuple

from scoreboard.http.server import viewer_places
from scoreboard.live.admission import Admission
from scoreboard.live.batcher import Batcher
from scoreboard.live.hub import Hub
from scoreboard.live.subscription import Reader
from scoreboard.live.transports.conversation import LiveDependencies, LiveLimits
from scoreboard.live.transports.long_poll import PollEndpoint
from scoreboard.live.transports.query import Requests
from scoreboard.live.transports.sse import StreamEndpoint
from scoreboard.live.transports.websocket import LiveEndpoint
from scoreboard.live.viewer_count import ViewerCount
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.settings.model import Settings
from scoreboard.storage.board_cache import BoardCache
from scoreboard.storage.bus import Bus
from scoreboard.web.listeners import WebParts
from scoreboard.web.problems import problem


class LiveParts(NamedTuple):
    """What brings changes to the viewers of this node."""

    hub: Hub
    batcher: Batcher
    viewer_count: ViewerCount
    subscription: Reader


class Transports(NamedTuple):
    """The three ways to watch."""

    websocket: LiveEndpoint
    stream: StreamEndpoint
    poll: PollEndpoint


def build_live(
    settings: Settings, boards: Mapping[str, BoardCache], bus: Bus, authenticator: Authenticator, *, node: str
) -> LiveParts:
    """`boards`: those that may be watched, by id. `bus` brings the messages of all nodes."""
    hub = Hub(tuple(boards))
    batcher = Batcher(boards, hub, tick=settings.live.tick_seconds)
    viewer_count = ViewerCount(hub, node)
    subscription = Reader(bus, boards, batcher, hub, viewer_count, node=node, revoked=authenticator.mark_revoked)
    return LiveParts(hub, batcher, viewer_count, subscription)


def build_transports(
    settings: Settings, live: LiveParts, authenticator: Authenticator, leaderboard: Leaderboard, web: WebParts
) -> Transports:
    """The transports share one admission, so that a viewer counts once, by whichever way it comes."""
    origin_allowed, client_address = web.origins.allows, web.addresses.counted
    dependencies = LiveDependencies(
        hub=live.hub,
        admission=Admission(
            per_address=settings.live.connections_per_ip,
            per_user=settings.live.connections_per_user,
            per_node=viewer_places(settings.live.connections),
        ),
        refresh=live.batcher.refresh,
        authenticate=authenticator.authenticate,
        is_revoked=authenticator.is_revoked,
        standing=leaderboard.standing,
        clock=authenticator.clock.now,
    )
    limits = LiveLimits(anonymous=settings.live.anonymous, slow_reader_seconds=settings.live.slow_reader_seconds)
    requests = Requests(
        dependencies,
        limits,
        origin_allowed=origin_allowed,
        client_address=client_address,
        identify=web.bearer.identify,
    )
    return Transports(
        LiveEndpoint(dependencies, limits, origin_allowed=origin_allowed, client_address=client_address),
        StreamEndpoint(requests, dependencies, limits, write_head=web.heads.write, problem=problem),
        PollEndpoint(requests, dependencies, problem=problem),
    )
