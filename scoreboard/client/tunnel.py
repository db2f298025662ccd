"""A tunnel through an HTTP proxy to a server (CONNECT, RFC 9110, 9.3.6), on Trio. The live connection goes through it;
see addresses.

Tested in tests/client/test_proxies.py.
"""

from base64 import b64encode
from typing import TypeAlias, cast
from urllib.parse import unquote

import h11
import httpx
import trio

from scoreboard.client.addresses import ServerAddress, proxy_scheme, tls_context
from scoreboard.client.backoff import seconds

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

HEAD_BYTES = 16_384  # of a proxy's answer; more is not from a proxy
READ_BYTES = 4_096  # at a time


class ProxyRefused(Exception):
    """The proxy answered CONNECT with another status than 2xx. `retry_after` in seconds."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status, self.retry_after = status, retry_after


def check_proxy(proxy: str | None) -> None:
    """Raises ValueError, in one line, for a proxy that the Trio client can't use for a live connection."""
    if proxy is not None and (scheme := proxy_scheme(proxy)) not in {"http", "https"}:
        raise ValueError(
            f"the Trio client's live connection goes through HTTP proxies only, not {scheme}: set NO_PROXY"
        )


async def open_stream(address: ServerAddress, proxy: str | None) -> Stream:
    """A connection to the server, with TLS if it speaks that. Cancelling closes it.

    Raises OSError, ProxyRefused, h11.RemoteProtocolError, trio.BrokenResourceError.
    """
    stream = (
        await trio.open_tcp_stream(address.host, address.port)
        if proxy is None
        else await _open_tunnel(address, httpx.URL(proxy))
    )
    if not address.secure:
        return stream
    secure = trio.SSLStream(stream, tls_context(), server_hostname=address.host, https_compatible=True)
    return cast("trio.SSLStream[trio.SocketStream]", secure)  # or TLS within the TLS of a proxy, which is used alike


async def _open_tunnel(address: ServerAddress, proxy: httpx.URL) -> Stream:
    stream: Stream
    if proxy.scheme == "https":
        context = tls_context()
        stream = await trio.open_ssl_over_tcp_stream(
            proxy.host, proxy.port or 443, ssl_context=context, https_compatible=True
        )
    else:
        stream = await trio.open_tcp_stream(proxy.host, proxy.port or 80)
    try:
        await _connect(stream, address, proxy)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _connect(stream: trio.abc.Stream, address: ServerAddress, proxy: httpx.URL) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{host}:{address.port}"
    headers = [("Host", target)]
    if proxy.userinfo:
        secret = b64encode(f"{unquote(proxy.username)}:{unquote(proxy.password)}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {secret}"))
    conversation = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
    head = conversation.send(h11.Request(method="CONNECT", target=target, headers=headers))
    assert head is not None
    await stream.send_all(head)
    while True:
        event = conversation.next_event()
        if event is h11.NEED_DATA:
            conversation.receive_data(bytes(await stream.receive_some(READ_BYTES)))
        elif isinstance(event, h11.Response):
            if 200 <= event.status_code < 300:
                return  # a server says nothing before we do, so no byte of it was read along
            named = {name: value.decode("latin-1") for name, value in event.headers}
            raise ProxyRefused(event.status_code, seconds(named.get(b"retry-after")))
        elif isinstance(event, h11.ConnectionClosed):
            raise trio.BrokenResourceError("the proxy closed the connection")
