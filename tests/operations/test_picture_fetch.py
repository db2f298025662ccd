"""One fetch of a picture, from a server that does not mean well."""

import gzip
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from socket import socket
from time import thread_time

import pytest
import trio

from scoreboard.operations import picture_fetch
from scoreboard.operations.picture_fetch import HOST_BUSY, Fetcher, FetchFailure, Picture
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


async def test_a_picture_is_fetched_by_the_name_from_the_address_that_was_checked(server: PictureServer) -> None:
    """One look-up, TLS with the host's name, and a request that contains nothing about viewers."""
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


@pytest.mark.parametrize("target", ["/x/y;v=1?q=2", "/x/y;?q", "/x;a/y;b", "/?a?b", "/a%2Fb//c/../d?e=/f;g"])
async def test_an_address_is_asked_for_as_it_is(server: PictureServer, target: str) -> None:
    """With the parameters of its path; nothing is put in order."""
    server.answers[target] = ok(PNG)
    assert await fetch(server, f"{HERE}{target}") is not None


async def test_an_address_without_a_path_is_the_root(server: PictureServer) -> None:
    """With its query."""
    server.answers |= {"/": ok(PNG), "/?a": ok(PNG)}
    assert await fetch(server, HERE) is not None
    assert await fetch(server, f"{HERE}?a") is not None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://pictures.example.org/a.png",
            "https://127.0.0.1/a.png",
            "https://[::1]/a.png",
            "https://localhost/a.png",
        ),
        *(
            "https://2130706433/a.png",
            "https://pictures.example.org:8443/a.png",
            "https://u@pictures.example.org/a.png",
        ),
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
    [
        ["10.0.0.1"],
        ["127.0.0.1", "10.0.0.1"],
        ["127.0.0.1", "::ffff:10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["64:ff9b::a00:1"],
        [],
    ],
)
async def test_a_name_with_an_address_that_is_not_public_is_not_asked(
    server: PictureServer, addresses: list[str]
) -> None:
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
    fetcher = Fetcher(
        resolve=resolve,
        is_allowed=lambda address: not allowed.append(address),
        port=server.port,
        ssl_context=server.trusted,
    )
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
        assert isinstance(refused, FetchFailure)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.why
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            b"<html><script>alert(1)</script>",
            b"",
            b"GIF89",
            b"%PDF-1.7",
        ),
        *(
            gzip.compress(b"\x00" * 10_000_000, mtime=0),
            gzip.compress(PNG, mtime=0),
            b"RIFF\x00\x00\x00\x00WAVE",
            b"\x00\x00\x00\x1cftypheic",
            b"\xff\xd8",
        ),
    ],
)
async def test_what_is_no_picture_is_not_taken(server: PictureServer, content: bytes) -> None:
    """Whatever it is called: SVG and HTML are programs, and what is compressed is not unpacked."""
    server.answers["/a.png"] = ok(
        content, "content-type: image/png", "content-encoding: gzip" if content[:2] == b"\x1f\x8b" else "x: y"
    )
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
async def test_a_slow_server_costs_a_bounded_time(
    server: PictureServer, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        *(
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ),
    ],
)
async def test_nonsense_gives_no_picture(server: PictureServer, answer: bytes) -> None:
    """An answer that is not HTTP gives no picture, and later fetches work."""
    server.answers["/a.png"] = answer
    pictures = Pictures(fetcher=server.fetcher)
    async with trio.open_nursery() as nursery:
        await nursery.start(pictures.run)
        assert await pictures.get(f"{HERE}/a.png") is None
        server.answers["/b.png"] = ok(PNG)
        assert await pictures.get(f"{HERE}/b.png") is not None
        nursery.cancel_scope.cancel()


async def test_faults_of_names_and_connections_may_pass(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such name now, nobody who listens, no end of the answer in time."""
    monkeypatch.setattr(picture_fetch, "FETCH_TIMEOUT_SECONDS", 0.5)
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        unused = listener.getsockname()[1]
    nobody = Fetcher(resolve=server.resolve, is_allowed=lambda _: True, port=unused, ssl_context=server.trusted)

    async def stay(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await trio.sleep_forever()

    server.answers["/slow"] = stay
    faults = [
        await server.fetcher.fetch("https://unknown.example.org/a.png", "", lambda _: True),
        await nobody.fetch(f"{HERE}/a.png", "", lambda _: True),
        await server.fetcher.fetch(f"{HERE}/slow", "", lambda _: True),
    ]
    assert [isinstance(fault, FetchFailure) and not fault.is_final for fault in faults] == [True, True, True]


async def test_a_busy_host_is_said_to_be_so(server: PictureServer) -> None:
    """It is another thing than a host without a picture."""
    assert await server.fetcher.fetch(f"{HERE}/a.png", "", lambda _: False) == HOST_BUSY
    assert server.connections == 0


# ---- what an answer costs -------------------------------------------------------------------------------------------

MOST_BYTES = picture_fetch.MAX_HEAD_BYTES + picture_fetch.MAX_PICTURE_BYTES
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WORST_ANSWERS = {
    "chunks of one byte": CHUNKED + b"1\r\na\r\n" * ((MOST_BYTES - 100) // 6) + b"0\r\n\r\n",
    "chunk extensions": CHUNKED + b"1;" + b"a;" * 100_000 + b"\r\na\r\n0\r\n\r\n",
    "fields": OK + b"a:\r\n" * 16_000 + b"\r\n",
    "a hundred long fields": OK + (b"a:" + b" x" * 300 + b"\r\n") * 99 + b"\r\n",
    "folded fields": OK + b"a:b\r\n" + b" c\r\n" * 13_000 + b"\r\n",
    "a field without end": OK + b"a" * MOST_BYTES,
    "many lengths": OK + b"content-length: " * 4_000 + b"\r\n\r\n",
    "a long length": OK + b"content-length: " + b"9" * 60_000 + b"\r\n\r\n",
    "1xx": b"HTTP/1.1 100 \r\n\r\n" * (MOST_BYTES // 17),
    "1xx with fields": (b"HTTP/1.1 100 \r\n" + b"a:\r\n" * 90 + b"\r\n") * (MOST_BYTES // 400),
    "trailers": CHUNKED + b"0\r\n" + b"a:\r\n" * ((MOST_BYTES - 100) // 4) + b"\r\n",
    "empty lines": b"\r\n" * (MOST_BYTES // 2),
    "a long redirect": b"HTTP/1.1 302 Found\r\nlocation: " + b"/.." * 20_000 + b"\r\n\r\n",
    "blocks of a GIF": ok(b"GIF89a\x01\x00\x01\x00\x00\x00\x00!\xff" + b"\x01x" * 131_000),
    "segments of a JPEG": ok(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 65_000),
}
LONGEST_MS = 3.0  # CPU time, as in tests/web/test_worst_inputs.py


class Received(trio.abc.ReceiveStream):
    """An answer in parts, as TLS gives them. Tells the longest CPU time between two reads."""

    def __init__(self, answer: bytes, part_bytes: int) -> None:
        self._answer, self._part_bytes, self._at = answer, part_bytes, 0
        self.reads = 0
        self.longest_ms = 0.0
        self.began = thread_time()

    def note(self) -> None:
        self.longest_ms = max(self.longest_ms, (thread_time() - self.began) * 1000)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.note()
        self.reads += 1
        await trio.lowlevel.checkpoint()
        start, self._at = self._at, self._at + min(self._part_bytes, max_bytes or self._part_bytes)
        self.began = thread_time()
        return self._answer[start : self._at]

    async def aclose(self) -> None:
        raise AssertionError("whoever opened it closes it")


@pytest.mark.parametrize("name", WORST_ANSWERS)
async def test_collecting_an_answer_does_not_hold_the_loop(name: str) -> None:
    """Between any two reads, however the answer is made: this is all that the event loop does with it."""
    best = float("inf")
    for _ in range(5):
        stream = Received(WORST_ANSWERS[name], picture_fetch.READ_BYTES)
        await picture_fetch._receive(stream)
        stream.note()
        best = min(best, stream.longest_ms)
    assert best < LONGEST_MS


@pytest.mark.parametrize("name", WORST_ANSWERS)
async def test_what_an_answer_means_is_read_in_another_thread(
    server: PictureServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head, body and picture, one answer at a time; none of these is a picture, but for the GIF."""
    threads: list[int] = []
    read_answer = picture_fetch.read_answer

    def noted(raw: bytes, url: str) -> Picture | FetchFailure | str:
        threads.append(threading.get_ident())
        return read_answer(raw, url)

    monkeypatch.setattr(picture_fetch, "read_answer", noted)
    server.answers["/a"] = WORST_ANSWERS[name]
    assert (await fetch(server, f"{HERE}/a") is not None) == (name == "blocks of a GIF")
    assert threading.get_ident() not in threads
    assert threads or len(WORST_ANSWERS[name]) > picture_fetch.MAX_HEAD_BYTES  # refused before


async def test_records_of_one_byte_are_few() -> None:
    """Each read counts for 512 bytes at least."""
    stream = Received(OK + b"\r\n" + bytes(10_000), 1)
    assert await picture_fetch._receive(stream) == picture_fetch.TOO_LARGE
    assert stream.reads == 641


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 262145\r\n\r\n",
        OK + b"a:b\r\n" * 11_000,
    ],
)
async def test_what_is_plainly_too_long_is_refused_early(answer: bytes) -> None:
    """By its length, or by a head that has no end: no more is read."""
    stream = Received(answer + bytes(200_000), picture_fetch.READ_BYTES)
    assert await picture_fetch._receive(stream) == picture_fetch.TOO_LARGE
    assert stream.reads <= 5


@pytest.mark.parametrize(
    "answer", [ok(PNG), b"HTTP/1.1 302 Found\r\nlocation: /a.png\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"]
)
async def test_a_server_that_does_not_close_costs_no_time(server: PictureServer, answer: bytes) -> None:
    """Reading stops with the last byte of a picture, and with the head of what is none."""

    async def stay(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(answer)
        await trio.sleep_forever()

    server.answers |= {"/stay": stay, "/a.png": ok(PNG)}
    found = await server.fetcher.fetch(f"{HERE}/stay", "", lambda _: True)
    assert found != picture_fetch.TIMED_OUT
    assert isinstance(found, Picture) == (b"404" not in answer)
