"""`POST /auth/guest` and `POST /auth/link`, over real sockets."""

from typing import Any

import httpx

from tests.operations.people import PASSWORD, database_url
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture

GUEST, LINK = "/api/v1/auth/guest", "/api/v1/auth/link"
ACCOUNT = {"username": "Ada", "email": "ada@example.org", "password": PASSWORD}
ORIGIN = "http://127.0.0.1:8000"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def bearer(data: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {data['accessToken']}"}


async def test_a_guest_plays_and_becomes_an_account(database_url: str, redis_url: str) -> None:
    """Without a body there is a new device key in the answer; the profile has no address until the account is there."""
    async with serve_web(database_url, redis_url) as server:
        answer = await server.http.post(GUEST)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        guest = answer.json()["data"]
        assert {*guest} >= {"userId", "username", "accessToken", "refreshToken", "actionSecret", "deviceKey"}
        again = (await server.http.post(GUEST, json={"deviceKey": guest["deviceKey"]})).json()["data"]
        assert again["userId"] == guest["userId"]
        assert "deviceKey" not in again
        me = (await server.http.get("/api/v1/users/me", headers=bearer(guest))).json()["data"]
        assert (me["username"], me["email"]) == (guest["username"], None)

        linked = await server.http.post(LINK, json=ACCOUNT, headers=bearer(guest))
        assert linked.status_code == 200
        data = linked.json()["data"]
        assert (data["userId"], data["username"]) == (guest["userId"], "Ada")
        me = (await server.http.get("/api/v1/users/me", headers=bearer(data))).json()["data"]
        assert (me["username"], me["email"]) == ("Ada", "ada@example.org")
        for old in (guest, again):
            assert code(await server.http.get("/api/v1/users/me", headers=bearer(old))) == (401, "UNAUTHORIZED")
        refused = await server.http.post(GUEST, json={"deviceKey": guest["deviceKey"]})
        assert code(refused) == (401, "UNAUTHORIZED")
        assert code(await server.http.post(LINK, json=ACCOUNT, headers=bearer(data))) == (409, "CONFLICT")


async def test_a_browser_gets_cookies(database_url: str, redis_url: str) -> None:
    """The refresh token is in none of the answers; a foreign page is refused."""
    async with serve_web(database_url, redis_url, public_url=ORIGIN) as server:
        page = {"origin": ORIGIN}
        answer = await server.http.post(GUEST, json={}, headers=page)
        assert "refreshToken" not in answer.json()["data"]
        assert "scoreboard_refresh=" in answer.headers["set-cookie"]
        assert "HttpOnly" in answer.headers["set-cookie"]
        linked = await server.http.post(LINK, json=ACCOUNT, headers=page | bearer(answer.json()["data"]))
        assert "refreshToken" not in linked.json()["data"]
        assert linked.headers["set-cookie"].count("scoreboard_refresh=") == 1
        foreign = {"origin": "https://evil.example"}
        assert code(await server.http.post(GUEST, json={}, headers=foreign)) == (403, "FORBIDDEN")
        assert code(await server.http.post(LINK, json=ACCOUNT, headers=foreign)) == (403, "FORBIDDEN")


async def test_bad_input_is_named(database_url: str, redis_url: str) -> None:
    """Wrong types, unknown fields, long texts, no token."""
    async with serve_web(database_url, redis_url, login_per_minute=100) as server:
        for body, field in (
            ({"deviceKey": 7}, "deviceKey"),
            ({"deviceKey": "x"}, "deviceKey"),
            ({"deviceKey": "x" * 200}, "deviceKey"),
            ({"username": "a@b"}, "username"),
            ({"username": "x" * 300}, "username"),
            ({"password": "x"}, "password"),
        ):
            refused = await server.http.post(GUEST, json=body)
            assert code(refused) == (400, "INVALID_REQUEST")
            assert {error["field"] for error in refused.json()["errors"]} == {field}
        assert code(await server.http.post(GUEST, content=b"{")) == (400, "INVALID_REQUEST")
        assert code(await server.http.post(GUEST, content=b"a=b", headers={"content-type": "text/plain"}))[0] == 415
        assert code(await server.http.post(LINK, json=ACCOUNT)) == (401, "UNAUTHORIZED")
        guest = bearer((await server.http.post(GUEST)).json()["data"])
        links: tuple[tuple[dict[str, Any], str], ...] = (
            ({}, "email"),
            ({"email": "ada@example.org"}, "password"),
            (ACCOUNT | {"deviceKey": "x"}, "deviceKey"),
            (ACCOUNT | {"email": None}, "email"),
        )
        for body, field in links:
            refused = await server.http.post(LINK, json=body, headers=guest)
            assert code(refused) == (400, "INVALID_REQUEST")
            assert {error["field"] for error in refused.json()["errors"]} == {field}


async def test_guests_that_are_off_are_refused(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url, guests=False) as server:
        assert code(await server.http.post(GUEST, json={})) == (403, "FORBIDDEN")


async def test_a_flood_of_guests_is_told_when_to_come_back(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url, guests_per_hour=2) as server:
        answers = [await server.http.post(GUEST) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert answers[-1].json()["layer"] == "login"
        assert int(answers[-1].headers["retry-after"]) > 3000
