"""The tasks that run as long as the node does. Each begins from the stores, so each may be started again after a
crash.

Tested with whole nodes, for example in tests/e2e/test_two_nodes.py.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import trio

from scoreboard.app.accounts import AccountParts
from scoreboard.app.live import LiveParts
from scoreboard.app.writes import WriteParts
from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.drivers.stores import Stores
from scoreboard.live.heartbeat import run_heartbeat
from scoreboard.operations.pictures import Pictures
from scoreboard.runtime.supervise import supervised
from scoreboard.storage.health import HealthMonitor
from scoreboard.storage.sealing import Sign
from scoreboard.workers.committer import commit_batches, expire_task
from scoreboard.workers.housekeeping import run_housekeeping
from scoreboard.workers.sealer import run_sealer
from scoreboard.workers.validation import run_validation


class Worker(NamedTuple):
    """A task that runs for ever. `name` is its label in logs and metrics; `run` takes `task_status`."""

    name: str
    run: Callable[..., Awaitable[None]]


def build_workers(
    stores: Stores,
    monitor: HealthMonitor,
    accounts: AccountParts,
    writes: WriteParts,
    live: LiveParts,
    pictures: Pictures,
    sign: Sign | None,
    *,
    session_days: int,
    on_board_changed: Callable[[Board, BoardVersion], None],
) -> list[Worker]:
    """The workers in the order in which they start: each waits until the previous one has started. `session_days`: how
    long the rows of ended sessions are kept."""
    return [
        Worker("health", monitor.run),  # first: it finds out which Redis this node's connections lead to
        *(Worker("projector", projector.run) for projector in writes.projectors),
        *(
            Worker("committer", partial(commit_batches, writes.queue, commit, on_board_changed))
            for commit in writes.commits
        ),
        Worker("late actions", partial(expire_task, writes.queue)),
        Worker(
            "housekeeping",
            partial(
                run_housekeeping,
                stores,
                [projector.board for projector in writes.projectors],
                session_days=session_days,
            ),
        ),
        Worker("validation", partial(run_validation, stores, writes.held_actions)),
        Worker("sealer", partial(run_sealer, stores, sign)),
        Worker("sessions", accounts.authenticator.watch),
        Worker("server keys", accounts.server_keys.watch),
        Worker("subscription", live.subscription.run),
        Worker("batcher", live.batcher.run),
        Worker("viewer count", live.viewer_count.run),
        Worker("heartbeat", partial(run_heartbeat, live.hub)),
        Worker("pictures", pictures.run),
    ]


async def start_workers(nursery: trio.Nursery, workers: list[Worker]) -> None:
    """Starts them one after the other, supervised. Returns when the last one has started."""
    for worker in workers:
        await nursery.start(partial(supervised, worker.name, worker.run, restart=True))
