"""The client of a game's own server, on asyncio: `open_server`.

Tested in tests/client/test_loops.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from scoreboard.client.addresses import (
    open_http,
    parse_server_url,
)
from scoreboard.client.base_server import BaseServerClient
from scoreboard.client.exchanges import (
    RETRY_SECONDS,
)
from scoreboard.client.loops import require_loop


class ServerClient(BaseServerClient):
    """What a game's own server does with a server key. `http` has the server as its `base_url` and is the caller's to
    close. Several tasks may use a client at once."""

    def __init__(self, http: httpx.AsyncClient, key: str, *, patience: float = RETRY_SECONDS) -> None:
        """`patience`: seconds for which a request without an answer is tried again."""
        require_loop("asyncio", "ServerClient")
        now = asyncio.get_running_loop().time
        super().__init__(http, key, retry_seconds=patience, now=now, sleep=asyncio.sleep)


@asynccontextmanager
async def open_server(url: str, key: str, *, patience: float = RETRY_SECONDS) -> AsyncIterator[ServerClient]:
    """A client of the server at `url` (http or https, without a path) with a server key. Nothing is sent before the
    first call. Raises ValueError for an address that is none."""
    require_loop("asyncio", "open_server")
    parse_server_url(url)
    async with open_http(url) as http:
        yield ServerClient(http, key, patience=patience)
