"""A small live server for the tests of the client: it sends the boards that a test sets, and the faults that a test
asks for.

It keeps the last boards and so can resume; while `losing` it swallows what the next boards would send, `close` ends
every connection with a code. It runs on a Trio loop of its own, beside the test; a test may await its methods on any
loop.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from scoreboard.domain.boards import Entry
from scoreboard.domain.deltas import compare
from tests.background_loop import BackgroundLoop, in_background

READ_SIZE = 4  # boards that can be resumed from


def rows(users: str) -> tuple[Entry, ...]:
    """A board of one-letter users."""
    return tuple(Entry(rank, user, user.upper(), 100 - rank) for rank, user in enumerate(users, 1))


def frame(event: str, **data: Any) -> str:
    return json.dumps({"event": event, "data": data})


def entry_json(entry: Entry) -> dict[str, Any]:
    raw = {
        "rank": entry.rank,
        "userId": entry.userId,
        "username": entry.username,
        "score": entry.score,
        "avatarUrl": entry.avatarUrl,
    }
    return {name: value for name, value in raw.items() if value is not None}


def update_frame(position: str, entries: Sequence[Entry]) -> str:
    board = [entry_json(entry) for entry in entries]
    return frame(
        "leaderboard:update",
        leaderboard=board,
        changedPositions=[],
        position=position,
        timestamp="2026-01-10T10:30:00.000Z",
    )


def delta_frame(previous: tuple[str, Sequence[Entry]], current: tuple[str, Sequence[Entry]]) -> str:
    comparison = compare(previous[1], current[1])
    changed = [{**entry_json(row.entry), "previousRank": row.previous_rank} for row in comparison.changed]
    return frame(
        "leaderboard:delta",
        position=current[0],
        previousPosition=previous[0],
        changed=changed,
        removed=[entry.userId for entry in comparison.removed],
        timestamp="2026-01-10T10:30:00.000Z",
    )


class BoardServer:
    """`received` has a list of messages for each connection; the codes with which clients closed theirs are in
    `closed`."""

    def __init__(self) -> None:
        self.boards: list[tuple[str, tuple[Entry, ...]]] = [("1-0", ())]
        self.received: list[list[dict[str, Any]]] = []
        self.closed: list[int] = []
        self.tokens = {"good"}
        self.rejections: list[tuple[int, list[tuple[bytes, bytes]]]] = []  # of the next handshakes
        self.url = ""
        self._sockets: dict[WebSocketConnection, str] = {}  # subscribed ones → mode
        self._all: set[WebSocketConnection] = set()
        self.losing = False
        self.heartbeat_seconds: float | None = None  # as it promises; a test sends them, or not
        self.loop: BackgroundLoop

    # ---- for tests, on any loop --------------------------------------------------------------------------------------

    async def show(self, users: str) -> None:
        """A new board, to every subscriber."""
        await self.loop.do(self._show, users)

    async def send(self, text: str) -> None:
        """Any text, to every connection."""
        await self.loop.do(self._send_all, text)

    async def close(self, code: int) -> None:
        """Ends every connection."""
        await self.loop.do(self._close, code)

    async def connections(self, count: int) -> None:
        """Returns when `count` connections have been opened in total, and the last one has sent a message."""
        with anyio.fail_after(10):
            while len(self.received) < count or not self.received[count - 1]:
                await anyio.sleep(0.005)

    async def subscriptions(self, count: int) -> None:
        """Returns when there have been so many `subscribe`s on all connections together."""
        with anyio.fail_after(10):
            while sum(message["action"] == "subscribe" for messages in self.received for message in messages) < count:
                await anyio.sleep(0.005)

    async def ends(self, count: int) -> None:
        """Returns when clients have ended so many connections, ever."""
        with anyio.fail_after(10):
            while len(self.closed) < count:
                await anyio.sleep(0.005)

    # ---- on its own loop ---------------------------------------------------------------------------------------------

    async def _show(self, users: str) -> None:
        self.boards.append((f"1-{len(self.boards)}", rows(users)))
        for socket, mode in list(self._sockets.items()):
            if not self.losing:
                await self._send(
                    socket, delta_frame(*self.boards[-2:]) if mode == "delta" else update_frame(*self.boards[-1])
                )

    async def _send_all(self, text: str) -> None:
        for socket in list(self._all):
            await self._send(socket, text)

    async def _close(self, code: int) -> None:
        for socket in list(self._all):
            with trio.move_on_after(1):
                await socket.aclose(code, "as the test wants")

    async def _send(self, socket: WebSocketConnection, text: str) -> None:
        try:
            await socket.send_message(text)
        except ConnectionClosed:
            self._sockets.pop(socket, None)

    async def _serve(self, request: WebSocketRequest) -> None:
        if self.rejections:
            status, headers = self.rejections.pop(0)
            await request.reject(status, extra_headers=headers)
            return
        socket = await request.accept(subprotocol=next(iter(request.proposed_subprotocols), None))
        messages: list[dict[str, Any]] = []
        self.received.append(messages)
        self._all.add(socket)
        try:
            while True:
                message = json.loads(await socket.get_message())
                messages.append(message)
                await self._answer(socket, message)
        except ConnectionClosed as exc:
            self.closed.append(exc.reason.code if exc.reason else 1006)
        finally:
            self._all.discard(socket)
            self._sockets.pop(socket, None)

    async def _answer(self, socket: WebSocketConnection, message: dict[str, Any]) -> None:
        if message["action"] == "auth":
            if message["token"] not in self.tokens:
                await socket.aclose(4401, "no valid token")
            else:
                await self._send(socket, frame("authenticated", userId="a", score=99, rank=1))
        elif message["channel"] != "leaderboard":
            await self._send(socket, frame("error", code="UNKNOWN_CHANNEL", message="there is no such channel"))
        else:
            self._sockets[socket] = message.get("mode", "full")
            promised = (
                {"heartbeatSeconds": self.heartbeat_seconds}
                if self.heartbeat_seconds and message.get("heartbeat")
                else {}
            )
            await self._send(socket, frame("subscribed", channel="leaderboard", **promised))
            for text in answer_to(self.boards, message):
                await self._send(socket, text)


def answer_to(boards: Sequence[tuple[str, tuple[Entry, ...]]], message: dict[str, Any]) -> list[str]:
    """What follows `subscribed`: the deltas since a position that is still known, in delta mode, else the whole
    board."""
    kept = boards[-READ_SIZE:]
    places = [position for position, _ in kept]
    if message.get("mode") == "delta" and message.get("since") in places:
        start = places.index(message["since"])
        return [delta_frame(before, after) for before, after in zip(kept[start:], kept[start + 1 :], strict=False)]
    return [update_frame(*boards[-1])]


@asynccontextmanager
async def _serving(tls: ssl.SSLContext | None) -> AsyncIterator[BoardServer]:
    server = BoardServer()
    async with trio.open_nursery() as nursery:
        serving = await nursery.start(partial(serve_websocket, server._serve, "127.0.0.1", 0, ssl_context=tls))
        server.url = f"https://localhost:{serving.port}" if tls else f"http://127.0.0.1:{serving.port}"
        yield server
        nursery.cancel_scope.cancel()


@contextmanager
def board_server(tls: ssl.SSLContext | None = None) -> Iterator[BoardServer]:
    """A server of one test."""
    with in_background(lambda: _serving(tls)) as (server, loop):
        server.loop = loop
        yield server
