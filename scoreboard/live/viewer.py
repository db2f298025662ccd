"""The hub's clients: a `Viewer` for each WebSocket or event stream, a `Poll` for each long poll that waits.

Transports make them; the hub holds them, and writes to them. Both are small: there are thousands. Tested with the hub,
and in tests/live/test_reference_cycles.py.
"""

from collections import deque
from typing import Protocol
from uuid import UUID

from scoreboard.domain import framing
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.framing import Encoding
from scoreboard.net.sockets import Socket


class Transport(Protocol):
    """What runs a viewer's connection."""

    def close(self, code: CloseCode) -> None:
        """Closes the connection with a code, without waiting. May be called more than once."""


class WritableObserver(Protocol):
    """What a viewer reports to: the hub."""

    def on_writable(self, viewer: "Viewer") -> None:
        """The viewer's socket takes bytes again."""


class Viewer:
    """One connection. Its transport calls `Hub.add`, and in the end `Hub.remove` and `detach`."""

    __slots__ = (
        "encode",
        "hub",
        "last_viewer_count",
        "pending",
        "sid",
        "socket",
        "transport",
        "user",
        "wants_heartbeat",
    )

    def __init__(self, socket: Socket, transport: Transport, encode: Encoding = framing.websocket) -> None:
        self.socket = socket
        self.transport: Transport | None = transport
        self.hub: WritableObserver | None = None  # until it was added to one
        self.encode = encode  # makes its transport's bytes of a message
        self.user: UUID | None = None  # None: anonymous
        self.sid: UUID | None = None
        # messages that the socket did not take, in order; None: none (most viewers, always). See hub.MAX_PENDING_EVENTS
        self.pending: deque[bytes] | None = None
        self.wants_heartbeat = False  # every few seconds on a quiet board
        self.last_viewer_count = 0  # the number that this viewer was sent last

    def close(self, code: CloseCode) -> None:
        """Has its transport close the connection, without waiting. Does nothing once `detach` was called."""
        if self.transport is not None:
            self.transport.close(code)

    def detach(self) -> None:
        """Its transport has ended. Breaks the reference cycle between the two: the cyclic collector runs rarely."""
        self.transport = None

    def on_writable(self, _socket: Socket) -> None:
        """Its socket has room again, or another writer has released it."""
        if self.hub is not None:
            self.hub.on_writable(self)


class Poll(Protocol):
    """One request that waits for a board's next frames. None of its methods may wait."""

    def on_frames(self) -> None:
        """The board has new frames."""

    def close(self, code: CloseCode) -> None:
        """The node shuts down: the wait ends now."""
