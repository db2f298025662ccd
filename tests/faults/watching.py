"""Viewers and readers during a fault: viewers of each transport on each node, and readers with a token.

A `Watcher` follows the board by one transport, comes back whenever its connection ends, and adds each state that it
showed to `Reads` when the next one replaces it. `read_for_ever` asks by GET, `greet_for_ever` by new WebSockets for
`authenticated`.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import cycle
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from tests.e2e.server_processes import Client, ServerProcess, Viewer, watching
from tests.faults.reads import SETTLING_SECONDS, Personal, Reads, Row, Shown
from tests.websockets import open_websocket

TOP = 10  # rows of every frame
KINDS = ("websocket", "delta", "sse", "poll")
POLL_SECONDS = 1  # that a long poll waits
CONNECT_SECONDS = 5.0
RECONNECT_SECONDS = 0.1
GONE = (
    OSError,
    ConnectionClosed,
    HandshakeError,
    httpx.HTTPError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


class Watcher:
    """One viewer. `board` is what stands on its screen, `names` the user names there."""

    def __init__(self, kind: str, number: int, node: ServerProcess, client: Client, reads: Reads) -> None:
        self.kind, self.number, self.node, self.client, self.reads = kind, number, node, client, reads
        self.board: list[dict[str, Any]] | None = None
        self.position, self.is_stale, self.is_connected = "", False, False
        self._since = 0.0

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            try:
                await self._connect()
            except GONE:
                pass
            except BaseExceptionGroup as group:  # trio-websocket wraps what happens inside
                _, other = group.split(GONE)
                if other is not None:
                    raise other from None
            self.pause()
            await trio.sleep(RECONNECT_SECONDS)

    def pause(self) -> None:
        """Its connection is over: what was on the screen is on nobody's account any more."""
        self._write_down()
        self.is_connected, self.board = False, None

    def _write_down(self) -> None:
        now = trio.current_time()
        if self.board is not None and self.is_connected and now - self._since >= SETTLING_SECONDS:
            self.reads.shown.append(
                Shown(
                    self.kind,
                    self.number,
                    self._since,
                    now,
                    rows_of(self.board),
                    TOP,
                    stale=self.is_stale,
                    position=self.position,
                )
            )

    def flush(self) -> None:
        """Adds the current state to `Reads` too."""
        self._write_down()

    def _show(self, board: list[dict[str, Any]] | None, *, stale: bool, position: str = "") -> None:
        self._write_down()
        self.is_connected, self.is_stale, self._since = True, stale, trio.current_time()
        if board is not None:
            self.board, self.position = board, position

    # ---- transports -------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        if self.kind == "poll":
            await self._poll()
        elif self.kind == "sse":
            async with aclosing(self._events()) as events:
                async for event in events:
                    self._hear(event)
        else:
            async with _viewer(self.node, self.client.token) as socket:
                mode = {"mode": "delta"} if self.kind == "delta" else {}
                await socket.send(action="subscribe", channel="leaderboard", **mode)
                while True:
                    if not self._hear(json.loads(await socket.socket.get_message())):
                        await socket.send(action="subscribe", channel="leaderboard", **mode)

    def _hear(self, message: dict[str, Any]) -> bool:
        """False: a frame is missing between what it has and what it was sent."""
        event, data, now = message["event"], message.get("data", {}), trio.current_time()
        if event == "leaderboard:update":
            self._show(data["leaderboard"], stale=False, position=data["position"])
        elif event == "leaderboard:stale":
            self._show(None, stale=True)
        elif event == "leaderboard:delta":
            if self.board is None or data["previousPosition"] != self.position:
                return False
            removed = {*data["removed"], *(row["userId"] for row in data["changed"])}
            kept = [row for row in self.board if row["userId"] not in removed]
            changed = [
                {name: value for name, value in row.items() if name != "previousRank"} for row in data["changed"]
            ]
            self._show(sorted(kept + changed, key=lambda row: row["rank"]), stale=False, position=data["position"])
        elif event == "authenticated":
            pass  # see greet_for_ever, which knows when it asked
        elif event == "score:personal":
            self.reads.personal.append(Personal(self.client.user, self.number, now, data["newScore"], data["rank"]))
        return True

    async def _events(self) -> AsyncGenerator[dict[str, Any], None]:
        with trio.fail_after(CONNECT_SECONDS):
            socket = await trio.open_tcp_stream("127.0.0.1", self.node.port)
        async with socket:
            head = (
                "GET /api/v1/scores/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer {self.client.token}\r\n\r\n"
            )
            await socket.send_all(head.encode())
            buffer = b""
            while data := await socket.receive_some(65536):
                buffer += data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])

    async def _poll(self) -> None:
        async with httpx.AsyncClient(base_url=self.node.url, timeout=POLL_SECONDS + 5) as http:
            while True:
                answer = await http.get("/api/v1/scores/poll", params={"since": self.position, "wait": POLL_SECONDS})
                if answer.status_code == httpx.codes.OK:
                    data = answer.json()["data"]
                    self._show(data["leaderboard"], stale=data.get("stale", False), position=data["position"])
                elif answer.status_code != httpx.codes.NO_CONTENT:
                    self.pause()
                    await trio.sleep(RECONNECT_SECONDS)


@asynccontextmanager
async def _viewer(node: ServerProcess, token: str = "") -> AsyncIterator[Viewer]:
    opening = open_websocket(node.port, "/api/v1/scores/live", connect_seconds=CONNECT_SECONDS, closing_seconds=1)
    async with opening as socket, watching(socket, token=token, subscribe=False) as made:
        yield made


def rows_of(board: Sequence[dict[str, Any]]) -> tuple[Row, ...]:
    return tuple((row["rank"], row["userId"], row["score"]) for row in board)


# ---- readers ---------------------------------------------------------------------------------------------------------


async def read(client: Client, node: ServerProcess, number: int, reads: Reads, *, limit: int = 100) -> None:
    """One GET with a token, written down."""
    sent = trio.current_time()
    try:
        answer = await client.http.get(
            f"{node.url}/api/v1/scores/leaderboard", params={"limit": limit}, headers=client.authorization
        )
    except httpx.HTTPError:
        reads.refused += 1
        return
    if answer.status_code != httpx.codes.OK:
        reads.refused += 1
        return
    data, now = answer.json()["data"], trio.current_time()
    own = data.get("currentUser") or {}
    reads.shown.append(
        Shown(
            "get",
            number,
            sent,
            now,
            rows_of(data["leaderboard"]),
            limit,
            user=client.user,
            score=own.get("score"),
            rank=own.get("rank"),
            stale=data.get("stale", False),
            position=answer.headers.get("etag", ""),
        )
    )


async def read_for_ever(
    clients: Sequence[Client], node: ServerProcess, number: int, reads: Reads, *, pause: float
) -> None:
    """One user after the other reads the board of a node, whole and its first ten in turn."""
    for turn, client in enumerate(cycle(clients)):
        await read(client, node, number, reads, limit=(100, TOP)[turn % 2])
        await trio.sleep(pause)


async def greet_for_ever(
    clients: Sequence[Client], node: ServerProcess, number: int, reads: Reads, *, pause: float
) -> None:
    """One user after the other opens a WebSocket and is told who they are. Marked stale: the board that follows says
    so."""
    for client in cycle(clients):
        try:
            with trio.fail_after(2 * CONNECT_SECONDS):
                async with _viewer(node) as socket:
                    sent = trio.current_time()
                    await socket.send(action="auth", token=client.token)
                    data = await socket.next_event("authenticated")
                    now = trio.current_time()
                    await socket.send(action="subscribe", channel="leaderboard")
                    stale = False
                    with trio.move_on_after(SETTLING_SECONDS):
                        await socket.next_event("leaderboard:stale")
                        stale = True
            reads.shown.append(
                Shown(
                    "authenticated",
                    number,
                    sent,
                    now,
                    None,
                    TOP,
                    user=client.user,
                    score=data["score"],
                    rank=data["rank"],
                    stale=stale,
                )
            )
        except GONE:
            reads.refused += 1
        except BaseExceptionGroup as group:
            _, other = group.split(GONE)
            if other is not None:
                raise other from None
            reads.refused += 1
        await trio.sleep(pause)
