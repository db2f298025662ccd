"""Fetches and caches users' pictures, so that no viewer's browser sends a request to another user's server.

`Pictures.get` is called by the web for pictures of the current board. Users choose the addresses, so everything is
bounded: how often and how many are fetched at once, and the cache. One fetch and its bounds are in picture_fetch.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from scoreboard.domain.pictures import host_of
from scoreboard.operations.picture_fetch import HOST_BUSY, Fetcher, FetchFailure, Picture

MAX_FETCHES_AT_ONCE = 8  # each holds at most an answer of 320 KiB, a few times while it is parsed
TURN_TIMEOUT_SECONDS = 5.0  # that a fetch waits for its turn
# A browser has six connections, and actions need one. The fetch continues for later requests.
CLIENT_TIMEOUT_SECONDS = 2.0
PICTURE_TTL_SECONDS = 3600.0  # of a picture, and of the fact that there is none; then it is fetched again
RETRY_SECONDS = 60.0  # after a temporary fault; doubled after each further one, up to PICTURE_TTL_SECONDS
MAX_FAULTS = 6  # that are counted: RETRY_SECONDS * 2**6 is more than an hour
# of all pictures; full: the least recently used one is dropped, and may be fetched again
MAX_CACHE_BYTES = 32 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 2048  # counted for each, also for what is no picture: its address, its place in a table
MAX_FETCHES_PER_HOST = 30  # in HOST_WINDOW_SECONDS
HOST_WINDOW_SECONDS = 60.0
MAX_HOSTS = 1024  # that are counted, about 0.5 MiB; full: another host has to wait

TOO_MANY_FETCHES = FetchFailure("too many fetches at once", is_final=False)

log = structlog.get_logger()


class _HostLimit:
    """At most MAX_FETCHES_PER_HOST in any HOST_WINDOW_SECONDS from a host. Bounded by MAX_HOSTS."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def admit(self, host: str, now: float) -> bool:
        times = self._times.get(host)
        if times is None:
            if len(self._times) >= MAX_HOSTS:
                self._times = {
                    name: known for name, known in self._times.items() if known[-1] > now - HOST_WINDOW_SECONDS
                }
            if len(self._times) >= MAX_HOSTS:
                return False
            times = self._times[host] = deque(maxlen=MAX_FETCHES_PER_HOST)
        if len(times) == MAX_FETCHES_PER_HOST and times[0] > now - HOST_WINDOW_SECONDS:
            return False
        times.append(now)
        return True


@dataclass(slots=True, eq=False)
class _CacheEntry:
    """The result of a fetch; valid once `done` is set."""

    done: trio.Event = field(default_factory=trio.Event)
    picture: Picture | None = None
    until: float = 0.0
    faults: int = 0  # temporary ones in a row

    @property
    def size(self) -> int:
        return ENTRY_OVERHEAD_BYTES + (len(self.picture.content) if self.picture else 0)


class Pictures:
    """One for the process. `own_host`: the host of the public URL; nothing is fetched from there. `run` must run while
    `get` is called: the fetches are its tasks."""

    def __init__(
        self, own_host: str = "", fetcher: Fetcher | None = None, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._own_host, self._fetcher, self._clock = own_host.lower(), fetcher or Fetcher(), clock
        self._cache: dict[str, _CacheEntry] = {}  # by address, the least recently used first
        self._size = 0  # bytes, of the entries that are done
        self._hosts = _HostLimit()
        self._at_once = trio.CapacityLimiter(MAX_FETCHES_AT_ONCE)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs fetches, for ever. Cancelling ends them; callers that wait get no picture."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def get(self, url: str) -> Picture | None:
        """The picture at an address; None when there is none, or none yet. Concurrent callers share one fetch.

        Returns within CLIENT_TIMEOUT_SECONDS. Cancelling leaves the fetch running.
        """
        entry = self._cache.pop(url, None)
        if entry is None or (entry.done.is_set() and self._clock() >= entry.until):
            if entry is not None:
                self._size -= entry.size
            if self._nursery is None:
                return None
            entry = _CacheEntry(faults=entry.faults if entry else 0)
            self._nursery.start_soon(self._fetch, url, entry)
        self._cache[url] = entry  # at the end
        with trio.move_on_after(CLIENT_TIMEOUT_SECONDS):
            await entry.done.wait()
        return entry.picture

    async def _fetch(self, url: str, entry: _CacheEntry) -> None:
        seconds = RETRY_SECONDS
        try:
            found = await self._fetch_in_turn(url)
            if isinstance(found, Picture) or found.is_final:
                seconds, entry.faults = PICTURE_TTL_SECONDS, 0
            elif found not in {HOST_BUSY, TOO_MANY_FETCHES}:  # those two are no fault of the host
                seconds = min(RETRY_SECONDS * 2**entry.faults, PICTURE_TTL_SECONDS)
                entry.faults = min(entry.faults + 1, MAX_FAULTS)
            if isinstance(found, Picture):
                entry.picture = found
            else:
                log.info("picture_unavailable", host=host_of(url), why=found.why)
        except Exception as exc:  # noqa: BLE001
            # a stranger's server must not end ours, whatever it makes the libraries raise
            log.warning("picture_fetch_failed", host=host_of(url), why=f"{type(exc).__name__}: {exc}"[:200])
        finally:
            entry.until = self._clock() + seconds
            self._size += entry.size
            entry.done.set()
            self._trim()

    async def _fetch_in_turn(self, url: str) -> Picture | FetchFailure:
        """At most MAX_FETCHES_AT_ONCE at a time."""
        with trio.move_on_after(TURN_TIMEOUT_SECONDS) as turn:
            await self._at_once.acquire()
        if turn.cancelled_caught:
            return TOO_MANY_FETCHES
        try:
            return await self._fetcher.fetch(url, self._own_host, lambda host: self._hosts.admit(host, self._clock()))
        finally:
            self._at_once.release()

    def _trim(self) -> None:
        """Drops the least recently used pictures while the cache is larger than MAX_CACHE_BYTES. Those that are being
        fetched stay."""
        while self._size > MAX_CACHE_BYTES:
            url = next(url for url, entry in self._cache.items() if entry.done.is_set())
            self._size -= self._cache.pop(url).size
