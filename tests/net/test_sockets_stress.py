"""The Socket beside trio-websocket, under any interleaving."""

import os
import random
import struct

import pytest
import trio
import trio_websocket
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.net import sockets
from scoreboard.net.sockets import Socket
from tests.http.raw import UPGRADE
from tests.net.pairs import CLOSE, paired, until


def frame(opcode: int, payload: bytes) -> bytes:
    """As the server writes it: unmasked, in one piece."""
    size = struct.pack("!B", len(payload)) if len(payload) < 126 else struct.pack("!BH", 126, len(payload))
    return bytes([0x80 | opcode]) + size + payload


def masked(opcode: int, payload: bytes) -> bytes:
    """As a client writes it."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


def parsed(data: bytes) -> list[tuple[int, bytes]]:
    """The frames in `data`; the last may be cut short by a close, the others may have nothing wrong with them."""
    frames: list[tuple[int, bytes]] = []
    while len(data) >= 2:
        first, size, at = data[0], data[1], 2
        assert first & 0xF0 == 0x80, "a frame begins with FIN and no reserved bit"
        assert size <= 126, "ours are short and not masked"
        if size == 126:
            if len(data) < 4:
                break
            size, at = struct.unpack("!H", data[2:4])[0], 4
        if len(data) < at + size:
            break
        frames.append((first & 0xF, data[at : at + size]))
        data = data[at + size :]
    return frames


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    bite=st.sampled_from([1, 7, 1000]),
    blocks=st.sampled_from([0.0, 0.3, 0.8]),
    now=st.booleans(),
)
def test_ticks_beside_trio_websocket(seed: int, bite: int, blocks: float, now: bool) -> None:
    """Beside trio-websocket's own pongs, echoes and Close, on a descriptor that takes a few bytes at a time or blocks
    when it likes, the client sees whole frames in order, every echo and pong, the last tick or a later one, and nothing
    after the Close."""
    chance = random.Random(seed)  # for the sizes of writes and the tasks' pauses

    def write(fd: int, data: bytes) -> int:
        if chance.random() < blocks:
            raise BlockingIOError
        return os.write(fd, bytes(data[: chance.randint(1, bite)]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sockets, "_write", write)
        trio.run(whole_conversation, chance, now)


async def whole_conversation(chance: random.Random, now: bool) -> None:
    newest, sent = 0, 0  # ticks

    def tick(socket: Socket) -> None:
        nonlocal sent
        if sent < newest and socket.send_now(frame(1, b"tick %d " % newest + b"x" * chance.choice([0, 200]))):
            sent = newest

    async def ticks(socket: Socket) -> None:
        nonlocal newest
        for _ in range(30):
            newest += 1
            tick(socket)
            for _ in range(chance.randint(0, 3)):
                await trio.lowlevel.checkpoint()

    async def client(peer: trio.SocketStream) -> None:
        for number in range(10):
            await peer.send_all(masked(9, b"ping %d" % number) + masked(1, b"echo %d" % number))
            await trio.lowlevel.checkpoint()

    async def echo(websocket: trio_websocket.WebSocketConnection) -> None:
        for _ in range(10):
            await websocket.send_message(await websocket.get_message())

    received = b""
    async with paired() as (socket, peer), trio.open_nursery() as nursery:

        async def collect() -> None:
            nonlocal received
            while more := await peer.receive_some():
                received += more
                if b"\x88" in more:  # the client answers a Close, else trio-websocket would wait for it
                    try:
                        await peer.send_all(masked(8, b"\x03\xe8"))
                    except trio.BrokenResourceError:
                        pass

        await peer.send_all(UPGRADE)
        async with trio.open_nursery() as readers:
            handshake = await trio_websocket.wrap_server_stream(readers, socket)
            readers.start_soon(collect)
            websocket = await handshake.accept()
            socket.on_writable = tick
            async with trio.open_nursery() as writers:
                writers.start_soon(ticks, socket)
                writers.start_soon(client, peer)
                writers.start_soon(echo, websocket)
            await until(lambda: sent == newest)

            def pongs() -> list[bytes]:
                return [payload for opcode, payload in parsed(received.partition(b"\r\n\r\n")[2]) if opcode == 10]

            await until(lambda: len(pongs()) == 10)
            nursery.start_soon(ticks, socket)  # still ticking while it closes
            if now:
                await until(lambda: socket.send_now(CLOSE))
            await websocket.aclose()
            socket.close()
    frames = parsed(received.partition(b"\r\n\r\n")[2])
    assert b"".join(frame(*each) for each in frames) == received.partition(b"\r\n\r\n")[2]
    assert [opcode for opcode, _ in frames].index(8) == len(frames) - 1, "the Close is the last"
    assert [payload for opcode, payload in frames if opcode == 10] == [b"ping %d" % n for n in range(10)]
    texts = [payload for opcode, payload in frames if opcode == 1]
    assert [text for text in texts if text.startswith(b"echo")] == [b"echo %d" % n for n in range(10)]
    numbers = [int(text.split()[1]) for text in texts if text.startswith(b"tick")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= 30
