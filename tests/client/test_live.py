"""`connect` against a server with faults: it follows, resumes, renews, and ends only after a final refusal. On both
loops."""

from collections.abc import Iterator
from types import ModuleType

import anyio
import httpx
import pytest

from scoreboard.client import Board, Closed, Credentials, LiveBoard, Refused, backoff, following
from scoreboard.client.subscription import Mode
from tests.client.board_server import BoardServer, board_server, frame, rows
from tests.client.loops import on_both_loops


@pytest.fixture
def server() -> Iterator[BoardServer]:
    with board_server() as serving:
        yield serving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects come within a twentieth of a second."""
    monkeypatch.setattr(backoff, "BASE_SECONDS", 0.02)
    monkeypatch.setattr(backoff, "MAX_SECONDS", 0.05)


async def shows(board: LiveBoard, users: str) -> None:
    with anyio.fail_after(10):
        while board.entries != rows(users):
            await board.changed()


@pytest.mark.parametrize("mode", ["full", "delta"])
@on_both_loops
async def test_it_follows(client: ModuleType, server: BoardServer, mode: Mode) -> None:
    """The block begins with the board there; each change is given, and the attributes are the newest."""
    await server.show("ab")
    async with client.connect(server.url, mode=mode) as board:
        assert (board.state, board.entries, board.position) == ("live", rows("ab"), "1-1")
        seen: list[Board] = []
        with anyio.fail_after(10):
            async for update in board:
                seen.append(update)
                if len(seen) == 3:
                    break
                await server.show("ba" if len(seen) == 1 else "cab")
        assert [update.entries for update in seen] == [rows("ab"), rows("ba"), rows("cab")]
        assert board.current == seen[-1]
    assert board.state == "closed"
    assert [message["action"] for messages in server.received for message in messages] == ["subscribe"]


@on_both_loops
async def test_a_slow_iteration_gets_the_newest(client: ModuleType, server: BoardServer) -> None:
    """Boards that came while the caller was busy are left out."""
    async with client.connect(server.url) as board:
        updates = aiter(board)
        assert (await anext(updates)).position == "1-0"
        for users in ("a", "ab", "abc"):
            await server.show(users)
        await shows(board, "abc")
        assert (await anext(updates)).entries == rows("abc")


@pytest.mark.parametrize("code", [1001, 1012, 1013, 4408, 4413, 1000])
@on_both_loops
async def test_it_resumes_after_a_close(client: ModuleType, server: BoardServer, code: int) -> None:
    """After a close that allows it, it connects again and asks for what came since its position."""
    await server.show("a")
    async with client.connect(server.url) as board:
        await server.close(code)
        await server.show("ba")
        await shows(board, "ba")
        await server.connections(2)
        assert server.received[1][0]["since"] == "1-1"


@on_both_loops
async def test_a_gap_is_closed(client: ModuleType, server: BoardServer) -> None:
    """A delta that does not fit is asked about on the same connection, and the board is right again."""
    async with client.connect(server.url) as board:
        await server.show("a")
        await shows(board, "a")
        server.losing = True
        await server.show("ab")
        server.losing = False
        await server.show("abc")
        await shows(board, "abc")
        assert [message.get("since") for message in server.received[0]] == [None, "1-1"]


@pytest.mark.parametrize("code", [1008, 4400, 4403, 1009])
@on_both_loops
async def test_some_closes_are_final(client: ModuleType, server: BoardServer, code: int) -> None:
    """After a close that forbids it, it does not connect again: the iteration raises, and the last board stays
    readable."""
    await server.show("a")
    async with client.connect(server.url) as board:
        await server.close(code)
        with anyio.fail_after(10), pytest.raises(Closed) as raised:
            async for _ in board:
                pass
        assert raised.value.code == code
        assert (board.state, board.entries) == ("closed", rows("a"))
    assert len(server.received) == 1


@on_both_loops
async def test_a_refused_token_is_final_without_a_session(client: ModuleType, server: BoardServer) -> None:
    """A bare token that is not valid can't be renewed: connecting raises."""
    with anyio.fail_after(10), pytest.raises(Closed) as raised:
        async with client.connect(server.url, "bad"):
            raise AssertionError("there is no board")
    assert raised.value.code == 4401


@on_both_loops
async def test_retry_after_is_honoured(
    client: ModuleType, server: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake refused with 503 or 429 is tried again, no sooner than told; the waits are the server's plus a random
    part."""
    waits: list[float | None] = []
    original = backoff.Backoff.next

    def next_wait(self: backoff.Backoff, retry_after: float | None = None) -> float:
        waits.append(retry_after)
        return original(self, 0.0)

    monkeypatch.setattr(backoff.Backoff, "next", next_wait)
    server.rejections = [(503, [(b"retry-after", b"7")]), (429, [(b"Retry-After", b"3")]), (502, [])]
    with anyio.fail_after(10):
        async with client.connect(server.url) as board:
            assert board.state == "live"
    assert waits == [7.0, 3.0, None]


@pytest.mark.parametrize("status", [301, 400, 403, 404])
@on_both_loops
async def test_a_refused_handshake_is_final(client: ModuleType, server: BoardServer, status: int) -> None:
    """An answer that says no, rather than later, is raised as it is; a redirect too, since the address was somebody's
    mistake."""
    server.rejections = [(status, [(b"location", b"/elsewhere")])]
    with anyio.fail_after(10), pytest.raises(Refused) as raised:
        async with client.connect(server.url):
            raise AssertionError("there is no board")
    assert raised.value.status == status


@on_both_loops
async def test_an_unknown_channel_is_raised(client: ModuleType, server: BoardServer) -> None:
    """A board that does not exist is not waited for."""
    with anyio.fail_after(10), pytest.raises(Refused, match="UNKNOWN_CHANNEL"):
        async with client.connect(server.url, channel="nowhere"):
            raise AssertionError("there is no board")


@on_both_loops
async def test_a_server_that_is_not_there_yet_is_waited_for(client: ModuleType) -> None:
    """Without a server it tries until its caller cancels it, and only that cancellation comes out."""
    with anyio.move_on_after(0.2) as scope:
        async with client.connect("http://127.0.0.1:1"):
            raise AssertionError("there is no board")
    assert scope.cancelled_caught


@on_both_loops
async def test_a_silent_connection_is_given_up(
    client: ModuleType, server: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no pong comes, the connection is dead and another one is made."""
    monkeypatch.setattr(following, "PING_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(following, "PONG_TIMEOUT_SECONDS", 0.0)
    async with client.connect(server.url) as board:
        await server.connections(3)
        assert board.entries == ()


async def comes_to(board: LiveBoard, state: str) -> None:
    with anyio.fail_after(10):
        while board.state != state:
            await board.changed()


@on_both_loops
async def test_a_server_that_falls_silent_is_seen(
    client: ModuleType, server: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a promised heartbeat does not come the board is silent, until something comes; nothing that comes then is
    lost."""
    monkeypatch.setattr(following, "HEARTBEAT_GRACE_SECONDS", 0.05)
    server.heartbeat_seconds = 0.05
    async with client.connect(server.url) as board:
        for users in ("a", "ab"):
            await comes_to(board, "silent")
            await server.show(users)
            await shows(board, users)
        await comes_to(board, "silent")
        await server.send('{"event":"heartbeat"}')
        await comes_to(board, "live")
    assert len(server.received) == 1


@on_both_loops
async def test_a_server_that_stays_silent_is_given_up(
    client: ModuleType, server: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection is made when nothing has come for long, but never where nothing was promised."""
    monkeypatch.setattr(following, "HEARTBEAT_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(following, "SILENCE_TIMEOUT_SECONDS", (0.01, 0.02))
    async with client.connect(server.url) as board:
        await anyio.sleep(0.2)
        assert (board.state, len(server.received)) == ("live", 1)
    server.heartbeat_seconds = 0.01
    async with client.connect(server.url):
        await server.connections(4)


@on_both_loops
async def test_nonsense_ends_the_connection_and_not_the_board(client: ModuleType, server: BoardServer) -> None:
    """A frame that is none makes it connect again."""
    await server.show("a")
    async with client.connect(server.url) as board:
        await server.send("}")
        await server.connections(2)
        await server.show("ab")
        await shows(board, "ab")


@on_both_loops
async def test_personal_events_and_standing(client: ModuleType, server: BoardServer) -> None:
    """With a token the user's standing is known at once, and each of one's own events is given once, in order."""
    async with client.connect(server.url, "good") as board:
        assert board.standing is not None
        assert (board.standing.score, board.standing.rank) == (99, 1)
        for score in (100, 150):
            await server.send(
                frame(
                    "score:personal",
                    previousScore=0,
                    newScore=score,
                    pointsAwarded=50,
                    rank=1,
                    position="1-1",
                    timestamp="",
                )
            )
        events = board.personal
        with anyio.fail_after(10):
            assert [(await anext(events)).newScore for _ in range(2)] == [100, 150]
        assert board.standing.score == 150
        with pytest.raises(RuntimeError, match="session"):
            await board.submit("task_finish")


@on_both_loops
async def test_staleness_is_a_state(client: ModuleType, server: BoardServer) -> None:
    """While the server can't read the board it is stale; the next frame ends that."""
    async with client.connect(server.url) as board:
        await server.send(frame("leaderboard:stale", since="2026-01-10T10:30:00.000Z"))
        with anyio.fail_after(10):
            while board.state != "stale":
                await board.changed()
        await server.show("a")
        await shows(board, "a")
        assert str(board.state) == "live"


@on_both_loops
async def test_a_session_renews_what_is_refused(client: ModuleType, server: BoardServer) -> None:
    """A token that ended while away is renewed once, and the connection comes back; a session that has ended is
    final."""
    spent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        spent.append(request.content)
        if len(spent) > 1:
            return httpx.Response(401, json={"code": "UNAUTHORIZED", "detail": "This session has ended."})
        renewed = {
            "userId": "a",
            "accessToken": "good",
            "actionSecret": "s",
            "actionKeyVersion": 1,
            "expiresIn": 900,
            "refreshToken": "two",
        }
        return httpx.Response(200, json={"success": True, "data": renewed})

    async with httpx.AsyncClient(base_url=server.url, transport=httpx.MockTransport(answer)) as http:
        session = client.Session(http, Credentials("a", "old", "s", 1, expiresIn=900, refreshToken="one"))
        with anyio.fail_after(10):
            async with client.connect(server.url, session=session) as board:
                assert [messages[0]["token"] for messages in server.received] == ["old", "good"]
                server.tokens.clear()
                await server.close(4401)
                with pytest.raises(Refused) as raised:
                    async for _ in board:
                        pass
    assert raised.value.status == 401
    assert spent == [b'{"refreshToken":"one"}', b'{"refreshToken":"two"}']


@on_both_loops
async def test_a_renewed_token_that_is_refused_is_final(client: ModuleType, server: BoardServer) -> None:
    """When a fresh token is not accepted either, nothing is gained by another one: it ends after one refresh."""
    spent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        spent.append(request.content)
        renewed = {
            "userId": "a",
            "accessToken": "bad",
            "actionSecret": "s",
            "actionKeyVersion": 1,
            "expiresIn": 900,
            "refreshToken": "r",
        }
        return httpx.Response(200, json={"success": True, "data": renewed})

    async with httpx.AsyncClient(base_url=server.url, transport=httpx.MockTransport(answer)) as http:
        session = client.Session(http, Credentials("a", "old", "s", 1, expiresIn=900, refreshToken="one"))
        with anyio.fail_after(10), pytest.raises(Closed) as raised:
            async with client.connect(server.url, session=session):
                raise AssertionError("there is no board")
    assert (raised.value.code, len(spent)) == (4401, 1)


@on_both_loops
async def test_a_live_connection_is_told_of_new_tokens(client: ModuleType, server: BoardServer) -> None:
    """A token is renewed before it ends, and the open connection is authenticated anew with it."""
    server.tokens = {"one", "two"}

    def answer(_request: httpx.Request) -> httpx.Response:
        renewed = {
            "userId": "a",
            "accessToken": "two",
            "actionSecret": "s",
            "actionKeyVersion": 1,
            "expiresIn": 900,
            "refreshToken": "r2",
        }
        return httpx.Response(200, json={"success": True, "data": renewed})

    async with httpx.AsyncClient(base_url=server.url, transport=httpx.MockTransport(answer)) as http:
        session = client.Session(http, Credentials("a", "one", "s", 1, expiresIn=0.5, refreshToken="r1"))
        async with client.connect(server.url, session=session):
            with anyio.fail_after(10):
                while len(server.received[0]) < 3:
                    await anyio.sleep(0.01)
    assert [message.get("token") for message in server.received[0]] == ["one", None, "two"]


@on_both_loops
async def test_an_error_in_the_block_comes_out_as_it_is(client: ModuleType, server: BoardServer) -> None:
    """What the caller raises is not wrapped in a group, and the iterations of other tasks end."""
    ended = anyio.Event()

    async def watch(board: LiveBoard) -> None:
        async for _ in board:
            pass
        ended.set()

    async with anyio.create_task_group() as tasks:
        with pytest.raises(KeyError, match="mine"):
            async with client.connect(server.url) as board:
                tasks.start_soon(watch, board)
                raise KeyError("mine")
        with anyio.fail_after(10):
            await ended.wait()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", ""])
@on_both_loops
async def test_an_address_that_is_none_is_a_mistake(client: ModuleType, url: str) -> None:
    """It raises at once instead of trying for ever."""
    with pytest.raises(ValueError, match="address"):
        async with client.connect(url):
            raise AssertionError("there is no board")
