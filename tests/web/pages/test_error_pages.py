"""Errors in a browser: a small page; for programs, and on the API, problem+json."""

import httpx
import pytest

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.operations.pictures import Pictures
from scoreboard.settings.model import Page
from scoreboard.web.headers import PAGE_POLICY
from scoreboard.web.pages.branding import load_branding
from scoreboard.web.pages.error_pages import wants_page
from tests.operations.people import database_url
from tests.web.requests import request
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
HTML, JSON = "text/html; charset=utf-8", "application/problem+json"


async def ask(server: WebServer, method: str, path: str, kind: str, **headers: str) -> httpx.Response:
    """Asks all servers; the last answer, once each has this media type."""
    for handler in (server.http, *server.other_handlers):
        answer = await handler.request(method, path, headers=headers)
        assert answer.headers["content-type"] == kind, path
        assert answer.headers.get_list("vary").count("accept") == (kind == HTML)
    return answer


async def test_a_person_is_shown_a_page(database_url: str, redis_url: str) -> None:
    """404, 405 and 5xx: one sentence, a link to the page, the operator's own title, escaped, under the page's policy.
    405 still has Allow."""
    branding = load_branding(Page(title="7b & <friends>", accent="#0b7a75"))
    async with serve_web(database_url, redis_url, all_handlers=True, branding=branding) as server:
        for path in ("/nowhere", "/static/nothing.js", "/%6detrics", "/avatars/nobody"):
            missing = await ask(server, "GET", path, HTML, **BROWSER)
            assert missing.status_code == 404
            assert missing.headers["cache-control"] == "no-store"
            assert missing.headers["content-security-policy"] == PAGE_POLICY.format(live="")
            assert "7b &amp; &lt;friends&gt;" in missing.text
            assert '<link rel="stylesheet" href="/static/theme.css">' in missing.text
            assert '<a href="/">' in missing.text
        wrong = await ask(server, "DELETE", "/", HTML, **BROWSER)
        assert (wrong.status_code, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
        head = await ask(server, "HEAD", "/nowhere", HTML, **BROWSER)
        assert (head.status_code, head.content) == (404, b"")
        server.board = ValueError("secret")
        failed = await ask(server, "GET", "/", HTML, **BROWSER)
        assert failed.status_code == 500
        assert "secret" not in failed.text


async def test_who_asks_too_often_is_shown_when_to_come_back(database_url: str, redis_url: str) -> None:
    """429 as a page says so in words, once, and in Retry-After; a program gets the same as a problem."""
    async with serve_web(database_url, redis_url, ip_per_minute=2) as server:
        for _ in range(2):
            assert (await server.http.get("/", headers=BROWSER)).status_code == 200
        refused = await server.http.get("/", headers=BROWSER)
        assert (refused.status_code, refused.headers["content-type"]) == (429, HTML)
        assert "Too many requests from this address. Please try again in" in refused.text
        assert "Next in" not in refused.text
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert (await server.http.get("/static/page.css")).status_code == 200  # which the page is shown with
        assert (await server.http.get("/")).json()["layer"] == "ip"


async def test_an_outage_is_a_page_too(database_url: str, redis_url: str) -> None:
    """503 with when to try again."""
    async with serve_web(database_url, redis_url, all_handlers=True, pictures=Pictures()) as server:
        server.board = StorageUnavailable("postgresql", "secret")
        away = await ask(server, "GET", "/avatars/nobody", HTML, **BROWSER)
        assert away.status_code == 503
        assert "Please try again in 1 s." in away.text
        assert "secret" not in away.text


async def test_programs_get_problems(database_url: str, redis_url: str) -> None:
    """On the API always, on other paths unless the client prefers HTML."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        for path in ("/api/v1/nothing", "/api/v1/scores/leaderboard?limit=0", "/api/"):
            await ask(server, "GET", path, JSON, **BROWSER)
        for accept in ("*/*", "application/json", "image/avif,image/webp,*/*;q=0.8", ""):
            assert (await ask(server, "GET", "/nowhere", JSON, accept=accept)).json()["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"text/html", True),
        (b"TEXT/HTML ; q=0.5 , */*", True),
        (b"application/xhtml+xml", True),
        (b"application/json, text/html", True),
        (b"application/json, text/html;q=0.9", False),
        (b"application/problem+json;q=0.1, text/html;q=0.9", True),
        (b"text/html;q=0", False),
        (b"text/html;q=x", False),
        (b"text/html;q=nan", False),
        (b"text/html;level=1;q=0.4", True),
        (b"text/htmlx", False),
        (b"", False),
        (b"a/b," * 40 + b"text/html", False),
        (b"text/html," + b"x" * 2_000, False),
    ],
)
def test_who_wants_a_page(accept: bytes, wanted: bool) -> None:
    """As the weights of Accept say; a field that is longer than any browser's is not parsed."""
    assert wants_page(request((b"accept", accept))) is wanted
    assert not wants_page(request((b"accept", accept), target=b"/api/v1/nothing"))
