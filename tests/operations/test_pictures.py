"""Users' pictures: the cache, its times and bounds, and how often a server gets requests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from scoreboard.operations import pictures as module
from scoreboard.operations.picture_fetch import Picture
from scoreboard.operations.pictures import Pictures
from tests.operations.pictures import NAMES, PNG, PictureServer, ok, picture_server, redirect

HERE, ELSEWHERE = (f"https://{name}" for name in NAMES)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PictureServer]:
    async with picture_server(tmp_path) as made:
        yield made


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_each_address_is_asked_once_an_hour(server: PictureServer) -> None:
    """One fetch serves all callers, concurrent and later ones, whether there is a picture or not."""
    clock = Clock()
    server.answers["/a.png"] = ok(PNG)
    pictures = Pictures(fetcher=server.fetcher, clock=clock)
    got: list[Picture | None] = []

    async def ask(url: str) -> None:
        got.append(await pictures.get(url))

    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask, f"{HERE}/a.png")
                    nursery.start_soon(ask, f"{HERE}/none.png")
            clock.now += module.PICTURE_TTL_SECONDS / 3 - 1
        assert (len(got), sum(picture is not None for picture in got), server.connections) == (60, 30, 2)
        clock.now += 3
        await ask(f"{HERE}/a.png")
        assert server.connections == 3
        running.cancel_scope.cancel()


FINAL = {
    "not found": b"HTTP/1.1 404 Not Found\r\n\r\n",
    "gone": b"HTTP/1.1 410 Gone\r\n\r\n",
    "not a picture": ok(b"<svg/>"),
    "too large": b"HTTP/1.1 200 OK\r\ncontent-length: 262145\r\n\r\n",
    "a refused address": redirect("https://127.0.0.1/"),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
}
PASSING = {
    "too many requests": b"HTTP/1.1 429 Too Many Requests\r\n\r\n",
    "a server's fault": b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
    "forbidden": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "nothing": b"",
    "half an answer": ok(PNG)[:-1],
    "half a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n" + PNG,
}


@pytest.mark.parametrize("name", [*FINAL, *PASSING])
async def test_a_fault_that_may_pass_hides_a_picture_for_a_minute(server: PictureServer, name: str) -> None:
    """And a final answer for an hour."""
    clock = Clock()
    server.answers["/a.png"] = (FINAL | PASSING)[name]
    pictures = Pictures(fetcher=server.fetcher, clock=clock)
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        assert await pictures.get(f"{HERE}/a.png") is None
        server.answers["/a.png"] = ok(PNG)
        clock.now += module.RETRY_SECONDS - 1
        assert await pictures.get(f"{HERE}/a.png") is None
        clock.now += 1
        assert (await pictures.get(f"{HERE}/a.png") is not None) == (name in PASSING)
        clock.now += module.PICTURE_TTL_SECONDS
        assert await pictures.get(f"{HERE}/a.png") is not None
        running.cancel_scope.cancel()


async def test_a_host_with_one_fault_after_the_other_is_asked_ever_less_often(server: PictureServer) -> None:
    """The next try comes after one minute, two, four, up to an hour; a picture resets that."""
    clock = Clock()
    server.answers["/a.png"] = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
    pictures = Pictures(fetcher=server.fetcher, clock=clock)
    pauses: list[float] = []

    async def ask() -> None:
        await pictures.get(f"{HERE}/a.png")
        pauses.append(pictures._cache[f"{HERE}/a.png"].until - clock.now)
        clock.now += pauses[-1]

    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        for _ in range(8):
            await ask()
        assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        server.answers["/a.png"] = ok(PNG)
        await ask()
        server.answers["/a.png"] = b""
        await ask()
        assert pauses[-2:] == [3600, 60]
        running.cancel_scope.cancel()


async def test_who_leaves_takes_the_picture_from_nobody(server: PictureServer) -> None:
    """The one who asked first is cancelled; the others get it, and it is not asked for again."""
    ready, go = trio.Event(), trio.Event()

    async def wait(stream: trio.SSLStream[trio.SocketStream]) -> None:
        ready.set()
        await go.wait()
        await stream.send_all(ok(PNG))

    server.answers["/a.png"] = wait
    pictures = Pictures(fetcher=server.fetcher)
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        async with trio.open_nursery() as first:
            first.start_soon(pictures.get, f"{HERE}/a.png")
            await ready.wait()
            first.cancel_scope.cancel()
        go.set()
        assert await pictures.get(f"{HERE}/a.png") is not None
        assert server.connections == 1
        running.cancel_scope.cancel()


async def test_nobody_waits_long_for_a_slow_server(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told that there is no picture now; it goes on being fetched, and is there for whoever asks later."""
    monkeypatch.setattr(module, "CLIENT_TIMEOUT_SECONDS", 0.2)
    go = trio.Event()

    async def wait(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await go.wait()
        await stream.send_all(ok(PNG))

    server.answers["/a.png"] = wait
    pictures = Pictures(fetcher=server.fetcher)
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        assert await pictures.get(f"{HERE}/a.png") is None
        go.set()
        with trio.fail_after(10):
            while await pictures.get(f"{HERE}/a.png") is None:
                await trio.sleep(0.01)
        assert server.connections == 1
        running.cancel_scope.cancel()


async def test_a_host_is_asked_thirty_times_a_minute(server: PictureServer) -> None:
    """By a redirect too; others are not concerned; a minute later it may be asked again for what was not asked then."""
    clock = Clock()
    server.answers |= {f"/{number}": ok(PNG) for number in range(40)} | {"/redirect": redirect(f"{HERE}/35")}
    pictures = Pictures(fetcher=server.fetcher, clock=clock)
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        got = [await pictures.get(f"{HERE}/{number}") for number in range(32)]
        assert [picture is not None for picture in got] == [True] * 30 + [False] * 2
        assert await pictures.get(f"{ELSEWHERE}/redirect") is None
        assert await pictures.get(f"{ELSEWHERE}/0") is not None
        assert await pictures.get(f"{HERE}/0") is not None  # kept
        clock.now += module.RETRY_SECONDS
        assert await pictures.get(f"{HERE}/31") is not None
        running.cancel_scope.cancel()


async def test_the_hosts_that_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all of them are asked within a minute, another one has to wait."""
    monkeypatch.setattr(module, "MAX_HOSTS", 3)
    limit = module._HostLimit()
    assert [limit.admit(host, 0.0) for host in "abcd"] == [True, True, True, False]
    assert limit.admit("d", module.HOST_WINDOW_SECONDS)
    assert list(limit._times) == ["d"]


async def test_fetches_at_once_are_few(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight; who has no turn in time gets no picture now, and one a minute later."""
    monkeypatch.setattr(module, "TURN_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(module, "CLIENT_TIMEOUT_SECONDS", 30.0)
    clock, go = Clock(), trio.Event()

    async def wait(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await go.wait()
        await stream.send_all(ok(PNG))

    server.answers |= {f"/{number}": wait for number in range(9)}
    pictures = Pictures(fetcher=server.fetcher, clock=clock)
    got: list[Picture | None] = []

    async def ask(number: int) -> None:
        got.append(await pictures.get(f"{HERE}/{number}"))

    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(ask, number)
            with trio.fail_after(10):
                while not got:
                    await trio.sleep(0.01)
            assert (got, server.connections) == ([None], module.MAX_FETCHES_AT_ONCE)
            go.set()
        assert sum(picture is not None for picture in got) == 8
        clock.now += module.RETRY_SECONDS
        for number in range(9):
            assert await pictures.get(f"{HERE}/{number}") is not None
        running.cancel_scope.cancel()


async def test_what_is_kept_is_bounded(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture that was asked for longest ago goes first; failures count too."""
    monkeypatch.setattr(module, "MAX_CACHE_BYTES", 3 * (module.ENTRY_OVERHEAD_BYTES + len(PNG)))
    server.answers |= {f"/{number}": ok(PNG) for number in range(4)}
    pictures = Pictures(fetcher=server.fetcher)
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        for number in (0, 1, 2, 0, 3):
            assert await pictures.get(f"{HERE}/{number}") is not None
        assert list(pictures._cache) == [f"{HERE}/{number}" for number in (2, 0, 3)]
        for number in range(10):
            assert await pictures.get(f"{HERE}/none{number}") is None
        assert len(pictures._cache) <= 3
        assert pictures._size <= module.MAX_CACHE_BYTES
        running.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["https://[bad", "https://\u2100.example/a.png", "no address", "", "https://"])
async def test_what_is_no_address_has_no_picture(server: PictureServer, url: str) -> None:
    """Plain SQL may have written it. The fetching goes on."""
    pictures = Pictures(fetcher=server.fetcher)
    server.answers |= {"/a.png": ok(PNG), "/redirect": redirect(url)}
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        assert await pictures.get(url) is None
        assert await pictures.get(f"{ELSEWHERE}/redirect") is None
        assert await pictures.get(f"{HERE}/a.png") is not None
        running.cancel_scope.cancel()


async def test_nothing_is_fetched_from_this_server(server: PictureServer) -> None:
    """By the name of its public URL, nor by a redirect to it."""
    pictures = Pictures(NAMES[0].upper(), server.fetcher)
    server.answers |= {"/a.png": ok(PNG), "/redirect": redirect(f"{HERE}/a.png")}
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        assert await pictures.get(f"{HERE}/a.png") is None
        assert await pictures.get(f"{ELSEWHERE}/redirect") is None
        assert server.connections == 1
        running.cancel_scope.cancel()


async def test_without_a_task_that_fetches_there_is_no_picture(server: PictureServer) -> None:
    """Before the start, and after the end."""
    pictures = Pictures(fetcher=server.fetcher)
    assert await pictures.get(f"{HERE}/a.png") is None
    async with trio.open_nursery() as running:
        await running.start(pictures.run)
        running.cancel_scope.cancel()
    assert await pictures.get(f"{HERE}/a.png") is None
