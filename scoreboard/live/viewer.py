"""Who is connected: a `Viewer` for each connection that stays, a `Poll` for each request that waits. Made by their
transports, told by the hub. Small: there are thousands.
"""

from collections import deque
from collections.abc import Callable
from uuid import UUID

from scoreboard.domain import protocol as wire
from scoreboard.domain.protocol import CloseCode, Encoding
from scoreboard.net.sockets import Socket


class Viewer:
    """One connection. Its transport calls `Hub.join` and, in the end, `Hub.leave`.

    `end` closes the connection with a code, without waiting; it may be called more than once, and does nothing once
    `forget` was called.
    """

    __slots__ = ("catch_up", "end", "pending", "sid", "socket", "told", "user", "wants_heartbeat", "wrap")

    def __init__(self, socket: Socket, end: Callable[[CloseCode], None], wrap: Encoding = wire.websocket) -> None:
        self.socket = socket
        self.end = end
        self.catch_up: Callable[[Viewer], None] | None = None  # the hub's
        self.wrap = wrap  # makes its transport's bytes of a message
        self.user: UUID | None = None  # None: anonymous
        self.sid: UUID | None = None
        # messages that the socket did not take, in order; None: none (most viewers, always)
        self.pending: deque[bytes] | None = None
        self.wants_heartbeat = False  # every few seconds on a quiet board
        self.told = 0  # how many watch, as it was told last

    def forget(self) -> None:
        """Its transport has ended: lets go of it, so that neither outlives the other until the collector comes."""
        self.end = _has_ended

    def drained(self, _socket: Socket) -> None:
        """Its socket has room again, or the one who held it has let go."""
        if self.catch_up is not None:
            self.catch_up(self)


def _has_ended(_code: CloseCode) -> None:
    pass


def _nothing() -> None:
    pass


class Poll:
    """One request that waits for a board's next frames. `wake` is called when there are some, and when it is over; it
    must not wait."""

    __slots__ = ("over", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.over = False  # `end` was called: no use in waiting any longer

    def end(self, _code: CloseCode = CloseCode.RESTART) -> None:
        """Its time has passed, or the node is leaving."""
        self.over = True
        self.wake()

    def forget(self) -> None:
        """As for a viewer."""
        self.wake = _nothing
