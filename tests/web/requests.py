"""Requests as http.parser makes them, without a socket."""

from types import SimpleNamespace
from typing import Any

from scoreboard.http.request import Request


def request(*headers: tuple[bytes, bytes], peer: str = "127.0.0.1", target: bytes = b"/", body: bytes = b"") -> Request:
    """A GET with these fields, from that address."""
    socket: Any = SimpleNamespace(peer=(peer, 1))
    made = Request(socket, b"GET", target, headers=list(headers), fields=dict(reversed(headers)))
    made.body = body
    return made
