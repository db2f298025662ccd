"""The address of a server, and the proxy for it. Pure, except that `environment_proxy` reads the environment.

A proxy can't reach this machine's own loopback, so none is used for loopback. For other addresses the environment is
read as by httpx: HTTPS_PROXY or HTTP_PROXY by the address's scheme, else ALL_PROXY;
NO_PROXY names the exceptions. Requests and live connections trust the same certificates.
"""

import os
import ssl
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.request import getproxies, proxy_bypass

import certifi
import httpx

from scoreboard.domain.paths import LIVE_PATH
from scoreboard.domain.sessions import CLIENT_ANSWER_SECONDS

SECURE = {"http": False, "https": True, "ws": False, "wss": True}  # the schemes of an address: whether TLS is spoken


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """`authority` is host and port as a Host header has them, in ASCII."""

    authority: str
    host: str
    port: int
    secure: bool

    @property
    def http_url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def websocket_url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{LIVE_PATH}"


def parse_server_url(url: str) -> ServerAddress:
    """The server at `url`. Raises ValueError, in one line, for whatever is not scheme://host or scheme://host:port."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as exc:
        raise ValueError(f"not the address of a server: {url!r} ({exc})") from exc
    if parts.scheme not in SECURE or not parts.host:
        raise ValueError(f"not the address of a server: {url!r}; it begins with http:// or https:// and names a host")
    port = parts.port or (443 if SECURE[parts.scheme] else 80)
    if not 0 < port < 65536:
        raise ValueError(f"not the address of a server: {url!r}; there is no port {port}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.userinfo:
        raise ValueError(f"not the address of a server: {url!r}; it ends after host and port, and names no user")
    return ServerAddress(parts.netloc.decode("ascii"), parts.raw_host.decode("ascii"), port, SECURE[parts.scheme])


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its loopback interface: localhost, a name below it (RFC 6761), 127.0.0.0/8,
    ::1."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def environment_proxy(address: ServerAddress) -> str | None:
    """The URL of the proxy that the environment names for this server; None for none."""
    if is_loopback(address.host):
        return None
    proxies = getproxies()
    proxy = proxies.get("https" if address.secure else "http") or proxies.get("all")
    if not proxy or proxy_bypass(address.authority):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_scheme(proxy: str) -> str:
    """The scheme of a proxy's URL. Raises ValueError, without the URL and so without its password, for one that is
    none."""
    try:
        parts = httpx.URL(proxy)
    except httpx.InvalidURL as exc:
        raise ValueError(f"the environment names a proxy that is no address: {exc}") from exc
    if not parts.host:
        raise ValueError("the environment names a proxy that is no address: it has no host")
    return parts.scheme


def tls_context() -> ssl.SSLContext:
    """The TLS context with the trusted certificates: those of SSL_CERT_FILE or SSL_CERT_DIR, else the system's store
    and certifi's.

    A company's own authority is in the system's store; a slim container has none, and certifi's is everywhere.
    """
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())
    return context


def open_http(url: str) -> httpx.AsyncClient:
    """An HTTP client for the server at `url`, with the client's timeout, and with proxies as this module says: `async
    with open_http(url)`.

    For Trio and asyncio alike. Raises ValueError for an address (or a proxy's) that is none, ImportError for a SOCKS
    proxy without `httpx[socks]`.
    """
    address = parse_server_url(url)
    if proxy := environment_proxy(address):
        proxy_scheme(proxy)
    verify = tls_context() if address.secure else True
    return httpx.AsyncClient(
        base_url=address.http_url, timeout=CLIENT_ANSWER_SECONDS, verify=verify, trust_env=not is_loopback(address.host)
    )
