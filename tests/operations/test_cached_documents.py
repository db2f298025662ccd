"""Documents of issuers: how often they are asked for, and how long an old one is used."""

from dataclasses import dataclass, field

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from scoreboard.operations.cached_documents import (
    FETCH_TIMEOUT_SECONDS,
    FIRST_RETRY_SECONDS,
    MAX_AGE_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    CachedDocument,
    FetchFailedError,
)


@dataclass
class Source:
    """Answers `content`, or fails when that is None, after `delay` seconds."""

    content: bytes | None = b"1"
    delay: float = 0.0
    asked: int = 0
    now: float = 1000.0
    document: CachedDocument[int] = field(init=False)

    def __post_init__(self) -> None:
        self.document = CachedDocument("keys", self.fetch, int, clock=lambda: self.now)

    async def fetch(self) -> bytes:
        self.asked += 1
        await trio.sleep(self.delay)
        if self.content is None:
            raise FetchFailedError("away")
        return self.content


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_document_is_fetched_once_an_hour(source: Source) -> None:
    assert [await source.document.current() for _ in range(3)] == [1, 1, 1]
    source.content, source.now = b"2", source.now + REFRESH_SECONDS - 1
    assert await source.document.current() == 1
    source.now += 1
    assert await source.document.current() == 2
    assert source.asked == 2


async def test_many_callers_share_one_fetch(source: Source, autojump_clock: MockClock) -> None:
    """A hundred requests that come before the first answer ask the issuer once."""
    source.delay = 1.0
    found = []

    async def ask() -> None:
        found.append(await source.document.current())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert (found, source.asked) == ([1] * 100, 1)


async def test_only_one_caller_waits_for_a_refresh(source: Source, autojump_clock: MockClock) -> None:
    """While an old document is fetched again, others get the old one at once."""
    await source.document.current()
    source.now, source.delay, source.content = source.now + REFRESH_SECONDS, 1.0, b"2"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.document.current)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await source.document.current() == 1
        assert trio.current_time() == began
    assert await source.document.current() == 2


async def test_an_unknown_key_asks_once_a_minute(source: Source) -> None:
    """A flood of tokens with unknown keys makes one request a minute, whether it finds anything or not."""
    await source.document.current()
    source.now += RETRY_SECONDS
    source.content = b"2"
    assert [await source.document.newer() for _ in range(50)] == [2] * 50
    assert source.asked == 2
    source.now += RETRY_SECONDS - 1
    source.content = None
    assert await source.document.newer() == 2
    source.now += 1
    assert [await source.document.newer() for _ in range(50)] == [2] * 50
    assert source.asked == 3


async def test_an_old_document_outlives_failures_for_a_day(source: Source) -> None:
    """An issuer that is away is asked once a minute, its keys are used for a day, and the log has one line."""
    await source.document.current()
    source.content = None
    with capture_logs() as logs:
        source.now += REFRESH_SECONDS
        assert [await source.document.current() for _ in range(20)] == [1] * 20
        assert source.asked == 2
        source.now += RETRY_SECONDS
        assert await source.document.current() == 1
        assert source.asked == 3
        source.now += MAX_AGE_SECONDS
        assert await source.document.current() is None
        source.content, source.now = b"3", source.now + RETRY_SECONDS
        assert await source.document.current() == 3
    assert [(line["event"], line["document"]) for line in logs] == [
        ("issuer_document_failed", "keys"),
        ("issuer_document_fetched", "keys"),
    ]


async def test_a_missing_document_is_asked_for_again_soon(source: Source) -> None:
    source.content = None
    assert [await source.document.current() for _ in range(20)] == [None] * 20
    assert [await source.document.newer() for _ in range(20)] == [None] * 20
    assert source.asked == 1
    source.content, source.now = b"1", source.now + FIRST_RETRY_SECONDS
    assert await source.document.current() == 1


@pytest.mark.parametrize("content", [b"x", b"", b"<html>"])
async def test_a_content_that_is_no_document_is_a_failure(source: Source, content: bytes) -> None:
    """What can't be read replaces nothing."""
    await source.document.current()
    source.content, source.now = content, source.now + REFRESH_SECONDS
    assert await source.document.current() == 1


async def test_a_slow_issuer_is_a_failure(source: Source, autojump_clock: MockClock) -> None:
    source.delay = 60.0
    with trio.fail_after(FETCH_TIMEOUT_SECONDS + 0.1):
        assert await source.document.current() is None


async def test_a_client_that_leaves_does_not_use_up_the_try(source: Source, autojump_clock: MockClock) -> None:
    """The fetch goes on without the request that began it."""
    source.delay = 1.0
    with trio.move_on_after(0.5):
        await source.document.current()
    assert await source.document.current() == 1
    assert source.asked == 1
