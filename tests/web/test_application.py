"""Routes outside of the API: health, metrics, the page and its files."""

import msgspec
import pytest
import trio

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.errors import StorageUnavailable, Store, StoreCondition
from scoreboard.web.pages.script_comments import without_comments
from scoreboard.web.pages.site import page_actions
from scoreboard.web.routes.health import HealthRoutes
from tests.operations.people import database_url
from tests.web.site import ROOT, serve_web

__all__ = ["database_url"]  # the module's own fixture


class FixedHealth:
    """A node's health with these stores, one warning and a stale board."""

    def __init__(self, conditions: dict[Store, StoreCondition]) -> None:
        self._conditions = conditions

    def conditions(self) -> dict[Store, StoreCondition]:
        return self._conditions

    def warnings(self) -> tuple[str, ...]:
        return ("Mind this.",)

    def boards(self) -> dict[str, str]:
        return {"leaderboard": "stale"}


async def test_readiness_has_each_store(database_url: str, redis_url: str) -> None:
    """Ready when not draining and a store answers; alive in any case."""
    async with serve_web(database_url, redis_url) as server:
        ready = await server.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"ready": True, "migrated": True, "draining": False, "stores": {"postgresql": "up", "redis": "up"}}
            | {"warnings": [], "boards": {"leaderboard": "current"}},
        )
        server.health.draining = True
        assert (await server.http.get("/readyz")).status_code == 503
        assert (await server.http.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("postgresql", "redis", "status"),
    [
        (StoreCondition.UP, StoreCondition.DOWN, 200),
        (StoreCondition.DOWN, StoreCondition.UP, 200),
        (StoreCondition.READ_ONLY, StoreCondition.DOWN, 200),
        (StoreCondition.DOWN, StoreCondition.FULL, 200),
        (StoreCondition.DOWN, StoreCondition.DOWN, 503),
    ],
)
async def test_one_store_that_serves_reads_is_enough_to_be_ready(
    postgresql: StoreCondition, redis: StoreCondition, status: int
) -> None:
    """With neither store it is 503. The body has stores, warnings and boards."""
    health = HealthRoutes(FixedHealth({"postgresql": postgresql, "redis": redis}))
    nobody: object = None
    answer = await health.readyz(nobody)  # type: ignore[arg-type]
    assert answer.status == status
    assert msgspec.json.decode(answer.body) == {
        "ready": status == 200,
        "migrated": True,
        "draining": False,
        "stores": {"postgresql": postgresql.value, "redis": redis.value},
        "warnings": ["Mind this."],
        "boards": {"leaderboard": "stale"},
    }


async def test_a_dead_redis_shows_on_readyz(database_url: str) -> None:
    """As the monitor learned at its first check, without an exception."""
    with trio.fail_after(20):
        async with serve_web(database_url, "redis://127.0.0.1:1/0") as server:
            ready = await server.http.get("/readyz", timeout=10)
            assert (ready.status_code, ready.json()["stores"]) == (200, {"postgresql": "up", "redis": "down"})


async def test_metrics_are_prometheus_text(database_url: str, redis_url: str) -> None:
    """Actions are counted by their outcome."""
    async with serve_web(database_url, redis_url) as server:
        mine = await server.register()
        await server.http.post(
            "/api/v1/scores/action", json={}, headers={"authorization": f"Bearer {mine['accessToken']}"}
        )
        answer = await server.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'scoreboard_score_updates_total{result="invalid_signature"}' in answer.text


async def test_the_page_holds_the_present_board(database_url: str, redis_url: str) -> None:
    """The page is complete without JavaScript; a client that has it gets 304; without any store it is still served."""
    async with serve_web(database_url, redis_url) as server:
        page = await server.http.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Player 10" in page.text
        assert "Player 11" not in page.text
        again = await server.http.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        server.board = StorageUnavailable("postgresql", "neither store")
        assert (await server.http.get("/")).status_code == 200


async def test_files_travel_gzipped_to_those_who_read_it(database_url: str, redis_url: str) -> None:
    """The page stays under 34 kB on the wire; a client without gzip gets the plain file under another ETag."""
    async with serve_web(database_url, redis_url) as server:
        packed = await server.http.get("/static/page.js", headers={"accept-encoding": "br, gzip;q=0.8"})
        plain = await server.http.get("/static/page.js", headers={"accept-encoding": "gzip;q=0, br"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content
        assert packed.headers["etag"] != plain.headers["etag"]
        assert "accept-encoding" in packed.headers["vary"]
        files = [entry.name for entry in (ROOT / "scoreboard/web/static").iterdir()]
        loaded = [
            name
            for name in files
            if name.endswith((".js", ".css", ".svg", ".webmanifest"))
            and name not in {"audit.css", "audit.js", "element.js", "origins.js", "sha256.js", "stage.js"}
        ]
        paths = ["/", *(f"/static/{name}" for name in loaded)]  # the rest is for other pages, other sites, home screens
        assert sum([int((await server.http.get(path)).headers["content-length"]) for path in paths]) < 34_000


async def test_the_pages_files_are_there_and_nothing_else(database_url: str, redis_url: str) -> None:
    """Whatever the page names is served with its type and an ETag; the client stands at /scoreboard.js too, for other
    sites' pages."""
    async with serve_web(database_url, redis_url) as server:
        for entry in (ROOT / "scoreboard/web/static").iterdir():
            answer = await server.http.get(f"/static/{entry.name}")
            content = entry.read_bytes()
            content = without_comments(content) if entry.suffix == ".js" else content
            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers["content-type"] != "application/octet-stream"
            assert answer.headers["cache-control"] == "no-cache"
            current = await server.http.get(f"/static/{entry.name}", headers={"if-none-match": answer.headers["etag"]})
            assert current.status_code == 304
        client = await server.http.get("/scoreboard.js")
        assert client.text == "export * from './static/scoreboard.js';\n"
        assert client.headers["content-type"] == "text/javascript; charset=utf-8"
        assert client.headers["access-control-allow-origin"] == "*"
        for path in (
            "/static/",
            "/static/nothing.js",
            "/static/%2e%2e/page.py",
            "/static/..%2fpage.py",
            "/static//etc/passwd",
            "/page.py",
        ):
            assert (await server.http.get(path)).status_code == 404


def test_buttons_do_what_their_rule_accepts() -> None:
    """Each type that users submit has one, with the points that exactly its metadata gives."""
    rules = read_rules((ROOT / "config/actions.toml").read_text())
    buttons = page_actions(rules)
    assert [button.name for button in buttons] == [name for name, rule in rules.items() if not rule.trusted]
    assert all(int(button.points) > 0 for button in buttons)


@pytest.mark.parametrize(
    ("path", "status"), [("/api/v1/scores/leaderboard", 400), ("/api/v1/nothing", 404), ("/", 200), ("/livez", 200)]
)
async def test_a_query_of_the_api_is_short(database_url: str, redis_url: str, path: str, status: int) -> None:
    """More than a kilobyte is refused before it is parsed; the page's own may be longer, as other sites add to it."""
    async with serve_web(database_url, redis_url) as server:
        answer = await server.http.get(f"{path}?{'a=1&' * 300}")
        assert answer.status_code == status
        if status == 400:
            assert (answer.json()["code"], answer.json()["errors"][0]["field"]) == ("INVALID_REQUEST", "query")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "POST", "DELETE", "PROPFIND", "QUERY", "M-SEARCH"])
@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/scoreboard.js", "/static/page.css", "/api/v1/openapi.json"]
)
async def test_other_methods_are_refused_alike(database_url: str, redis_url: str, method: str, path: str) -> None:
    """405 with the methods that are allowed, whichever handler answers."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        for handler in (server.http, *server.other_handlers):
            answer = await handler.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
