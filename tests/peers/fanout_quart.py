"""Quart-Trio on Hypercorn with Quart's own `websocket.send`: the same stack as this server's, as it comes.

Each connection is a task that waits for the next message; one that is late gets the newest.
"""

import signal

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

from tests.peers.fanout_message import PORT, TICK, message

app = QuartTrio(__name__)


class Newest:
    text = ""
    came = trio.Event()


@app.websocket("/")
async def live() -> None:
    await websocket.accept()
    while True:
        await Newest.came.wait()
        await websocket.send(Newest.text)


async def ticks() -> None:
    with trio.open_signal_receiver(signal.SIGUSR2) as signals:
        await signals.__anext__()
    due = trio.current_time()
    while True:
        due = max(due + TICK, trio.current_time())
        await trio.sleep_until(due)
        came, Newest.text, Newest.came = Newest.came, message(), trio.Event()
        came.set()


async def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{PORT}"]
    config.backlog = 4096
    config.loglevel = "warning"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticks)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:

            async def until_terminated() -> None:
                await signals.__anext__()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_terminated)
            await serve(app, config, shutdown_trigger=trio.sleep_forever)


if __name__ == "__main__":
    trio.run(main)
