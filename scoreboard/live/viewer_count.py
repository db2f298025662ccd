"""How many watch, on all nodes: each node's beat carries its own number, and the sum goes to every subscriber, at most
every five seconds.

The reader tells of beats; `run` tells the hub. A node that is not heard of for three seconds counts no more.
"""

import trio

from scoreboard.live.hub import Hub

TELL = 5.0  # seconds; contract: at most so often
HEARD = 3.0  # seconds that a node's number counts: three beats
NODES = 1024  # whose numbers are kept, about 200 kB; full: one that is not known yet is not counted


class ViewerCount:
    """One for the process. `node`: this one's name, whose number is asked of the hub itself."""

    __slots__ = ("_heard", "_hub", "_node")

    def __init__(self, hub: Hub, node: str) -> None:
        self._hub, self._node = hub, node
        # other node → when it was heard, by trio's clock, and how many watch there
        self._heard: dict[str, tuple[float, int]] = {}

    def hear(self, node: str, viewers: int) -> None:
        """A beat of any node."""
        if node != self._node and (node in self._heard or len(self._heard) < NODES):
            self._heard[node] = (trio.current_time(), viewers)

    def here(self) -> int:
        """How many watch on this node."""
        return self._hub.audience()

    def everywhere(self) -> int:
        """How many watch on all nodes, as far as they were heard of lately."""
        since = trio.current_time() - HEARD
        self._heard = {node: heard for node, heard in self._heard.items() if heard[0] >= since}
        return self.here() + sum(viewers for _, viewers in self._heard.values())

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Tells for ever. Cancelling it may leave some with the number before."""
        task_status.started()
        while True:
            await trio.sleep(TELL)
            await self._hub.count_viewers(self.everywhere())
