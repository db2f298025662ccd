"""Users' pictures, fetched from where users say they are, so that no viewer's browser asks a stranger's server.

`Pictures.get` is called by the web for pictures of the present board. What is fetched is chosen by users, so everything about it is
bounded: where it may lead to, how long it takes, how large it is, how often, and what is kept of it. `Fetcher` makes one fetch and
remembers nothing.
"""

import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from socket import SOCK_STREAM, getaddrinfo
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
import structlog
import trio

from scoreboard.domain.errors import FieldError
from scoreboard.domain.pictures import is_public, media_type
from scoreboard.domain.profiles import HTTPS_PORT, avatar_url

PICTURE_BYTES = 256 * 1024  # of a picture; a face of 512 pixels has a fifth of it
HEAD_BYTES = 64 * 1024  # that may come beside it
FETCH_SECONDS = 5.0  # for all of a fetch, redirects and names included
REDIRECTS = 2
REDIRECT_CHARACTERS = 2000  # of an address that a redirect leads to: it may be signed
AT_ONCE = 8  # fetches; each holds at most a picture
RESOLVING = 8  # names at once, each in a thread of its own that nobody can stop: a slow name server may hold all of them, and nothing else
WAITING_SECONDS = 5.0  # for one's turn
ANSWER_SECONDS = 2.0  # that a client waits: a browser has six connections, and actions need one; the fetch goes on for those who come later
KEPT_SECONDS = 3600.0  # a picture, or that there is none; then it is asked for again
BUSY_SECONDS = 60.0  # the same for one that had no turn, or whose host was asked too often
KEPT_BYTES = 32 * 1024 * 1024  # of all pictures; full: the one that was asked for longest ago goes, and may then be fetched again
OVERHEAD_BYTES = 2048  # counted for each, also for what is no picture: its address, its place in a table
HOST_FETCHES = 30  # from one host in HOST_SECONDS
HOST_SECONDS = 60.0
HOSTS = 1024  # remembered for that, about 0.5 MiB; full: another host has to wait

HEADERS = (
    ("User-Agent", "scoreboard"),
    ("Accept", "image/avif, image/webp, image/png, image/jpeg, image/gif"),
    ("Accept-Encoding", "identity"),  # what comes compressed all the same is no picture
    ("Connection", "close"),
)

log = structlog.get_logger()


class Picture(NamedTuple):
    content: bytes
    media_type: str
    etag: bytes


class HostBusyError(Exception):
    """The host was asked too often; the picture may be there."""


# ---- one fetch ------------------------------------------------------------------------------------------------------


async def resolve(host: str) -> list[str]:
    """The host's addresses. Raises OSError."""
    found = await trio.to_thread.run_sync(
        lambda: getaddrinfo(host, HTTPS_PORT, type=SOCK_STREAM), limiter=_resolving, abandon_on_cancel=True
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


_resolving = trio.CapacityLimiter(RESOLVING)


class _BoundedStream(httpcore.AsyncNetworkStream):
    """Ends a connection that brings more than a picture and its head."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream, self._left = stream, PICTURE_BYTES + HEAD_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 – the base class's
        if self._left <= 0:
            raise httpcore.ReadError("more than a picture")
        part = await self._stream.read(max_bytes, timeout)
        self._left -= len(part)
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 – the base class's
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 – the base class's
    ) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, of the name that the certificate is for: no second look-up can lead elsewhere."""

    def __init__(self, resolve: Callable[[str], Awaitable[list[str]]], is_allowed: Callable[[str], bool], port: int) -> None:
        self._resolve, self._is_allowed, self._port, self._trio = resolve, is_allowed, port, httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 – the base class's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"{host}: {exc}") from exc
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise httpcore.ConnectError(f"{host} has an address that is not public")
        failure: Exception | None = None
        for address in addresses:
            try:
                return _BoundedStream(await self._trio.connect_tcp(address, self._port, timeout, local_address, socket_options))
            except httpcore.ConnectError as exc:
                failure = exc
        raise failure or AssertionError("there was an address")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class Fetcher:
    """Fetches a picture. The arguments are for tests, which have their own names, addresses, certificates and ports."""

    __slots__ = ("_backend", "_ssl_context")

    def __init__(
        self,
        *,
        resolve: Callable[[str], Awaitable[list[str]]] = resolve,
        is_allowed: Callable[[str], bool] = is_public,
        port: int = HTTPS_PORT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._backend, self._ssl_context = _CheckedBackend(resolve, is_allowed, port), ssl_context

    async def fetch(self, url: str, own_hosts: Iterable[str], may_ask: Callable[[str], bool]) -> Picture | None:
        """The picture at an address; None when there is none that we take.

        `may_ask` is asked for each host before it is, and False raises HostBusyError. Returns within FETCH_SECONDS. Cancelling closes the
        connection. Whatever a hostile server does to the libraries under this may be raised.
        """
        with trio.move_on_after(FETCH_SECONDS):
            for _ in range(REDIRECTS + 1):
                host = (urlsplit(url).hostname or "").lower()
                if isinstance(avatar_url(url, longest=REDIRECT_CHARACTERS), FieldError) or host in own_hosts:
                    return None
                if not may_ask(host):
                    raise HostBusyError(host)
                answer = await self._get(url)
                if isinstance(answer, bytes):
                    kind = media_type(answer)
                    return Picture(answer, kind, b'"%b"' % sha256(answer).hexdigest()[:32].encode()) if kind else None
                if not answer:
                    return None
                url = urljoin(url, answer)
        return None

    async def _get(self, url: str) -> bytes | str | None:
        """The body, or where a redirect leads to, or None."""
        if self._ssl_context is None:  # reading the certificates takes some 20 ms
            self._ssl_context = await trio.to_thread.run_sync(lambda: httpx.create_ssl_context(trust_env=False))
        async with (
            httpcore.AsyncConnectionPool(self._ssl_context, network_backend=self._backend, max_connections=1) as pool,
            pool.stream("GET", url, headers=HEADERS) as response,
        ):
            if response.status in {301, 302, 303, 307, 308}:
                return next((value.decode("latin-1") for name, value in response.headers if name.lower() == b"location"), None)
            if response.status != 200:
                return None
            content = await response.aread()
            return content if len(content) <= PICTURE_BYTES else None


# ---- all of them ----------------------------------------------------------------------------------------------------


class _HostLimit:
    """At most HOST_FETCHES in any HOST_SECONDS from a host. Bounded by HOSTS."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def admit(self, host: str, now: float) -> bool:
        times = self._times.get(host)
        if times is None:
            if len(self._times) >= HOSTS:
                self._times = {name: known for name, known in self._times.items() if known[-1] > now - HOST_SECONDS}
            if len(self._times) >= HOSTS:
                return False
            times = self._times[host] = deque(maxlen=HOST_FETCHES)
        if len(times) == HOST_FETCHES and times[0] > now - HOST_SECONDS:
            return False
        times.append(now)
        return True


@dataclass(slots=True, eq=False)
class _Kept:
    """What is known of an address: nothing until `done`."""

    done: trio.Event = field(default_factory=trio.Event)
    picture: Picture | None = None
    until: float = 0.0

    @property
    def size(self) -> int:
        return OVERHEAD_BYTES + (len(self.picture.content) if self.picture else 0)


class Pictures:
    """One for the process. `own_host`: of the public URL; nothing is fetched from there. `run` does the fetching, for all who ask."""

    def __init__(self, own_host: str = "", fetcher: Fetcher | None = None, clock: Callable[[], float] = trio.current_time) -> None:
        self._own_host, self._fetcher, self._clock = own_host.lower(), fetcher or Fetcher(), clock
        self._kept: dict[str, _Kept] = {}  # by address, the one that was asked for longest ago first
        self._size = 0  # bytes, of those that are done
        self._hosts = _HostLimit()
        self._at_once = trio.CapacityLimiter(AT_ONCE)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetches for ever. Cancelling gives whoever waits no picture."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def get(self, url: str, host: str = "") -> Picture | None:
        """The picture at an address; None when there is none that we take, or none now. All who ask at once share one fetch.

        `host`: the name that this server was called by, another of its own. Returns within ANSWER_SECONDS; cancelling leaves the fetch to
        the others.
        """
        kept = self._kept.pop(url, None)
        if kept is None or (kept.done.is_set() and self._clock() >= kept.until):
            if kept is not None:
                self._size -= kept.size
            if self._nursery is None:
                return None
            kept = _Kept()
            self._nursery.start_soon(self._fetch, url, (self._own_host, host.lower()), kept)
        self._kept[url] = kept  # at the end
        with trio.move_on_after(ANSWER_SECONDS):
            await kept.done.wait()
        return kept.picture

    async def _fetch(self, url: str, own_hosts: tuple[str, ...], kept: _Kept) -> None:
        seconds = BUSY_SECONDS
        try:
            with trio.move_on_after(WAITING_SECONDS) as waiting:
                await self._at_once.acquire()
            if not waiting.cancelled_caught:
                try:
                    kept.picture = await self._fetcher.fetch(url, own_hosts, lambda host: self._hosts.admit(host, self._clock()))
                    seconds = KEPT_SECONDS
                finally:
                    self._at_once.release()
        except HostBusyError:
            log.info("picture_host_busy", host=urlsplit(url).hostname)
        except Exception as exc:  # noqa: BLE001 – a stranger's server must not end ours, whatever it makes the libraries raise
            seconds = KEPT_SECONDS
            log.info("picture_unavailable", host=urlsplit(url).hostname, why=f"{type(exc).__name__}: {exc}"[:200])
        finally:
            kept.until = self._clock() + seconds
            self._size += kept.size
            kept.done.set()
            self._trim()

    def _trim(self) -> None:
        """Over KEPT_BYTES the pictures that were asked for longest ago go; those that are being fetched stay."""
        while self._size > KEPT_BYTES:
            url = next(url for url, kept in self._kept.items() if kept.done.is_set())
            self._size -= self._kept.pop(url).size
