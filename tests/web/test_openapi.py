"""The OpenAPI document: every route that has a response type is in it, and it is rendered once."""

from http import HTTPStatus

from scoreboard.domain.paths import LIVE_PATH, POLL_PATH
from tests.operations.people import database_url
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def test_the_description_names_every_route(database_url: str, redis_url: str) -> None:
    """An OpenAPI document without a dangling reference, errors as problem+json."""
    async with serve_web(database_url, redis_url) as server:
        answer = await server.http.get("/api/v1/openapi.json")
        document = answer.json()
        assert document["openapi"].startswith("3.1")
        found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert found == {
            ("POST", "/api/v1/auth/register"),
            ("POST", "/api/v1/auth/login"),
            ("POST", "/api/v1/auth/guest"),
            ("POST", "/api/v1/auth/link"),
            ("POST", "/api/v1/auth/refresh"),
            ("POST", "/api/v1/auth/logout"),
            ("POST", "/api/v1/auth/exchange"),
            ("GET", "/api/v1/auth/oidc/{name}"),
            ("GET", "/api/v1/auth/oidc/{name}/callback"),
            ("GET", "/api/v1/users/me"),
            ("PATCH", "/api/v1/users/me"),
            ("POST", "/api/v1/users/me/password"),
            ("GET", "/api/v1/users/me/sessions"),
            ("DELETE", "/api/v1/users/me"),
            ("GET", "/api/v1/users/me/actions"),
            ("GET", "/api/v1/users/me/export"),
            ("DELETE", "/api/v1/users/me/sessions"),
            ("DELETE", "/api/v1/users/me/sessions/{session}"),
            ("GET", "/api/v1/users/me/held"),
            ("POST", "/api/v1/actions/start"),
            ("PUT", "/api/v1/actions/evidence/{sha256}"),
            ("POST", "/api/v1/scores/action"),
            ("POST", "/api/v1/scores/actions"),
            ("PUT", "/api/v1/server/users/{external_id}"),
            ("POST", "/api/v1/server/sessions"),
            ("GET", "/api/v1/scores/leaderboard"),
            ("GET", "/api/v1/scores/stream"),
            ("GET", "/api/v1/scores/poll"),
            ("POST", "/api/v1/actions/start"),
            ("PUT", "/api/v1/actions/evidence/{sha256}"),
            ("GET", "/api/v1/users/me/held"),
            ("POST", "/api/v1/scores/actions"),
            ("PUT", "/api/v1/server/users/{external_id}"),
            ("POST", "/api/v1/server/sessions"),
            ("GET", "/api/v1/admin/users"),
            ("GET", "/api/v1/admin/users/{user}"),
            ("POST", "/api/v1/admin/users/{user}/ban"),
            ("DELETE", "/api/v1/admin/users/{user}/ban"),
            ("POST", "/api/v1/admin/users/{user}/notes"),
            ("PUT", "/api/v1/admin/users/{user}/role"),
            ("POST", "/api/v1/admin/users/{user}/actions/{action}/reverse"),
            ("DELETE", "/api/v1/admin/users/{user}/actions/{action}/reverse"),
            ("GET", "/api/v1/admin/me"),
            ("GET", "/api/v1/admin/server-keys"),
            ("GET", "/api/v1/admin/flags"),
            ("POST", "/api/v1/admin/flags/{flag}"),
            ("GET", "/api/v1/admin/held"),
            ("POST", "/api/v1/admin/held/{held}"),
            ("GET", "/api/v1/admin/held/{held}/evidence"),
            ("GET", "/api/v1/admin/log"),
            ("GET", "/.well-known/jwks.json"),
            ("GET", "/api/v1/audit/checkpoint"),
            ("GET", "/api/v1/audit/key"),
            ("GET", "/api/v1/audit/proof"),
            ("GET", "/api/v1/audit/consistency"),
            ("GET", "/api/v1/audit/leaves"),
            ("GET", "/livez"),
            ("GET", "/readyz"),
            ("GET", "/metrics"),
        }
        for methods in document["paths"].values():
            assert all(
                any(status.startswith(("2", "303")) for status in operation["responses"])
                for operation in methods.values()
            )
        submit = document["paths"]["/api/v1/scores/action"]["post"]
        assert set(submit["responses"]) == {
            "200",
            "202",
            "400",
            "401",
            "403",
            "408",
            "409",
            "413",
            "415",
            "429",
            "431",
            "500",
            "503",
        }
        assert list(submit["responses"]["409"]["content"]) == ["application/problem+json"]
        assert submit["security"] == [{"bearer": []}]
        assert {parameter["name"] for parameter in submit["parameters"]} == {"x-action-signature"}
        named = {"#/components/schemas/" + name for name in document["components"]["schemas"]}
        assert set(_references(document)) <= named


async def test_the_description_is_made_once(database_url: str, redis_url: str) -> None:
    """It is the same bytes from every handler, has an ETag, and is gzipped for clients that accept it."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        first = await server.http.get("/api/v1/openapi.json")
        for handler in (server.http, *server.other_handlers):
            answer = await handler.get("/api/v1/openapi.json", headers={"accept-encoding": "identity"})
            assert (answer.status_code, answer.json()) == (200, first.json())
            again = await handler.get("/api/v1/openapi.json", headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert first.headers["content-encoding"] == "gzip"


async def test_routes_without_quart_are_described_too(database_url: str, redis_url: str) -> None:
    """The long poll has two good responses; the path of the WebSocket says what it is."""
    async with serve_web(database_url, redis_url) as server:
        poll = (await server.http.get("/api/v1/openapi.json")).json()["paths"][POLL_PATH]["get"]
        assert "content" in poll["responses"]["200"]
        assert "content" not in poll["responses"]["204"]
        assert {parameter["name"] for parameter in poll["parameters"]} == {"channel", "since", "wait", "token"}
        no_handshake = await server.http.get(LIVE_PATH)
        assert no_handshake.status_code == HTTPStatus.UPGRADE_REQUIRED
        assert no_handshake.headers["sec-websocket-version"] == "13"


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        return [value["$ref"]] if "$ref" in value else [found for item in value.values() for found in _references(item)]
    return [found for item in value for found in _references(item)] if isinstance(value, list) else []
