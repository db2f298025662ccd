"""Viewers for the tests of live, whose sockets accept or refuse writes, and whose events can be read; idle polls."""

import socket as stdlib_socket
from collections import Counter
from typing import Any
from uuid import UUID

import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.framing import Encoding, websocket
from scoreboard.live.fan_out import Subscribers
from scoreboard.live.frame_set import FrameFormat
from scoreboard.live.hub import Hub
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import Socket
from tests.live.boards import BOARD
from tests.live.messages import names, read_frames, read_stream


class FakeSocket:
    """Accepts whole frames, or none while `stuck`. `release` does what a Socket does when it is writable again."""

    def __init__(self) -> None:
        self.accepted: list[bytes] = []
        self.stuck = False
        self.on_writable: object = None
        self.deadline = float("inf")

    def send_now(self, data: bytes) -> bool:
        if not self.stuck:
            self.accepted.append(data)
        return not self.stuck

    def acquire_fd(self, _on_fd_lost: object) -> bool:
        """It has no descriptor to write to."""
        return False

    def release_fd(self) -> None:
        pass

    def release(self) -> None:
        self.stuck = False
        assert callable(self.on_writable)
        self.on_writable(self)


class FakeTransport:
    """Records the codes that its viewer was closed with."""

    def __init__(self, codes: list[CloseCode]) -> None:
        self._codes = codes

    def close(self, code: CloseCode) -> None:
        self._codes.append(code)


class FakePoll:
    """Waits for nothing."""

    def on_frames(self) -> None:
        pass

    def close(self, code: CloseCode) -> None:
        pass


class FakeViewer(Viewer):
    """A viewer of a hub whose frames can be read again."""

    __slots__ = ("ends", "fake")

    def __init__(
        self,
        hub: Hub,
        *,
        user: UUID | None = None,
        sid: UUID | None = None,
        subscribed: bool = True,
        encode: Encoding = websocket,
        delta: bool = False,
        since: str = "",
    ) -> None:
        self.fake, self.ends = FakeSocket(), list[CloseCode]()  # the codes that it was closed with
        super().__init__(self.fake, FakeTransport(self.ends), encode)  # type: ignore[arg-type]
        hub.add(self)
        if user is not None:
            hub.identify(self, user, sid or UUID(int=0))
        if subscribed:
            hub.subscribe(self, BOARD, delta=delta, since=since)

    @property
    def events(self) -> list[dict[str, Any]]:
        data = b"".join(self.fake.accepted)
        return read_frames(data) if self.encode is websocket else [event for _, _, event in read_stream(data)]


class RealViewer(Viewer):
    """A viewer over a socket pair, whose peer reads when the test does."""

    __slots__ = ("asked", "peer", "received")

    def __init__(
        self, hub: Hub, nursery: trio.Nursery, *boards: Board, encode: Encoding = websocket, delta: bool = False
    ) -> None:
        ours, self.peer = stdlib_socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
        super().__init__(Socket(ours, nursery), FakeTransport([]), encode)
        self.received = b""
        self.asked = Counter[Board]()  # how often it subscribed to each board
        hub.add(self)
        for board in boards:
            self.subscribe(hub, board, delta=delta)

    def subscribe(self, hub: Hub, board: Board, *, delta: bool = False) -> None:
        hub.subscribe(self, board, delta=delta)
        hub.send_latest(self, board)
        self.asked[board] += 1

    def collect(self) -> None:
        """Reads what there is."""
        try:
            while data := self.peer.recv(65_536):
                self.received += data
        except BlockingIOError:
            pass

    def read_events(self) -> list[dict[str, Any]]:
        """The events that came since it was asked last."""
        self.collect()
        data, self.received = self.received, b""
        return read_frames(data) if self.encode is websocket else [event for _, _, event in read_stream(data)]

    def read(self) -> list[str]:
        """The boards that came since it was asked last."""
        return [names(event) for event in self.read_events()]

    async def skip(self, before: bytes) -> list[str]:
        """The same, once these bytes have come before them."""
        while len(self.received) < len(before):
            self.collect()
            await trio.lowlevel.checkpoint()
        assert self.received.startswith(before)
        await turns()
        self.collect()
        self.received = self.received[len(before) :]
        return self.read()


def subscribers(hub: Hub, board: Board = BOARD) -> Subscribers:
    """Those who want whole boards in WebSocket frames."""
    return hub._channels[board.id].subscribers[FrameFormat(websocket, delta=False)]


async def turns(count: int = 3) -> None:
    """Lets other tasks run."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()
