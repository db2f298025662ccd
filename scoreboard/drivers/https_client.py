"""Requests to servers that the operator has named: keys of outside issuers, webhooks, alerts.

`HttpsClient.request` speaks HTTPS to public addresses only, so that a URL never leads into the operator's own network
by mistake or by a changed DNS entry. Hosts of that network are named in the setting `outgoing.private_hosts`; those may
have private addresses and may be asked without TLS. Redirects are not followed, cookies are not kept, and no proxy of
the environment is used. httpcore speaks HTTP; the addresses are resolved and checked here, and connected to as checked,
without a second look-up.

Pictures of users are fetched by operations.picture_fetch, which trusts no server.
"""

import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from socket import SOCK_STREAM, getaddrinfo
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import httpcore
import httpx
import trio

from scoreboard.domain.errors import SettingsError
from scoreboard.domain.pictures import is_public

REQUEST_TIMEOUT_SECONDS = 5.0  # for all of a request, the look-up of the name included
MAX_ANSWER_BYTES = 256 * 1024  # a set of keys has some kilobytes; an answer to a webhook less
CONNECTIONS = 16  # of one client; more requests wait within their time
KEEP_ALIVE_SECONDS = 15.0  # an idle connection is kept so long
# Each has a thread of its own, which can't be stopped: a slow name server may block all of them, and nothing else.
MAX_LOOKUPS_AT_ONCE = 4

_VISIBLE_ASCII = re.compile(r"[!-~]+").fullmatch
_lookups = trio.CapacityLimiter(MAX_LOOKUPS_AT_ONCE)

# What httpcore raises for a server, or a network, that does not do what it should.
_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ConnectionNotAvailable,
    OSError,
    UnicodeError,
    trio.BrokenResourceError,
)


class Answer(NamedTuple):
    """What a server answered. Names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class RequestFailure(NamedTuple):
    """Why there is no answer. Whether the request had an effect is unknown if `may_have_arrived`."""

    why: str
    may_have_arrived: bool = True


def check_url(url: str, private_hosts: Collection[str] = ()) -> str | None:
    """What is wrong with a URL of a setting; None when it can be asked. Pure."""
    if not _VISIBLE_ASCII(url):
        return "must look like https://host/path"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if not parts.hostname or parts.fragment:
        return "must look like https://host/path"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or password"
    if parts.scheme == "http" and parts.hostname not in private_hosts:
        return "must begin with https:// (http:// is for hosts of outgoing.private_hosts)"
    if parts.scheme not in {"http", "https"}:
        return "must begin with https://"
    return None


async def resolve(host: str, port: int) -> list[str]:
    """The host's addresses. Raises OSError or UnicodeError."""
    found = await trio.to_thread.run_sync(
        lambda: getaddrinfo(host, port, type=SOCK_STREAM), limiter=_lookups, abandon_on_cancel=True
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def make_ssl_context(ca_file: str = "") -> ssl.SSLContext:
    """The public certificate authorities, and those of a PEM file. Reading them takes some 20 ms. Raises SettingsError
    when the file has none."""
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file:
        try:
            context.load_verify_locations(cafile=Path(ca_file))
        except (OSError, ssl.SSLError) as exc:
            raise SettingsError(f"outgoing.ca_file: {ca_file} has no certificates that can be read ({exc})") from None
    return context


class _AddressNotPublic(httpcore.ConnectError):
    """The host has an address that is not public, and is not named as a private host."""


class _CheckedBackend(httpcore.TrioBackend):
    """Connects to addresses that were checked."""

    def __init__(
        self, private_hosts: Collection[str], lookup: Callable[[str, int], Awaitable[list[str]]] = resolve
    ) -> None:
        super().__init__()
        self._private_hosts, self._resolve = private_hosts, lookup

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"{host} has no address") from exc
        if host not in self._private_hosts and not all(map(is_public, addresses)):
            raise _AddressNotPublic(f"{host} has an address that is not public; outgoing.private_hosts allows it")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as exc:
                failure = exc
        raise failure


class HttpsClient:
    """A client with a pool of connections. Made once for a node, and shared. `aclose` ends it."""

    __slots__ = ("_backend", "_pool", "_private_hosts", "_ssl_context")

    def __init__(
        self,
        *,
        private_hosts: Collection[str] = (),
        ssl_context: ssl.SSLContext | None = None,
        lookup: Callable[[str, int], Awaitable[list[str]]] = resolve,
    ) -> None:
        """`lookup` is for tests, which have their own names. Without `ssl_context` it is made with the first
        request."""
        self._private_hosts = frozenset(private_hosts)
        self._ssl_context = ssl_context
        self._backend = _CheckedBackend(self._private_hosts, lookup)
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer | RequestFailure:
        """The server's answer, whatever its status, or why there is none.

        Returns within `timeout_seconds`. Never raises for a fault of the server or of the network. Cancelling closes
        the connection. The caller compares the status; a redirect is an answer like any other.
        """
        if wrong := check_url(url, self._private_hosts):
            return RequestFailure(f"the URL {wrong}", may_have_arrived=False)
        parts = urlsplit(url)
        with trio.move_on_after(timeout_seconds):
            try:
                return await self._request(method, parts, headers or {}, content, max_answer_bytes)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                return RequestFailure(_reason(exc), may_have_arrived=False)
            except _FAILURES as exc:
                return RequestFailure(_reason(exc))
        return RequestFailure(f"no answer within {timeout_seconds:g} s")

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _request(
        self, method: str, parts: SplitResult, headers: Mapping[str, str], content: bytes, max_answer_bytes: int
    ) -> Answer | RequestFailure:
        connections = await self._open_pool()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"host": parts.netloc, "user-agent": "scoreboard", "accept-encoding": "identity", **headers}
        if content or method not in {"GET", "HEAD"}:
            fields["content-length"] = str(len(content))
        request_url = httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
        received = bytearray()
        # cancelled, not left, when there is too much: so the generators inside httpcore end where they wait
        with trio.CancelScope() as scope:
            async with connections.stream(
                method, request_url, headers=list(fields.items()), content=content
            ) as response:
                async for part in response.aiter_stream():
                    received += part
                    if len(received) > max_answer_bytes:
                        scope.cancel()
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        if len(received) > max_answer_bytes:
            return RequestFailure(f"the answer has more than {max_answer_bytes} bytes")
        return Answer(response.status, answered, bytes(received))

    async def _open_pool(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            context = self._ssl_context or await trio.to_thread.run_sync(make_ssl_context)
            if self._pool is None:  # another request may have been faster
                self._pool = httpcore.AsyncConnectionPool(
                    ssl_context=context,
                    max_connections=CONNECTIONS,
                    keepalive_expiry=KEEP_ALIVE_SECONDS,
                    network_backend=self._backend,
                )
        return self._pool


def _reason(exc: BaseException) -> str:
    """What the first cause of an exception says: httpcore and Trio wrap those of sockets and of TLS."""
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return f"{type(exc).__name__.removeprefix('_')}: {exc}"[:200]
