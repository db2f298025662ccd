"""The routes of game servers: who may use them, and bulk submission with everything that can go wrong."""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from scoreboard.domain.bulk_actions import MAX_BULK_ACTIONS, MAX_BULK_BODY_BYTES
from scoreboard.domain.paths import (
    BULK_PATH,
    LEADERBOARD_PATH,
    PROFILE_PATH,
    SERVER_SESSIONS_PATH,
    SERVER_USERS_PREFIX,
    SUBMIT_PATH,
)
from scoreboard.domain.roles import Role
from scoreboard.domain.scopes import Scope
from scoreboard.operations.admin.server_keys import revoke_key
from scoreboard.security.server_keys import SECRET_BYTES, make_key
from scoreboard.storage.postgres import staff
from tests.operations.people import database_url
from tests.web.bulk_site import GameServer, action, codes, game_server, long_ago

__all__ = ["database_url"]  # the module's own fixture

ROUTES = [
    ("POST", BULK_PATH, Scope.SCORES),
    ("PUT", f"{SERVER_USERS_PREFIX}a", Scope.USERS),
    ("POST", SERVER_SESSIONS_PATH, Scope.SESSIONS),
]


@pytest.fixture
async def game(database_url: str, redis_url: str) -> AsyncIterator[GameServer]:
    async with game_server(database_url, redis_url) as made:
        yield made


async def detail(game: GameServer, method: str, path: str, **headers: str) -> tuple[int, str]:
    answer = await game.web.http.request(method, path, json={}, headers=headers)
    return answer.status_code, answer.json()["detail"]


# ---- who may --------------------------------------------------------------------------------------------------------


async def test_a_route_takes_only_keys_with_its_scope(game: GameServer) -> None:
    """401 without a key, with a token, a typo or a wrong key; 403 with a key of all other scopes."""
    user = await game.web.register()
    wrong = make_key(game.key.id, bytes(SECRET_BYTES))
    for method, path, scope in ROUTES:
        others = await game.key_with(*(other for other in Scope if other is not scope))
        for sent, status, why in (
            ({}, 401, "A valid server key is needed"),
            ({"authorization": f"Bearer {user['accessToken']}"}, 401, "takes a server key"),
            ({"authorization": f"Bearer {wrong}"}, 401, "not known here, revoked or expired"),
            ({"authorization": f"Bearer {game.key.key[:-1]}"}, 401, "checksum is wrong"),
            ({"authorization": f"Bearer {game.key.key}x"}, 401, "checksum is wrong"),
            ({"authorization": game.key.key}, 401, "A valid server key is needed"),
            ({"authorization": f"Basic {game.key.key}"}, 401, "A valid server key is needed"),
            (others, 403, f"does not have the scope {scope}"),
        ):
            found, sentence = await detail(game, method, path, **sent)
            assert (found, why in sentence) == (status, True), (path, sent, sentence)


async def test_two_keys_in_one_request_are_none(game: GameServer) -> None:
    """A proxy in front may have read the other one."""
    answer = await game.web.http.post(
        BULK_PATH, json={"actions": []}, headers=[("authorization", f"Bearer {game.key.key}")] * 2
    )
    assert answer.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(("method", "path"), [("GET", PROFILE_PATH), ("POST", SUBMIT_PATH)])
async def test_a_server_key_is_no_users_token(game: GameServer, method: str, path: str) -> None:
    """Not even with every scope; the answer says what the route takes."""
    assert await detail(game, method, path, **game.headers) == (
        401,
        "This route takes a user's access token, not a server key.",
    )


async def test_a_key_that_may_read_reads_as_nobody(game: GameServer) -> None:
    """Where a token is optional; a key without that scope, and one that is wrong, are refused as a token would be."""
    answer = await game.web.http.get(LEADERBOARD_PATH, headers=game.headers)
    assert answer.status_code == HTTPStatus.OK
    assert "currentUser" not in answer.json()["data"]
    refused = await game.web.http.get(LEADERBOARD_PATH, headers=await game.key_with(Scope.SCORES))
    assert refused.status_code == HTTPStatus.FORBIDDEN
    wrong = {"authorization": f"Bearer {make_key('0' * 12, bytes(SECRET_BYTES))}"}
    assert (await game.web.http.get(LEADERBOARD_PATH, headers=wrong)).status_code == HTTPStatus.UNAUTHORIZED


async def test_a_revoked_key_ends(game: GameServer) -> None:
    """Without a restart; what it has submitted stays."""
    assert codes(await game.outcomes(action(game.users[0]))) == [(200, None)]
    await revoke_key(game.web.people.stores, game.key.id)
    await game.until_known(game.key.key, known=False)
    assert (await game.post([action(game.users[0])])).status_code == HTTPStatus.UNAUTHORIZED
    assert len(await game.recorded()) == 1


async def test_a_key_has_a_limit_of_its_own(database_url: str, redis_url: str) -> None:
    """Its requests do not use up the address' limit; wrong keys do, and end with 429 before any other request does."""
    async with game_server(
        database_url, redis_url, ip_per_minute=20, server_key_per_minute=30, wrong_keys_per_minute=5
    ) as game:
        answers = [(await game.post([])).status_code for _ in range(32)]
        assert answers == [200] * 30 + [429] * 2
        refused = await game.post([])
        assert refused.json()["layer"] == "server_key"
        assert int(refused.headers["retry-after"]) >= 1
        wrong = {"authorization": f"Bearer {make_key(game.key.id, bytes(SECRET_BYTES))}"}
        tries = [await game.post([], headers=wrong) for _ in range(6)]
        assert [one.status_code for one in tries] == [401] * 5 + [429]
        assert tries[-1].json()["layer"] == "login"
        others = [(await game.web.http.get(LEADERBOARD_PATH)).status_code for _ in range(16)]
        assert others == [200] * 15 + [429]  # the wrong keys were requests of the address too


# ---- bulk: good requests --------------------------------------------------------------------------------------------


async def test_each_action_has_its_outcome(game: GameServer) -> None:
    """In order, with exact totals and ranks; users' limits and cooldowns do not apply, the key stands in the log."""
    ada, bob, _ = game.users
    outcomes = await game.outcomes(*(action(ada, f"a{n}") for n in range(12)), action(bob, "b"))
    assert codes(outcomes) == [(200, None)] * 13
    assert [one["data"]["newScore"] for one in outcomes] == [*range(10, 130, 10), 10]
    assert [one["data"]["newRank"] for one in outcomes] == [1] * 12 + [2]
    assert outcomes[0]["data"]["userId"] == str(ada)
    assert {signature for *_, signature in await game.recorded()} == {f"server-key:{game.key.id}"}


async def test_an_empty_list_is_answered(game: GameServer) -> None:
    """With an empty list."""
    assert await game.outcomes() == []


async def test_a_full_request_is_one_commit(game: GameServer) -> None:
    """500 actions in one transaction: all have one time, and the outbox has one row."""
    outcomes = await game.outcomes(*(action(game.users[n % 3], str(n)) for n in range(MAX_BULK_ACTIONS)))
    assert codes(outcomes) == [(200, None)] * MAX_BULK_ACTIONS
    stores = game.web.people.stores
    assert await stores.fetchval("SELECT count(DISTINCT processed_at) FROM action_logs") == 1
    rows = "SELECT count(*) FROM commits WHERE committed_at = (SELECT max(processed_at) FROM action_logs)"
    assert await stores.fetchval(rows) == 1
    assert len({one["data"]["timestamp"] for one in outcomes}) == 1


async def test_a_retry_gets_what_was_recorded(game: GameServer) -> None:
    """Also when names come in another order and the user is named by another id; another body has no data."""
    assert (await game.put_user("ada")).status_code == HTTPStatus.OK
    user = (await game.put_user("ada")).json()["data"]["userId"]
    metadata, when = {"a": 1, "b": [1, 2]}, action("ada")["timestamp"]
    first = action("ada", "x", metadata=metadata, timestamp=when)
    (recorded,) = await game.outcomes(first)
    again = {
        "timestamp": when,
        "metadata": {"b": [1, 2], "a": 1},
        "actionType": "goal",
        "actionId": "x",
        "userId": user,
    }
    other = first | {"metadata": {"a": 2}}
    same, differs = await game.outcomes(again, other)
    assert (same["status"], same["code"], same["data"]) == (409, "DUPLICATE_ACTION", recorded["data"])
    assert (differs["status"], differs["code"], "data" in differs) == (409, "DUPLICATE_ACTION", False)
    late = first | {"actionType": "unknown", "timestamp": long_ago()}
    assert codes(await game.outcomes(late)) == [(409, "DUPLICATE_ACTION")]  # 409 goes before 400
    assert len(await game.recorded()) == 1


async def test_the_same_action_twice_in_one_request(game: GameServer) -> None:
    """It counts once; the second is told what became of the first, and the same id of another user is another one."""
    ada, bob, _ = game.users
    one = action(ada, "x")
    outcomes = await game.outcomes(one, one, one | {"metadata": {"a": 1}}, action(bob, "x"))
    assert codes(outcomes) == [(200, None), (409, "DUPLICATE_ACTION"), (409, "DUPLICATE_ACTION"), (200, None)]
    assert outcomes[1]["data"] == outcomes[0]["data"]
    assert "data" not in outcomes[2]
    assert len(await game.recorded()) == 2


async def test_the_same_request_at_once(game: GameServer) -> None:
    """Sent four times at the same moment, each action counts once, and each answer has every outcome."""
    actions = [action(game.users[n % 3], str(n)) for n in range(100)]
    answers: list[list[dict[str, Any]]] = []

    async def send() -> None:
        answers.append(await game.outcomes(*actions))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(send)
    assert len(await game.recorded()) == 100
    for each in zip(*answers, strict=True):
        assert sorted(one["status"] for one in each) == [200, 409, 409, 409]
        assert len({json.dumps(one["data"] | {"newRank": 0}) for one in each}) == 1


async def test_a_trusted_type_takes_the_requests_points(game: GameServer) -> None:
    """From 1 to the type's own; for any other type, and out of bounds, they are refused."""
    ada = game.users[0]
    given = [500, 1, 501, 0, -5, 1.5, "7", None, True, 10**30]
    outcomes = await game.outcomes(
        *(action(ada, actionType="win", points=points) for points in given),
        action(ada, actionType="win"),
        action(ada, points=10),
    )
    assert [one["status"] for one in outcomes] == [200, 200] + [400] * 10
    assert [points for _, _, points, _ in await game.recorded()] == [500, 1]


# ---- bulk: bad requests ---------------------------------------------------------------------------------------------


async def test_half_of_the_list_is_bad(game: GameServer) -> None:
    """Every bad action has its own reason, and every good one counts."""
    ada = game.users[0]
    bad: list[tuple[Any, int, str]] = [
        (action(ada, timestamp=long_ago()), 400, "5 minutes old"),
        (action(ada, timestamp="yesterday"), 400, "timestamp"),
        (action(ada, timestamp="2026-11-26T15:00:00"), 400, "zone"),
        (action(ada, actionType="unknown"), 400, "actionType"),
        (action(ada, actionType="hard"), 400, "metadata.timeSpent"),
        (action(uuid4()), 404, "no such user"),
        (action("nobody"), 404, "no such user"),
        (action(ada) | {"externalId": "both"}, 400, "userId"),
        ({key: value for key, value in action(ada).items() if key != "userId"}, 400, "userId"),
        (action(ada) | {"userId": "not-a-uuid"}, 400, "userId"),
        (action(ada, actionId=""), 400, "actionId"),
        (action(ada, actionId="x" * 101), 400, "actionId"),
        (action(ada, actionId="a\0b"), 400, "u0000"),
        (action(ada, actionId=5), 400, "actionId"),
        (action(ada, metadata=[1]), 400, "metadata"),
        (action(ada, metadata=json.loads('{"a":' * 40 + "1" + "}" * 40)), 400, "nested"),
        (action(ada, unknown=1), 400, "unknown"),
        ("text", 400, "object"),
        (None, 400, "object"),
        ([], 400, "object"),
    ]
    mixed = [one for each, *_ in bad for one in (each, action(ada))]
    outcomes = await game.outcomes(*mixed)
    assert [one["status"] for one in outcomes[1::2]] == [200] * len(bad)
    for (sent, status, why), outcome in zip(bad, outcomes[::2], strict=True):
        assert (outcome["status"], why in outcome["detail"]) == (status, True), (sent, outcome)
        assert outcome["code"] == ("NOT_FOUND" if status == 404 else "INVALID_ACTION")
    assert len(await game.recorded()) == len(bad)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "actions"),
        (b'{"actions": 5}', "array"),
        (b'{"actions": [], "more": 1}', "more"),
        (b'{"actions": [' + b"1," * 500 + b"1]}", "500"),
        (b'{"actions": [{"a"', "JSON"),
        (b'{"actions": [], "actions": [1]}', "twice"),
        (b'{"actions": [], "\\u0061ctions": []}', "twice"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 10_000, "object"),
    ],
)
async def test_a_body_that_is_no_list(game: GameServer, body: bytes, why: str) -> None:
    """Refused as a whole, 400 with a reason; nothing is recorded."""
    answer = await game.web.http.post(BULK_PATH, content=body, headers=game.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert why in answer.json()["detail"]
    assert await game.recorded() == []


async def test_a_name_twice_in_an_action(game: GameServer) -> None:
    """msgspec takes the last, another reader the first: refused, in the metadata too."""
    ada = game.users[0]
    texts = [json.dumps(action(ada, "x")).replace('"actionId"', '"actionId": "y", "actionId"')]
    texts += [json.dumps(action(ada, "z", metadata={"a": 1})).replace('"a": 1', '"a": 1, "\\u0061": 2')]
    answer = await game.web.http.post(BULK_PATH, content='{"actions": [' + ",".join(texts) + "]}", headers=game.headers)
    assert codes(answer.json()["data"]["outcomes"]) == [(400, "INVALID_ACTION")] * 2
    assert await game.recorded() == []


async def test_another_content_type(game: GameServer) -> None:
    """415, as everywhere."""
    fields = game.headers | {"content-type": "text/plain"}
    answer = await game.web.http.post(BULK_PATH, content=b'{"actions": []}', headers=fields)
    assert answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


async def test_a_value_that_postgresql_cannot_store(game: GameServer) -> None:
    """Its action alone is refused; the others of the request count."""
    ada, bob, _ = game.users
    # jsonb has no number of so many digits
    answer = await game.web.http.post(
        BULK_PATH,
        content=json.dumps({"actions": [action(ada), action(ada, metadata={"n": "N"}), action(bob)]}).replace(
            '"N"', "1e-16400"
        ),
        headers=game.headers,
    )
    statuses = [one["status"] for one in answer.json()["data"]["outcomes"]]
    assert (statuses[0], statuses[2]) == (200, 200)
    assert len(await game.recorded()) == statuses.count(200)


async def test_the_database_is_away(database_url: str, redis_url: str) -> None:
    """503 for the whole request, with Retry-After: nothing is recorded, and the same request may be sent again."""
    async with game_server(database_url, redis_url, committers=0) as game:
        answer = await game.post([action(game.users[0])])
        assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"


# ---- bulk: sizes ----------------------------------------------------------------------------------------------------


def filled(size: int) -> bytes:
    """A valid body of exactly that many bytes."""
    return b'{"actions": []' + b" " * (size - 15) + b"}"


async def test_a_large_body_is_only_for_keys(game: GameServer) -> None:
    """Up to 256 KiB with a key that may submit; nobody else gets to send more than 16 KiB, and any more is 413."""
    user = await game.web.register()

    async def status(headers: dict[str, str], size: int) -> int:
        try:
            answer = await game.web.http.post(BULK_PATH, content=filled(size), headers=headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):  # closed before all was sent
            return 0
        return answer.status_code

    assert await status(game.headers, MAX_BULK_BODY_BYTES) == HTTPStatus.OK
    assert await status(game.headers, MAX_BULK_BODY_BYTES + 1) in {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 0}
    for headers in ({}, {"authorization": f"Bearer {user['accessToken']}"}):
        assert await status(headers, 17_000) in {HTTPStatus.UNAUTHORIZED, 0}
    assert await status(await game.key_with(Scope.USERS, Scope.READ), 17_000) in {HTTPStatus.FORBIDDEN, 0}
    other = await game.web.http.post(SERVER_SESSIONS_PATH, content=filled(17_000), headers=game.headers)
    assert other.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


async def test_a_body_that_is_cut_off(game: GameServer) -> None:
    """The client leaves half-way, also in the middle of an action: nothing is recorded. A client that leaves after the
    whole body loses only the answer."""
    port = game.web.http.base_url.port
    body = json.dumps({"actions": [action(game.users[0], str(n)) for n in range(200)]}).encode()
    head = (
        f"POST {BULK_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {game.key.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for sent in (len(body) // 2, len(body) - 1):
        stream = await trio.open_tcp_stream("127.0.0.1", port or 0)
        await stream.send_all(head + body[:sent])
        await stream.aclose()
    await trio.sleep(0.2)
    assert await game.recorded() == []
    stream = await trio.open_tcp_stream("127.0.0.1", port or 0)
    await stream.send_all(head + body)
    await stream.aclose()
    with trio.fail_after(5):
        while len(await game.recorded()) < 200:
            await trio.sleep(0.05)
    answer = await game.web.http.post(BULK_PATH, content=body, headers=game.headers)
    assert codes(answer.json()["data"]["outcomes"]) == [(409, "DUPLICATE_ACTION")] * 200


# ---- users and sessions ---------------------------------------------------------------------------------------------


async def test_a_user_is_made_once(game: GameServer) -> None:
    """By twenty requests at once too; a later one changes the name, and the answer has the present one."""
    answers: list[dict[str, Any]] = []

    async def put() -> None:
        answers.append((await game.put_user("steam%3A42", username="Grace")).json()["data"])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(put)
    assert len({one["userId"] for one in answers}) == 1
    assert answers[0] == {"userId": answers[0]["userId"], "externalId": "steam:42", "username": "Grace"}
    renamed = (await game.put_user("steam%3A42", username="Hopper")).json()["data"]
    assert renamed == answers[0] | {"username": "Hopper"}
    assert (await game.put_user("steam%3A42")).json()["data"] == renamed
    stores = game.web.people.stores
    assert await stores.fetchval("SELECT count(*) FROM identities WHERE provider = 'server'") == 1


async def test_a_name_that_is_taken_is_no_failure(game: GameServer) -> None:
    """A new user gets one like it; a user who is there keeps the present one."""
    await game.web.register("Ada")
    made = (await game.put_user("1", username="Ada")).json()["data"]
    assert made["username"].startswith("Ada-")
    assert (await game.put_user("1", username="Ada")).json()["data"] == made
    assert (await game.put_user("1", username="a@b")).json()["data"] == made
    neutral = (await game.put_user("2")).json()["data"]["username"]
    assert neutral.startswith("Player-")


@pytest.mark.parametrize(
    ("external_id", "body", "status"),
    [
        ("a", {"avatarUrl": "http://pictures.example/a.png"}, 400),
        ("a", {"region": "de"}, 400),
        ("a", {"username": 5}, 400),
        ("a" * 256, {}, 400),
        ("%0A", {}, 404),
        ("%FF", {}, 400),
        ("%E2%80%A8", {}, 400),
        ("a%2Fb", {}, 404),
        ("..", {}, 404),
    ],
)
async def test_what_no_user_is_made_of(game: GameServer, external_id: str, body: dict[str, Any], status: int) -> None:
    """A problem that names the fault, and nobody is made."""
    answer = await game.put_user(external_id, **body)
    assert answer.status_code == status
    assert await game.web.people.stores.fetchval("SELECT count(*) FROM identities") == 0


async def test_a_session_is_a_users_own(game: GameServer) -> None:
    """By external id or user id, as from a log-in, without a cookie; the user acts with it."""
    made = (await game.put_user("ada", username="Ada")).json()["data"]
    for body in ({"externalId": "ada"}, {"userId": made["userId"]}):
        answer = await game.web.http.post(SERVER_SESSIONS_PATH, json=body, headers=game.headers)
        assert answer.status_code == HTTPStatus.OK
        assert "set-cookie" not in answer.headers
        session = answer.json()["data"]
        assert (session["userId"], session["username"]) == (made["userId"], "Ada")
        assert session["refreshToken"]
        assert session["actionSecret"]
        me = await game.web.http.get(PROFILE_PATH, headers={"authorization": f"Bearer {session['accessToken']}"})
        assert me.json()["data"]["userId"] == made["userId"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"externalId": "nobody"}, 404),
        ({"userId": "028e1b3b-469e-4c98-9ca1-1ae0b5657e30"}, 404),
        ({}, 400),
        ({"externalId": "a", "userId": "028e1b3b-469e-4c98-9ca1-1ae0b5657e30"}, 400),
        ({"userId": "x"}, 400),
        ({"externalId": ""}, 400),
        ({"username": "Ada"}, 400),
    ],
)
async def test_no_session_without_a_user(game: GameServer, body: dict[str, Any], status: int) -> None:
    """Nobody is made by opening a session, and exactly one id is given."""
    answer = await game.web.http.post(SERVER_SESSIONS_PATH, json=body, headers=game.headers)
    assert answer.status_code == status
    assert await game.web.people.stores.fetchval("SELECT count(*) FROM sessions") == 0


async def test_a_server_key_does_not_become_staff(game: GameServer) -> None:
    """A game's server may not open a session for who has a role, by whatever id."""
    user = (await game.put_user("ada")).json()["data"]["userId"]
    await staff.set_role(game.web.people.stores, game.users[0], Role.ADMIN, "operator")
    await game.web.people.stores.execute("UPDATE users SET role = 'viewer' WHERE id::text = $1", user)
    for body in ({"userId": str(game.users[0])}, {"externalId": "ada"}):
        answer = await game.web.http.post(SERVER_SESSIONS_PATH, json=body, headers=game.headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
