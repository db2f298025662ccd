"""ResponseHeaders: the fields of every response, of any handler, and what other sites' pages may do."""

from structlog.testing import capture_logs

from scoreboard.settings.model import load_settings
from scoreboard.web.cors import REFUSED_LOGGED, Origins
from scoreboard.web.headers import DATA_POLICY, ECHOED_FIELDS, PAGE_POLICY, ResponseHeaders
from scoreboard.web.pages.site import PAGE_FIELDS
from tests.operations.people import database_url
from tests.web.requests import request
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture

BOARD = "/api/v1/scores/leaderboard"


def test_a_head_is_whole() -> None:
    """Status line, Date, request id, the answer's own fields, length, a blank line; no length when it is not known."""
    heads = ResponseHeaders(Origins(), clock=lambda: 1_768_041_000.9)
    head = heads.write(request((b"x-request-id", b"abc")), 404, b"a: b\r\n", 7)
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\ndate: Sat, 10 Jan 2026 10:30:00 GMT\r\n")
    assert head.endswith(b"x-request-id: abc\r\na: b\r\ncontent-length: 7\r\n\r\n")
    assert heads.write(request((b"x-request-id", b"abc")), 204, b"", None).endswith(b"x-request-id: abc\r\n\r\n")


def test_every_policy_forbids_objects_and_another_base() -> None:
    """That of pages and that of everything else. `object-src` is 'none' by default-src."""
    for policy in (PAGE_POLICY, DATA_POLICY):
        directives = [directive.strip() for directive in policy.split(";")]
        assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(directives)
        assert not any(directive.startswith("object-src") for directive in directives)


def test_the_date_goes_on() -> None:
    """The part of the head that is cached for a second is renewed after it."""
    now = [0.0]
    heads = ResponseHeaders(Origins(), clock=lambda: now[0])
    assert b"00:00:00 GMT" in heads.write(request(), 200, b"", 0)
    now[0] = 61.5
    assert b"00:01:01 GMT" in heads.write(request(), 200, b"", 0)


def test_a_request_id_that_could_break_a_head_is_replaced() -> None:
    """Only [A-Za-z0-9._-]{1,128} is given back."""
    for given in (b"", b"a b", b"x" * 129, b"a\rb", "é".encode()):
        lines = ResponseHeaders(Origins()).write(request((b"x-request-id", given)), 200, b"", 0).split(b"\r\n")
        (found,) = [line for line in lines if line.startswith(b"x-request-id: ")]
        assert found != b"x-request-id: " + given
        assert len(found) == len("x-request-id: ") + 32


def test_https_is_kept_where_it_is() -> None:
    """Strict transport security only when the public URL is https; otherwise browsers could no longer reach the
    server."""
    assert b"strict-transport-security" in ResponseHeaders(Origins(), public_url="https://board.example").write(
        request(), 200, b"", 0
    )
    assert b"strict-transport-security" not in ResponseHeaders(Origins(), public_url="http://127.0.0.1:8000").write(
        request(), 200, b"", 0
    )


def test_the_page_may_connect_to_its_own_host_alone() -> None:
    """To the public URL, as http and as a WebSocket, and to no other host. Only what the policy names is loaded."""
    for public_url, sources in (
        ("", "'self'"),
        ("https://board.example", "'self' wss://board.example"),
        ("http://board.example:8080", "'self' ws://board.example:8080"),
    ):
        head = (
            ResponseHeaders(Origins(public_url=public_url), public_url=public_url)
            .write(request(), 200, PAGE_FIELDS, 0)
            .decode()
        )
        (policy,) = [
            line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("content-security-policy: ")
        ]
        directives = {name: rest for name, _, rest in (directive.partition(" ") for directive in policy.split("; "))}
        assert directives["connect-src"] == sources
        assert directives["default-src"] == "'none'"
        assert {name for name, rest in directives.items() if rest == "'self'"} <= {
            "script-src",
            "style-src",
            "connect-src",
            "manifest-src",
        }
        assert "unsafe" not in policy


async def test_other_sites_load_files_and_nothing_else(database_url: str, redis_url: str) -> None:
    """Cross-Origin-Resource-Policy: a picture or a script tag of another site gets our files, never an answer of the
    API or the page."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        for handler in (server.http, *server.other_handlers):
            for path in (BOARD, f"{BOARD}?limit=0", "/livez", "/nowhere", "/", "/metrics", "/api/v1/openapi.json"):
                answer = await handler.get(path)
                assert answer.headers.get_list("cross-origin-resource-policy") == ["same-origin"], path
            for path in ("/scoreboard.js", "/static/favicon.svg", "/static/page.css"):
                answer = await handler.get(path)
                assert answer.headers.get_list("cross-origin-resource-policy") == ["cross-origin"], path
                kept = await handler.get(path, headers={"if-none-match": answer.headers["etag"]})
                assert (kept.status_code, kept.headers["cross-origin-resource-policy"]) == (304, "cross-origin")


async def test_every_response_carries_the_security_fields(database_url: str, redis_url: str) -> None:
    """Fast handlers, Quart, its errors, refusals of http.parser: each field once, the page's policy on the page
    alone."""
    async with serve_web(database_url, redis_url) as server:
        for method, path in (
            ("GET", BOARD),
            ("GET", "/livez"),
            ("GET", "/nowhere"),
            ("PUT", BOARD),
            ("GET", "/"),
            ("POST", "/api/v1/auth/login"),
        ):
            answer = await server.http.request(method, path, headers={"x-request-id": "mine"})
            names = [name.lower() for name, _ in answer.headers.multi_items()]
            assert len(names) == len(set(names)), names
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
            assert answer.headers["x-request-id"] == "mine"
            assert answer.headers["content-security-policy"] == (
                PAGE_POLICY.format(live="") if path == "/" else DATA_POLICY
            )
            assert "date" in answer.headers
            assert "server" not in answer.headers
        refused = await server.http.post(BOARD, content=b"x" * 20_000)
        assert refused.status_code == 413
        assert refused.headers["x-content-type-options"] == "nosniff"


async def test_only_allowed_origins_get_cors_fields(database_url: str, redis_url: str) -> None:
    """CORS fields name the request's origin, on responses of all handlers and on errors; other origins get none."""
    async with serve_web(database_url, redis_url, allowed=("https://friend.example",)) as server:
        for path in (BOARD, "/livez", "/nowhere", f"{BOARD}?limit=0"):
            answer = await server.http.get(path, headers={"origin": "https://friend.example"})
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert {"Date", "ETag"} <= set(answer.headers["access-control-expose-headers"].split(", "))
            for headers in ({}, {"origin": "https://evil.example"}, {"origin": "null"}):
                answer = await server.http.get(path, headers=headers)
                assert "access-control-allow-origin" not in answer.headers
                assert "origin" in answer.headers["vary"]


async def test_a_preflight_is_answered_without_asking_a_route(database_url: str, redis_url: str) -> None:
    """204, with the permissions for an allowed page, without any for another."""
    async with serve_web(database_url, redis_url, allowed=("https://friend.example",)) as server:
        asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "authorization"}
        for path in ("/api/v1/users/me", "/api/v1/scores/action"):
            answer = await server.http.options(path, headers=asked | {"origin": "https://friend.example"})
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"
            assert "PATCH" in answer.headers["access-control-allow-methods"]
            assert "x-action-signature" in answer.headers["access-control-allow-headers"]
            answer = await server.http.options(path, headers=asked | {"origin": "https://evil.example"})
            assert answer.status_code == 204
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await server.http.options("/api/v1/users/me")).status_code == 405


APPS = (
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
)
EXTENSION = "moz-extension://5c8f6a52-2d1c-4c57-8d5e-0a1b2c3d4e5f"


async def test_apps_and_extensions_are_origins(database_url: str, redis_url: str) -> None:
    """Where the settings name them, their requests are answered like those of any other page that is allowed."""
    origins = (*APPS, EXTENSION)
    allowed = load_settings(
        flags={"server.allowed_origins": ",".join(origins)}, environ={}, needs_stores=False
    ).server.allowed_origins
    assert allowed == origins
    async with serve_web(database_url, redis_url, allowed=allowed) as server:
        for origin in origins:
            answer = await server.http.get(
                BOARD, headers={"origin": origin, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
            )
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
            name = origin.partition(":")[0].replace("-", "")
            body = {"username": f"a{name}", "email": f"{name}@example.org", "password": "correct horse battery"}
            assert (
                await server.http.post("/api/v1/auth/register", json=body, headers={"origin": origin})
            ).status_code == 201
        foreign = {"origin": "tauri://elsewhere", "sec-fetch-site": "cross-site"}
        assert (await server.http.get(BOARD, headers=foreign)).status_code == 403


async def test_a_preflight_echoes_the_fields_that_are_asked_for(database_url: str, redis_url: str) -> None:
    """Those of tracing libraries, for example. An invalid name is left out, and the number is bounded. A foreign page
    gets no permission."""
    asked = "sentry-trace, Baggage,traceparent,, a b, x\t, " + "y" * 65 + ", authorization"
    many = ",".join(f"x-{number}" for number in range(500))
    async with serve_web(database_url, redis_url, allowed=("https://friend.example",)) as server:

        async def preflight(names: str, origin: str = "https://friend.example") -> str:
            fields = {
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": names,
            }
            answer = await server.http.options("/api/v1/scores/action", headers=fields)
            assert answer.status_code == 204
            return str(answer.headers.get("access-control-allow-headers", ""))

        ours = ["authorization", "content-type", "x-action-signature", "x-request-id", "if-none-match", "last-event-id"]
        assert (await preflight(asked)).split(", ") == [*ours, "sentry-trace", "baggage", "traceparent", "x"]
        assert (await preflight("")).split(", ") == ours
        assert len((await preflight(many)).split(", ")) == len(ours) + ECHOED_FIELDS
        assert await preflight(asked, "https://evil.example") == ""


def test_a_refused_origin_is_logged_once() -> None:
    """So that an operator who forgot it finds it; of a flood of invented origins only the first are logged."""
    origins = Origins(allowed=("https://friend.example",))
    with capture_logs() as logged:
        for number in range(2 * REFUSED_LOGGED):
            for _ in range(2):
                assert not origins.allows(
                    request((b"host", b"127.0.0.1"), (b"origin", b"https://stage%d.example" % number))
                )
        assert origins.allows(request((b"host", b"127.0.0.1"), (b"origin", b"https://friend.example")))
        assert not origins.allows(request((b"host", b"127.0.0.1"), (b"origin", b"https://" + b"x" * 9_000)))
    assert [line["origin"] for line in logged] == [f"https://stage{number}.example" for number in range(REFUSED_LOGGED)]
    assert {(line["event"], line["setting"]) for line in logged} == {("origin_refused", "server.allowed_origins")}
