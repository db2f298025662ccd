"""`/users/me/actions`, `/users/me/export` and `DELETE /users/me`, over real sockets."""

import json
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.postgres import personal_data, users
from scoreboard.web.routes import personal_data as routes
from tests.operations.people import PASSWORD, database_url
from tests.operations.test_personal_data import LOG_SQL
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

ME, HISTORY, EXPORT = "/api/v1/users/me", "/api/v1/users/me/actions", "/api/v1/users/me/export"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def bearer(data: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {data['accessToken']}"}


async def erase(server: WebServer, token: dict[str, str], body: object = None) -> httpx.Response:
    content = b"" if body is None else json.dumps(body).encode()
    return await server.http.request("DELETE", ME, content=content, headers=token)


async def test_the_history_is_ones_own(database_url: str, redis_url: str) -> None:
    """Page after page by `next`, which another user's token may have too: it shows that user's own actions."""
    async with serve_web(database_url, redis_url) as server:
        ada, eve = await server.register("Ada"), await server.register("Eve")
        await server.people.stores.execute(LOG_SQL, UUID(ada["userId"]), 5)
        assert code(await server.http.get(HISTORY)) == (401, "UNAUTHORIZED")
        found, query = [], "?limit=2"
        while query:
            answer = await server.http.get(HISTORY + query, headers=bearer(ada))
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            data = answer.json()["data"]
            found += data["actions"]
            query = f"?limit=2&cursor={data['next']}" if data["next"] else ""
        assert [each["actionId"] for each in found] == [f"action-{n}" for n in range(5, 0, -1)]
        assert found[0] == {
            "actionId": "action-5",
            "actionType": "task_finish",
            "pointsAwarded": 10,
            "newScore": 50,
            "timestamp": "2026-03-01T02:00:00.123Z",
            "metadata": {"n": 1},
            "reversed": False,
        }
        cursor = (await server.http.get(f"{HISTORY}?limit=1", headers=bearer(ada))).json()["data"]["next"]
        others = await server.http.get(f"{HISTORY}?cursor={cursor}", headers=bearer(eve))
        assert others.json()["data"] == {"actions": [], "next": None}
        for bad in ("limit=0", "limit=101", "limit=1e3", "cursor=x", "cursor=1-1&cursor=2-2", "user=" + ada["userId"]):
            assert code(await server.http.get(f"{HISTORY}?{bad}", headers=bearer(ada))) == (400, "INVALID_REQUEST"), bad


async def test_an_export_is_a_file_of_ones_own_data(database_url: str, redis_url: str) -> None:
    """In pieces, whatever its size; HEAD has the head alone; a third one within a minute is refused."""
    async with serve_web(database_url, redis_url) as server:
        ada, eve = await server.register("Ada"), await server.register("Eve")
        await server.people.stores.execute(LOG_SQL, UUID(ada["userId"]), 450)
        assert code(await server.http.get(EXPORT)) == (401, "UNAUTHORIZED")
        answer = await server.http.get(EXPORT, headers=bearer(ada))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-disposition"] == 'attachment; filename="scoreboard-export.json"'
        assert (answer.headers["cache-control"], answer.headers["transfer-encoding"]) == ("no-store", "chunked")
        data = answer.json()["data"]
        assert (data["profile"]["email"], len(data["actions"])) == ("ada@example.org", 450)
        assert eve["userId"] not in answer.text
        head = await server.http.head(EXPORT, headers=bearer(ada))
        assert (head.status_code, head.content) == (200, b"")
        others = (await server.http.get(EXPORT, headers=bearer(eve))).json()["data"]
        assert (others["profile"]["username"], others["actions"]) == ("Eve", [])
        assert (await server.http.get(EXPORT, headers=bearer(ada))).status_code == 200
        refused = await server.http.get(EXPORT, headers=bearer(ada))
        assert (code(refused), refused.json()["layer"]) == ((429, "RATE_LIMITED"), "user")


async def test_an_export_over_http_1_0_ends_with_its_connection(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        token = bearer(await server.register("Ada"))["authorization"]
        port = urlsplit(str(server.http.base_url)).port
        assert port is not None
        with trio.fail_after(10):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(f"GET {EXPORT} HTTP/1.0\r\nAuthorization: {token}\r\n\r\n".encode())
                received = b""
                while piece := await stream.receive_some():
                    received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert json.loads(body)["data"]["profile"]["username"] == "Ada"


async def test_an_export_that_is_cut_off_is_noticed(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL goes away in the middle: the last piece is missing. At the beginning it is a 503."""
    async with serve_web(database_url, redis_url) as server:
        token = bearer(await server.register("Ada"))

        async def away(*_: object) -> None:
            raise StorageUnavailable("postgresql", "secret cause")

        with monkeypatch.context() as patched:
            patched.setattr(personal_data, "history", away)
            with pytest.raises(httpx.RemoteProtocolError):
                await server.http.get(EXPORT, headers=token)
        monkeypatch.setattr(personal_data, "profile", away)
        answer = await server.http.get(EXPORT, headers=token)
        assert code(answer) == (503, "SERVICE_UNAVAILABLE")
        assert "secret" not in answer.text


async def test_an_export_that_takes_too_long_is_cut_off(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again: as many as there are places, and one more."""
    async with serve_web(database_url, redis_url) as server:

        async def never(*_: object) -> None:
            await trio.sleep_forever()

        tokens = [bearer(await server.register(f"Player{number}")) for number in range(routes.MAX_EXPORTS + 1)]
        with monkeypatch.context() as patched, trio.fail_after(20):
            patched.setattr(routes, "EXPORT_TIMEOUT_SECONDS", 0.5)
            patched.setattr(personal_data, "history", never)

            async def cut_off(token: dict[str, str]) -> None:
                with pytest.raises(httpx.RemoteProtocolError):
                    await server.http.get(EXPORT, headers=token)

            async with trio.open_nursery() as nursery:
                for token in tokens[:-1]:
                    nursery.start_soon(cut_off, token)
        assert (await server.http.get(EXPORT, headers=tokens[-1])).status_code == 200


async def test_more_exports_at_once_than_places_are_refused(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the time until the next try; the others go on."""
    monkeypatch.setattr(routes, "MAX_EXPORTS", 0)
    async with serve_web(database_url, redis_url) as server:
        refused = await server.http.get(EXPORT, headers=bearer(await server.register()))
        assert code(refused) == (503, "SERVICE_UNAVAILABLE")
        assert refused.headers["retry-after"] == "5"


async def test_one_erases_oneself_with_the_password(database_url: str, redis_url: str) -> None:
    """204, and then nobody has the token, the name or the address. Another user stays."""
    async with serve_web(database_url, redis_url) as server:
        ada, eve = await server.register("Ada"), await server.register("Eve")
        assert code(await erase(server, {}, {"password": PASSWORD})) == (401, "UNAUTHORIZED")
        bodies: tuple[object, ...] = (
            None,
            {},
            {"password": None},
            {"password": "wrong"},
            {"password": 7},
            {"x": 1},
            [],
        )
        for body in bodies:
            assert code(await erase(server, bearer(ada), body)) == (400, "INVALID_REQUEST"), body
        wrong = await erase(server, bearer(ada), {"password": "wrong"})
        assert wrong.json()["errors"] == [{"field": "password", "message": "is not your password"}]
        other = await erase(server, bearer(ada) | {"content-type": "text/plain"}, {"password": PASSWORD})
        assert other.status_code == 415
        erased = await erase(server, bearer(ada), {"password": PASSWORD})
        assert (erased.status_code, erased.content) == (204, b"")
        for path in (ME, HISTORY, EXPORT):
            assert code(await server.http.get(path, headers=bearer(ada))) == (401, "UNAUTHORIZED")
        assert code(await erase(server, bearer(ada), {"password": PASSWORD})) == (401, "UNAUTHORIZED")
        log_in = {"username": "ada@example.org", "password": PASSWORD}
        assert code(await server.http.post("/api/v1/auth/login", json=log_in)) == (401, "UNAUTHORIZED")
        assert (await server.http.get(ME, headers=bearer(eve))).status_code == 200


async def test_wrong_passwords_of_an_erasure_are_limited(database_url: str, redis_url: str) -> None:
    """Whoever has a token only can't guess the password here either: 429 of the layer "login"."""
    async with serve_web(database_url, redis_url, login_per_minute=3) as server:
        ada = bearer(await server.register("Ada"))
        answers = [await erase(server, ada, {"password": f"wrong {n}"}) for n in range(5)]
        assert answers[0].status_code == 400
        assert (code(answers[-1]), answers[-1].json()["layer"]) == ((429, "RATE_LIMITED"), "login")
        assert code(await erase(server, ada, {"password": PASSWORD})) == (429, "RATE_LIMITED")
        assert (await server.http.get(ME, headers=ada)).status_code == 200


async def test_a_guest_erases_itself_after_a_fresh_log_in(database_url: str, redis_url: str) -> None:
    """A body is not needed; an older log-in gets 403."""
    async with serve_web(database_url, redis_url) as server:
        guest = (await server.http.post("/api/v1/auth/guest")).json()["data"]
        await server.people.stores.execute("UPDATE sessions SET created_at = now() - interval '1 hour'")
        assert code(await erase(server, bearer(guest))) == (403, "FORBIDDEN")
        again = (await server.http.post("/api/v1/auth/guest", json={"deviceKey": guest["deviceKey"]})).json()["data"]
        assert (await erase(server, bearer(again))).status_code == 204
        other = (await server.http.post("/api/v1/auth/guest", json={"deviceKey": guest["deviceKey"]})).json()["data"]
        assert other["userId"] != guest["userId"]


async def test_an_address_is_told_to_its_user_alone(database_url: str, redis_url: str) -> None:
    """No answer but those of the own profile and the export has it, whoever asks, and no log line."""
    async with serve_web(database_url, redis_url) as server:
        paths = (await server.http.get("/api/v1/openapi.json")).json()["paths"]
        own = {("GET", ME), ("PATCH", ME), ("GET", EXPORT), ("DELETE", ME)}
        address = "secret.mailbox@example.org"
        with capture_logs() as lines:
            body = {"username": "Ada", "email": address, "password": PASSWORD}
            answer = await server.http.post("/api/v1/auth/register", json=body)
            assert address not in answer.text
            ada, eve = answer.json()["data"], await server.register("Eve")
            await server.people.stores.execute(LOG_SQL, UUID(ada["userId"]), 3)
            taken = await server.http.post("/api/v1/auth/register", json=body | {"username": "Other"})
            assert code(taken) == (409, "CONFLICT")
            assert address not in taken.text
            asked = 0
            for path, methods in paths.items():
                for method in methods:
                    if (method.upper(), path) in own or path.endswith(("/logout", "/sessions", "/stream", "/poll")):
                        continue
                    for headers in ({}, bearer(ada), bearer(eve)):
                        url = path.replace("{session}", ada["userId"])
                        reply = await server.http.request(method.upper(), url, json={}, headers=headers)
                        assert reply.status_code < 500 or path == "/readyz"
                        assert address not in reply.text, path
                        asked += 1
            assert asked > 20
            sessions = await server.http.get("/api/v1/users/me/sessions", headers=bearer(ada))
            assert address not in sessions.text
            assert address in (await server.http.get(ME, headers=bearer(ada))).text
            assert address in (await server.http.get(EXPORT, headers=bearer(ada))).text
            assert (await erase(server, bearer(ada), {"password": PASSWORD})).status_code == 204
        assert address not in str(lines)


async def test_an_erasure_during_an_outage_is_a_503(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_web(database_url, redis_url) as server:
        ada = bearer(await server.register("Ada"))

        async def away(*_: object) -> None:
            raise StorageUnavailable("postgresql", "secret cause")

        with monkeypatch.context() as patched:
            patched.setattr(users, "by_id", away)
            assert code(await erase(server, ada, {"password": PASSWORD})) == (503, "SERVICE_UNAVAILABLE")
        assert (await server.http.get(ME, headers=ada)).status_code == 200
