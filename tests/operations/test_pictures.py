"""Users' pictures, fetched from a server that does not mean well."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from scoreboard.operations import picture_fetch
from scoreboard.operations import pictures as module
from scoreboard.operations.picture_fetch import HOST_BUSY, Fetcher, NoPicture, Picture
from scoreboard.operations.pictures import Pictures
from tests.operations.pictures import NAMES, PNG, PictureServer, ok, picture_server, redirect

HERE, ELSEWHERE = (f"https://{name}" for name in NAMES)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PictureServer]:
    async with picture_server(tmp_path) as made:
        yield made


async def fetch(server: PictureServer, url: str, own_host: str = "") -> Picture | None:
    found = await server.fetcher.fetch(url, own_host, lambda _: True)
    return found if isinstance(found, Picture) else None


# ---- one fetch ------------------------------------------------------------------------------------------------------


async def test_a_picture_is_fetched_by_the_name_from_the_address_that_was_checked(server: PictureServer) -> None:
    """One look-up, TLS with the name, and a request that tells nothing of viewers."""
    server.answers["/a.png?size=2"] = ok(PNG, "content-type: text/html")
    picture = await fetch(server, f"{HERE}/a.png?size=2")
    assert picture is not None
    assert (picture.content, picture.media_type) == (PNG, "image/png")
    assert server.resolved == [NAMES[0]]
    head = server.requests[0].decode().lower()
    assert f"host: {NAMES[0]}\r\n" in head
    assert {line.partition(":")[0] for line in head.split("\r\n")[1:] if line} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }


@pytest.mark.parametrize(
    "url",
    [
        *("http://pictures.example.org/a.png", "https://127.0.0.1/a.png", "https://[::1]/a.png", "https://localhost/a.png"),
        *("https://2130706433/a.png", "https://pictures.example.org:8443/a.png", "https://u@pictures.example.org/a.png"),
        *("https://unknown.example.org/a.png", "ftp://pictures.example.org/", "https://board.example/avatars/1", ""),
    ],
)
async def test_addresses_that_are_not_for_pictures_are_not_asked(server: PictureServer, url: str) -> None:
    """They may stand in the database from before; no connection is made, nor by a redirect to one of them."""
    server.answers["/a.png"] = ok(PNG)
    server.answers["/redirect"] = redirect(url)
    server.addresses["board.example"] = ["127.0.0.1"]
    assert await fetch(server, url, "board.example") is None
    assert server.connections == 0
    assert await fetch(server, f"{HERE}/redirect", "board.example") is None
    assert server.connections == 1


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "::ffff:10.0.0.1"], ["169.254.169.254"], ["::1"], ["64:ff9b::a00:1"], []],
)
async def test_a_name_with_an_address_that_is_not_public_is_not_asked(server: PictureServer, addresses: list[str]) -> None:
    """Be it one among public ones, and be it the second name of a redirect."""
    server.answers["/a.png"] = ok(PNG)
    server.answers["/redirect"] = redirect(f"{ELSEWHERE}/a.png")
    server.addresses[NAMES[1]] = addresses
    assert await fetch(server, f"{ELSEWHERE}/a.png") is None
    assert server.connections == 0
    assert await fetch(server, f"{HERE}/redirect") is None
    assert server.connections == 1


async def test_a_name_that_changes_its_address_leads_nowhere_else(server: PictureServer) -> None:
    """DNS rebinding: the connection goes to what was looked up and checked; there is no second look-up."""

    async def resolve(host: str) -> list[str]:
        server.resolved.append(host)
        return ["127.0.0.1"] if len(server.resolved) == 1 else ["127.0.0.2"]

    server.answers["/a.png"] = ok(PNG)
    allowed: list[str] = []
    fetcher = Fetcher(resolve=resolve, is_allowed=lambda address: not allowed.append(address), port=server.port, ssl_context=server.trusted)  # type: ignore[func-returns-value]
    found = await fetcher.fetch(f"{HERE}/a.png", "", lambda _: True)
    assert isinstance(found, Picture)
    assert (server.resolved, allowed) == ([NAMES[0]], ["127.0.0.1"])


async def test_redirects_are_followed_twice(server: PictureServer) -> None:
    """To other hosts too; the third one, and a loop, give no picture."""
    server.answers |= {
        "/1": redirect(f"{ELSEWHERE}/2"),
        "/2": redirect("/3"),
        "/3": ok(PNG),
        "/0": redirect("/1"),
        "/loop": redirect("/loop"),
    }
    assert await fetch(server, f"{HERE}/1") is not None
    assert await fetch(server, f"{HERE}/0") is None
    assert await fetch(server, f"{HERE}/loop") is None


async def test_a_certificate_must_be_of_the_name(tmp_path: Path) -> None:
    """One of another name, and one that nobody vouches for."""
    async with picture_server(tmp_path, "another.example.org") as server:
        server.answers["/a.png"] = ok(PNG)
        assert await fetch(server, f"{HERE}/a.png") is None
        server.addresses["another.example.org"] = ["127.0.0.1"]
        assert await fetch(server, "https://another.example.org/a.png") is not None
        usual = Fetcher(resolve=server.resolve, is_allowed=lambda _: True, port=server.port)
        refused = await usual.fetch("https://another.example.org/a.png", "", lambda _: True)
        assert isinstance(refused, NoPicture)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.why
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"<html><script>alert(1)</script>", b"", b"GIF89", b"%PDF-1.7"),
        *(gzip.compress(b"\x00" * 10_000_000), gzip.compress(PNG), b"RIFF\x00\x00\x00\x00WAVE", b"\x00\x00\x00\x1cftypheic", b"\xff\xd8"),
    ],
)
async def test_what_is_no_picture_is_not_taken(server: PictureServer, content: bytes) -> None:
    """Whatever it is called: SVG and HTML are programs, and what is compressed is not unpacked."""
    server.answers["/a.png"] = ok(content, "content-type: image/png", "content-encoding: gzip" if content[:2] == b"\x1f\x8b" else "x: y")
    assert await fetch(server, f"{HERE}/a.png") is None


async def test_an_endless_body_ends_at_256_kib(server: PictureServer) -> None:
    """With and without a length that says so: the connection is closed, the rest is never read."""
    sent = 0

    async def endless(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while True:
            await stream.send_all(b"\x00" * 65_536)
            sent += 65_536

    server.answers["/endless"] = endless
    server.answers["/most"] = ok(PNG + b"\x00" * (picture_fetch.MAX_PICTURE_BYTES - len(PNG)))
    server.answers["/more"] = ok(PNG + b"\x00" * (picture_fetch.MAX_PICTURE_BYTES - len(PNG) + 1))
    assert await fetch(server, f"{HERE}/endless") is None
    assert sent < 64 * 2**20  # what the buffers of two sockets hold
    assert await fetch(server, f"{HERE}/most") is not None
    assert await fetch(server, f"{HERE}/more") is None


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + PNG])
async def test_a_slow_server_costs_a_bounded_time(server: PictureServer, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, of a head or of a body, ends with the time for all of it."""
    monkeypatch.setattr(picture_fetch, "FETCH_TIMEOUT_SECONDS", 0.5)

    async def slow(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(head)
        while True:
            await trio.sleep(0.05)
            await stream.send_all(b"x" if head else b"")

    server.answers["/slow"] = slow
    with trio.fail_after(30):
        assert await fetch(server, f"{HERE}/slow") is None


@pytest.mark.parametrize(
    "answer",
    [
        *(b"\x00" * 100, b"HTTP/9.9 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", b""),
        *(b"HTTP/1.1 302 Found\r\n\r\n", b"HTTP/1.1 302 Found\r\nlocation: https://[\r\n\r\n"),
        *(b"HTTP/1.1 302 Found\r\nlocation: \xff\r\n\r\n", b"HTTP/1.1 206 Partial\r\n\r\n" + PNG),
        *(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    ],
)
async def test_nonsense_gives_no_picture(server: PictureServer, answer: bytes) -> None:
    """Of whatever kind; and whoever asks is told that there is none."""
    server.answers["/a.png"] = answer
    pictures = Pictures(fetcher=server.fetcher)
    async with trio.open_nursery() as nursery:
        await nursery.start(pictures.run)
        assert await pictures.get(f"{HERE}/a.png") is None
        server.answers["/b.png"] = ok(PNG)
        assert await pictures.get(f"{HERE}/b.png") is not None
        nursery.cancel_scope.cancel()


# ---- all of them ----------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_each_address_is_asked_once_an_hour(server: PictureServer) -> None:
    """However many ask, together or one after the other, and whether there was a picture or not."""
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
        assert list(pictures._kept) == [f"{HERE}/{number}" for number in (2, 0, 3)]
        for number in range(10):
            assert await pictures.get(f"{HERE}/none{number}") is None
        assert len(pictures._kept) <= 3
        assert pictures._size <= module.MAX_CACHE_BYTES
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


async def test_a_busy_host_is_said_to_be_so(server: PictureServer) -> None:
    """It is another thing than a host without a picture."""
    assert await server.fetcher.fetch(f"{HERE}/a.png", "", lambda _: False) == HOST_BUSY
    assert server.connections == 0
