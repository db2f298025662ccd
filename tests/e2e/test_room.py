"""A room behind one address, on a node with its defaults; and what a path that only the front knows says to methods it
has not."""

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus

import httpx
import trio
from trio_websocket import ConnectionClosed

from tests.e2e.server_processes import ServerProcess
from tests.websockets import open_websocket

DEFAULTS = {"limits__ip_per_minute": "1000", "limits__login_per_minute": "10"}  # the fixture's own are out of reach
STREAM = b"GET /api/v1/scores/stream HTTP/1.1\r\nHost: t\r\n\r\n"
LIVE = "/api/v1/scores/live"
SEATS = 300  # live.connections_per_ip
HANG_SECONDS = 10.0  # seconds


def pipelined(node: ServerProcess, path: str, times: int, fields: str = "") -> int:
    """How many of so many requests, sent at once, are answered with 304."""
    one = f"GET {path} HTTP/1.1\r\nHost: t\r\nIf-None-Match: *\r\n{fields}"
    with socket.create_connection(("127.0.0.1", node.port), timeout=HANG_SECONDS) as connection:
        connection.sendall(f"{one}\r\n".encode() * (times - 1) + f"{one}Connection: close\r\n\r\n".encode())
        data = b""
        while more := connection.recv(65_536):
            data += more
    return data.count(b"HTTP/1.1 304 ")


def test_a_class_joins_watches_and_plays(start_node: Callable[..., ServerProcess]) -> None:
    """Thirty register within a minute, more files than the limit are sent, three hundred watch; one more is told why,
    and when to come."""
    node = start_node(**DEFAULTS)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        for number in range(30):
            account = {
                "username": f"Pupil {number}",
                "email": f"p{number}@school.example",
                "password": "a long password",
            }
            joined = http.post("/api/v1/auth/register", json=account)
            assert joined.status_code == HTTPStatus.CREATED
        assert len(files := set(re.findall(r'(?:href|src)="(/static/[^"]+)"', http.get("/").text))) >= 9
        assert {http.get(path).status_code for path in files} == {HTTPStatus.OK}
        assert pipelined(node, "/static/page.js", 1500) == 1500
        assert (
            pipelined(
                node,
                "/api/v1/scores/leaderboard",
                900,
                f"Authorization: Bearer {joined.json()['data']['accessToken']}\r\n",
            )
            == 900
        )
        assert pipelined(node, "/api/v1/scores/leaderboard", 600) == 600  # the address still has its own share
        with ExitStack() as stack:
            for _ in range(SEATS):
                connection = stack.enter_context(
                    socket.create_connection(("127.0.0.1", node.port), timeout=HANG_SECONDS)
                )
                connection.sendall(STREAM)
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
            for path in (LIVE, "/api/v1/scores/stream", "/api/v1/scores/poll"):
                refused = http.get(path)
                assert (refused.status_code, refused.json()["layer"]) == (HTTPStatus.TOO_MANY_REQUESTS, "ip")
                assert refused.headers["retry-after"] == "5"
                assert refused.json()["detail"] == "Too many connections from this address."
            assert trio.run(_refused, node.port) == (1013, "TOO_MANY_CONNECTIONS")
            assert http.get("/").status_code == HTTPStatus.OK


async def _refused(port: int) -> tuple[int, str]:
    """How a WebSocket that finds no place ends, and what it is told before."""
    with trio.fail_after(HANG_SECONDS):
        async with open_websocket(port, LIVE) as client:
            said = await client.get_message()
            assert isinstance(said, str)
            try:
                await client.get_message()
            except ConnectionClosed as closed:
                return closed.reason.code if closed.reason else 0, str(re.findall(r'"code":"(\w+)"', said)[0])
    raise AssertionError("it stayed")


def test_paths_of_the_front_know_their_methods(start_node: Callable[..., ServerProcess]) -> None:
    """Any method that is none of theirs is 405 with Allow; a WebSocket's path without a whole handshake is 426 and says
    what it wants."""
    node = start_node()
    with httpx.Client(base_url=node.url, timeout=30) as http:
        for path in (
            LIVE,
            "/api/v1/scores/stream",
            "/api/v1/scores/poll",
            "/",
            "/livez",
            "/static/page.css",
            "/api/v1/openapi.json",
        ):
            for method in (
                "OPTIONS",
                "POST",
                "PUT",
                "DELETE",
                "PATCH",
                "TRACE",
                "PROPFIND",
                "QUERY",
                "M-SEARCH",
                "PURGE",
            ):
                answer = http.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    "METHOD_NOT_ALLOWED",
                ), (method, path)
                assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
        handshake = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for change in (
            {},
            {"upgrade": "h2c"},
            {"upgrade": "x"},
            {"sec-websocket-version": "8"},
            {"sec-websocket-key": "short"},
        ):
            for fields in ({**handshake, **change} if change else {}, {"accept": "text/html"}):
                answer = http.get(LIVE, headers=fields)
                assert (answer.status_code, answer.json()["code"]) == (
                    HTTPStatus.UPGRADE_REQUIRED,
                    "UPGRADE_REQUIRED",
                ), fields
                assert (answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == ("websocket", "13")
        assert http.head(LIVE).status_code == HTTPStatus.UPGRADE_REQUIRED
        assert http.get(f"{LIVE}?tocken=x").json()["errors"][0]["field"] == "tocken"
        for path in ("/api/v1/scores/poll?mode=delta", "/api/v1/scores/stream?wait=3", "/api/v1/scores/poll?limit=3"):
            assert http.get(path).status_code == HTTPStatus.BAD_REQUEST, path
