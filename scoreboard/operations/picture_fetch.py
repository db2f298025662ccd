"""One fetch of a picture from a server that may be hostile: a checked address, one GET over TLS, at most two redirects.

`Fetcher.fetch` is called by operations.pictures. The event loop only collects bytes, within a bound. http.client parses
them in a thread, with limits of its own: 320 KiB of the worst HTTP take up to a tenth of a second. Nothing is cached
here.
"""

import re
import ssl
from collections.abc import Awaitable, Callable
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from io import BytesIO
from socket import SOCK_STREAM, getaddrinfo, socket
from typing import NamedTuple, cast
from urllib.parse import urljoin, urlsplit

import httpx
import trio

from scoreboard.domain.account_rules import HTTPS_PORT, avatar_url
from scoreboard.domain.errors import FieldError
from scoreboard.domain.etags import strong_etag
from scoreboard.domain.picture_formats import checked_media_type
from scoreboard.domain.pictures import host_of, is_public

MAX_PICTURE_BYTES = 256 * 1024  # a face of 512 pixels has a fifth of it
MAX_HEAD_BYTES = 64 * 1024  # of status line and fields; also what the framing of a chunked body may add
READ_BYTES = 16 * 1024  # the most that a TLS record holds
MIN_READ_COST_BYTES = 512  # a read counts as at least this: TLS records of one byte would make 300,000 reads
FETCH_TIMEOUT_SECONDS = 5.0  # for all of a fetch, redirects and names included
MAX_REDIRECTS = 2
MAX_REDIRECT_CHARACTERS = 2000  # of an address that a redirect leads to: it may be signed
# Each has a thread of its own, which can't be stopped: a slow name server may block all of them, and nothing else.
MAX_LOOKUPS_AT_ONCE = 8
MAX_PARSERS_AT_ONCE = 1  # threads; more would only compete for the interpreter's lock with the event loop

HEADERS = (
    "User-Agent: scoreboard\r\n"
    "Accept: image/avif, image/webp, image/png, image/jpeg, image/gif\r\n"
    "Accept-Encoding: identity\r\n"  # what comes compressed all the same is no picture
    "Connection: close\r\n"
)
_END_OF_HEAD = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-9][0-9][0-9])")  # 1xx is followed by another head
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)


class Picture(NamedTuple):
    content: bytes
    media_type: str
    etag: bytes


class FetchFailure(NamedTuple):
    """Why there is no picture. `is_final`: there is none at this address. Otherwise a later try may find one."""

    why: str
    is_final: bool


NOT_A_PICTURE = FetchFailure("not a picture that may be shown", is_final=True)
NOT_HTTP = FetchFailure("the answer is not HTTP", is_final=True)
TOO_LARGE = FetchFailure("more than a picture", is_final=True)
ADDRESS_REFUSED = FetchFailure("the address is not for pictures", is_final=True)
ADDRESS_NOT_PUBLIC = FetchFailure("the host has an address that is not public", is_final=True)
TOO_MANY_REDIRECTS = FetchFailure("too many redirects", is_final=True)
TIMED_OUT = FetchFailure("timed out", is_final=False)
INCOMPLETE_ANSWER = FetchFailure("the answer is not complete", is_final=False)
HOST_BUSY = FetchFailure("the host was asked too often", is_final=False)


# ---- parses an answer, in a thread ----------------------------------------------------------------------------------


class _Socket:
    """The part of a socket that HTTPResponse uses."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> BytesIO:
        assert mode == "rb"
        return BytesIO(self._raw)


def read_answer(raw: bytes, url: str) -> Picture | FetchFailure | str:
    """The result of the whole answer from `url`; a text is the address that a redirect leads to."""
    response = HTTPResponse(cast("socket", _Socket(raw)), method="GET")
    try:
        response.begin()
        if response.status in {301, 302, 303, 307, 308}:
            location = str(response.headers.get("location", ""))
            return urljoin(url, location) if 0 < len(location) <= MAX_REDIRECT_CHARACTERS else ADDRESS_REFUSED
        if response.status != 200:
            return FetchFailure(f"status {response.status}", is_final=response.status in {404, 410})
        content = response.read()
    except (IncompleteRead, RemoteDisconnected):
        return INCOMPLETE_ANSWER
    except (HTTPException, ValueError, OverflowError):  # no HTTP, no URL, the length of a chunk has a hundred digits
        return NOT_HTTP
    if len(content) > MAX_PICTURE_BYTES:
        return TOO_LARGE
    kind = checked_media_type(content)
    return Picture(content, kind, strong_etag(content)) if kind else NOT_A_PICTURE


def body_bytes(head: bytes) -> int | None:
    """How many bytes of a body to read; None: until the server closes. It only decides when to stop reading; the body
    itself is parsed by `read_answer`."""
    status = _STATUS.match(head)
    if status is not None and status[1] != b"200":
        return 0
    length = _LENGTH.search(head)
    return int(length[1]) if length else None


# ---- sends the requests ---------------------------------------------------------------------------------------------


async def resolve(host: str) -> list[str]:
    """The host's addresses. Raises OSError or UnicodeError."""
    found = await trio.to_thread.run_sync(
        lambda: getaddrinfo(host, HTTPS_PORT, type=SOCK_STREAM), limiter=_lookups, abandon_on_cancel=True
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


_lookups = trio.CapacityLimiter(MAX_LOOKUPS_AT_ONCE)
_parsers = trio.CapacityLimiter(MAX_PARSERS_AT_ONCE)


def _make_ssl_context() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Fetcher:
    """Fetches a picture. The arguments are for tests, which have their own names, addresses, certificates and ports."""

    __slots__ = ("_is_allowed", "_port", "_resolve", "_ssl_context")

    def __init__(
        self,
        *,
        resolve: Callable[[str], Awaitable[list[str]]] = resolve,
        is_allowed: Callable[[str], bool] = is_public,
        port: int = HTTPS_PORT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._resolve, self._is_allowed, self._port, self._ssl_context = resolve, is_allowed, port, ssl_context

    async def fetch(self, url: str, own_host: str, may_ask: Callable[[str], bool]) -> Picture | FetchFailure:
        """The picture at an address, or why there is none.

        `own_host` is never connected to. `may_ask` decides for each host whether a request may be sent. Returns within
        FETCH_TIMEOUT_SECONDS and the time of one parser. Never raises for a server's fault. Cancelling closes the
        connection.
        """
        with trio.move_on_after(FETCH_TIMEOUT_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                if isinstance(avatar_url(url, own_host, max_length=MAX_REDIRECT_CHARACTERS), FieldError):
                    return ADDRESS_REFUSED
                host = host_of(url)
                if not may_ask(host):
                    return HOST_BUSY
                try:
                    raw = await self._get(host, url)
                except (OSError, UnicodeError, trio.BrokenResourceError) as exc:  # DNS, TCP, TLS
                    return FetchFailure(f"{type(exc).__name__}: {exc.__cause__ or exc}"[:200], is_final=False)
                if isinstance(raw, FetchFailure):
                    return raw
                answer = await trio.to_thread.run_sync(read_answer, raw, url, limiter=_parsers)
                if not isinstance(answer, str):
                    return answer
                url = answer
            return TOO_MANY_REDIRECTS
        return TIMED_OUT

    async def _get(self, host: str, url: str) -> bytes | FetchFailure:
        """The whole answer as it came. Raises OSError, UnicodeError, BrokenResourceError."""
        addresses = await self._resolve(host)
        if not all(map(self._is_allowed, addresses)):
            return ADDRESS_NOT_PUBLIC
        if self._ssl_context is None:  # reading the certificates takes some 20 ms
            self._ssl_context = await trio.to_thread.run_sync(_make_ssl_context)
        async with (
            await self._connect(addresses) as connection,
            trio.SSLStream(connection, self._ssl_context, server_hostname=host, https_compatible=True) as stream,
        ):
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{HEADERS}\r\n".encode("ascii"))
            return await _receive(stream)

    async def _connect(self, addresses: list[str]) -> trio.SocketStream:
        """Connects to the first address that answers. The addresses were checked, and there is no second look-up that
        could give others. Raises OSError."""
        failure = OSError("the host has no address")
        for address in addresses:
            try:
                return await trio.open_tcp_stream(address, self._port)
            except OSError as exc:
                failure = exc
        raise failure


async def _receive(stream: trio.abc.ReceiveStream) -> bytes | FetchFailure:
    """Reads until the answer has come, the server closes, or it is plainly more than a picture."""
    raw = bytearray()
    left = MAX_HEAD_BYTES + MAX_PICTURE_BYTES
    head_end = wanted = None
    while wanted is None or len(raw) < wanted:
        part = await stream.receive_some(READ_BYTES)
        if not part:
            break
        searched = max(0, len(raw) - len(_END_OF_HEAD) + 1)
        raw += part
        left -= max(len(part), MIN_READ_COST_BYTES)
        if left < 0:
            return TOO_LARGE
        if head_end is None and (found := raw.find(_END_OF_HEAD, searched)) >= 0:
            head_end = found + len(_END_OF_HEAD)
            size = body_bytes(bytes(raw[:head_end]))
            if size is not None and size > MAX_PICTURE_BYTES:
                return TOO_LARGE
            wanted = head_end + size if size is not None else None
        if head_end is None and len(raw) > MAX_HEAD_BYTES:
            return TOO_LARGE
    return bytes(raw)
