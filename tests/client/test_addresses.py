"""Where a server is, and which proxy leads there."""

import httpx
import pytest

from scoreboard.client.addresses import environment_proxy, is_loopback, open_http, parse_server_url
from scoreboard.client.asyncio.live import check_proxy as check_proxy_of_asyncio
from scoreboard.client.tunnel import check_proxy

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without a proxy in the environment."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "authority", "port", "secure"),
    [
        ("http://board.example", "board.example", 80, False),
        ("https://board.example/", "board.example", 443, True),
        ("ws://board.example:8000", "board.example:8000", 8000, False),
        ("WSS://Board.Example", "board.example", 443, True),
        ("http://[::1]:8000", "[::1]:8000", 8000, False),
        ("https://bücher.example", "xn--bcher-kva.example", 443, True),
    ],
)
def test_an_address_is_a_scheme_a_host_and_a_port(url: str, authority: str, port: int, secure: bool) -> None:
    """The port has its default, and a name is written as the network writes it."""
    address = parse_server_url(url)
    assert (address.authority, address.port, address.secure) == (authority, port, secure)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "127.0.0.1:8000",
            "board.example",
            "ftp://127.0.0.1",
            "http://",
            "",
            "http://h:99999",
            "http://h:0x1",
            "http://[::1",
            "http://h/board",
        ),
        *("http://h?a=1", "http://ada:secret@h", "http://h/#top", None, b"http://h"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url: str) -> None:
    """The message shows what was given, and nothing is tried."""
    with pytest.raises(ValueError, match="not the address of a server") as raised:
        parse_server_url(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(
            ("localhost", True),
            ("LOCALHOST.", True),
            ("game.localhost", True),
            ("127.0.0.1", True),
            ("127.9.9.9", True),
            ("::1", True),
        ),
        *(
            ("::ffff:127.0.0.1", True),
            ("10.0.0.1", False),
            ("::2", False),
            ("localhost.example", False),
            ("notlocalhost", False),
        ),
        ("", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    """By name or by number, in either family."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("http://board.example", {}, None),
        ("http://board.example", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://board.example", {"http_proxy": "p:1"}, "http://p:1"),
        ("https://board.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://board.example", {"HTTPS_PROXY": "http://s:1", "ALL_PROXY": "http://a:1"}, "http://s:1"),
        ("wss://board.example", {"ALL_PROXY": "socks5://a:1"}, "socks5://a:1"),
        ("http://board.example", {"ALL_PROXY": "http://a:1", "NO_PROXY": "other.example,.example"}, None),
        ("http://board.example:8000", {"ALL_PROXY": "http://a:1", "NO_PROXY": "board.example:8000"}, None),
        ("http://board.example", {"ALL_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        *(
            (f"http://{host}:8000", {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "socks5://a:1"}, None)
            for host in ("localhost", "127.0.0.1", "[::1]")
        ),
    ],
)
def test_the_environment_names_the_proxy(
    url: str, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scheme, else for all; not for what NO_PROXY names, and never for loopback."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(parse_server_url(url)) == proxy


def test_http_to_loopback_does_not_even_look_at_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy that httpx has no package for is no hindrance there; elsewhere httpx says what is missing."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert isinstance(open_http("http://127.0.0.1:8000"), httpx.AsyncClient)
    with pytest.raises(ImportError, match="socks"):
        open_http("http://board.example")


@pytest.mark.parametrize("check", [check_proxy, check_proxy_of_asyncio])
def test_a_proxy_that_cannot_be_used_is_said_in_one_line(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP proxies can; the others are refused before anything is tried. SOCKS is one of them where its package is
    missing."""
    monkeypatch.setattr("scoreboard.client.asyncio.live.find_spec", lambda _name: None)
    assert callable(check)
    for usable in (None, "http://p:1", "https://p"):
        check(usable)
    for proxy in ("socks5://ada:secret@p:1", "ftp://ada:secret@p:1", "http://", "http://ada:secret@[::1"):
        with pytest.raises(ValueError, match=r"live connection|no address") as raised:
            check(proxy)
        assert "\n" not in str(raised.value)
        assert "secret" not in str(raised.value)


def test_a_proxy_that_is_no_address_stops_requests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and only where it would be used."""
    monkeypatch.setenv("HTTP_PROXY", "http://ada:secret@[::1")
    with pytest.raises(ValueError, match="no address") as raised:
        open_http("http://board.example")
    assert "secret" not in str(raised.value)
    assert isinstance(open_http("http://localhost"), httpx.AsyncClient)
