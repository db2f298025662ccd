"""`POST /users/me/password`, over real sockets."""

import httpx
import pytest

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.postgres import users
from tests.operations.people import PASSWORD, database_url
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture

PATH = "/api/v1/users/me/password"
CHANGE = {"currentPassword": PASSWORD, "newPassword": "battery staple correct"}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_password_is_changed_with_a_token(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """204, nothing to cache; this session goes on, the other one is 401; only the new password logs in. The description
    has the route."""
    async with serve_web(database_url, redis_url, login_per_minute=100) as server:
        other = await server.register()
        ada = {"username": "Ada", "password": PASSWORD}
        mine = (await server.http.post("/api/v1/auth/login", json=ada)).json()["data"]
        token, others = ({"authorization": f"Bearer {one['accessToken']}"} for one in (mine, other))
        assert code(await server.http.post(PATH, json=CHANGE)) == (401, "UNAUTHORIZED")
        changed = await server.http.post(PATH, json=CHANGE, headers=token)
        assert (changed.status_code, changed.content, changed.headers["cache-control"]) == (204, b"", "no-store")
        assert (await server.http.get("/api/v1/users/me", headers=token)).status_code == 200
        assert code(await server.http.get("/api/v1/users/me", headers=others)) == (401, "UNAUTHORIZED")
        assert code(await server.http.post("/api/v1/auth/login", json=ada)) == (401, "UNAUTHORIZED")
        assert (
            await server.http.post("/api/v1/auth/login", json=ada | {"password": CHANGE["newPassword"]})
        ).status_code == 200
        assert "/api/v1/users/me/password" in (await server.http.get("/api/v1/openapi.json")).json()["paths"]

        wrong = await server.http.post(PATH, json=CHANGE, headers=token)
        assert code(wrong) == (400, "INVALID_REQUEST")
        assert wrong.json()["errors"] == [{"field": "currentPassword", "message": "is not your password"}]
        for body, field in (
            ({}, "currentPassword"),
            (CHANGE | {"newPassword": "short"}, "newPassword"),
            (CHANGE | {"newPassword": 7}, "newPassword"),
            (CHANGE | {"currentPassword": "x" * 1025}, "currentPassword"),
            (CHANGE | {"username": "Ada"}, "username"),
        ):
            refused = await server.http.post(PATH, json=body, headers=token)
            assert code(refused) == (400, "INVALID_REQUEST")
            assert {error["field"] for error in refused.json()["errors"]} == {field}
        assert (
            code(await server.http.post(PATH, content=b"a=b", headers=token | {"content-type": "text/plain"}))[0] == 415
        )
        not_there = await server.http.get(PATH, headers=token)
        assert (code(not_there), not_there.headers["allow"]) == ((405, "METHOD_NOT_ALLOWED"), "POST")

        async def away(*_: object) -> None:
            raise StorageUnavailable("postgresql", "secret cause")

        monkeypatch.setattr(users, "by_id", away)
        answer = await server.http.post(
            PATH, json=CHANGE | {"currentPassword": CHANGE["newPassword"], "newPassword": PASSWORD}, headers=token
        )
        assert code(answer) == (503, "SERVICE_UNAVAILABLE")
        assert "secret" not in answer.text


async def test_wrong_passwords_are_limited(database_url: str, redis_url: str) -> None:
    """429 of the layer "login", with the time until the next."""
    async with serve_web(database_url, redis_url, login_per_minute=3) as server:
        token = {"authorization": f"Bearer {(await server.register())['accessToken']}"}
        answers = [
            await server.http.post(PATH, json=CHANGE | {"currentPassword": "wrong"}, headers=token) for _ in range(5)
        ]
        assert {answer.status_code for answer in answers[:2]} == {400}
        assert code(answers[-1]) == (429, "RATE_LIMITED")
        assert answers[-1].json()["layer"] == "login"
        assert int(answers[-1].headers["retry-after"]) >= 1
