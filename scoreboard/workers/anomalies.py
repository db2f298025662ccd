"""Looks for anomalies in the action log, off the way of an action.

Every node runs it; one at a time works, whichever takes the watermark. An outage of PostgreSQL ends one run, and the
next one continues where the last commit was. Tested in tests/storage/test_anomaly_log.py.
"""

import structlog
import trio

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outgoing_messages import Channel
from scoreboard.drivers.stores import Stores
from scoreboard.storage import log_in_networks
from scoreboard.storage.anomaly_log import AnomalyLog
from scoreboard.storage.flagging import Opened
from scoreboard.storage.postgres import flags
from scoreboard.telemetry import metrics

RUN_INTERVAL_SECONDS = 1.0  # how late a finding may be, when the log is settled
PRUNE_INTERVAL_SECONDS = 3600.0

log = structlog.get_logger()

# Series that begin with 0: Prometheus sees no increase in one that begins with the first flag.
for _rule in AnomalyRule:
    metrics.ANOMALIES.labels(_rule)
for _channel in Channel:
    for _result in ("added", "dropped", "sent", "failed", "dead"):
        metrics.OUTGOING_MESSAGES.labels(_channel, _result)


async def run_anomalies(
    stores: Stores, anomaly_log: AnomalyLog, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Looks for ever. Started at once. Cancelling rolls back the current run: the next one looks at its actions
    again."""
    task_status.started()
    pruned, has_failed = -PRUNE_INTERVAL_SECONDS, False
    while True:
        is_behind = False
        try:
            examined = await anomaly_log.examine()
            is_behind, has_failed = examined.is_behind, False
            metrics.ANOMALY_LAG.set(examined.lag_seconds)
            count_opened(examined.opened)
            if trio.current_time() - pruned >= PRUNE_INTERVAL_SECONDS:
                await flags.prune(stores)
                await log_in_networks.prune(stores)
                pruned = trio.current_time()
        except StorageUnavailable as exc:
            if not has_failed:
                log.warning("anomalies_not_read", condition=exc.condition, why=exc.why)
            has_failed = True
        await trio.sleep(0 if is_behind else RUN_INTERVAL_SECONDS)


def count_opened(opened: Opened) -> None:
    """Counts new flags and their alerts."""
    for flag in opened.flags:
        metrics.ANOMALIES.labels(flag.rule).inc()
    for result, number in (("added", opened.alerts), ("dropped", opened.alerts_dropped)):
        if number:
            metrics.OUTGOING_MESSAGES.labels(Channel.ALERTS, result).inc(number)
