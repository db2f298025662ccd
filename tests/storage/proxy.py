"""A small TCP proxy that stands before a store and loses what it is told to lose.

`async with proxy_before(url) as proxy`: `proxy.url` leads through it. Everything it does wrong is armed by an attribute, so that a test
hits exactly one message: PostgreSQL sends no byte that it was not asked for.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from urllib.parse import urlsplit

import trio


class Fault(Enum):
    """What happens to the next bytes."""

    CUT_REQUEST = auto()  # the connection ends, the request never arrives
    CUT_ANSWER = auto()  # the request arrives, the connection ends in place of the answer
    CUT_WAITING = auto()  # the request arrives, the connection ends at once: the server is still at work
    SWALLOW = auto()  # answers disappear, on every connection, as long as this is set


@dataclass
class Proxy:
    """`fault` goes back to None when a cut was made; `refuse` closes whoever connects or says a word.

    `target` is the URL of the server that new connections are led to; those that are open stay where they are.
    """

    url: str
    target: str = ""
    fault: Fault | None = None
    refuse: bool = False
    swallow_after: int | None = None  # so many more answers arrive, then `fault` is SWALLOW
    cuts: int = 0
    connections: int = 0
    on_cut: Callable[[], None] = field(default=lambda: None)

    def count_answer(self) -> None:
        if self.swallow_after is not None:
            if self.swallow_after == 0:
                self.fault = Fault.SWALLOW
            else:
                self.swallow_after -= 1

    def cut(self) -> bool:
        self.fault = None
        self.cuts += 1
        self.on_cut()
        return True


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[Proxy]:
    """Runs until the block ends; then everything that goes through it is cut."""
    parts = urlsplit(url)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    proxy = Proxy(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl(), url)

    async def handle(client: trio.SocketStream) -> None:
        proxy.connections += 1
        if proxy.refuse:
            await client.aclose()
            return
        target = urlsplit(proxy.target)
        try:
            server = await trio.open_tcp_stream(target.hostname or "", target.port or 0)
        except OSError:  # it is not there: its clients find out as they would without us
            await client.aclose()
            return
        async with client, server, trio.open_nursery() as nursery:
            try:
                nursery.start_soon(_forward, server, client, proxy, Fault.CUT_ANSWER, nursery.cancel_scope)
                await _forward(client, server, proxy, Fault.CUT_REQUEST, nursery.cancel_scope)
            finally:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


async def _forward(source: trio.SocketStream, target: trio.SocketStream, proxy: Proxy, mine: Fault, both: trio.CancelScope) -> None:
    """One direction; ends both when its source ends or the fault armed for it strikes."""
    try:
        async for data in source:
            if proxy.refuse or (proxy.fault is mine and proxy.cut()):
                break
            if mine is Fault.CUT_ANSWER:
                proxy.count_answer()
            if proxy.fault is Fault.SWALLOW and mine is Fault.CUT_ANSWER:
                continue
            await target.send_all(data)
            if proxy.fault is Fault.CUT_WAITING and mine is Fault.CUT_REQUEST and proxy.cut():
                break
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()
