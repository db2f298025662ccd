"""`websockets.broadcast` on uvloop: the library's own way to many clients."""

import asyncio
import signal

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from tests.peers.fanout_message import PORT, TICK, message

connections: set[ServerConnection] = set()


async def viewer(connection: ServerConnection) -> None:
    connections.add(connection)
    try:
        await connection.wait_closed()
    finally:
        connections.discard(connection)


async def main() -> None:
    begin = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, begin.set)
    async with serve(viewer, "127.0.0.1", PORT, compression=None, backlog=4096):
        await begin.wait()
        due = loop.time()
        while True:
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            broadcast(connections, message())


if __name__ == "__main__":
    uvloop.run(main())
