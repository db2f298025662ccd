"""Real server processes, as an operator starts them, and clients that speak to them.

`Client` signs with scoreboard.client but sends each request once and shows every answer as it is; `Viewer` shows every
frame. For whoever wants the board and not the conversation there is scoreboard.client itself. `provision` makes users
without the cost of their passwords.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from scoreboard.app.accounts import build_issuer
from scoreboard.client import Credentials, Session
from scoreboard.operations.admin.provisioning import development_tokens
from scoreboard.settings.model import Settings, load_settings
from scoreboard.storage.start_stores import start_stores
from tests.websockets import open_websocket

START_SECONDS = 60.0
STOP_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class ServerProcess:
    """`scoreboard serve` on a port of its own. `kill` is kill -9; `start` again keeps port, stores and keys."""

    module = "scoreboard"  # what Python runs

    def __init__(self, folder: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"node-{self.port}.log"
        self._command = [sys.executable, "-m", self.module, "serve", "--port", str(self.port), *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SCOREBOARD_")}
        self._environment = {**inherited, "PYTHONUNBUFFERED": "1", **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.descriptors = 0  # that it may have; 0: as many as this process

    @property
    def settings(self) -> Settings:
        """Its settings, as it reads them; of a node on stores that it was named."""
        return load_settings(None, {"server.port": self.port, "embedded.enabled": False}, self._environment)

    def start(self) -> "ServerProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        if self.descriptors:  # before it has read its first module, and so long before it asks
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended at its start: {self.log.read_text()[-3000:]}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == httpx.codes.OK:
                    return self
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(f"the server is not ready: {self.log.read_text()[-3000:]}")

    def run_command(self, *words: str) -> str:
        """Runs `scoreboard WORDS…` with the settings of the node. Returns its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "scoreboard", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Client:
    """One user of one or several nodes."""

    def __init__(self, http: httpx.AsyncClient, session: Mapping[str, Any]) -> None:
        self.http, self.session = http, session
        self.signing = Session(http, msgspec.convert(session, Credentials))
        self.user = self.signing.user
        self.token = self.signing.credentials.accessToken
        self.authorization = self.signing.headers()

    def body(self, **changes: Any) -> bytes:
        action = {
            "actionId": str(uuid4()),
            "actionType": "task_finish",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "metadata": {"difficulty": "medium", "timeSpent": 120},
        }
        return json.dumps(action | changes).encode()

    async def act(self, body: bytes | None = None, *, base: str = "", **headers: str) -> httpx.Response:
        body = body or self.body()
        return await self.http.post(
            f"{base}/api/v1/scores/action", content=body, headers=self.signing.headers(body) | headers
        )

    async def leaderboard(self, base: str = "", limit: int = 100) -> dict[str, Any]:
        answer = await self.http.get(
            f"{base}/api/v1/scores/leaderboard", params={"limit": limit}, headers=self.authorization
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data


async def register(http: httpx.AsyncClient, name: str = "") -> Client:
    name = name or f"user-{uuid4().hex[:12]}"
    body = {"username": name, "email": f"{name}@example.org", "password": "a long password"}
    answer = await http.post("/api/v1/auth/register", json=body)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return Client(http, answer.json()["data"])


async def provision(node: ServerProcess, http: httpx.AsyncClient, count: int) -> list[Client]:
    """So many users of the node with ready tokens, by its own stores and keys: no password is hashed."""
    settings = node.settings
    keys = settings.security.keys(settings.embedded.data_dir)
    async with start_stores(settings) as stores:
        made = await development_tokens(
            stores,
            count,
            build_issuer(settings, keys),
            now=time.time(),
        )
    return [
        Client(
            http,
            {
                "userId": str(token.user),
                "accessToken": token.access_token,
                "actionSecret": token.action_secret,
                "actionKeyVersion": token.key_version,
            },
        )
        for token in made
    ]


class Viewer:
    """A WebSocket of the live board."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send_message(json.dumps(message))

    async def next_event(self, event: str) -> dict[str, Any]:
        """The data of the next event of that name; others are passed over."""
        with trio.fail_after(10):
            while True:
                message = json.loads(await self.socket.get_message())
                if message["event"] == event:
                    data: dict[str, Any] = message.get("data", {})
                    return data

    async def close(self) -> None:
        """Closes the connection, and the socket too: trio-websocket leaves that open when the server closed first."""
        with trio.move_on_after(2, shield=True):
            await self.socket.aclose()
        await self.socket._stream.aclose()

    async def close_code(self) -> int:
        """Reads to the end; the server's close code."""
        with trio.fail_after(10):
            while True:
                try:
                    await self.socket.get_message()
                except ConnectionClosed as closed:
                    return int(closed.reason.code) if closed.reason else 0


@asynccontextmanager
async def watching(socket: WebSocketConnection, *, token: str = "", subscribe: bool = True) -> AsyncIterator[Viewer]:
    """A viewer on an open WebSocket, closed at the end."""
    made = Viewer(socket)
    if token:
        await made.send(action="auth", token=token)
    if subscribe:
        await made.send(action="subscribe", channel="leaderboard")
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def viewer(server: ServerProcess, *, token: str = "", subscribe: bool = True) -> AsyncIterator[Viewer]:
    opening = open_websocket(server.port, "/api/v1/scores/live")
    async with opening as socket, watching(socket, token=token, subscribe=subscribe) as made:
        yield made
