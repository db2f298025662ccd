"""Heartbeats: a viewer that wants them receives something every few seconds. So a page notices a server that no longer
answers.

A board counts as a heartbeat, so only viewers of quiet boards are sent one. The server sends heartbeats unasked: a
write costs it 6 µs, and a ping from each viewer would cost 70. `Hub.send_heartbeats` decides which boards are quiet.
"""

import trio

from scoreboard.domain.protocol import HEARTBEAT_SECONDS
from scoreboard.live.hub import Hub

CHECK_INTERVAL_SECONDS = 0.5
# A board that was quiet for this long gets its heartbeat within HEARTBEAT_SECONDS, which the protocol promises.
QUIET_SECONDS = HEARTBEAT_SECONDS - CHECK_INTERVAL_SECONDS


async def run_heartbeat(hub: Hub, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
    """Sends heartbeats for ever. Cancelling it leaves some viewers without one heartbeat."""
    task_status.started()
    while True:
        await trio.sleep(CHECK_INTERVAL_SECONDS)
        await hub.send_heartbeats(QUIET_SECONDS)
