"""FastAPI on uvicorn and uvloop, as its documentation broadcasts: one `send_text` a client, one after the other."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from tests.peers.fanout_message import TICK, message

viewers: set[WebSocket] = set()


async def ticks() -> None:
    begin = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, begin.set)
    await begin.wait()
    due = loop.time()
    while True:
        due = max(due + TICK, loop.time())
        await asyncio.sleep(due - loop.time())
        text = message()
        for viewer in list(viewers):
            try:
                await viewer.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                viewers.discard(viewer)  # it has left


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(ticks())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/")
async def live(viewer: WebSocket) -> None:
    await viewer.accept()
    viewers.add(viewer)
    try:
        while True:
            await viewer.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        viewers.discard(viewer)
