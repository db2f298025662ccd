"""A Socket and its peer, for tests of the Socket and the poller alone."""

import os
import socket as stdlib_socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from scoreboard.net.poller import Poller
from scoreboard.net.sockets import CLOSE_FRAME, Socket
from tests.http.raw import HANG

FILL = b"." * 4_000_000  # more than the kernel takes of a peer that does not read
CLOSE = CLOSE_FRAME + b"\x02\x03\xe8"  # 1000

Write = Callable[[int, bytes], int]  # what stands for os.write


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[Socket, trio.SocketStream]]:
    """Our Socket and its peer; the peer reads only when the test does."""
    left, right = stdlib_socket.socketpair()
    left.setblocking(False)
    left.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 4096)
    right.setblocking(False)
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery, trio.SocketStream(trio.socket.from_stdlib_socket(right)) as peer:
            socket = Socket(left, nursery)
            try:
                yield socket, peer
            finally:
                socket.close()


async def read(peer: trio.SocketStream, size: int) -> bytes:
    """Exactly `size` bytes."""
    data = b""
    while len(data) < size:
        data += await peer.receive_some(size - len(data))
    return data


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.sleep(0.001)


def fill(socket: Socket) -> None:
    """Writes until the kernel has no more room."""
    try:
        while True:
            os.write(socket.fd, b"." * 1000)
    except BlockingIOError:
        pass


# ---- watched by a poller --------------------------------------------------------------------------------------------


@asynccontextmanager
async def polling() -> AsyncIterator[tuple[Poller, trio.Nursery]]:
    """A poller that runs until the block ends."""
    poller = Poller()
    with trio.fail_after(HANG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            yield poller, nursery
            nursery.cancel_scope.cancel()
    poller.close()


class Pair:
    """Our Socket, watched by the poller, and its peer over TCP, which blocks. `old` is closed, and its descriptor's
    number used again."""

    def __init__(self, poller: Poller, nursery: trio.Nursery, old: "Pair | None" = None, group: str = "") -> None:
        with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = stdlib_socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        if old is not None:
            number = old.socket.fd
            old.socket.close()
            os.dup2(ours.fileno(), number)
            ours.close()
            ours = stdlib_socket.socket(fileno=number)
        ours.setblocking(False)
        self.socket: Socket = Socket(ours, nursery)
        self.socket.watcher = self.watcher = poller.watch(ours.fileno(), group)

    def reset(self) -> None:
        """The peer's kernel resets the connection."""
        self.peer.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.peer.close()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with polling() as (poller, nursery):
        with Pair(poller, nursery) as both:
            yield both
