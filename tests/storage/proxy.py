"""A small TCP proxy in front of a store, which loses messages as a test asks for.

`async with proxy_before(url) as proxy`: `proxy.url` leads through it. Everything it does wrong is armed by an
attribute, so that a test hits exactly one message: PostgreSQL sends no byte that it was not asked for. What lasts for a
time (`refuse`, `latency`, `jitter`, SWALLOW, another `target`) is switched by attributes too; `cut` and `restore` do so
from any thread.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from urllib.parse import urlsplit

import trio

CONNECT_SECONDS = 5.0  # for the server behind to accept; longer means that it is not there


class Fault(Enum):
    """What happens to the next bytes."""

    CUT_REQUEST = auto()  # the connection ends, the request never arrives
    CUT_ANSWER = auto()  # the request arrives, the connection ends in place of the answer
    CUT_WAITING = auto()  # the request arrives, the connection ends at once: the server is still at work
    SWALLOW = auto()  # answers disappear, on every connection, as long as this is set


@dataclass
class Proxy:
    """`fault` goes back to None when a cut was made; `refuse` closes whoever connects or says a word."""

    url: str
    target: str = ""  # URL of the server; a change concerns new connections, those that are open stay where they are
    fault: Fault | None = None
    swallow_after: int | None = None  # so many more answers arrive, then `fault` is SWALLOW
    refuse: bool = False
    latency: float = 0.0  # seconds that every answer waits
    jitter: float = 0.0  # seconds; up to so many are added by chance
    cuts: int = 0
    connections: int = 0
    on_cut: Callable[[], None] = field(default=lambda: None)
    random: Random = field(default_factory=lambda: Random(1))
    _open: set[trio.CancelScope] = field(default_factory=set)
    _token: trio.lowlevel.TrioToken | None = None  # of the loop that the proxy runs in

    def count_answer(self) -> None:
        if self.swallow_after is not None:
            if self.swallow_after == 0:
                self.fault = Fault.SWALLOW
            else:
                self.swallow_after -= 1

    def strike(self) -> bool:
        self.fault = None
        self.cuts += 1
        self.on_cut()
        return True

    def cut(self) -> None:
        """Refuses everybody, and ends what is open, silent connections too. From any thread."""
        self.refuse = True
        self.end_all()

    def restore(self) -> None:
        """Everything goes through again, at once and whole; connections from which answers are missing are ended. From
        any thread."""
        has_swallowed = self.fault is Fault.SWALLOW
        self.refuse, self.fault, self.latency, self.jitter = False, None, 0.0, 0.0
        if has_swallowed:
            self.end_all()

    def end_all(self) -> None:
        """Ends every open connection; new ones are accepted. From any thread."""
        if self._token is not None:
            self._token.run_sync_soon(self._cancel_open)

    def _cancel_open(self) -> None:
        for scope in list(self._open):
            scope.cancel()

    async def delay(self) -> None:
        """Waits as long as an answer has to."""
        if self.latency or self.jitter:
            await trio.sleep(self.latency + self.random.uniform(0, self.jitter))


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[Proxy]:
    """Runs until the block ends; then everything that goes through it is cut."""
    parts = urlsplit(url)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    address = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl()
    proxy = Proxy(address, url, _token=trio.lowlevel.current_trio_token())

    async def handle(client: trio.SocketStream) -> None:
        proxy.connections += 1
        if proxy.refuse:
            await client.aclose()
            return
        target = urlsplit(proxy.target)
        async with client:
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    server = await trio.open_tcp_stream(target.hostname or "", target.port or 0)
            except (OSError, trio.TooSlowError):
                return  # nobody is there: as good as a refusal
            async with server, trio.open_nursery() as nursery:
                proxy._open.add(nursery.cancel_scope)
                try:
                    nursery.start_soon(_forward, server, client, proxy, Fault.CUT_ANSWER, nursery.cancel_scope)
                    await _forward(client, server, proxy, Fault.CUT_REQUEST, nursery.cancel_scope)
                finally:
                    proxy._open.discard(nursery.cancel_scope)
                    nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


async def _forward(
    source: trio.SocketStream, target: trio.SocketStream, proxy: Proxy, mine: Fault, both: trio.CancelScope
) -> None:
    """One direction; ends both when its source ends or the fault armed for it strikes."""
    try:
        async for data in source:
            if proxy.refuse or (proxy.fault is mine and proxy.strike()):
                break
            if mine is Fault.CUT_ANSWER:
                proxy.count_answer()
                if proxy.fault is Fault.SWALLOW:
                    continue
                await proxy.delay()
            await target.send_all(data)
            if proxy.fault is Fault.CUT_WAITING and mine is Fault.CUT_REQUEST and proxy.strike():
                break
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()
