"""`/users/me/sessions`, over real sockets: one's own, never another user's."""

from typing import Any
from uuid import uuid4

import httpx

from tests.operations.people import PASSWORD, database_url
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

PATH = "/api/v1/users/me/sessions"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def bearer(data: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {data['accessToken']}"}


async def log_in(server: WebServer, name: str = "Ada", **headers: str) -> dict[str, str]:
    """The header of a new session."""
    body = {"username": name, "password": PASSWORD}
    answer = await server.http.post("/api/v1/auth/login", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return bearer(answer.json()["data"])


async def listed(server: WebServer, token: dict[str, str], query: str = "") -> dict[str, Any]:
    answer = await server.http.get(PATH + query, headers=token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    data = answer.json()["data"]
    assert isinstance(data, dict)
    return data


async def test_sessions_are_listed_the_newest_first(database_url: str, redis_url: str) -> None:
    """Each with its times, its client in words, and whether it is the one that asks. No secret is among them."""
    async with serve_web(database_url, redis_url) as server:
        first = bearer(await server.register(**{"user-agent": "curl/8.14.1"}))
        second = await log_in(server, **{"user-agent": FIREFOX})
        assert code(await server.http.get(PATH)) == (401, "UNAUTHORIZED")
        data = await listed(server, first)
        assert [(each["client"], each["current"]) for each in data["sessions"]] == [
            ("Firefox on Linux", False),
            ("curl", True),
        ]
        assert data["next"] is None
        assert {*data["sessions"][0]} == {"id", "createdAt", "lastUsedAt", "client", "current"}
        assert data["sessions"][0]["createdAt"] == data["sessions"][0]["lastUsedAt"]
        assert [each["current"] for each in (await listed(server, second))["sessions"]] == [True, False]


async def test_a_long_list_comes_in_pages(database_url: str, redis_url: str) -> None:
    """Every session once, also when one of them ends between two pages; a cursor of nobody's session ends the list."""
    async with serve_web(database_url, redis_url) as server:
        token = bearer(await server.register())
        for _ in range(4):
            await log_in(server)
        everything = [each["id"] for each in (await listed(server, token))["sessions"]]
        assert len(everything) == 5
        page = await listed(server, token, "?limit=2")
        assert page["next"] == everything[1]
        assert (await server.http.delete(f"{PATH}/{page['next']}", headers=token)).status_code == 204
        rest = await listed(server, token, f"?limit=100&cursor={page['next']}")
        assert [each["id"] for each in rest["sessions"]] == everything[2:]
        assert (await listed(server, token, f"?cursor={uuid4()}")) == {"sessions": [], "next": None}
        for query in ("limit=0", "limit=101", "limit=x", "limit=1&limit=2", "cursor=x", "cursor=" + "x" * 65, "page=2"):
            assert code(await server.http.get(f"{PATH}?{query}", headers=token)) == (400, "INVALID_REQUEST"), query


async def test_an_ended_session_is_refused_at_once(database_url: str, redis_url: str) -> None:
    """Its access token and its refresh token; other nodes are told. A second time it is not there."""
    async with serve_web(database_url, redis_url) as server:
        mine, other = (
            await server.register(),
            await server.http.post("/api/v1/auth/login", json={"username": "Ada", "password": PASSWORD}),
        )
        theirs = other.json()["data"]
        (sid,) = [each["id"] for each in (await listed(server, bearer(mine)))["sessions"] if not each["current"]]
        ended = await server.http.delete(f"{PATH}/{sid}", headers=bearer(mine))
        assert (ended.status_code, ended.content) == (204, b"")
        assert code(await server.http.get(PATH, headers=bearer(theirs))) == (401, "UNAUTHORIZED")
        refresh = {"refreshToken": theirs["refreshToken"]}
        assert code(await server.http.post("/api/v1/auth/refresh", json=refresh)) == (401, "UNAUTHORIZED")
        assert [str(each) for each in server.people.revoked] == [sid]
        assert code(await server.http.delete(f"{PATH}/{sid}", headers=bearer(mine))) == (404, "NOT_FOUND")
        assert len((await listed(server, bearer(mine)))["sessions"]) == 1


async def test_another_users_session_is_not_there(database_url: str, redis_url: str) -> None:
    """404 as for an id of nobody, and it goes on. What is no id gets the same."""
    async with serve_web(database_url, redis_url) as server:
        ada, eve = bearer(await server.register("Ada")), bearer(await server.register("Eve"))
        (session,) = (await listed(server, ada))["sessions"]
        for sid in (session["id"], str(uuid4()), "x", session["id"].replace("-", ""), "%F0%9F%98%80", "x" * 300):
            assert code(await server.http.delete(f"{PATH}/{sid}", headers=eve)) == (404, "NOT_FOUND"), sid
            assert code(await server.http.delete(f"{PATH}/{sid}")) == (401, "UNAUTHORIZED")
        assert (await listed(server, eve, f"?cursor={session['id']}"))["sessions"] == []
        assert len((await listed(server, ada))["sessions"]) == 1
        not_there = await server.http.get(f"{PATH}/{session['id']}", headers=ada)
        assert (code(not_there), not_there.headers["allow"]) == ((405, "METHOD_NOT_ALLOWED"), "DELETE")


async def test_one_logs_out_everywhere_or_everywhere_else(database_url: str, redis_url: str) -> None:
    """Another user stays logged in."""
    async with serve_web(database_url, redis_url) as server:
        mine, eve = bearer(await server.register("Ada")), bearer(await server.register("Eve"))
        others = [await log_in(server) for _ in range(3)]
        assert code(await server.http.delete(f"{PATH}?keep=all", headers=mine)) == (400, "INVALID_REQUEST")
        assert (await server.http.delete(f"{PATH}?keep=current", headers=mine)).status_code == 204
        assert len((await listed(server, mine))["sessions"]) == 1
        for each in others:
            assert code(await server.http.get(PATH, headers=each)) == (401, "UNAUTHORIZED")
        another = await log_in(server)
        assert (await server.http.delete(PATH, headers=another)).status_code == 204
        for each in (mine, another):
            assert code(await server.http.get(PATH, headers=each)) == (401, "UNAUTHORIZED")
        assert len((await listed(server, eve))["sessions"]) == 1
        assert await log_in(server)
