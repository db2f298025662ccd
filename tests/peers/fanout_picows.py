"""picows (Cython) on uvloop: one `send` a client."""

import asyncio
import signal

import uvloop
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from tests.peers.fanout_message import PORT, TICK, message

transports: set[WSTransport] = set()


class Viewer(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        transports.discard(transport)


def viewer(_request: WSUpgradeRequest) -> Viewer:
    return Viewer()


async def main() -> None:
    begin = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, begin.set)
    server = await ws_create_server(viewer, "127.0.0.1", PORT, backlog=4096)
    async with server:
        await begin.wait()
        due = loop.time()
        while True:
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            payload = message().encode()
            for transport in transports:
                transport.send(WSMsgType.TEXT, payload)


if __name__ == "__main__":
    uvloop.run(main())
