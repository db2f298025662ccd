"""How many watch, on all nodes. The heartbeat of each node carries its own number; subscribers are sent the sum, at
most every five seconds.

The subscription calls `on_heartbeat`; `run` calls the hub. A node without a heartbeat for three seconds is no longer
counted.
"""

import trio

from scoreboard.live.hub import Hub

SEND_INTERVAL_SECONDS = 5.0  # contract: at most so often
NODE_TIMEOUT_SECONDS = 3.0  # a node's number counts for three heartbeat intervals
MAX_NODES = 1024  # other nodes, about 200 kB; when full, a node that is not known yet is not counted


class ViewerCount:
    """One for the process. `node`: this node's name; the hub counts its viewers."""

    __slots__ = ("_hub", "_node", "_others")

    def __init__(self, hub: Hub, node: str) -> None:
        self._hub, self._node = hub, node
        # other node → when its heartbeat came, by trio's clock, and how many watch there
        self._others: dict[str, tuple[float, int]] = {}

    def on_heartbeat(self, node: str, viewers: int) -> None:
        """A node's heartbeat has come; this node's own is ignored."""
        if node != self._node and (node in self._others or len(self._others) < MAX_NODES):
            self._others[node] = (trio.current_time(), viewers)

    def local(self) -> int:
        """How many watch on this node."""
        return self._hub.viewer_count()

    def total(self) -> int:
        """How many watch on all nodes whose heartbeats come."""
        since = trio.current_time() - NODE_TIMEOUT_SECONDS
        self._others = {node: (at, viewers) for node, (at, viewers) in self._others.items() if at >= since}
        return self.local() + sum(viewers for _, viewers in self._others.values())

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Sends the sum for ever. Cancelling it may leave some with the previous number."""
        task_status.started()
        while True:
            await trio.sleep(SEND_INTERVAL_SECONDS)
            await self._hub.send_viewer_count(self.total())
