"""Log-in over HTTP: what browsers and programs get, which pages may log in, and how often."""

from hashlib import sha256
from http.cookies import Morsel, SimpleCookie
from ipaddress import ip_network
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoreboard.domain.errors import Refusal, StorageUnavailable
from scoreboard.operations.login_limits import LoginLimits
from scoreboard.storage.postgres import sessions, users
from scoreboard.web import json_body as bodies
from scoreboard.web.routes.auth import Credentials, Registration
from scoreboard.web.routes.users import ProfileChange
from tests.operations.people import PASSWORD, database_url
from tests.web.requests import request
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

REGISTER, LOGIN, REFRESH, LOGOUT = (f"/api/v1/auth/{name}" for name in ("register", "login", "refresh", "logout"))
PROXIES = (ip_network("127.0.0.0/8"),)
ADA = {"username": "Ada", "password": PASSWORD}


def cookies(answer: httpx.Response) -> dict[str, "Morsel[str]"]:
    """The cookies that a response sets, by name."""
    return {
        name: morsel for line in answer.headers.get_list("set-cookie") for name, morsel in SimpleCookie(line).items()
    }


def cookie(answer: httpx.Response, name: str = "scoreboard_refresh") -> Any:
    """A cookie's morsel."""
    return cookies(answer)[name]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_program_is_given_everything_in_json(database_url: str, redis_url: str) -> None:
    """Without Origin: the refresh token in the body, no cookie, nothing to be cached."""
    async with serve_web(database_url, redis_url) as server:
        await server.register()
        answer = await server.http.post(LOGIN, json=ADA)
        data = answer.json()["data"]
        assert set(data) == {
            *("userId", "username", "accessToken", "expiresIn", "refreshToken"),
            *("actionSecret", "actionKeyVersion", "actionSecretExpiresAt"),
        }
        assert data["expiresIn"] == 900
        assert "set-cookie" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"
        again = (await server.http.post(REFRESH, json={"refreshToken": data["refreshToken"]})).json()["data"]
        assert again["refreshToken"] != data["refreshToken"]
        assert again["actionSecret"] == data["actionSecret"]


async def test_a_browser_has_its_refresh_token_in_a_cookie_alone(database_url: str, redis_url: str) -> None:
    """HttpOnly, SameSite=Strict, on the refresh path, for 30 days; Secure when its page is https. Logging out removes
    it."""
    async with serve_web(database_url, redis_url) as server:
        await server.register()
        page = str(server.http.base_url).rstrip("/")
        answer = await server.http.post(LOGIN, json=ADA, headers={"origin": page})
        assert "refreshToken" not in answer.json()["data"]
        morsel = cookie(answer)
        assert (morsel["path"], morsel["max-age"], morsel["samesite"]) == (REFRESH, str(30 * 86_400), "Strict")
        assert morsel["httponly"] is True
        assert not morsel["secure"]
        secure = await server.http.post(LOGIN, json=ADA, headers={"origin": page.replace("http:", "https:")})
        assert cookie(secure, "__Secure-scoreboard_refresh")["secure"] is True

        server.http.cookies.clear()
        headers = {"origin": page, "cookie": f"a=b; scoreboard_refresh={morsel.value}; c=d"}
        fresh = await server.http.post(REFRESH, headers=headers)
        assert fresh.status_code == 200
        assert "refreshToken" not in fresh.json()["data"]
        assert cookie(fresh).value not in {"", morsel.value}

        token = {"authorization": f"Bearer {fresh.json()['data']['accessToken']}", "origin": page}
        gone = await server.http.post(LOGOUT, headers=token)
        assert (gone.status_code, gone.content, cookie(gone)["max-age"], cookie(gone)["path"]) == (
            204,
            b"",
            "0",
            REFRESH,
        )
        assert code(await server.http.post(LOGOUT, headers=token)) == (401, "UNAUTHORIZED")
        server.http.cookies.clear()
        headers["cookie"] = f"scoreboard_refresh={cookie(fresh).value}"
        assert code(await server.http.post(REFRESH, headers=headers)) == (401, "UNAUTHORIZED")


async def test_the_public_url_decides_whether_the_cookie_is_secure(database_url: str, redis_url: str) -> None:
    """On https the names of both cookies begin with `__Secure-`, for every allowed origin."""
    async with serve_web(
        database_url, redis_url, public_url="https://board.example", allowed=("http://friend.example",)
    ) as server:
        await server.register()
        for origin in ("https://board.example", "http://friend.example"):
            answer = await server.http.post(LOGIN, json=ADA, headers={"origin": origin})
            for name in ("__Secure-scoreboard_refresh", "__Secure-scoreboard_device"):
                assert cookie(answer, name)["secure"] is True
    async with serve_web(database_url, redis_url, public_url="http://board.example") as server:
        await server.register()
        answer = await server.http.post(LOGIN, json=ADA, headers={"origin": "http://board.example"})
        assert set(cookies(answer)) == {"scoreboard_refresh", "scoreboard_device"}
        assert not cookie(answer)["secure"]


async def test_pages_of_others_are_refused(database_url: str, redis_url: str) -> None:
    """403 on all four routes, before the body is read; our own pages and those of allowed origins pass."""
    async with serve_web(
        database_url, redis_url, public_url="https://board.example", allowed=("https://friend.example",)
    ) as server:
        mine = await server.register()
        host = server.http.base_url.host, server.http.base_url.port
        foreign = (
            "https://evil.example",
            "null",
            "https://board.example.evil.example",
            "http://board.example",
            f"http://{host[0]}:1",
            f"http://{host[0]}:{host[1]}",  # the request's Host, which does not count with a public URL
            "https://",
            "x",
        )
        for origin in foreign:
            headers = {"origin": origin, "authorization": f"Bearer {mine['accessToken']}"}
            for path in (REGISTER, LOGIN, REFRESH, LOGOUT):
                assert code(await server.http.post(path, json=ADA, headers=headers)) == (403, "FORBIDDEN")
        for origin in ("https://board.example", "https://friend.example", "HTTPS://Friend.Example"):
            assert (await server.http.post(LOGIN, json=ADA, headers={"origin": origin})).status_code == 200


async def test_refreshing_without_a_token_is_401(database_url: str, redis_url: str) -> None:
    """No body, an empty one, an empty or garbled cookie."""
    async with serve_web(database_url, redis_url) as server:
        empty: list[dict[str, Any]] = [
            {},
            {"json": {}},
            {"json": {"refreshToken": None}},
            {"json": {"refreshToken": ""}},
            {"headers": {"cookie": "scoreboard_refresh=; x"}},
        ]
        for given_nothing in empty:
            assert code(await server.http.post(REFRESH, **given_nothing)) == (401, "UNAUTHORIZED")
        assert code(await server.http.post(REFRESH, json={"refreshToken": 7})) == (400, "INVALID_REQUEST")


async def test_another_refresh_cookie_does_not_end_the_session(database_url: str, redis_url: str) -> None:
    """A sibling domain sets cookies of the same name: garbage, and the token of a session that has ended. The live one
    is found."""
    async with serve_web(database_url, redis_url) as server:
        ended = (await server.register("Grace"))["refreshToken"]
        spent = (await server.register())["refreshToken"]
        live = (await server.http.post(REFRESH, json={"refreshToken": spent})).json()["data"]["refreshToken"]
        await server.people.stores.execute(
            "UPDATE sessions SET revoked_at = now() WHERE token_sha256 = $1", sha256(ended.encode()).digest()
        )
        planted = [*("x" * 86 for _ in range(1)), *(f"{number:086}" for number in range(40)), ended]
        page = str(server.http.base_url).rstrip("/")
        crowd = "; ".join(f"scoreboard_refresh={value}" for value in (*planted, live))
        answer = await server.http.post(REFRESH, headers={"origin": page, "cookie": crowd})
        assert answer.status_code == 200
        assert answer.json()["data"]["username"] == "Ada"
        following = cookie(answer).value
        again = await server.http.post(
            REFRESH,
            headers=[
                ("origin", page),
                ("cookie", f"scoreboard_refresh={planted[0]}"),
                ("cookie", f"a=b; scoreboard_refresh={following}"),
            ],
        )
        assert again.status_code == 200
        assert server.people.revoked == []


async def test_a_refresh_cookie_without_the_prefix_is_ignored_on_https(database_url: str, redis_url: str) -> None:
    """On https a live token under the plain name, which any page on plain http can set, gets 401."""
    async with serve_web(database_url, redis_url, public_url="https://board.example") as server:
        token = (await server.register())["refreshToken"]
        headers = {"origin": "https://board.example"}
        planted = await server.http.post(REFRESH, headers=headers | {"cookie": f"scoreboard_refresh={token}"})
        assert planted.status_code == 401
        own = await server.http.post(
            REFRESH, headers=headers | {"cookie": f"scoreboard_refresh=x; __Secure-scoreboard_refresh={token}"}
        )
        assert own.status_code == 200
        fresh = cookie(own, "__Secure-scoreboard_refresh")
        assert (fresh["secure"], fresh["path"]) == (True, REFRESH)


async def test_a_page_names_the_user_of_its_session(database_url: str, redis_url: str) -> None:
    """A sibling domain's cookie with a live token of its own account changes nothing for a page that names its user."""
    async with serve_web(database_url, redis_url) as server:
        eve, ada = await server.register("Eve"), await server.register("Ada")
        headers = {"origin": str(server.http.base_url).rstrip("/")}
        headers["cookie"] = f"scoreboard_refresh={eve['refreshToken']}; scoreboard_refresh={ada['refreshToken']}"
        assert code(await server.http.post(REFRESH, headers=headers)) == (401, "UNAUTHORIZED")
        answer = await server.http.post(REFRESH, json={"userId": ada["userId"]}, headers=headers)
        assert answer.json()["data"]["userId"] == ada["userId"]
        headers["cookie"] = f"scoreboard_refresh={eve['refreshToken']}"
        server.http.cookies.clear()
        assert code(await server.http.post(REFRESH, json={"userId": ada["userId"]}, headers=headers)) == (
            401,
            "UNAUTHORIZED",
        )
        refused = await server.http.post(REFRESH, json={"userId": "Ada"}, headers=headers)
        assert (code(refused), refused.json()["errors"][0]["field"]) == ((400, "INVALID_REQUEST"), "userId")
        answer = await server.http.post(REFRESH, json={"refreshToken": eve["refreshToken"], "userId": eve["userId"]})
        assert answer.json()["data"]["userId"] == eve["userId"]


async def test_a_device_cookie_is_for_browsers_and_the_login_path(database_url: str, redis_url: str) -> None:
    """HttpOnly, SameSite=Strict, a year, another at each log-in; a refresh gives none."""
    async with serve_web(database_url, redis_url) as server:
        page = {"origin": str(server.http.base_url).rstrip("/")}
        body = {"username": "Ada", "email": "ada@example.org", "password": PASSWORD}
        registered = await server.http.post(REGISTER, json=body, headers=page)
        logged_in = await server.http.post(LOGIN, json=ADA, headers=page)
        first, second = cookie(registered, "scoreboard_device"), cookie(logged_in, "scoreboard_device")
        assert (second["path"], second["max-age"], second["samesite"], second["httponly"]) == (
            LOGIN,
            str(365 * 86_400),
            "Strict",
            True,
        )
        assert first.value != second.value
        assert set(cookies(await server.http.post(REFRESH, headers=page))) == {"scoreboard_refresh"}


# ---- how often ------------------------------------------------------------------------------------------------------


async def log_in(server: WebServer, name: str, address: str, password: str = "wrong", **headers: str) -> httpx.Response:
    """A log-in from that address."""
    body = {"username": name, "password": password}
    return await server.http.post(LOGIN, json=body, headers={"x-forwarded-for": address} | headers)


async def test_the_limit_by_address(database_url: str, redis_url: str) -> None:
    """Three a minute, log-ins and registrations together, right or wrong: the fourth gets 429 with the layer and
    Retry-After."""
    async with serve_web(database_url, redis_url, proxies=PROXIES, login_per_minute=3) as server:
        body = {"username": "Ada", "email": "ada@example.org", "password": PASSWORD}
        assert (
            await server.http.post(REGISTER, json=body, headers={"x-forwarded-for": "198.51.100.1"})
        ).status_code == 201
        assert (await log_in(server, "Ada", "198.51.100.1", PASSWORD)).status_code == 200
        assert (await log_in(server, "nobody", "198.51.100.1")).status_code == 401
        for refused in (
            await log_in(server, "somebody", "198.51.100.1"),
            await server.http.post(REGISTER, json=body, headers={"x-forwarded-for": "198.51.100.1"}),
        ):
            assert code(refused) == (429, "RATE_LIMITED")
            assert refused.json()["layer"] == "login"
            assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert (await log_in(server, "somebody", "198.51.100.2")).status_code == 401


async def test_an_account_is_limited_under_whatever_name_it_is_found(database_url: str, redis_url: str) -> None:
    """PostgreSQL finds `pixi` under names that Python folds differently: all of them count as one, and so do all
    spellings of the e-mail address."""
    async with serve_web(database_url, redis_url, proxies=PROXIES, login_per_minute=3) as server:
        await server.register("pixi")
        names = ["pixi", "PIXI", "p\u0130xi", "Pixi"]
        for net, kind in (
            ("203.0.113", names),
            ("198.51.100", ["pixi@example.org", "PIXI@Example.org", " pixi@example.org"]),
        ):
            found = [name for name in kind if await users.find(server.people.stores, name) is not None]
            assert len(found) >= 3
            statuses = [(await log_in(server, name, f"{net}.1")).status_code for name in found[:3]]
            assert statuses == [401] * 3
            for number in range(9):  # its /24 has three times as many left
                assert (await log_in(server, found[number % len(found)], f"{net}.{number + 2}")).status_code == 401
            for name in found:
                refused = await log_in(server, name, f"{net}.99")
                assert (refused.status_code, refused.json()["layer"]) == (429, "login")


async def test_a_stranger_does_not_lock_the_owner_out(database_url: str, redis_url: str) -> None:
    """While others send wrong passwords, the owner can log in from another network unless they are many, and from a
    known browser always."""
    async with serve_web(database_url, redis_url, proxies=PROXIES, login_per_minute=2) as server:
        page = {"origin": str(server.http.base_url).rstrip("/")}
        await server.register()
        known = cookie(await log_in(server, "Ada", "192.0.2.1", PASSWORD, **page), "scoreboard_device").value
        server.http.cookies.clear()
        for number in range(10):
            assert (await log_in(server, "Ada", f"198.51.{number}.1")).status_code == 401
            if number == 5:
                assert (await log_in(server, "Ada", "192.0.2.2", PASSWORD)).status_code == 200
        assert (await log_in(server, "Ada", "192.0.2.3", PASSWORD)).status_code == 429
        device = page | {"cookie": f"scoreboard_device=garbage; scoreboard_device={known}"}
        assert (await log_in(server, "Ada", "192.0.2.4", PASSWORD, **device)).status_code == 200
        for number in range(2):
            assert (await log_in(server, "Ada", f"192.0.2.{5 + number}", **device)).status_code == 401
        assert (
            await log_in(server, "Ada", "192.0.2.7", PASSWORD, **device)
        ).status_code == 429  # a stolen browser guesses no more than others


async def test_neighbours_do_not_lock_a_known_browser_out(database_url: str, redis_url: str) -> None:
    """Wrong passwords from an address use up the limit of the address, not that of a browser that has logged in before;
    another browser is refused."""
    async with serve_web(database_url, redis_url, proxies=PROXIES, login_per_minute=3) as server:
        page = {"origin": str(server.http.base_url).rstrip("/")}
        await server.register()
        await server.register("Eve")
        known = cookie(await log_in(server, "Ada", "192.0.2.1", PASSWORD, **page), "scoreboard_device").value
        server.http.cookies.clear()
        device = page | {"cookie": f"scoreboard_device={known}"}
        while (await log_in(server, "Eve", "192.0.2.1")).status_code == 401:
            pass
        assert (await log_in(server, "Ada", "192.0.2.1", PASSWORD)).status_code == 429
        assert (await log_in(server, "Ada", "192.0.2.1", PASSWORD, **device)).status_code == 200
        assert (await log_in(server, "Eve", "192.0.2.1", PASSWORD, **device)).status_code == 429


@pytest.mark.parametrize("networks", [1, 60])
async def test_a_limit_does_not_tell_whose_an_address_is(database_url: str, redis_url: str, networks: int) -> None:
    """After tries with Ada's name, from one network or from everywhere, her e-mail address gets the same responses as
    an unknown one; and the other way round."""
    async with serve_web(database_url, redis_url, proxies=PROXIES) as server:
        await server.register()
        for used_up, guesses in (("Ada", ("ada@example.org", "eve@example.org")), ("ada@example.org", ("Ada", "Eve"))):
            server.people.accounts.admission.limits = LoginLimits(3, 0)
            addresses = (f"198.51.{number % networks}.1" for number in range(100))
            while (await log_in(server, used_up, address := next(addresses))).status_code == 401:
                pass
            assert [code(await log_in(server, guess, address)) for guess in guesses] == [(401, "UNAUTHORIZED")] * 2


async def test_names_that_nobody_has_are_limited_alike(database_url: str, redis_url: str) -> None:
    """The limits do not reveal whether an account exists: the same statuses for a name that is in use and one that is
    not."""
    async with serve_web(database_url, redis_url, proxies=PROXIES, login_per_minute=2) as server:
        await server.register()
        statuses = [
            [(await log_in(server, name, f"192.0.2.{number}")).status_code for number in range(12)]
            for name in ("Ada", "Eve")
        ]
        assert statuses[0] == statuses[1]
        assert 429 in statuses[0]


async def test_the_limit_of_requests_by_address(database_url: str, redis_url: str) -> None:
    """Requests to every handler count; health checks and metrics don't, and other addresses go on."""
    async with serve_web(database_url, redis_url, proxies=(ip_network("127.0.0.0/8"),), ip_per_minute=3) as server:
        one, other = {"x-forwarded-for": "2001:db8::1"}, {"x-forwarded-for": "2001:db8:0:1::1"}
        for path in ("/api/v1/scores/leaderboard", "/nowhere", "/"):
            assert (await server.http.get(path, headers=one)).status_code in {200, 404}
        refused = await server.http.get("/api/v1/scores/leaderboard", headers={"x-forwarded-for": "2001:db8::2"})
        assert code(refused) == (429, "RATE_LIMITED")
        assert refused.json()["layer"] == "ip"
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/livez", "/metrics"):
            assert (await server.http.get(path, headers=one)).status_code == 200
        assert (await server.http.get("/api/v1/scores/leaderboard", headers=other)).status_code == 200


async def test_the_own_profile(database_url: str, redis_url: str) -> None:
    """Read and changed with a token; null removes the picture, a taken name is 409, an unknown field 400."""
    async with serve_web(database_url, redis_url) as server:
        mine = await server.register()
        await server.register("Grace")
        token = {"authorization": f"Bearer {mine['accessToken']}"}
        path = "/api/v1/users/me"
        assert code(await server.http.get(path)) == (401, "UNAUTHORIZED")
        assert code(await server.http.patch(path, json={})) == (401, "UNAUTHORIZED")
        read = (await server.http.get(path, headers=token)).json()["data"]
        assert (read["userId"], read["username"], read["email"], read["avatarUrl"]) == (
            mine["userId"],
            "Ada",
            "ada@example.org",
            None,
        )
        assert read["createdAt"].endswith("Z")
        changed = await server.http.patch(
            path, headers=token, json={"username": "Lovelace", "avatarUrl": "https://example.org/a.png"}
        )
        assert (changed.json()["data"]["username"], changed.json()["data"]["avatarUrl"]) == (
            "Lovelace",
            "https://example.org/a.png",
        )
        assert (await server.http.patch(path, headers=token, json={})).json()["data"] == changed.json()["data"]
        assert (await server.http.patch(path, headers=token, json={"avatarUrl": None})).json()["data"][
            "avatarUrl"
        ] is None
        taken = await server.http.patch(path, headers=token, json={"username": "GRACE"})
        assert code(taken) == (409, "CONFLICT")
        assert taken.json()["errors"] == [{"field": "username", "message": "is taken"}]
        unknown = await server.http.patch(path, headers=token, json={"score": 1})
        assert code(unknown) == (400, "INVALID_REQUEST")
        assert unknown.json()["errors"] == [{"field": "score", "message": "is not known here"}]


# ---- bodies ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"NaN",
        b'{"username":NaN}',
        b'{"username":1e999}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"\x00",
    ),
    b'{"username":"a","password":"b","username":"c"}',
    b'{"username":"\\ud800","password":"b"}',
    b'{"username":"\xed\xa0\x80","password":"b"}',
    b'{"username":"\\u0000","password":"b"}',
    b'{"username":"\xff","password":"b"}',
    b'{"username":"a","password":' + b"[" * 16_000,
    b"[" * 16_000,
    b'{"a":' * 3000,
    b'{"username":"a","password":9223372036854775808}',
    b'{"username":"a","password":"b","admin":true}',
    b'{"username":"a"}',
    b'{"username":"a","password":null}',
    b'{"username":"a","password":"b"}x',
]


async def test_hostile_bodies_are_400_and_leave_nothing(database_url: str, redis_url: str) -> None:
    """On every route that reads one: never 5xx, nothing stored."""
    async with serve_web(database_url, redis_url) as server:
        mine = await server.register()
        token = {"authorization": f"Bearer {mine['accessToken']}"}
        before = (
            await server.people.stores.fetchval("SELECT count(*) FROM users"),
            await server.people.stores.fetchval("SELECT count(*) FROM sessions"),
        )
        for body in HOSTILE:
            for method, path in (("POST", LOGIN), ("POST", REGISTER), ("POST", REFRESH), ("PATCH", "/api/v1/users/me")):
                if body or path != REFRESH:
                    answer = await server.http.request(method, path, content=body, headers=token)
                    assert answer.status_code == 400, (path, body[:60], answer.text)
                    assert answer.json()["errors"], body[:60]
        after = (
            await server.people.stores.fetchval("SELECT count(*) FROM users"),
            await server.people.stores.fetchval("SELECT count(*) FROM sessions"),
        )
        assert before == after


async def test_what_is_too_long_is_named_and_nothing_is_done_with_it(database_url: str, redis_url: str) -> None:
    """400 names the field and its maximum length, before the value is used. The OpenAPI document has the maximum
    too."""
    long = {"username": 200, "email": 255, "password": 1024, "avatarUrl": 500}
    whole = {"username": "Ada", "email": "ada@example.org", "password": PASSWORD, "avatarUrl": None}
    async with serve_web(database_url, redis_url) as server:
        for field, length in long.items():
            refused = await server.http.post(REGISTER, json=whole | {field: "\u0301" * (length + 1)})
            assert code(refused) == (400, "INVALID_REQUEST")
            assert refused.json()["errors"] == [{"field": field, "message": f"must have at most {length} characters"}]
        decomposed = "e\u0301\u0302\u0323" * 50  # each becomes one character with a mark
        assert code(await server.http.post(LOGIN, json={"username": decomposed, "password": "x" * 1024})) == (
            401,
            "UNAUTHORIZED",
        )
        assert code(await server.http.post(LOGIN, json={"username": "x" * 256, "password": "x"})) == (
            400,
            "INVALID_REQUEST",
        )
        assert code(await server.http.post(REFRESH, json={"refreshToken": "x" * 1024})) == (401, "UNAUTHORIZED")
        schemas = (await server.http.get("/api/v1/openapi.json")).json()["components"]["schemas"]
        stated = schemas["Registration"]["properties"]
        assert {
            field: stated[field].get("maxLength") or stated[field]["anyOf"][0]["maxLength"] for field in long
        } == long


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["username", "password", "email", "avatarUrl", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=80) | json_values.map(msgspec.json.encode),
    st.sampled_from([Registration, Credentials, ProfileChange]),
)
def test_no_body_raises(body: bytes, kind: type) -> None:
    """The result is the decoder's type, or a refusal with a field."""
    read: Any = bodies.read(request(body=body), msgspec.json.Decoder(kind))
    assert isinstance(read, kind) or (isinstance(read, Refusal) and read.errors)


async def test_while_postgresql_is_away_accounts_say_so(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After on every route of accounts, and nothing of the cause."""

    async def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("postgresql", "secret cause")

    async with serve_web(database_url, redis_url) as server:
        mine = await server.register()
        for module, name in (
            (users, "create"),
            (users, "find"),
            (users, "profile"),
            (users, "change_profile"),
            (sessions, "rotate"),
            (sessions, "revoke"),
        ):
            monkeypatch.setattr(module, name, away)
        token = {"authorization": f"Bearer {mine['accessToken']}"}
        grace = {"username": "Grace", "email": "grace@example.org", "password": PASSWORD}
        for method, path, body in (
            ("POST", REGISTER, grace),
            ("POST", LOGIN, ADA),
            ("POST", REFRESH, {"refreshToken": mine["refreshToken"]}),
            ("POST", LOGOUT, None),
            ("GET", "/api/v1/users/me", None),
            ("PATCH", "/api/v1/users/me", {}),
            ("POST", "/api/v1/users/me/password", {"currentPassword": PASSWORD, "newPassword": PASSWORD}),
        ):
            answer = await server.http.request(method, path, json=body, headers=token)
            assert code(answer) == (503, "SERVICE_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
            assert "secret" not in answer.text
