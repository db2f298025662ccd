"""A Socket and its peer, for tests of the Socket alone."""

import os
import socket as stdlib_socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from scoreboard.runtime.sockets import CLOSE_FRAME, Socket
from tests.runtime.raw import HANG

FILL = b"." * 4_000_000  # more than the kernel takes of a peer that does not read
CLOSE = CLOSE_FRAME + b"\x02\x03\xe8"  # 1000


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
    """Until the kernel takes nothing more."""
    try:
        while True:
            os.write(socket.fd, b"." * 1000)
    except BlockingIOError:
        pass
