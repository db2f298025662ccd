"""Signs of life: whoever asked for them hears something every few seconds, so that a page knows when a server answers
no more.

A board that is shown is a sign of life itself; only viewers of quiet boards get one of their own. The server sends
them, since a write costs it 6 µs and a ping from each viewer 70. `run_heartbeat` asks the hub, which knows what is
quiet.
"""

import trio

from scoreboard.domain.protocol import HEARTBEAT_SECONDS
from scoreboard.live.hub import Hub

CHECK_SECONDS = 0.5  # between two looks at what is quiet
# what was quiet for so long gets its heartbeat by the time that it was promised
QUIET_SECONDS = HEARTBEAT_SECONDS - CHECK_SECONDS


async def run_heartbeat(hub: Hub, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
    """Sends heartbeats for ever. Cancelling it leaves some without this heartbeat."""
    task_status.started()
    while True:
        await trio.sleep(CHECK_SECONDS)
        await hub.send_heartbeats(QUIET_SECONDS)
