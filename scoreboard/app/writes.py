"""Builds the write path: from a submitted action to PostgreSQL, and from there to the boards in Redis.

The projector of a board and the committers share one projection and one record of whether the board agrees with
PostgreSQL. `build_projectors` is for commands such as `scoreboard users delete`, which repair boards and submit
nothing. Tested with whole nodes, for example in tests/e2e/test_two_nodes.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from scoreboard.domain.anomalies import AnomalyPolicy
from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.scoring import Rules
from scoreboard.drivers.https_client import HttpsClient, make_ssl_context
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_queue import Queue
from scoreboard.operations.action_rules import load_rules
from scoreboard.operations.held_actions import HeldActions
from scoreboard.operations.held_users import HeldUsers
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.operations.webhooks import Webhooks
from scoreboard.runtime.breaker import Breaker
from scoreboard.settings.model import Settings
from scoreboard.storage.agreement import DetachedWriters
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.bus import Bus
from scoreboard.storage.commit import Commit
from scoreboard.storage.postgres.conditions import is_known
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.writer import Writer
from scoreboard.workers.committer import COMMITTERS
from scoreboard.workers.projector import Projector


class WriteParts(NamedTuple):
    """What the write path consists of. The node runs a committer for each of `commits`."""

    rules: Rules
    projectors: tuple[Projector, ...]  # one a board
    queue: Queue
    commits: list[Commit]
    submit_action: SubmitAction
    held_actions: HeldActions
    webhook_client: HttpsClient | None  # the node closes it
    board_refresh: BoardRefresh  # for changes that no committer makes
    held_users: HeldUsers | None  # None: no policy of an anomaly rule holds


def build_writes(
    settings: Settings,
    stores: Stores,
    boards: Sequence[Board],
    redis_breaker: Breaker,
    *,
    bus: Bus,
    node: str,
    on_board_changed: Callable[[Board, BoardVersion], None],
) -> WriteParts:
    """`redis_breaker` is shared with the reads of the boards. `on_board_changed` is called with each version that a
    projector of this node made; it must not block. `bus` tells of refused actions. Raises SettingsError."""
    rules = load_rules(settings)
    limits = _build_limits(settings, stores, rules)
    detached = DetachedWriters(boards)
    projectors = tuple(Projector(stores, board, node, limits, on_board_changed, detached) for board in boards)
    commits = [
        Commit(
            Writer(
                stores,
                limits,
                [projector.agreement for projector in projectors],
            ),
            limits,
            [BoardWriter(projector.projection, projector.agreement) for projector in projectors],
            redis_breaker,
        )
        for _ in range(COMMITTERS)
    ]
    for projector in projectors:
        projector.repair.writers = lambda: [commit.writer.writer_id for commit in commits]
    queue = Queue()
    board_refresh = BoardRefresh(stores, [projector.projection for projector in projectors], redis_breaker)
    client = _build_webhook_client(settings, rules)
    webhooks = (
        None
        if client is None
        else Webhooks(client, partial(is_known, stores), per_minute=settings.limits.user_per_minute)
    )
    held_users = HeldUsers(stores) if AnomalyPolicy.HOLD in settings.anomalies.policies.values() else None
    return WriteParts(
        rules,
        projectors,
        queue,
        commits,
        SubmitAction(rules, queue, webhooks, held_users),
        HeldActions(stores, queue, bus),
        client,
        board_refresh,
        held_users,
    )


def _build_webhook_client(settings: Settings, rules: Rules) -> HttpsClient | None:
    """A client of the webhooks' own: no other request of the node waits for their connections, nor they for others'.
    None where no action type has a webhook."""
    if not any(rule.webhook for rule in rules.values()):
        return None
    outgoing = settings.outgoing
    return HttpsClient(private_hosts=outgoing.private_hosts, ssl_context=make_ssl_context(outgoing.ca_file))


def build_projectors(
    settings: Settings, stores: Stores, boards: Sequence[Board], *, node: str
) -> tuple[Projector, ...]:
    """The projectors of a command, which has no committers and serves no board."""
    limits = _build_limits(settings, stores, load_rules(settings))
    detached = DetachedWriters(boards)
    return tuple(Projector(stores, board, node, limits, lambda _board, _version: None, detached) for board in boards)


def _build_limits(settings: Settings, stores: Stores, rules: Rules) -> UserLimits:
    """The limits of a user: actions a minute, and cooldowns."""
    return UserLimits(
        stores.redis_direct,
        per_minute=settings.limits.user_per_minute,
        cooldowns=settings.limits.cooldowns,
        max_window_ms=1000 * max((rule.cooldown for rule in rules.values()), default=0),
        namespace=stores.namespace,
        retention=stores.redis_retention,
    )
