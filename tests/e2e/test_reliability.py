"""Stores that go away and come back, hostile neighbours, a server shot dead: what clients are told, and that it ends by
itself."""

import socket as stdlib_socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trio

from scoreboard.cli import demo
from tests.conftest import OwnValkey
from tests.e2e.server_processes import ServerProcess, register, viewer
from tests.storage.proxy import Fault, proxy_before

StartNode = Callable[..., ServerProcess]
UNLIMITED = {"limits__user_per_minute": "0"}


async def until_ok(attempt: Callable[[], Awaitable[httpx.Response]], seconds: float = 15) -> None:
    """Repeats until it answers 200."""
    with trio.fail_after(seconds):
        while (await attempt()).status_code != httpx.codes.OK:
            await trio.sleep(0.05)


async def readiness(http: httpx.AsyncClient, stores: dict[str, str]) -> None:
    """Until /readyz tells so: ready, with these stores."""
    with trio.fail_after(5):
        while (answer := await http.get("/readyz")).json()["stores"] != stores:
            await trio.sleep(0.05)
    assert answer.status_code == httpx.codes.OK


async def test_postgresql_goes_away_and_comes_back(start_node: StartNode, database_url: str) -> None:
    """Meanwhile actions get 503 with Retry-After and are not recorded, the board can be read, /readyz tells; afterwards
    all goes on."""
    async with proxy_before(database_url) as proxy:
        node = await trio.to_thread.run_sync(lambda: start_node(postgres=proxy.url, **UNLIMITED))
        async with httpx.AsyncClient(base_url=node.url, timeout=20) as http:
            user = await register(http)
            assert (await user.act()).status_code == httpx.codes.OK
            score = (await user.leaderboard())["currentUser"]["score"]
            proxy.refuse = True
            bodies = [user.body() for _ in range(5)]
            answers = [await user.act(body) for body in bodies]
            assert {answer.status_code for answer in answers} == {503}
            assert {answer.json()["code"] for answer in answers} == {"SERVICE_UNAVAILABLE"}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            await readiness(http, {"postgresql": "down", "redis": "up"})
            assert (await http.get("/api/v1/scores/leaderboard")).json()["data"]["leaderboard"][0]["score"] == score
            assert (await http.post("/api/v1/auth/login", json={"username": "x", "password": "y"})).status_code == 503
            proxy.refuse = False
            await until_ok(lambda: user.act(bodies[0]))
            assert (await user.leaderboard())["currentUser"]["score"] == 2 * score
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]


async def test_postgresql_does_not_answer(start_node: StartNode, database_url: str) -> None:
    """Every request ends within its deadline; the same action sent again tells whether it was recorded, and counts
    once."""
    async with proxy_before(database_url) as proxy:
        node = await trio.to_thread.run_sync(lambda: start_node(postgres=proxy.url, **UNLIMITED))
        async with httpx.AsyncClient(base_url=node.url, timeout=20) as http:
            user = await register(http)
            assert (await user.act()).status_code == httpx.codes.OK
            score = (await user.leaderboard())["currentUser"]["score"]
            proxy.fault = Fault.SWALLOW
            body = user.body()
            with trio.fail_after(10):
                assert (await user.act(body)).status_code == 503
            proxy.fault = None
            with trio.fail_after(15):
                while (again := await user.act(body)).status_code == 503:
                    await trio.sleep(0.05)
            assert again.status_code in {200, 409}
            assert again.json()["data"]["newScore"] == 2 * score


async def test_valkey_goes_away_and_comes_back_empty(start_node: StartNode, fresh_valkey: OwnValkey) -> None:
    """Actions count without a rank, the board comes from PostgreSQL and says so; board and ranks are back without
    anybody's help."""
    node = start_node(redis=fresh_valkey.url, **UNLIMITED)
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as http, viewer(node) as watching:
        first, second = await register(http), await register(http)
        await first.act()
        assert (await second.act()).json()["data"]["newRank"] == 2
        await watching.next_event("leaderboard:update")
        fresh_valkey.kill()
        recorded = (await second.act()).json()["data"]
        assert recorded["newRank"] is None
        await watching.next_event("leaderboard:stale")
        with trio.fail_after(5):  # PostgreSQL is read once a second
            while (stale := await first.leaderboard())["leaderboard"][0]["userId"] != second.user:
                await trio.sleep(0.05)
        assert stale["stale"] is True
        await readiness(http, {"postgresql": "up", "redis": "down"})
        fresh_valkey.forget()
        await trio.to_thread.run_sync(fresh_valkey.start)
        with trio.fail_after(15):
            while (rank := (await first.act()).json()["data"]["newRank"]) is None:
                await trio.sleep(0.05)
        assert rank in {1, 2}
        with trio.fail_after(5):  # a rank may be back a moment before the board has been read again
            while "stale" in (board := await first.leaderboard()):
                await trio.sleep(0.05)
        scores = [row["score"] for row in board["leaderboard"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 2
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # TLS on a plain port
    b"GET /api/v1/scores/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\xff\xff\xff\xff",
    b"POST /api/v1/scores/action HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n"
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 70_000,
]


async def test_hostile_neighbours(start_node: StartNode) -> None:
    """Garbage, resets and stalled readers, many at once, end alone: everybody else is served, and the log has no
    error."""
    node = start_node(**UNLIMITED, live__connections_per_ip="0")
    done = trio.Event()

    async def hostile(number: int) -> None:
        while not done.is_set():
            sock = stdlib_socket.create_connection(("127.0.0.1", node.port))
            with sock:
                sock.setblocking(False)
                try:
                    sock.send(GARBAGE[number % len(GARBAGE)])
                    await trio.sleep(0.01)
                    sock.recv(100)
                except OSError:
                    pass
                if number % 2:  # a reset instead of an end
                    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.sleep(0.005)

    async with (
        httpx.AsyncClient(base_url=node.url, timeout=20) as http,
        viewer(node) as watching,
        trio.open_nursery() as nursery,
    ):
        user = await register(http)
        for number in range(12):
            nursery.start_soon(hostile, number)
        for _ in range(10):
            answer = await user.act()
            assert answer.status_code == httpx.codes.OK
            expected = answer.json()["data"]["newScore"]
            while (await watching.next_event("leaderboard:update"))["leaderboard"] != [
                {"rank": 1, "userId": user.user, "username": user.session["username"], "score": expected}
            ]:
                pass
        done.set()
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]
    assert node.stop() == 0


@pytest.fixture
def embedded_server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(
        tmp_path, ["--embedded", "--data-dir", str(tmp_path / "data")], {"SCOREBOARD_LIMITS__LOGIN_PER_MINUTE": "0"}
    )
    yield server.start()
    if server.process is not None and server.process.poll() is None:
        server.stop()


async def test_a_server_shot_dead_keeps_every_score(embedded_server: ServerProcess) -> None:
    """kill -9 leaves the embedded servers running; the next start takes them over, sessions and scores are as they
    were."""
    server = embedded_server
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        with trio.fail_after(60):
            while (
                await http.post("/api/v1/auth/login", json={"username": demo.LOGIN, "password": demo.PASSWORD})
            ).status_code != 200:
                await trio.sleep(0.2)
        user = await register(http)
        recorded = (await user.act()).json()["data"]
        server.kill()
        await trio.to_thread.run_sync(server.start)
        assert (await user.leaderboard())["currentUser"]["score"] == recorded["newScore"]
        assert (await user.act()).json()["data"]["previousScore"] == recorded["newScore"]
    assert server.stop() == 0
    await trio.to_thread.run_sync(server.start)
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        user.http = http
        assert (await user.leaderboard())["currentUser"]["score"] > recorded["newScore"]
