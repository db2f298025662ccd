"""What a node tells of the requests that it has answered, whichever way: lines of the access log, and durations in
/metrics."""

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.server_processes import ServerProcess

HANG_SECONDS = 10.0  # seconds
LIVE = (
    "GET /api/v1/scores/live HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-Forwarded-For: {client}\r\n\r\n"
)
STREAM = "GET /api/v1/scores/stream HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {client}\r\n\r\n"
LARGE = "POST /api/v1/auth/login HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {client}\r\nContent-Length: 99999\r\n\r\n"


@pytest.fixture
def node(start_node: Callable[..., ServerProcess]) -> ServerProcess:
    """Behind a proxy, which the test is; it logs every request."""
    return start_node(server__trusted_proxies="127.0.0.0/8", log__access="all", log__format="json")


def exchanged(node: ServerProcess, request: str) -> None:
    """One request of which something is read; then the client leaves."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=HANG_SECONDS) as connection:
        connection.sendall(request.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 ")


def logged(node: ServerProcess, clients: set[str]) -> dict[str, dict[str, Any]]:
    """The lines of these clients, once all are there."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        lines = {
            line["address"]: line
            for line in node.lines()
            if line["event"] == "request" and line["address"] != "127.0.0.1"
        }
        if clients <= set(lines) or time.monotonic() > deadline:
            return lines
        time.sleep(0.05)


def test_a_line_names_the_client_however_it_was_answered(node: ServerProcess) -> None:
    """Behind a proxy: an answer at once, one of the application, a poll that waited, a stream, a WebSocket, too large a
    body."""
    told = {
        "198.51.100.1": "/api/v1/scores/leaderboard",
        "198.51.100.2": "/api/v1/users/me",
        "198.51.100.3": "/",
        "198.51.100.4": "/api/v1/scores/poll",
        "198.51.100.5": "/api/v1/scores/stream",
        "198.51.100.6": "/api/v1/scores/live",
        "198.51.100.7": "/api/v1/auth/login",
    }
    with httpx.Client(base_url=node.url, timeout=HANG_SECONDS) as http:
        position = http.get("/api/v1/scores/poll").json()["data"]["position"]
        for client, path in list(told.items())[:3]:
            http.get(path, headers={"x-forwarded-for": f"203.0.113.9, {client}"})
        answer = http.get(
            "/api/v1/scores/poll",
            params={"since": position, "wait": "0.1"},
            headers={"x-forwarded-for": "198.51.100.4"},
        )
        assert answer.status_code == httpx.codes.NO_CONTENT
    for client, request in (("198.51.100.5", STREAM), ("198.51.100.6", LIVE), ("198.51.100.7", LARGE)):
        exchanged(node, request.format(client=client))
    lines = logged(node, set(told))
    assert {client: line["route"] for client, line in lines.items()} == told
