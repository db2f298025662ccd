"""Two users on every route that needs a token or names a user: one tries to read or act for the other, on a whole node.

Made from the table of routes. A route that ATTACKS does not have fails the first test, with a sentence that says what
to add. After each attack every row of the database that is the victim's is what it was, and no answer has had anything
of the victim's that the attack did not name itself. Anonymous requests and server keys are tried on the same table.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import trio

from scoreboard.domain.roles import Role
from scoreboard.domain.scopes import Scope
from scoreboard.operations.admin.server_keys import NewKey, create_key
from scoreboard.web.headers import METHODS
from scoreboard.web.route import Route
from tests.e2e.server_processes import Client, register, watching
from tests.web.test_worst_inputs import USER as NOBODY
from tests.websockets import open_websocket
from tests.whole_node import WholeNode, whole_node

PASSWORD = "a long password"  # of everybody that `register` makes
VICTIMS_PASSWORD = "another long password"
SEALED_SECONDS = 20.0  # bounds a hang; it takes about one
BLOB = b"a replay"
SHA256 = hashlib.sha256(BLOB).hexdigest()


@dataclass(frozen=True)
class Victim:
    """A user who has something of everything."""

    client: Client
    session_ids: tuple[str, ...]
    private: tuple[str, ...]  # texts that nobody else may be told
    action_body: bytes
    action_id: str
    start_id: str

    @property
    def user(self) -> str:
        return self.client.user


@dataclass(frozen=True)
class Attack:
    """One request of an attacker, and the statuses that are right: a refusal, or an answer about the attacker."""

    path: str
    statuses: tuple[int, ...]
    json: Any = None
    content: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


Attacks = Callable[[Client, Victim], list[Attack]]


def _own(path: str, *statuses: int, **body: Any) -> Attacks:
    """A route that names no user: the attacker sends its own request, and the same with the victim's id in the body."""

    def attacks(_attacker: Client, victim: Victim) -> list[Attack]:
        named = [Attack(path, (400,), body | {"userId": victim.user}), Attack(path, statuses, body)] if body else []
        return named or [Attack(path, statuses)]

    return attacks


def _submissions(attacker: Client, victim: Victim) -> list[Attack]:
    path = "/api/v1/scores/action"

    def signed(body: bytes, *statuses: int, by: Client = attacker) -> Attack:
        headers = by.signing.headers(body) | {"authorization": attacker.authorization["authorization"]}
        return Attack(path, statuses, content=body, headers=tuple(headers.items()))

    return [
        signed(attacker.body(userId=victim.user), 403),
        signed(victim.action_body, 403, by=victim.client),  # a recorded request, under another token
        signed(victim.client.body(), 403, by=victim.client),
        signed(attacker.body(actionId=victim.action_id), 200),  # ids are each user's own
        signed(attacker.body(actionType="riddle_solve", metadata=None, startId=victim.start_id), 400),
        signed(
            attacker.body(actionType="record_claim", metadata=None, evidence={"sha256": SHA256, "size": len(BLOB)}), 202
        ),
    ]


ATTACKS: dict[str, Attacks] = {
    "POST /api/v1/auth/link": lambda _, victim: [
        Attack(
            "/api/v1/auth/link",
            (400,),
            {"email": "a@example.org", "password": PASSWORD, "userId": victim.user},
        ),
        Attack("/api/v1/auth/link", (403, 409), {"email": f"{uuid4().hex}@example.org", "password": PASSWORD}),
    ],
    "POST /api/v1/auth/logout": _own("/api/v1/auth/logout", 204),
    "POST /api/v1/auth/refresh": lambda attacker, victim: [
        Attack(
            "/api/v1/auth/refresh",
            (401,),
            {"refreshToken": attacker.session["refreshToken"], "userId": victim.user},
        ),
        Attack("/api/v1/auth/refresh", (401,), {"refreshToken": "x" * 86, "userId": victim.user}),
    ],
    "GET /api/v1/users/me": _own("/api/v1/users/me", 200),
    "PATCH /api/v1/users/me": lambda _, victim: [
        Attack("/api/v1/users/me", (400,), {"userId": victim.user, "avatarUrl": "https://a.example/a.png"}),
        Attack("/api/v1/users/me", (409,), {"username": str(victim.client.session["username"])}),
    ],
    "DELETE /api/v1/users/me": lambda _, victim: [
        Attack("/api/v1/users/me", (400,), {"userId": victim.user, "password": VICTIMS_PASSWORD}),
        Attack("/api/v1/users/me", (400,), {"password": VICTIMS_PASSWORD}),
        Attack("/api/v1/users/me", (204,), {"password": PASSWORD}),
    ],
    "POST /api/v1/users/me/password": lambda _, victim: [
        Attack(
            "/api/v1/users/me/password",
            (400,),
            {"userId": victim.user, "currentPassword": VICTIMS_PASSWORD, "newPassword": "a new password"},
        ),
        Attack(
            "/api/v1/users/me/password",
            (400,),
            {"currentPassword": VICTIMS_PASSWORD, "newPassword": "a new password"},
        ),
    ],
    "GET /api/v1/users/me/sessions": lambda _, victim: [
        Attack("/api/v1/users/me/sessions", (200,)),
        *(Attack(f"/api/v1/users/me/sessions?cursor={sid}", (200, 400)) for sid in victim.session_ids),
    ],
    "DELETE /api/v1/users/me/sessions": _own("/api/v1/users/me/sessions", 204),
    "DELETE /api/v1/users/me/sessions/<session>": lambda _, victim: [
        Attack(f"/api/v1/users/me/sessions/{sid}", (404,)) for sid in victim.session_ids
    ],
    "GET /api/v1/users/me/actions": _own("/api/v1/users/me/actions", 200),
    "GET /api/v1/users/me/export": _own("/api/v1/users/me/export", 200),
    "GET /api/v1/users/me/held": lambda *_: [
        Attack(f"/api/v1/users/me/held{cursor}", (200,)) for cursor in ("", "?cursor=999999", "?cursor=2")
    ],
    "POST /api/v1/actions/start": _own("/api/v1/actions/start", 201, actionType="riddle_solve"),
    # a blob is stored for whoever uploads it, so the same bytes of two users are two rows
    "PUT /api/v1/actions/evidence/<sha256>": lambda *_: [
        Attack(f"/api/v1/actions/evidence/{SHA256}", (204,), content=BLOB),
        Attack(f"/api/v1/actions/evidence/{SHA256}", (400,), content=b"forged"),
    ],
    "POST /api/v1/scores/action": _submissions,
    "GET /api/v1/scores/leaderboard": _own("/api/v1/scores/leaderboard", 200),
    "GET /api/v1/scores/stream": lambda _, victim: [
        Attack(f"/api/v1/scores/stream?channel={channel}:{victim.user}", (400, 404)) for channel in ("score", "user")
    ],
    "GET /api/v1/scores/poll": lambda _, victim: [
        Attack(f"/api/v1/scores/poll?wait=0&channel={channel}:{victim.user}", (400, 404))
        for channel in ("score", "user")
    ],
    "GET /api/v1/scores/live": _own("/api/v1/scores/live", 426),  # WebSockets have a test of their own below
    # public by design: whoever knows both ids is told what the board shows, and never the metadata
    "GET /api/v1/audit/proof": lambda _, victim: [
        Attack(f"/api/v1/audit/proof?userId={victim.user}&actionId={victim.action_id}", (200, 404))
    ],
    "GET /avatars/<user>": lambda _, victim: [Attack(f"/avatars/{victim.user}", (404,))],  # public, and there is none
    "GET /api/v1/auth/oidc/<name>": lambda _, victim: [Attack(f"/api/v1/auth/oidc/{victim.user}", (404,))],
    "GET /api/v1/auth/oidc/<name>/callback": lambda _, victim: [
        Attack(f"/api/v1/auth/oidc/{victim.user}/callback?code=a&state=b", (404,))
    ],
}
PROVEN_ELSEWHERE = {
    "GET /static/<path:name>": "files of the page are nobody's",
}


def key_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def names_a_user(route: Route) -> bool:
    """Whether a request says by a path, a body or a query whom it is about."""
    types = (route.request_type, route.query_type)
    fields = {field.encode_name for kind in types if kind for field in msgspec.structs.fields(kind)}
    return "<" in route.path or bool(fields & {"userId", "user", "externalId"})


def attacked(node: WholeNode) -> list[Route]:
    """Every route that needs a token or names a user, and takes users' tokens or nobody's."""
    routes = [route for route in node.routes if route.auth != "none" or names_a_user(route)]
    return [
        route for route in routes if not isinstance(route.auth, Role | Scope) and key_of(route) not in PROVEN_ELSEWHERE
    ]


def guarded(node: WholeNode) -> list[Route]:
    """Every route that needs a role or a server key."""
    return [route for route in node.routes if isinstance(route.auth, Role | Scope)]


def filled(route: Route, **values: str) -> str:
    """The route's path with these parameters; others are 1."""
    parts = [part if not part.startswith("<") else values.get(part.strip("<>"), "1") for part in route.path.split("/")]
    return "/".join(parts)


@asynccontextmanager
async def at_a_node(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[WholeNode]:
    async with whole_node(database_url, redis_url, folder) as node:
        yield node


async def make_victim(node: WholeNode) -> Victim:
    """Registers a user who acts, claims a record, starts a riddle, and logs in twice."""
    name = f"victim-{uuid4().hex[:12]}"
    body = {"username": name, "email": f"{name}@example.org", "password": VICTIMS_PASSWORD}
    data = (await node.http.post("/api/v1/auth/register", json=body)).json()["data"]
    client = Client(node.http, data)
    again = (await node.http.post("/api/v1/auth/login", json={"username": name, "password": VICTIMS_PASSWORD})).json()[
        "data"
    ]
    action = client.body()
    assert (await client.act(action)).status_code == HTTPStatus.OK
    evidence = {"sha256": SHA256, "size": len(BLOB)}
    held = client.body(actionType="record_claim", metadata=None, evidence=evidence)
    assert (await client.act(held)).status_code == HTTPStatus.ACCEPTED
    uploaded = await node.http.put(f"/api/v1/actions/evidence/{SHA256}", content=BLOB, headers=client.authorization)
    assert uploaded.status_code == HTTPStatus.NO_CONTENT
    start = await node.http.post(
        "/api/v1/actions/start", json={"actionType": "riddle_solve"}, headers=client.authorization
    )
    start_id = start.json()["data"]["startId"]
    listed = (await node.http.get("/api/v1/users/me/sessions", headers=client.authorization)).json()["data"]["sessions"]
    sessions = tuple(session["id"] for session in listed)
    action_id = json.loads(action)["actionId"]
    secret = ("accessToken", "refreshToken", "actionSecret")
    private = (
        *(each[name] for each in (data, again) for name in secret),
        *(body["email"], VICTIMS_PASSWORD, SHA256, start_id, action_id, json.loads(held)["actionId"]),
        *sessions,
    )
    assert len(sessions) == 2
    with trio.fail_after(SEALED_SECONDS):  # what seals the action into the log writes a row of the user
        while await _is_unsealed(node, client.user, action_id):
            await trio.sleep(0.05)
    return Victim(client, sessions, private, action, action_id, start_id)


async def _is_unsealed(node: WholeNode, user: str, action: str) -> bool:
    proof = await node.http.get("/api/v1/audit/proof", params={"userId": user, "actionId": action})
    return proof.status_code != HTTPStatus.OK


OWNED_SQL = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND (column_name = 'user_id' OR (table_name = 'users' AND column_name = 'id'))
  AND table_name NOT IN ('commits')
ORDER BY 1"""
IDLE_TABLES = 4  # at least so many have rows of the victim: users, credentials, sessions, scores


async def rows_of(node: WholeNode, user: str) -> dict[str, str]:
    """Everything that the database has of a user: a table with a column `user_id` is found by itself."""
    found = {}
    for table, column in await node.stores.fetch(OWNED_SQL):
        rows = f"SELECT coalesce(string_agg(t::text, '|' ORDER BY t::text), '') FROM {table} t WHERE {column} = $1"
        found[table] = await node.stores.fetchval(rows, user)
    assert sum(bool(text) for text in found.values()) > IDLE_TABLES, found
    return found


async def send(node: WholeNode, route: Route, attack: Attack, attacker: Client, victim: Victim) -> httpx.Response:
    """Sends an attack, with all that a careless server might take for a name of the victim."""
    headers = {
        "authorization": attacker.authorization["authorization"],
        "x-user-id": victim.user,
        "x-forwarded-user": victim.user,
        "cookie": f"userId={victim.user}; user={victim.user}",
    } | dict(attack.headers)
    return await node.http.request(route.method, attack.path, json=attack.json, content=attack.content, headers=headers)


async def test_every_route_has_an_attack(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A new route is attacked, or says why there is nothing to attack. Nothing is attacked that is no route."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        routes = {key_of(route) for route in attacked(node)}
        unknown = sorted(routes - set(ATTACKS))
        assert unknown == [], (
            f"{unknown}: add to ATTACKS in {Path(__file__).name} how one user would use this route for another one: "
            "path, body, and the statuses that are right"
        )
        assert sorted(set(ATTACKS) - routes) == [], "these are no routes any more: take them out of ATTACKS"
        allowed = METHODS.decode().strip().partition(": ")[2].split(", ")
        assert {route.method for route in node.routes} <= set(allowed)


async def test_nobody_reads_or_acts_for_another_user(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """On every route: the answer has nothing of the victim's, and nothing of the victim's has changed."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        victim = await make_victim(node)
        before = await rows_of(node, victim.user)
        for route in attacked(node):
            attacker = await register(node.http)
            attacks = ATTACKS[key_of(route)](attacker, victim)
            if "<" not in route.path and "userId" not in str(
                route.query_type and msgspec.structs.fields(route.query_type)
            ):
                attacks = [Attack(f"{route.path}?userId={victim.user}", (400, 401)), *attacks]
            for attack in attacks:
                answer = await send(node, route, attack, attacker, victim)
                what = (key_of(route), attack, answer.status_code, answer.text[:500])
                assert answer.status_code in attack.statuses, what
                told = f"{answer.headers} {answer.text}"
                sent = f"{attack}"
                leaked = [text for text in victim.private if text in told and text not in sent]
                assert leaked == [], what
            assert await rows_of(node, victim.user) == before, key_of(route)


async def test_a_token_is_no_role_and_no_server_key(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """On every route that needs one: 403 or 401, and nothing of anybody has changed."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        victim, attacker = await make_victim(node), await register(node.http)
        before = await rows_of(node, victim.user)
        for route in guarded(node):
            path = filled(route, user=victim.user, action=victim.action_id, external_id=victim.user)
            for body in ({}, {"userId": victim.user}, {"reason": "a", "role": "admin", "note": "a"}):
                attack = Attack(path, (403,) if isinstance(route.auth, Role) else (401,), body)
                answer = await send(node, route, attack, attacker, victim)
                assert answer.status_code in attack.statuses, (key_of(route), answer.text)
            assert await rows_of(node, victim.user) == before, key_of(route)


async def test_anonymous_requests_are_refused_where_somebody_is_needed(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """401 without a token, with a wrong one, with one in the query, and with a log-in by other schemes."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        user = await register(node.http)
        bearer = user.authorization["authorization"]
        wrong = [
            {},
            {"authorization": "Bearer"},
            {"authorization": bearer[:-4] + "AAAA"},
            {"authorization": bearer.removeprefix("Bearer ")},
            {"authorization": f"Basic {bearer.removeprefix('Bearer ')}"},
            {"authorization": "Bearer sbk_0000000000000000_x"},
            {"cookie": f"accessToken={user.token}; scoreboard_refresh={user.session['refreshToken']}"},
            {"x-user-id": user.user},
        ]
        needed = [route for route in node.routes if route.auth not in {"none", "optional"}]
        assert len(needed) > len(guarded(node)) > 10
        for route in needed:
            path = filled(route, user=user.user, sha256=SHA256, session=str(NOBODY), external_id="a")
            for headers in wrong:
                answer = await node.http.request(route.method, path, headers=headers, json={})
                assert answer.status_code == HTTPStatus.UNAUTHORIZED, (key_of(route), headers, answer.text)
                assert answer.json()["code"] == "UNAUTHORIZED"
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = await node.http.request(route.method, f"{path}?token={user.token}", json={})
            assert answer.status_code in {400, 401}, key_of(route)


async def test_a_server_key_of_other_scopes_opens_no_route(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """403 on routes of the scope that it lacks, 401 on routes of users and of roles."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        victim = await make_victim(node)
        before = await rows_of(node, victim.user)
        keys = {}
        for lacking in Scope:
            made = await create_key(
                node.stores, f"without {lacking}", [scope for scope in Scope if scope is not lacking]
            )
            assert isinstance(made, NewKey)
            keys[lacking] = made.key
        # keys are read every 1.5 s
        with trio.fail_after(20):
            while True:
                probe = await node.http.get(
                    "/api/v1/scores/leaderboard", headers={"authorization": f"Bearer {keys[Scope.SCORES]}"}
                )
                if probe.status_code == HTTPStatus.OK:
                    break
        for route in node.routes:
            if route.auth in {"none", "optional"}:
                continue
            lacking = route.auth if isinstance(route.auth, Scope) else Scope.READ
            status = HTTPStatus.FORBIDDEN if isinstance(route.auth, Scope) else HTTPStatus.UNAUTHORIZED
            path = filled(route, user=victim.user, external_id=victim.user, sha256=SHA256, session=str(NOBODY))
            answer = await node.http.request(
                route.method, path, headers={"authorization": f"Bearer {keys[lacking]}"}, json={}
            )
            assert answer.status_code == status, (key_of(route), answer.text)
        assert await rows_of(node, victim.user) == before


async def test_nobody_hears_what_another_user_is_told(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A WebSocket gets `score:personal` of its own user alone, takes no channel of another, and changes its user for
    no token of another."""
    async with at_a_node(database_url, redis_url, tmp_path) as node:
        victim, attacker = await make_victim(node), await register(node.http)
        async with (
            open_websocket(node.port, "/api/v1/scores/live") as socket,
            watching(socket, token=attacker.token) as viewer,
        ):
            await viewer.next_event("authenticated")
            for channel in (f"score:{victim.user}", f"user:{victim.user}", "score:personal"):
                await viewer.send(action="subscribe", channel=channel)
                assert (await viewer.next_event("error"))["code"] == "UNKNOWN_CHANNEL"
            assert (await victim.client.act()).status_code == HTTPStatus.OK
            assert (await attacker.act()).status_code == HTTPStatus.OK
            assert (await viewer.next_event("score:personal"))["newScore"] == 50
            await viewer.send(action="auth", token=victim.client.token)
            assert await viewer.close_code() == 4401
