"""Which pages may send requests, by Origin, Host and Sec-Fetch-Site: foreign pages, sibling domains, DNS rebinding."""

import pytest
from structlog.testing import capture_logs

from scoreboard.http.request import Request
from scoreboard.web.cors import REFUSED_LOGGED, Origins
from tests.web.requests import request

POLL = b"/api/v1/scores/poll"


def asked(host: bytes = b"127.0.0.1:8000", path: bytes = POLL, **fields: bytes) -> Request:
    """A request with these header fields."""
    named = ((name.replace("_", "-").encode(), value) for name, value in fields.items())
    return request((b"host", host), *named, target=path)


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"127.0.0.1:8000",
            b"[::1]:8000",
            b"localhost:8000",
            b"192.168.1.5:8000",
            b"LOCALHOST:8000",
            b"board.lan:8000",
        ),
        *(
            b"laptop:8000",
            b"laptop.local:8000",
            b"board.test:8000",
            b"board.example:8000",
            b"a.home.arpa:8000",
            b"board.internal:8000",
        ),
    ],
)
def test_without_a_public_url_our_pages_are_those_of_addresses(host: bytes) -> None:
    """Also those of localhost, and of the host in the settings: nobody else can own these names."""
    origins = Origins(names=("board.lan",))
    assert origins.allows(asked(host, origin=b"http://" + host))
    assert not origins.allows(asked(host, origin=b"http://" + host.partition(b":8")[0] + b":9000"))
    assert not origins.refuses_cross_site(asked(host, sec_fetch_site=b"same-origin"))


@pytest.mark.parametrize(
    "host",
    [b"evil.org:8000", b"localhost.evil.org:8000", b"127.0.0.1.evil.org:8000", b"[evil]:8000", b"", b"x" * 16_000],
)
def test_a_rebound_name_is_foreign(host: bytes) -> None:
    """DNS rebinding: Origin and Host are both the attacker's name, which resolves to this server. Its reads have no
    Origin at all."""
    origins = Origins(names=("0.0.0.0",))
    assert not origins.allows(asked(host, origin=b"http://" + host))
    assert not origins.allows(asked(host, sec_fetch_site=b"same-origin"))
    assert origins.refuses_cross_site(asked(host, b"/api/v1/scores/leaderboard", sec_fetch_site=b"same-origin"))
    assert not origins.refuses_cross_site(asked(host, b"/static/page.css", sec_fetch_site=b"same-origin"))
    assert not origins.refuses_cross_site(asked(host, b"/", sec_fetch_site=b"none"))  # a person typed the name


def test_a_host_that_is_refused_is_logged_once() -> None:
    """The line names the setting that would allow it, with an Origin or without; of a flood of names only the first are
    logged."""
    origins, host = Origins(), b"Laptop.fritz.box:8000"
    with capture_logs() as logged:
        for _ in range(3):
            assert origins.refuses_cross_site(asked(host, sec_fetch_site=b"same-origin"))
            assert not origins.allows(asked(host, origin=b"http://laptop.fritz.box:8000"))
    assert [(line["event"], line["host"], line["setting"]) for line in logged] == [
        ("host_refused", "laptop.fritz.box:8000", "server.public_url")
    ]
    with capture_logs() as logged:
        for number in range(1000):
            assert origins.refuses_cross_site(asked(b"a%d.example.org" % number, sec_fetch_site=b"same-origin"))
        assert origins.refuses_cross_site(asked(b"", sec_fetch_site=b"same-origin"))
    assert 0 < len(logged) < REFUSED_LOGGED


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (b"http://127.0.0.1", b"127.0.0.1", True),
        (b"http://127.0.0.1", b"127.0.0.1:80", True),
        (b"http://127.0.0.1:80", b"127.0.0.1", True),
        (b"https://127.0.0.1", b"127.0.0.1:443", True),  # a load balancer ends TLS
        (b"https://127.0.0.1", b"127.0.0.1:80", False),
        (b"http://127.0.0.1", b"127.0.0.1:443", False),
        (b"http://127.0.0.2", b"127.0.0.1", False),
        (b"ftp://127.0.0.1", b"127.0.0.1", False),
        (b"127.0.0.1", b"127.0.0.1", False),
        (b"null", b"127.0.0.1", False),
    ],
)
def test_host_and_port_are_compared(origin: bytes, host: bytes, allowed: bool) -> None:
    """The default port of the scheme may be left out; any other must be the same."""
    assert Origins().allows(asked(host, origin=origin)) is allowed


def test_with_a_public_url_the_host_does_not_count() -> None:
    """Only the public URL's origin is ours, with scheme and port; a balancer may send any Host."""
    origins = Origins(public_url="https://board.example:443", allowed=("https://friend.example:443",))
    for host in (b"board.example", b"10.0.0.7:8000", b"evil.org"):
        for origin in (b"https://board.example", b"HTTPS://BOARD.EXAMPLE", b"https://friend.example"):
            assert origins.allows(asked(host, origin=origin))
        for origin in (b"http://board.example", b"https://board.example:8443", b"http://" + host, b"https://evil.org"):
            assert not origins.allows(asked(host, origin=origin))
        assert not origins.refuses_cross_site(asked(host, sec_fetch_site=b"same-origin"))


PICTURE = {"sec_fetch_mode": b"no-cors", "sec_fetch_dest": b"image"}
LINK = {"sec_fetch_mode": b"navigate", "sec_fetch_dest": b"document"}
FRAME = {"sec_fetch_mode": b"navigate", "sec_fetch_dest": b"iframe"}
SCRIPT = {"sec_fetch_mode": b"cors", "sec_fetch_dest": b"empty"}


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"something-new"])
@pytest.mark.parametrize(
    ("path", "fields", "refused"),
    [
        (POLL, PICTURE, True),
        (b"/api/v1/scores/stream", PICTURE, True),
        (b"/api/v1/scores/leaderboard", PICTURE, True),
        (b"/livez", PICTURE, True),
        (b"/", PICTURE, True),
        (b"/", FRAME, True),
        (b"/", LINK, False),
        (b"/?stage", LINK, False),
        (POLL, LINK, True),
        (POLL, SCRIPT | {"origin": b"https://evil.org"}, True),
        (POLL, SCRIPT | {"origin": b"https://friend.example"}, False),
        (POLL, SCRIPT | {"origin": b"null"}, True),
        (b"/static/scoreboard.js", SCRIPT | {"origin": b"https://evil.org"}, False),
        (b"/static/favicon.svg", PICTURE, False),
        (b"/scoreboard.js", SCRIPT | {"origin": b"https://evil.org"}, False),
        # it is closed with 4403
        (b"/api/v1/scores/live", {"sec_fetch_mode": b"websocket", "origin": b"https://evil.org"}, False),
        (b"/api/v1/scores/live", PICTURE, True),
    ],
)
def test_foreign_pages_have_what_is_meant_for_them(
    site: bytes, path: bytes, fields: dict[str, bytes], refused: bool
) -> None:
    """Files, the page by a link, and everything for an allowed origin; a poll that is loaded as a picture is
    refused."""
    origins = Origins(public_url="https://board.example", allowed=("https://friend.example",))
    made = asked(b"board.example", path, sec_fetch_site=site, **fields)
    assert origins.refuses_cross_site(made) is refused
    if path == POLL:
        assert origins.allows(made) is not refused


def test_programs_are_asked_nothing() -> None:
    """A request without Origin and Sec-Fetch-Site passes, and so does an address that a person typed."""
    origins = Origins(public_url="https://board.example")
    assert origins.allows(asked())
    assert not origins.refuses_cross_site(asked())
    assert not origins.refuses_cross_site(asked(sec_fetch_site=b"none"))


def test_the_consoles_own_address_is_an_own_origin() -> None:
    """Beside the public URL, with its own scheme; it gets no CORS fields, as the public URL gets none."""
    origins = Origins(public_url="http://scores.example", console_url="https://console.example:443")
    console = asked(origin=b"https://console.example")
    assert origins.allows(console)
    assert origins.is_secure(console)
    assert not origins.is_secure(asked(origin=b"http://scores.example"))
    assert not origins.allows(asked(origin=b"http://console.example"))
    assert not origins.others
