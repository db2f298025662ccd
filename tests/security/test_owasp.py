"""OWASP API Security Top 10 (2023): for each entry an attack on a whole node that fails. And what a clock could tell a
guesser about signatures, server keys and log-ins.

Time is not measured, since that would be a test of the machine. What is counted is the work that takes the time: one
comparison or one hash for a right guess, as many for a wrong one.
"""

import hmac
import json
from collections import Counter
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
import trio

from scoreboard.domain.errors import SettingsError
from scoreboard.domain.paths import ADMIN_PREFIX, API_PREFIX, LIVE_PATH, OPENAPI_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.clock import DatabaseClock
from scoreboard.operations.server_keys import ServerKeys
from scoreboard.security import passwords, server_keys, signatures
from scoreboard.settings.model import load_settings
from scoreboard.storage.postgres.server_keys import StoredKey
from tests.e2e.server_processes import Client, register
from tests.https_server import Asked, Reply, https_server
from tests.whole_node import WholeNode, whole_node

PASSWORD = "a long password"  # of everybody that `register` makes


async def test_api1_broken_object_level_authorization(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Ids of another user's session, held action and evidence open nothing: they are answered as unknown."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada, eve = await register(node.http), await register(node.http)
        listed = await node.http.get("/api/v1/users/me/sessions", headers=ada.authorization)
        (session,) = listed.json()["data"]["sessions"]
        answer = await node.http.delete(f"/api/v1/users/me/sessions/{session['id']}", headers=eve.authorization)
        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert (await ada.act()).status_code == HTTPStatus.OK
        forged = eve.body(userId=ada.user)
        assert (await eve.act(forged)).status_code == HTTPStatus.FORBIDDEN


# ---- API2 -----------------------------------------------------------------------------------------------------------


async def refresh(node: WholeNode, token: str) -> httpx.Response:
    return await node.http.post("/api/v1/auth/refresh", json={"refreshToken": token})


def successor(answer: httpx.Response) -> str:
    assert answer.status_code == HTTPStatus.OK, answer.text
    token: str = answer.json()["data"]["refreshToken"]
    return token


async def test_api2_broken_authentication_a_stolen_refresh_token(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Thief and owner present the same token at once: there is one successor, so one line of tokens. When the thief
    comes with a token that the owner has left behind, the session ends for both."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada = await register(node.http)
        stolen = ada.session["refreshToken"]
        answers: list[httpx.Response] = []

        async def present() -> None:
            answers.append(await refresh(node, stolen))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(present)
        successors = {successor(answer) for answer in answers if answer.status_code == HTTPStatus.OK}
        assert len(successors) == 1
        assert {answer.status_code for answer in answers} == {HTTPStatus.OK}
        (first,) = successors
        second = successor(await refresh(node, first))
        assert (await refresh(node, stolen)).status_code == HTTPStatus.UNAUTHORIZED
        assert (await refresh(node, second)).status_code == HTTPStatus.UNAUTHORIZED
        with trio.fail_after(5):
            while (await node.http.get("/api/v1/users/me", headers=ada.authorization)).status_code != 401:
                await trio.sleep(0.05)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_api2_broken_authentication_a_forged_token(
    database_url: str, redis_url: str, tmp_path: Path, algorithm: str
) -> None:
    """The claims of a real token, without a signature or signed with a guessed secret."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada = await register(node.http)
        header = jwt.get_unverified_header(ada.token)
        claims = jwt.decode(ada.token, options={"verify_signature": False})
        key = None if algorithm == "none" else "0" * 32
        forged = jwt.encode(claims, key, algorithm, headers={"kid": header["kid"]})  # type: ignore[arg-type]
        answer = await node.http.get("/api/v1/users/me", headers={"authorization": f"Bearer {forged}"})
        assert answer.status_code == HTTPStatus.UNAUTHORIZED


# ---- API3 to API6 ---------------------------------------------------------------------------------------------------


async def test_api3_broken_object_property_level_authorization(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Nobody sets what is not theirs to set (mass assignment), and no board tells an address."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada = await register(node.http)
        for field, value in {"role": "admin", "score": 9999, "id": str(uuid4()), "isGuest": True, "ban": 0}.items():
            for method, path in (("PATCH", "/api/v1/users/me"), ("POST", "/api/v1/auth/register")):
                name = f"u{uuid4().hex[:8]}"
                body = {"username": name}
                if method == "POST":
                    body |= {"email": f"{name}@example.org", "password": PASSWORD}
                answer = await node.http.request(method, path, json=body | {field: value}, headers=ada.authorization)
                assert answer.status_code == HTTPStatus.BAD_REQUEST, (field, answer.text)
        for field in ("points", "score", "newScore"):
            assert (await ada.act(ada.body(**{field: 9999}))).status_code == HTTPStatus.BAD_REQUEST
        assert (await ada.act()).json()["data"]["newScore"] == 50
        board = await node.http.get("/api/v1/scores/leaderboard")
        assert ada.user in board.text
        assert "@" not in board.text


async def test_api4_unrestricted_resource_consumption(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A page that is too long, a body that is too large, JSON that is too deep, and one request too many."""
    async with whole_node(database_url, redis_url, tmp_path, limits__ip_per_minute=40) as node:
        for query in ("limit=101", "limit=1000000", "limit=-1", "limit=1&limit=100", "x" * 1100):
            answer = await node.http.get(f"/api/v1/scores/leaderboard?{query}")
            assert answer.status_code == HTTPStatus.BAD_REQUEST
        login = "/api/v1/auth/login"
        large = await node.http.post(login, content=b'{"username":"' + b"x" * 17_000 + b'"}')
        assert large.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        deep = await node.http.post(login, content=b"[" * 16_000)
        assert deep.status_code == HTTPStatus.BAD_REQUEST
        statuses = [(await node.http.get("/api/v1/scores/leaderboard")).status_code for _ in range(41)]
        assert statuses[-1] == HTTPStatus.TOO_MANY_REQUESTS


async def test_api5_broken_function_level_authorization(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A user finds no way to a function of moderators: not by the method, the case or the spelling of the path."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada, eve = await register(node.http), await register(node.http)
        assert {route.auth for route in node.routes if route.path.startswith(ADMIN_PREFIX)} <= set(Role)
        ban = f"/api/v1/admin/users/{ada.user}/ban"
        for path in (ban, f"{ban}/", ban.upper(), ban.replace("/admin", "//admin"), ban.replace("admin", "%61dmin")):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for fields in ({}, {"x-http-method-override": "POST"}, {"x-original-url": ban}, {"x-rewrite-url": ban}):
                    answer = await node.http.request(
                        method, path, json={"reason": "a"}, headers=eve.authorization | fields
                    )
                    assert answer.status_code in {403, 404, 405}, (method, path, answer.text)
        assert (await ada.act()).status_code == HTTPStatus.OK


async def test_api6_unrestricted_access_to_sensitive_business_flows(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A program that acts thirty times at once gets the ten that a minute has, and one action counts once."""
    async with whole_node(database_url, redis_url, tmp_path, limits__user_per_minute=10) as node:
        eve = await register(node.http)
        body, statuses = eve.body(), Counter[int]()

        async def act(sent: bytes) -> None:
            statuses[(await eve.act(sent)).status_code] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(act, body)
        assert statuses == {200: 1, 409: 4}
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(act, eve.body())
        assert statuses == {200: 10, 409: 4, 429: 21}
        assert (await eve.leaderboard())["currentUser"]["score"] == 500


# ---- API7 to API10 --------------------------------------------------------------------------------------------------

PRIVATE_HOSTS = ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0x7f000001", "2130706433")


async def test_api7_server_side_request_forgery(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A picture's address leads this server to no private network, whether it is refused at once or when it is
    fetched."""
    async with https_server(tmp_path) as inner, whole_node(database_url, redis_url, tmp_path) as node:
        inner.replies["/a.png"] = Reply(b"\x89PNG\r\n\x1a\n", headers=(("content-type", "image/png"),))
        eve = await register(node.http)
        assert (await eve.act()).status_code == HTTPStatus.OK  # a row on the board, whose picture is fetched
        for scheme in ("http", "file", "gopher", "ftp"):
            answer = await node.http.patch(
                "/api/v1/users/me", json={"avatarUrl": f"{scheme}://a.example/a.png"}, headers=eve.authorization
            )
            assert answer.status_code == HTTPStatus.BAD_REQUEST, scheme
        for host in PRIVATE_HOSTS:
            await node.http.patch(
                "/api/v1/users/me",
                json={"avatarUrl": f"https://{host}:{inner.port}/a.png"},
                headers=eve.authorization,
            )
            picture = await node.http.get(f"/avatars/{eve.user}")
            assert picture.status_code == HTTPStatus.NOT_FOUND, host
        assert inner.asked == []


async def test_api8_security_misconfiguration(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """No trace of a failure, no debugging method, no foreign page, no default secret in production."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        for method, path in (("TRACE", "/"), ("TRACE", "/api/v1/users/me"), ("DEBUG", "/"), ("CONNECT", "/livez")):
            answer = await node.http.request(method, path)
            assert answer.status_code in {400, 405}, (method, answer.status_code)
        evil = {"origin": "https://evil.example"}
        for path in ("/api/v1/scores/leaderboard", "/api/v1/users/me", "/nowhere", "/"):
            answer = await node.http.get(path, headers=evil)
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
            assert "Traceback" not in answer.text
        logged_in = await node.http.post("/api/v1/auth/login", json={"username": "a", "password": "b"}, headers=evil)
        assert logged_in.status_code == HTTPStatus.FORBIDDEN
    production = {"environment": "production", "server.public_url": "https://s.example"}
    with pytest.raises(SettingsError):  # no key is made up, as it is in development
        load_settings(None, production, {}, needs_stores=False).security.keys(tmp_path / "nothing")


UNDESCRIBED = {OPENAPI_PATH, LIVE_PATH}  # the document itself, and the WebSocket's


async def test_api9_improper_inventory_management(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Every route of the API is in its document, and what often lies about beside an API is not there."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        described = (await node.http.get(OPENAPI_PATH)).json()["paths"]
        for route in node.routes:
            if route.path.startswith(API_PREFIX) and route.path not in UNDESCRIBED:
                path = route.path.replace("<", "{").replace(">", "}")
                assert route.method.lower() in described[path], f"{route.method} {path} has no response type"
        for path in (
            *("/api/v0/users/me", "/api/v2/users/me", "/api/users/me", "/docs", "/redoc", "/swagger.json", "/debug"),
            *("/.git/config", "/.env", "/config/default.toml", "/static/../app/node.py", "/server-status", "/graphql"),
        ):
            assert (await node.http.get(path)).status_code == HTTPStatus.NOT_FOUND, path


async def test_api10_unsafe_consumption_of_apis(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A referee that was taken over gives no more points than the rule, and leads this server nowhere else."""
    inner = {"location": ""}

    async def lie(asked: Asked) -> Reply:
        kind = json.loads(asked.body)["actionType"]
        bodies = {
            "generous": Reply(json.dumps({"accept": True, "points": 1_000_000}).encode()),
            "elsewhere": Reply(b"", 302, (("location", inner["location"]),)),
            "huge": Reply(b'{"accept": true, "reason": "' + b"x" * 2_000_000 + b'"}'),
            "deep": Reply(b"[" * 60_000),
        }
        return bodies[kind]

    async with https_server(tmp_path) as referee:
        inner["location"] = f"{referee.url}/inner"
        referee.replies |= {"/check": lie, "/inner": Reply(b'{"accept": true}')}
        file = tmp_path / "actions.toml"
        webhook = f'webhook = {{ url = "{referee.url}/check", secret = "0123456789abcdef" }}'
        kinds = ("generous", "elsewhere", "huge", "deep")
        file.write_text("".join(f'[{kind}]\ntitle = "A"\npoints = 9\n{webhook}\n' for kind in kinds))
        others: dict[str, Any] = {
            "actions__file": str(file),
            "outgoing__private_hosts": "localhost",
            "outgoing__ca_file": str(referee.ca_file),
        }
        async with whole_node(database_url, redis_url, tmp_path, **others) as node:
            eve = await register(node.http)
            for kind in kinds:
                answer = await eve.act(eve.body(actionType=kind, metadata=None))
                assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, (kind, answer.text)
            assert (await eve.leaderboard())["currentUser"]["score"] == 0
        assert {asked.target for asked in referee.asked} == {"/check"}


# ---- what a clock could tell ----------------------------------------------------------------------------------------


def comparisons(work: Any) -> list[tuple[int, int]]:
    """The lengths of what is compared in constant time while `work` runs."""
    found: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(first: Any, second: Any) -> bool:
        found.append((len(first), len(second)))
        return compare(first, second)

    with patch.object(hmac, "compare_digest", counted):
        work()
    return found


def test_a_wrong_signature_is_compared_like_a_right_one() -> None:
    """One comparison of the whole text for each live key, wherever the first wrong digit is."""
    body = b"{}"
    for secrets in ({1: b"a" * 32}, {1: b"a" * 32, 2: b"b" * 32}):
        right = signatures.sign(secrets[1], body)
        tries = [right, *(right[:at] + ("1" if right[at] == "0" else "0") + right[at + 1 :] for at in (0, 31, 63))]
        work = {str(comparisons(partial(signatures.matches, given, body, secrets))) for given in tries}
        assert work == {str([(64, 64)] * len(secrets))}


def test_an_unknown_server_key_is_compared_like_a_known_one() -> None:
    """Two comparisons of whole hashes, whether the id is known, the secret is right, or neither."""
    known = server_keys.make_key("0" * 12, b"k" * 32)
    stored = StoredKey("0" * 12, ("read",), server_keys.digest(known), None, None, None)
    nowhere: Any = None
    keys = ServerKeys(nowhere, DatabaseClock(lambda: 0.0))
    keys._set_keys([stored])
    tries = [known, server_keys.make_key("0" * 12, b"x" * 32), server_keys.make_key("1" * 12, b"k" * 32)]
    assert [keys.authenticate(key) is not None for key in tries] == [True, False, False]
    assert {str(comparisons(partial(keys.authenticate, key))) for key in tries} == {str([(32, 32)] * 2)}


async def test_a_log_in_without_an_account_costs_the_same_hash(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """One verification for a wrong password, for an unknown name and for an unknown address; and the same answer."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada: Client = await register(node.http)
        verified: list[str | None] = []
        verify = passwords.verify

        def counted(stored: str | None, password: str) -> bool:
            verified.append(stored)
            return verify(stored, password)

        answers = set()
        with patch.object(passwords, "verify", counted):
            for name in (str(ada.session["username"]), "nobody-of-that-name", "nobody@example.org"):
                answer = await node.http.post("/api/v1/auth/login", json={"username": name, "password": "wrong one"})
                problem = answer.json() | {"requestId": ""}
                answers.add((answer.status_code, json.dumps(problem, sort_keys=True)))
        assert len(answers) == 1
        assert [stored is None for stored in verified] == [False, True, True]
        assert UUID(ada.user)
