"""Who gets to the routes of /admin, and what a bad request does there. Made from the table of routes, so a new route is
covered by itself.

Also tests web/routes/admin/parameters and web/admin_schemas.
"""

from typing import Any

import pytest

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.paths import ADMIN_PREFIX
from scoreboard.domain.roles import Role
from scoreboard.storage.postgres import staff
from tests.operations.people import database_url
from tests.web.routes.admin.staff import admin_routes, filled, person
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

TABLES = ("bans", "reversals", "user_notes", "users WHERE ban <> 0 OR role IS NOT NULL")


async def counts(server: WebServer) -> list[int]:
    """How many decisions there are."""
    return [await server.people.stores.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES]


async def test_every_route_below_admin_needs_a_role(database_url: str, redis_url: str) -> None:
    """And no route elsewhere; each says so in the OpenAPI document, with the answers to those who have none."""
    async with serve_web(database_url, redis_url) as server:
        assert {route.path for route in admin_routes(server)} == {
            route.path for route in server.routes if route.path.startswith(ADMIN_PREFIX)
        }
        paths = (await server.http.get("/api/v1/openapi.json")).json()["paths"]
        for route in admin_routes(server):
            operation = paths[route.path.replace("<", "{").replace(">", "}")][route.method.lower()]
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "403"} <= set(operation["responses"])


@pytest.mark.parametrize("role", [None, *Role])
async def test_each_role_on_every_route(database_url: str, redis_url: str, role: Role | None) -> None:
    """403 where the role is too little, and nothing happens; else the handler answers, and never with 5xx."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", role), await person(server, "Ann")
        before = await counts(server)
        for route in admin_routes(server):
            assert isinstance(route.auth, Role)
            answer = await mia.send(route.method, filled(route, ann.user), json={})
            allowed = role is not None and role.includes(route.auth)
            assert (answer.status_code == 403) is not allowed, (route.method, route.path, answer.text)
            assert answer.status_code < 500
            if not allowed:
                assert answer.json()["code"] == "FORBIDDEN"
        assert await counts(server) == before


async def test_without_a_token_every_route_is_401(database_url: str, redis_url: str) -> None:
    """Also with a token that is none, or in the query."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.ADMIN), await person(server, "Ann")
        for route in admin_routes(server):
            path = filled(route, ann.user)
            for headers in ({}, {"authorization": "Bearer x.y.z"}, {"authorization": f"Basic {mia.token}"}):
                answer = await server.http.request(route.method, path, headers=headers, json={})
                assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
            answer = await server.http.request(route.method, f"{path}?token={mia.token}", json={})
            assert answer.status_code in {400, 401}


async def test_a_role_that_was_taken_a_moment_ago_is_none_on_every_route(database_url: str, redis_url: str) -> None:
    """The token is the same, and still good for everything else."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.ADMIN), await person(server, "Ann")
        assert (await mia.send("GET", "users")).status_code == 200
        await staff.set_role(server.people.stores, mia.user, None, OPERATOR)
        for route in admin_routes(server):
            assert (await mia.send(route.method, filled(route, ann.user), json={})).status_code == 403
        assert (await mia.send("GET", "/api/v1/users/me")).status_code == 200


BAD_BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "empty": ({"content": b""}, 400),
    "no object": ({"content": b"[]"}, 400),
    "no JSON": ({"content": b"{"}, 400),
    "an unknown field": ({"json": {"reason": "a", "note": "a", "role": "none", "points": 5}}, 400),
    "wrong types": ({"json": {"reason": 5, "note": [], "role": {}}}, 400),
    "empty texts": ({"json": {"reason": "", "note": "", "role": ""}}, 400),
    "spaces": ({"json": {"reason": "  ", "note": " \n ", "role": " none "}}, 400),
    "control characters": ({"json": {"reason": "a\x1b", "note": "\x07", "role": "none\0"}}, 400),
    "long texts": ({"json": {"reason": "x" * 1001, "note": "x" * 2001, "role": "x" * 999}}, 400),
    "huge": ({"content": b'{"reason":"' + b"x" * 20_000 + b'"}'}, 413),
    "another type": ({"content": b"reason=a", "headers": {"content-type": "text/plain"}}, 415),
}


@pytest.mark.parametrize("what", BAD_BODIES)
async def test_a_bad_body_is_refused_on_every_route_and_changes_nothing(
    database_url: str, redis_url: str, what: str
) -> None:
    sent, status = BAD_BODIES[what]
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.ADMIN), await person(server, "Ann")
        before = await counts(server)
        routes = [
            route
            for route in admin_routes(server)
            if route.request_type is not None
            and not (what == "empty" and getattr(route.request_type, "may_be_absent", False))
        ]
        assert routes
        for route in routes:
            answer = await mia.send(route.method, filled(route, ann.user), **sent)
            assert answer.status_code == status, (route.path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        assert await counts(server) == before


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=abc", "cursor=%00", "cursor=1-2-3", "x=1", "a" * 1100]
)
async def test_a_bad_query_is_refused_on_every_list(database_url: str, redis_url: str, query: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.ADMIN), await person(server, "Ann")
        for route in admin_routes(server):
            if route.query_type is not None and not (query == "cursor=1-2-3" and route.path.endswith("users")):
                answer = await mia.send("GET", f"{filled(route, ann.user)}?{query}")
                assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), (
                    route.path,
                    answer.text,
                )


async def test_a_path_that_names_no_user_is_not_found(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia = await person(server, "Mia", Role.ADMIN)
        body = {"POST": {"reason": "a"}, "DELETE": {"reason": "a"}, "PUT": {"role": "viewer"}}
        for route in admin_routes(server):
            if "<user>" in route.path:
                for name in ("me", "0", "%C3%A9", "00000000-0000-0000-0000-000000000000"):
                    sent = {"note": "a"} if route.path.endswith("notes") else body.get(route.method, {})
                    answer = await mia.send(
                        route.method, route.path.replace("<user>", name).replace("<action>", "1"), json=sent
                    )
                    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), (route.path, answer.text)
