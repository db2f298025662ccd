"""Documents of outside issuers that a node keeps: key sets and discovery documents.

A `CachedDocument` is fetched when it is first needed, and again when it is old. One fetch runs at a time, whoever asks.

1. Younger than REFRESH_SECONDS: used without a question.
2. Older: whoever asks next fetches it, and waits for that; the others get what is there.
3. A failed fetch leaves the old content in place until MAX_AGE_SECONDS. Then the document counts as missing.
4. `newer` fetches a younger one too, for a key that it does not have; not again within RETRY_SECONDS, whatever the
   outcome. So nobody makes this node ask an issuer more often than that.
5. A document that is missing is asked for once in FIRST_RETRY_SECONDS.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog
import trio

REFRESH_SECONDS = 3600  # a key that its issuer has removed is accepted this long
RETRY_SECONDS = 60
FIRST_RETRY_SECONDS = 5
MAX_AGE_SECONDS = 86_400  # an issuer may be away for a day; then its old keys prove nothing any more
# Of one fetch. It is not cancelled with the request that began it: a client that leaves must not use up the try.
FETCH_TIMEOUT_SECONDS = 3.0

# Parsing a set of keys takes milliseconds, and its bytes are an outside server's. All documents share one thread.
_parsing = trio.CapacityLimiter(1)

T = TypeVar("T")

log = structlog.get_logger()


class FetchFailedError(Exception):
    """There is no document now. The message says why, for the log."""


class CachedDocument(Generic[T]):
    """One document. `label` names it in the log. `fetch` returns its bytes or raises FetchFailedError; `parse` raises
    ValueError for a content that is no such document. `clock` returns seconds that never go back."""

    __slots__ = ("_asked_at", "_clock", "_failing", "_fetch", "_fetched_at", "_label", "_lock", "_parse", "_value")

    def __init__(
        self,
        label: str,
        fetch: Callable[[], Awaitable[bytes]],
        parse: Callable[[bytes], T],
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._label, self._fetch, self._parse, self._clock = label, fetch, parse, clock
        self._lock = trio.Lock()
        self._value: T | None = None
        self._fetched_at = self._asked_at = float("-inf")
        self._failing = False

    async def current(self) -> T | None:
        """The document; None when there is none. Waits at most FETCH_TIMEOUT_SECONDS, or twice that behind another
        caller. Cancelling lets a running fetch end first."""
        now = self._clock()
        if self._value is not None and now - self._fetched_at < REFRESH_SECONDS:
            return self._value
        if self._may_ask(now) and not (self._value is not None and self._lock.locked()):
            await self._ask(self._may_ask)
        return self._value if self._clock() - self._fetched_at < MAX_AGE_SECONDS else None

    async def newer(self) -> T | None:
        """The same, after it was found to lack something: fetched anew if that has not been tried within
        RETRY_SECONDS."""
        await self._ask(self._may_ask_again)
        return await self.current()

    def _may_ask(self, now: float) -> bool:
        return now - self._asked_at >= (FIRST_RETRY_SECONDS if self._value is None else RETRY_SECONDS)

    def _may_ask_again(self, now: float) -> bool:
        return now - self._asked_at >= RETRY_SECONDS

    async def _ask(self, may_ask: Callable[[float], bool]) -> None:
        """Fetches it, unless another caller has done so meanwhile."""
        async with self._lock:
            if not may_ask(self._clock()):
                return
            self._asked_at = self._clock()
            with trio.CancelScope(shield=True):
                try:
                    with trio.fail_after(FETCH_TIMEOUT_SECONDS):
                        content = await self._fetch()
                    self._value = await trio.to_thread.run_sync(self._parse, content, limiter=_parsing)
                except (FetchFailedError, ValueError, trio.TooSlowError) as exc:
                    self._note_failure(str(exc) or f"no answer within {FETCH_TIMEOUT_SECONDS:g} s")
                else:
                    self._fetched_at = self._clock()
                    self._note_success()

    def _note_failure(self, why: str) -> None:
        if not self._failing:
            log.warning("issuer_document_failed", document=self._label, why=why, has_old=self._value is not None)
        self._failing = True

    def _note_success(self) -> None:
        if self._failing:
            log.info("issuer_document_fetched", document=self._label)
        self._failing = False
