"""Seals new records into the transparency log, about once a second.

Runs on every node; storage.sealing has the rules, and lets one node at a time do it. Never touches what writers do: a
sealer that is late delays proofs and nothing else.
"""

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.storage.sealing import BATCH_LEAVES, Sealed, Sealing, Sign
from scoreboard.telemetry import metrics

log = structlog.get_logger()

# A record is sealed by the second step after its commit, so within some two seconds; clients are told five.
STEP_INTERVAL_SECONDS = 1.0
# Between two full batches: the log of years is sealed at some thousands a second, beside requests.
BUSY_INTERVAL_SECONDS = 0.02
LATE_SECONDS = 60.0  # a record that waits for so long is worth a line


async def run_sealer(
    stores: Stores, sign: Sign | None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Seals for ever. Started at once, since nothing else waits for it. Cancelling rolls back the current batch.

    Never raises StorageUnavailable: a failure is logged once until a step succeeds.
    """
    sealing = Sealing(stores, sign)
    task_status.started()
    if sign is None:
        log.warning("log_key_missing")
    trouble = ""  # what was logged last, until it is over
    try:
        while True:
            leaves = 0
            try:
                done = await run_in_asyncio(sealing.step_aio)
            except StorageUnavailable as exc:
                sealing.close()
                if trouble != "failed":
                    log.warning("sealing_failed", condition=exc.condition, why=exc.why)
                trouble = "failed"
            else:
                leaves = done.leaves
                metrics.LOG_SIZE.set(done.size)
                metrics.LOG_WAITING_SECONDS.set(done.waiting)
                trouble = _note_delay(done, trouble)
            await trio.sleep(BUSY_INTERVAL_SECONDS if leaves == BATCH_LEAVES else STEP_INTERVAL_SECONDS)
    finally:
        sealing.close()


def _note_delay(done: Sealed, trouble: str) -> str:
    """Logs when records begin to wait for too long, and when all trouble is over. Returns what lasts."""
    if done.waiting > LATE_SECONDS and not done.leaves:
        if trouble != "late":
            log.warning("sealing_late", seconds=round(done.waiting))
        return "late"
    if trouble:
        log.info("sealing_resumed", leaves=done.leaves)
    return ""
