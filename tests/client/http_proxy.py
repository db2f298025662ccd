"""A small HTTP proxy: it tunnels to one server, whatever name a request has, and records the requests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

HEAD_END = b"\r\n\r\n"


@dataclass
class HttpProxy:
    """`heads` are the heads of the requests that came; `status` is what CONNECT is answered with."""

    port: int
    status: int = 200
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://ada:s%40fe@127.0.0.1:{self.port}"


def http_proxy(target_port: int) -> Callable[[], AbstractAsyncContextManager[HttpProxy]]:
    """Makes a proxy that tunnels to a port of this machine. Requests that are no CONNECT are answered 401 by itself."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[HttpProxy]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = HttpProxy(listener.socket.getsockname()[1])

        async def handle(client: trio.SocketStream) -> None:
            head = b""
            while HEAD_END not in head:
                head += await client.receive_some()
            proxy.heads.append(head.decode())
            if not head.startswith(b"CONNECT "):
                await client.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            elif proxy.status != 200:
                await client.send_all(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % proxy.status)
            else:
                await client.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
                async with (
                    await trio.open_tcp_stream("127.0.0.1", target_port) as server,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_forward, client, server, nursery.cancel_scope)
                    nursery.start_soon(_forward, server, client, nursery.cancel_scope)
            await client.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            yield proxy
            nursery.cancel_scope.cancel()

    return serve


async def _forward(source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        async for data in source:
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()
