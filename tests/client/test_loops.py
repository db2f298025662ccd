"""Each client says in one line where it can't run, and what cancelling does on asyncio."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

import scoreboard.client
import scoreboard.client.asyncio as asyncio_client
from scoreboard.client import Credentials, Unreachable, backoff, following
from scoreboard.domain.close_codes import CloseCode
from tests.client.board_server import BoardServer, board_server
from tests.client.loops import is_trio, on_both_loops
from tests.conftest import in_thread

CREDENTIALS = Credentials("u", "token", "secret", 1)


def uses(client: ModuleType) -> list[Callable[[], object]]:
    """Every way in."""
    return [
        lambda: client.connect("http://127.0.0.1:1"),
        lambda: client.log_in("http://127.0.0.1:1", "ada", "a long password"),
        lambda: client.Session(httpx.AsyncClient(), CREDENTIALS),
        lambda: client.log_in_as_guest("http://127.0.0.1:1", client.new_device_key()),
    ]


@pytest.mark.parametrize("number", range(4), ids=["connect", "log_in", "Session", "log_in_as_guest"])
def test_the_other_loop_is_named(client: ModuleType, number: int) -> None:
    """Where the other library runs, the error names the module to import instead."""

    async def use() -> None:
        with pytest.raises(
            RuntimeError, match=f"import it from scoreboard.client{'.asyncio' if is_trio(client) else ''}$"
        ) as raised:
            uses(client)[number]()
        assert "\n" not in str(raised.value)

    in_thread(lambda: anyio.run(use, backend="asyncio" if is_trio(client) else "trio"))


@pytest.mark.parametrize("number", range(4), ids=["connect", "log_in", "Session", "log_in_as_guest"])
def test_a_loop_is_asked_for_where_none_runs(client: ModuleType, number: int) -> None:
    """Called from plain code, the error says what has to run."""
    start = r"trio\.run\(main\)" if is_trio(client) else r"asyncio\.run\(main\(\)\)"
    with pytest.raises(RuntimeError, match=start) as raised:
        in_thread(uses(client)[number])
    assert "\n" not in str(raised.value)


def test_both_clients_have_the_same_names() -> None:
    """Who changes from one to the other changes the import alone; values and errors are the very same."""
    assert asyncio_client.__all__ == scoreboard.client.__all__
    own = {
        name for name in asyncio_client.__all__ if getattr(asyncio_client, name) is not getattr(scoreboard.client, name)
    }
    functions = {"connect", "exchange", "log_in", "log_in_as_guest", "open_server"}
    assert own == {"LiveBoard", "ServerClient", "Session"} | functions
    for name in ("LiveBoard", "ServerClient", "Session"):
        public = [
            {member for member in dir(getattr(each, name)) if not member.startswith("_")}
            for each in (asyncio_client, scoreboard.client)
        ]
        assert public[0] == public[1]


# ---- leaving and cancelling -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[BoardServer]:
    with board_server() as serving:
        yield serving


@on_both_loops
async def test_leaving_says_so(client: ModuleType, server: BoardServer) -> None:
    """The end of the block sends a Close frame, so the server need not wait for a silence."""
    async with client.connect(server.url):
        pass
    await server.ends(1)
    assert server.closed == [1000]


@on_both_loops
async def test_cancelling_closes_at_once(client: ModuleType, server: BoardServer) -> None:
    """Within the block the socket is closed without a word, and the cancellation comes out."""
    with anyio.move_on_after(5) as scope:
        async with client.connect(server.url):
            scope.cancel()
            await anyio.sleep(10)
    assert scope.cancelled_caught
    await server.ends(1)
    assert server.closed == [1006]


@on_both_loops
async def test_waiting_can_be_bounded_and_goes_on(client: ModuleType, server: BoardServer) -> None:
    """A cancelled wait for a change, or for the next board, loses nothing."""
    async with client.connect(server.url) as board:
        updates = aiter(board)
        assert (await anext(updates)).position == "1-0"
        for wait in (lambda: anext(updates), board.changed, lambda: anext(board.personal)):
            with anyio.move_on_after(0.05) as scope:
                await wait()
            assert scope.cancelled_caught
        await server.show("a")
        with anyio.fail_after(10):
            assert (await anext(updates)).position == "1-1"


@on_both_loops
async def test_that_nobody_is_there_is_said_alike(client: ModuleType) -> None:
    """With the network's own error, not with what a loop wraps round it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match=r"^POST /api/v1/auth/login: ConnectionRefusedError\(111, [^\n]*\)$"):
        async with client.log_in(f"http://127.0.0.1:{port}", "Ada", "a long password", patience=0.1):
            pass


def on_asyncio(work: Callable[[], object]) -> None:
    in_thread(lambda: asyncio.run(work()))  # type: ignore[arg-type]


def test_asyncio_timeout_bounds_the_entering() -> None:
    """Nobody listens: `asyncio.timeout` ends the tries, and no task is left behind."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), asyncio_client.connect("http://127.0.0.1:1"):
                raise AssertionError("there is no board")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_asyncio(main)


def test_a_task_of_asyncio_is_cancelled_as_any_other(server: BoardServer) -> None:
    """CancelledError comes out of the iteration, the socket is closed, and no task is left behind."""

    async def main() -> None:
        async def watch() -> None:
            async with asyncio_client.connect(server.url) as board:
                async for _ in board:
                    pass

        watching = asyncio.create_task(watch())
        await server.connections(1)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        await server.ends(1)
        assert server.closed == [1006]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_asyncio(main)


def test_a_cancellation_ends_a_polite_leave_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not echo our Close holds the end of the block; a cancellation ends that wait too."""
    monkeypatch.setattr(following, "CLOSE_TIMEOUT_SECONDS", 60.0)

    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answer_handshake(reader, writer)
            while await reader.read(1024):
                pass
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            left = asyncio.Event()

            async def visit() -> None:
                async with asyncio_client.connect(url):
                    left.set()

            visiting = asyncio.create_task(visit())
            await left.wait()
            await asyncio.sleep(0.05)
            assert not visiting.done()
            visiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(10):
                    await visiting
            assert visiting.cancelled()

    on_asyncio(main)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_connection_of_asyncio_that_fails_while_it_is_left_holds_nobody(
    server: BoardServer, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """When the network fails in the very step in which the block ends, there is no wait for another connection."""
    monkeypatch.setattr(backoff.Backoff, "next", lambda _self, _retry_after=None: 60.0)
    receive = asyncio_client.LiveBoard._receive

    async def fail_when_cancelled(*args: Any) -> None:
        try:
            await receive(*args)
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    monkeypatch.setattr(asyncio_client.LiveBoard, "_receive", fail_when_cancelled)

    async def main() -> None:
        async with asyncio.timeout(10):
            entered = asyncio.Event()

            async def visit() -> None:
                async with asyncio_client.connect(server.url):
                    entered.set()
                    if is_cancelled:
                        await asyncio.sleep(60)

            visiting = asyncio.create_task(visit())
            await entered.wait()
            if is_cancelled:
                visiting.cancel()
            await asyncio.wait([visiting])
            assert visiting.cancelled() == is_cancelled

    on_asyncio(main)


def test_a_renewal_of_asyncio_that_fails_while_it_is_left_holds_nobody(
    server: BoardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while the board's token is being renewed."""
    monkeypatch.setattr(backoff.Backoff, "next", lambda _self, _retry_after=None: 60.0)
    renewing = asyncio.Event()

    class FailingSession(asyncio_client.Session):
        async def refresh(self, *, instead_of: str = "") -> None:
            renewing.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise Unreachable("no network") from None

    async def main() -> None:
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=server.url) as http:
            session = FailingSession(http, Credentials("a", "good", "s", 1, expiresIn=900, refreshToken="one"))
            async with asyncio_client.connect(server.url, session=session):
                await server.close(CloseCode.TOKEN)
                await renewing.wait()

    on_asyncio(main)


async def answer_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Opens a WebSocket and shows an empty board."""
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    protocol = ServerProtocol()
    while not (events := protocol.events_received()):
        protocol.receive_data(await reader.read(4096))
    (request,) = events
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    board = b'{"event":"leaderboard:update","data":{"leaderboard":[],"position":"1-0","timestamp":""}}'
    writer.writelines([*protocol.data_to_send(), Frame(Opcode.TEXT, board).serialize(mask=False)])
    await writer.drain()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_cancelled_log_in_block_logs_out(backend: str) -> None:
    """However the block is left the session is ended on the server, and then the cancellation comes out."""
    client = scoreboard.client if backend == "trio" else asyncio_client
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        given = {
            "userId": "u",
            "accessToken": "t",
            "actionSecret": "s",
            "actionKeyVersion": 1,
            "expiresIn": 900,
            "refreshToken": "r",
        }
        return httpx.Response(204) if request.url.path.endswith("logout") else httpx.Response(200, json={"data": given})

    async def main() -> None:
        with anyio.move_on_after(5) as scope:
            async with client.log_in("http://127.0.0.1:1", "ada", "a long password"):
                scope.cancel()
                await anyio.sleep(10)
        assert scope.cancelled_caught

    with pytest.MonkeyPatch.context() as patch:
        transport = httpx.MockTransport(answer)
        module = "session" if backend == "trio" else "asyncio.session"
        patch.setattr(
            f"scoreboard.client.{module}.open_http", lambda url: httpx.AsyncClient(base_url=url, transport=transport)
        )
        in_thread(lambda: anyio.run(main, backend=backend))
    assert paths == ["/api/v1/auth/login", "/api/v1/auth/logout"]
