"""Viewers for the tests of live: sockets that take or refuse, and snapshots to show them."""

import json
import socket as stdlib_socket
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import trio

from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.protocol import CloseCode, Encoding, websocket
from scoreboard.live.fan_out import Subscribers
from scoreboard.live.frame_set import FrameFormat
from scoreboard.live.hub import Hub
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import Socket
from scoreboard.storage.bus import Personal, Update

BOARD, OTHER = "leaderboard", "other"


class FakeSocket:
    """Takes whole frames, or, `stuck`, none. `release` is what a Socket does when it has drained."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.stuck = False
        self.on_writable: object = None
        self.deadline = float("inf")

    def send_now(self, data: bytes) -> bool:
        if not self.stuck:
            self.taken.append(data)
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
        wrap: Encoding = websocket,
        delta: bool = False,
        since: str = "",
    ) -> None:
        self.fake, self.ends = FakeSocket(), list[CloseCode]()
        super().__init__(self.fake, self.ends.append, wrap)  # type: ignore[arg-type]
        hub.join(self)
        if user is not None:
            hub.identify(self, user, sid or UUID(int=0))
        if subscribed:
            hub.subscribe(self, BOARD, delta=delta, since=since)

    @property
    def events(self) -> list[dict[str, Any]]:
        data = b"".join(self.fake.taken)
        return read_frames(data) if self.wrap is websocket else [event for _, _, event in read_stream(data)]


class RealViewer(Viewer):
    """A viewer over a socket pair, whose peer reads when the test does."""

    __slots__ = ("asked", "peer", "received")

    def __init__(
        self, hub: Hub, nursery: trio.Nursery, *boards: str, wrap: Encoding = websocket, delta: bool = False
    ) -> None:
        ours, self.peer = stdlib_socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
        super().__init__(Socket(ours, nursery), lambda _: None, wrap)
        self.received = b""
        self.asked = Counter[str]()  # how often it subscribed to each board
        hub.join(self)
        for board in boards:
            self.subscribe(hub, board, delta=delta)

    def subscribe(self, hub: Hub, board: str, *, delta: bool = False) -> None:
        hub.subscribe(self, board, delta=delta)
        hub.hand(self, board)
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
        return read_frames(data) if self.wrap is websocket else [event for _, _, event in read_stream(data)]

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


def subscribers(hub: Hub, board: str = BOARD) -> Subscribers:
    """Those who want whole boards in WebSocket frames."""
    return hub._watches[board].subscribers[FrameFormat(websocket, delta=False)]


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame (its mask is zero)."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + struct.pack("!H", size)
        if size < 65536
        else b"\xff" + struct.pack("!Q", size)
    )
    return bytes([(0x80 if final else 0) | opcode]) + length + b"\0\0\0\0" + payload


def one_by_one(data: bytes) -> list[bytes]:
    """Each byte alone, as a client that sends so small segments."""
    return [data[place : place + 1] for place in range(len(data))]


def read_frames(data: bytes, *, cut: bool = False) -> list[dict[str, Any]]:
    """The JSON of each of a server's text frames. `cut`: the last may have been cut short, by a close."""
    events = []
    while data:
        size, start = (data + b"\0")[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        assert data[0] == 0x81
        if cut and len(data) < start + size:
            break
        assert len(data) >= start + size
        events.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return events


def read_stream(data: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, id and JSON of each event of a Server-Sent stream; comments and advice are passed over."""
    events = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        if "data" in fields:
            events.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return events


def names(event: dict[str, Any]) -> str:
    """The user ids of an update, in order."""
    return "".join(row["userId"] for row in event["data"]["leaderboard"])


def snapshot(users: str, top: int, *, epoch: int = 1, stale_since_ms: int = 0) -> Snapshot:
    rows = tuple(Entry(rank, user, user.upper(), 100 - rank) for rank, user in enumerate(users, 1))
    return Snapshot(BOARD, epoch, top, top, 1_768_041_000_000, rows, stale_since_ms > 0, stale_since_ms)


def update_for(*users: UUID) -> Update:
    from scoreboard.domain.boards import BoardVersion

    return Update(
        BOARD,
        BoardVersion(1, 2),
        2,
        tuple(Personal(user, 0, 10, 10, place, 1, "r") for place, user in enumerate(users, 1)),
    )


async def turns(count: int = 3) -> None:
    """Lets other tasks run."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


def kinds(events: Sequence[dict[str, Any]]) -> list[object]:
    return [event["event"] for event in events]
