"""A WebSocket client for tests: trio-websocket's, whose socket is closed whatever happens.

`trio_websocket.open_websocket` leaves the socket to the garbage collector when it is cancelled during the handshake,
and when the server closed first; pytest then reports an unclosed socket in whichever test runs next.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

CONNECT_SECONDS = 60.0
CLOSING_SECONDS = 60.0


@asynccontextmanager
async def open_websocket(
    port: int,
    resource: str,
    *,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
    connect_seconds: float = CONNECT_SECONDS,
    closing_seconds: float = CLOSING_SECONDS,
) -> AsyncIterator[WebSocketConnection]:
    """Connects to 127.0.0.1; leaves with a Close frame. Raises OSError, HandshakeError and TooSlowError.

    What the block raises comes out as it is, without a group.
    """
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] | None = None
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(connect_seconds):
                if tls is None:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                else:
                    stream = await trio.open_ssl_over_tcp_stream(
                        "127.0.0.1", port, ssl_context=tls, https_compatible=True
                    )
                fields = [(name.encode(), value.encode()) for name, value in headers]
                socket = await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", resource, extra_headers=fields)
            try:
                yield socket
            finally:
                with trio.fail_after(closing_seconds):
                    await socket.aclose()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)
