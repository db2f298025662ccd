"""What a vandal tries against a real node: floods, silent connections, more viewers than descriptors. Others are served
meanwhile."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from scoreboard.web.connection_limits import BLOCKED_SECONDS
from tests.e2e.server_processes import ServerProcess, free_port

VANDAL, HONEST = "127.0.0.3", "127.0.0.2"
BOARD = b"GET /api/v1/scores/leaderboard HTTP/1.1\r\nHost: t\r\n\r\n"
HANG_SECONDS = 10.0  # seconds


def honest(node: ServerProcess, path: str = "/api/v1/scores/leaderboard") -> httpx.Response:
    """A request of somebody else, on a connection of its own."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=HONEST), timeout=HANG_SECONDS) as client:
        return client.get(node.url + path)


def connect(node: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=HANG_SECONDS, source_address=(VANDAL, 0))


def read_all(connection: socket.socket) -> bytes:
    """Until the node ends it."""
    data = b""
    try:
        while more := connection.recv(65_536):
            data += more
    except ConnectionResetError:
        pass
    return data


def test_a_flood_of_refused_requests_ends(start_node: Callable[..., ServerProcess]) -> None:
    """Its connection is closed, and its address is not accepted for a while; others are served, and later it is too."""
    node = start_node(limits__ip_per_minute="100")
    with connect(node) as connection:
        connection.sendall(BOARD * 301)
        answers = read_all(connection)
    assert answers.count(b" 200 OK") == 100
    assert answers.count(b" 429 ") == 201
    assert answers.rpartition(b"HTTP/1.1 429")[2].count(b"connection: close") == 1
    with connect(node) as connection:
        connection.settimeout(HANG_SECONDS)
        assert read_all(connection) == b""
    assert honest(node).status_code == 200
    time.sleep(BLOCKED_SECONDS)
    with connect(node) as connection:
        connection.sendall(BOARD)
        assert connection.recv(100).startswith(b"HTTP/1.1 429")


def test_a_users_flood_bars_nobody_of_the_address(start_node: Callable[..., ServerProcess]) -> None:
    """After 200 refusals each further request costs the user a connection; others behind the address are accepted and
    answered."""
    node = start_node(limits__ip_per_minute="100")
    account = {"username": "Ada", "email": "ada@example.org", "password": "a long password"}
    with httpx.Client(base_url=node.url, timeout=HANG_SECONDS) as http:
        token = http.post("/api/v1/auth/register", json=account).json()["data"]["accessToken"]
        # from now on it is known
        assert http.get("/api/v1/users/me", headers={"authorization": f"Bearer {token}"}).status_code == 200
    asked = BOARD.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    for requests, answered, refused in ((400, 100, 201), (10, 0, 1), (10, 0, 1)):
        with connect(node) as connection:
            connection.sendall(asked * requests)
            answers = read_all(connection)
        assert (answers.count(b" 200 OK"), answers.count(b" 429 ")) == (answered, refused)
        assert b"Too many requests of this account." in answers
    with connect(node) as connection:
        connection.sendall(BOARD)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_probes_do_not_use_up_requests(start_node: Callable[..., ServerProcess]) -> None:
    """Probes are counted for themselves, so that they neither fail nor cost an address its requests."""
    node = start_node(limits__ip_per_minute="5")
    assert [honest(node, path).status_code for path in ("/livez", "/readyz") * 10] == [200] * 20
    assert [honest(node).status_code for _ in range(6)] == [200] * 5 + [429]
    assert honest(node, "/livez").status_code == 200


@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\nHost: t\r\n", BOARD])
def test_silent_connections_keep_nobody_out(start_node: Callable[..., ServerProcess], part: bytes) -> None:
    """With 256 descriptors and 400 connections that say nothing, half of something, or nothing more, everybody else is
    served at once."""
    node = start_node(descriptors=256, live__connections_per_ip="0")
    with ExitStack() as stack:
        for number in range(400):
            stack.enter_context(connect(node)).sendall(part)
            if not number % 50:
                assert honest(node, "/livez").status_code == 200
        assert [honest(node).status_code for _ in range(20)] == [200] * 20
    assert "accept_failed" not in node.log.read_text()


def test_viewers_leave_room_for_requests(start_node: Callable[..., ServerProcess]) -> None:
    """With 256 descriptors and 400 event streams asked for, those that find no place are told so, and requests are
    answered."""
    node = start_node(descriptors=256, live__connections_per_ip="0")
    with ExitStack() as stack:
        statuses = []
        for _ in range(400):
            connection = stack.enter_context(connect(node))
            connection.sendall(b"GET /api/v1/scores/stream HTTP/1.1\r\nHost: t\r\n\r\n")
            statuses.append(connection.recv(12)[-3:])
        assert 150 < statuses.count(b"200") < 192
        assert statuses.count(b"200") + statuses.count(b"503") == 400
        assert [honest(node).status_code for _ in range(20)] == [200] * 20


def test_so_many_connections_of_one_address(start_node: Callable[..., ServerProcess]) -> None:
    """One more than the limit is reset before it says anything; another address is served; a place that was left is
    free."""
    node = start_node(server__connections_per_ip="20", live__connections_per_ip="3")
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(node))
            connection.sendall(BOARD)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        with connect(node) as refused:
            assert read_all(refused) == b""
        assert honest(node).status_code == 200
    deadline = time.monotonic() + HANG_SECONDS
    while not _is_answered(node):  # the node hears of those that left one after the other
        assert time.monotonic() < deadline


def _is_answered(node: ServerProcess) -> bool:
    with connect(node) as connection:
        try:
            connection.sendall(BOARD)
            return connection.recv(15) == b"HTTP/1.1 200 OK"
        except ConnectionError:
            return False


def test_metrics_at_a_port_of_their_own(start_node: Callable[..., ServerProcess]) -> None:
    """Then they are nowhere else, and there is nothing else."""
    port = free_port()
    node = start_node(server__metrics_port=str(port))
    assert honest(node, "/metrics").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{port}/metrics").text.startswith("# HELP")
    paths = ("/livez", "/readyz", "/", "/api/v1/scores/leaderboard")
    assert [httpx.get(f"http://127.0.0.1:{port}{path}").status_code for path in paths] == [200, 200, 404, 404]
    assert "/metrics" not in honest(node, "/api/v1/openapi.json").json()["paths"]


@pytest.mark.parametrize("path", ["//metrics", "/%6detrics", "/./metrics", "/static/../metrics", "/metrics%2F"])
def test_metrics_have_one_spelling(start_node: Callable[..., ServerProcess], path: str) -> None:
    """What a balancer guards as /metrics can't be asked for in other letters."""
    node = start_node()
    with connect(node) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
        assert read_all(connection).startswith(b"HTTP/1.1 404")
