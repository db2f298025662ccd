"""The client behind a proxy of the environment, on both loops: outside through it, on this machine without it."""

from base64 import b64encode
from collections.abc import Iterator
from types import ModuleType
from urllib.parse import urlsplit

import anyio
import pytest

from scoreboard.client import Refused
from tests.background_loop import in_background
from tests.client.board_server import BoardServer, board_server, rows
from tests.client.http_proxy import HttpProxy, http_proxy
from tests.client.loops import on_both_loops

OUTSIDE = "http://board.test"  # a name that only the proxy knows


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BoardServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with board_server() as serving:
        yield serving


@pytest.fixture
def proxy(server: BoardServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    with in_background(http_proxy(urlsplit(server.url).port or 0)) as (serving, _):
        monkeypatch.setenv("HTTP_PROXY", serving.url)
        yield serving


@on_both_loops
async def test_the_board_comes_through_the_proxy(client: ModuleType, server: BoardServer, proxy: HttpProxy) -> None:
    """The proxy is asked for a tunnel to the server, with the proxy's own user and password, and the board is live as
    ever."""
    with anyio.fail_after(10):
        async with client.connect(OUTSIDE) as board:
            await server.show("ab")
            while board.entries != rows("ab"):
                await board.changed()
    (head,) = proxy.heads
    assert head.startswith("CONNECT board.test:80 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {b64encode(b'ada:s@fe').decode()}".lower() in head.lower()


@on_both_loops
async def test_requests_go_through_the_proxy(client: ModuleType, proxy: HttpProxy) -> None:
    """Logging in asks the proxy, which answers in this test."""
    with anyio.fail_after(10), pytest.raises(Refused) as raised:
        async with client.log_in(OUTSIDE, "ada", "a long password"):
            raise AssertionError("not logged in")
    assert raised.value.status == 401
    assert proxy.heads[0].startswith("POST http://board.test/api/v1/auth/login HTTP/1.1\r\n")


@on_both_loops
async def test_a_proxy_that_refuses_is_told_of(client: ModuleType, proxy: HttpProxy) -> None:
    """A no of the proxy is final and says whose it is."""
    proxy.status = 407
    with anyio.fail_after(10), pytest.raises(Refused, match="407 the proxy"):
        async with client.connect(OUTSIDE):
            raise AssertionError("there is no board")


@on_both_loops
async def test_a_proxy_that_can_not_at_the_moment_is_asked_again(
    client: ModuleType, server: BoardServer, proxy: HttpProxy
) -> None:
    """A proxy that does not reach the server says 502, which passes."""
    proxy.status = 502
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def open_later() -> None:
                while not proxy.heads:
                    await anyio.sleep(0.01)
                proxy.status = 200

            tasks.start_soon(open_later)
            async with client.connect(OUTSIDE) as board:
                assert board.state == "live"
    assert len(proxy.heads) >= 2  # the second try may come before the proxy has changed its mind


@on_both_loops
async def test_no_proxy_is_asked_for_this_machine(
    client: ModuleType, server: BoardServer, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The addresses of loopback are reached directly, whatever proxies the environment names."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with anyio.fail_after(10):
        async with client.connect(server.url) as board:
            assert board.state == "live"
        with pytest.raises(Refused):  # the board server has no such route
            async with client.log_in(server.url, "ada", "a long password"):
                raise AssertionError("not logged in")
    assert proxy.heads == []
