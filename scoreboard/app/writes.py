"""The write path: from a submitted action to PostgreSQL, and from there to the Redis board.

The projector and the committers share one projection and one record of whether the board agrees with PostgreSQL.
`build_projector` stands alone: `scoreboard users delete` repairs boards and submits nothing.
Tested with a whole node in tests/e2e.
"""

from collections.abc import Callable
from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD, BoardVersion
from scoreboard.domain.scoring import Rules
from scoreboard.operations.action_queue import Queue
from scoreboard.operations.action_rules import load_rules
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.runtime.breaker import Breaker
from scoreboard.settings.model import Settings
from scoreboard.storage.commit import Commit
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.redis.limits import Limits
from scoreboard.storage.writer import Writer
from scoreboard.workers.committer import COMMITTERS
from scoreboard.workers.projector import Projector


class WriteParts(NamedTuple):
    """What the write path consists of. The node runs a committer for each of `commits`."""

    rules: Rules
    projector: Projector
    queue: Queue
    commits: list[Commit]
    submit_action: SubmitAction


def build_writes(
    settings: Settings,
    stores: Stores,
    monitor: HealthMonitor,
    redis_breaker: Breaker,
    *,
    node: str,
    on_board_changed: Callable[[BoardVersion], None],
) -> WriteParts:
    """`redis_breaker` is shared with the reads of the board. `on_board_changed` hears of the versions that this node's
    projector made; it must not block."""
    rules = load_rules(settings)
    limits = _build_limits(settings, stores, monitor, rules)
    projector = Projector(stores, LEADERBOARD, node, limits, on_board_changed)
    commits = [
        Commit(
            Writer(stores.connect_committer, limits.judge_by_log, projector.agreement),
            limits,
            projector.projection,
            redis_breaker,
            projector.agreement,
        )
        for _ in range(COMMITTERS)
    ]
    projector.writers = lambda: [commit.writer.number for commit in commits]
    queue = Queue()
    return WriteParts(rules, projector, queue, commits, SubmitAction(rules, queue))


def build_projector(settings: Settings, stores: Stores, *, node: str) -> Projector:
    """A projector of a process that serves nobody: no committers, and nobody to be shown a board."""
    limits = _build_limits(settings, stores, HealthMonitor(stores), load_rules(settings))
    return Projector(stores, LEADERBOARD, node, limits, lambda _version: None)


def _build_limits(settings: Settings, stores: Stores, monitor: HealthMonitor, rules: Rules) -> Limits:
    """The limits of a user: actions a minute, and cooldowns."""
    return Limits(
        stores.redis_direct,
        per_minute=settings.limits.user_per_minute,
        cooldowns=settings.limits.cooldowns,
        longest_ms=1000 * max((rule.cooldown for rule in rules.values()), default=0),
        namespace=stores.namespace,
        may_have_forgotten=lambda: monitor.redis_evicts,
        reconnects=lambda: stores.redis_generation.reconnects,
    )
