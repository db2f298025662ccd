"""Heartbeats: whoever wants them receives something every few seconds, so that a page knows when a server answers no
more.

A board that is sent is a sign of life itself, so only viewers of quiet boards get a heartbeat. The server sends them
unasked: a write costs it 6 µs, and a ping from each viewer 70. `run_heartbeat` asks the hub, which knows what is
quiet.
"""

import trio

from scoreboard.domain.protocol import HEARTBEAT_SECONDS
from scoreboard.live.hub import Hub

CHECK_INTERVAL_SECONDS = 0.5
# a board that was quiet for so long gets its heartbeat within the time that was promised
QUIET_SECONDS = HEARTBEAT_SECONDS - CHECK_INTERVAL_SECONDS


async def run_heartbeat(hub: Hub, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
    """Sends heartbeats for ever. Cancelling it leaves some without this heartbeat."""
    task_status.started()
    while True:
        await trio.sleep(CHECK_INTERVAL_SECONDS)
        await hub.send_heartbeats(QUIET_SECONDS)
