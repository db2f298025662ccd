"""A whole node in this process, as `scoreboard serve` builds it, with the table of its routes and its stores in reach.

For tests that are made from the table of routes. Passwords cost next to nothing. Other tests of whole nodes start
processes: tests/e2e/server_processes.py.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import trio

from scoreboard.app import http as app_http
from scoreboard.app.node import Node
from scoreboard.drivers.stores import Stores
from scoreboard.security import passwords
from scoreboard.settings.model import load_settings
from scoreboard.storage.start_stores import start_stores
from scoreboard.web import application
from scoreboard.web.route import Route
from tests.operations.people import CHEAP

START_SECONDS = 60.0
NO_LIMITS = ("user_per_minute", "ip_per_minute", "login_per_minute", "login_ip_per_minute", "profile_changes_per_hour")


@dataclass(frozen=True)
class WholeNode:
    """A node that serves. `routes`: all that it has."""

    node: Node
    stores: Stores
    http: httpx.AsyncClient
    port: int
    routes: tuple[Route, ...]


@asynccontextmanager
async def whole_node(database_url: str, redis_url: str, folder: Path, **others: Any) -> AsyncIterator[WholeNode]:
    """Serves until the block ends. `others`: settings as `limits__user_per_minute=10`; no limit is on by default."""
    (folder / "keys").mkdir(exist_ok=True)
    named = {f"limits__{name}": 0 for name in NO_LIMITS} | {"limits__guests_per_hour": 0, "limits__cooldowns": False}
    flags = {
        "postgres.url": database_url,
        "redis.url": redis_url,
        "embedded.enabled": False,
        "embedded.data_dir": str(folder / "keys"),
        "server.port": 0,
        "accounts.guests": True,
    } | {name.replace("__", "."): value for name, value in (named | others).items()}
    settings = load_settings(None, flags, {})
    keys = settings.security.keys(settings.embedded.data_dir)
    tables: list[tuple[Route, ...]] = []
    build = application.build_application

    def remember(routes: Iterable[Route], *rest: Any) -> Any:
        tables.append(tuple(routes))
        return build(tables[-1], *rest)

    with patch.object(passwords, "_HASHER", CHEAP), patch.object(app_http, "build_application", remember):
        async with start_stores(settings) as stores, trio.open_nursery() as nursery:
            node = Node(settings, keys, stores)
            send, receive = trio.open_memory_channel[int](1)
            nursery.start_soon(node.run, send.send)
            with trio.fail_after(START_SECONDS):
                port = await receive.receive()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                yield WholeNode(node, stores, http, port, tables[-1])
            nursery.cancel_scope.cancel()
