"""Starts, evidence and held actions over HTTP: who may, what is refused, what a page of the list has."""

from hashlib import sha256
from typing import Any

import pytest

from scoreboard.domain.actions import MAX_EVIDENCE_BYTES
from scoreboard.domain.conditions import HeldStatus
from scoreboard.domain.outcomes import Held
from tests.web.site import WebServer, serve_web

ACTIONS = """
[race]
title = "Race"
points = 1
started = { expires = 60 }
[plain]
title = "Plain"
points = 1
"""
START, HELD, EVIDENCE = "/api/v1/actions/start", "/api/v1/users/me/held", "/api/v1/actions/evidence/"
BLOB = b"r" * MAX_EVIDENCE_BYTES
DIGEST = sha256(BLOB).hexdigest()


async def authorization(server: WebServer, name: str = "Ada") -> dict[str, str]:
    return {"authorization": f"Bearer {(await server.register(name))['accessToken']}"}


async def test_every_route_wants_a_token(database_url: str, redis_url: str) -> None:
    """401 without one, and with one that is none; a large body is not even read."""
    async with serve_web(database_url, redis_url, actions=ACTIONS) as server:
        for headers in ({}, {"authorization": "Bearer x.y.z"}):
            for answer in (
                await server.http.post(START, json={"actionType": "race"}, headers=headers),
                await server.http.get(HELD, headers=headers),
                await server.http.put(EVIDENCE + DIGEST, content=BLOB[:100], headers=headers),
                await server.http.put(EVIDENCE + DIGEST, content=BLOB, headers=headers),
            ):
                assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


async def test_a_start_has_an_id_and_an_end(database_url: str, redis_url: str) -> None:
    """201; a type without starts and every bad body are 400, as JSON."""
    async with serve_web(database_url, redis_url, actions=ACTIONS) as server:
        headers = await authorization(server)
        answer = await server.http.post(START, json={"actionType": "race"}, headers=headers)
        assert answer.status_code == 201
        assert set(answer.json()["data"]) == {"startId", "expiresAt"}
        assert answer.headers["cache-control"] == "no-store"
        for body in (b"", b"{}", b"[]", b'{"actionType": 5}', b'{"actionType": "plain"}', b'{"actionType": ""}'):
            refused = await server.http.post(
                START, content=body, headers=headers | {"content-type": "application/json"}
            )
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST"), body
        assert (await server.http.get(START, headers=headers)).status_code == 405


async def test_evidence_of_256_kib_and_not_a_byte_more(database_url: str, redis_url: str) -> None:
    """204, again too; 413 above; a wrong hash, an empty body and a bad path are refused."""
    async with serve_web(database_url, redis_url, actions=ACTIONS) as server:
        headers = await authorization(server)
        for _ in range(2):
            answer = await server.http.put(EVIDENCE + DIGEST, content=BLOB, headers=headers)
            assert (answer.status_code, answer.content) == (204, b"")
        assert await server.people.stores.fetchval("SELECT count(*) FROM evidence") == 1
        for path, body, status in (
            (DIGEST, BLOB + b"r", 413),
            (DIGEST, BLOB * 4, 413),
            (DIGEST, b"r", 400),
            (DIGEST, b"", 400),
            (DIGEST.upper(), BLOB, 400),
            ("..%2f" + DIGEST, BLOB[:100], 404),
            (DIGEST + "/x", BLOB[:100], 404),
        ):
            refused = await server.http.put(EVIDENCE + path, content=body, headers=headers)
            assert refused.status_code == status, (path, len(body), refused.text)
        assert await server.people.stores.fetchval("SELECT count(*) FROM evidence") == 1


async def test_ones_own_held_actions_page_by_page(database_url: str, redis_url: str) -> None:
    """Newest first, nobody else's, without who decided; bad cursors and limits are 400."""
    async with serve_web(database_url, redis_url, actions=ACTIONS) as server:
        ada, eve = await authorization(server), await authorization(server, "Eve")
        me = (await server.http.get("/api/v1/users/me", headers=ada)).json()["data"]["userId"]
        await server.people.stores.execute(
            "INSERT INTO held_actions (user_id, action_id, action_type, points, timestamp_ms, signature, body_sha256, "
            "evidence_sha256, evidence_size, expires_at, undecided, retention_days) "
            "SELECT $1, n::text, 'race', 5, 1, 's', '', CASE WHEN n = 3 THEN decode($2, 'hex') END, "
            "CASE WHEN n = 3 THEN $3::int END, now(), 'refuse', 1 FROM generate_series(1, 3) n ORDER BY n",
            me,
            DIGEST,
            len(BLOB),
        )
        await server.people.stores.execute(
            "UPDATE held_actions SET status = 'refused', decided_at = now(), decided_by = 'x', reason = 'why' "
            "WHERE action_id = '2'"
        )

        async def page(query: str) -> Any:
            return (await server.http.get(HELD + query, headers=ada)).json()["data"]

        first = await page("?limit=2")
        rest = await page(f"?limit=2&cursor={first['next']}")
        assert [row["actionId"] for row in first["held"] + rest["held"]] == ["3", "2", "1"]
        assert rest["next"] is None
        assert first["held"][0]["evidence"] == {"sha256": DIGEST, "size": len(BLOB), "uploaded": False}
        refused = first["held"][1]
        assert (refused["status"], refused["reason"], refused["evidence"]) == ("refused", "why", None)
        assert refused["decidedAt"] is not None
        assert "decidedBy" not in refused
        await server.http.put(EVIDENCE + DIGEST, content=BLOB, headers=eve)
        assert (await page("?limit=1"))["held"][0]["evidence"]["uploaded"] is False
        await server.http.put(EVIDENCE + DIGEST, content=BLOB, headers=ada)
        assert (await page("?limit=1"))["held"][0]["evidence"]["uploaded"] is True
        assert (await server.http.get(HELD, headers=eve)).json()["data"] == {"held": [], "next": None}
        for query in ("?limit=0", "?limit=101", "?cursor=x", "?cursor=-1", f"?cursor={'9' * 30}", "?cursor=1&cursor=2"):
            assert (await server.http.get(HELD + query, headers=ada)).status_code == 400, query


@pytest.mark.parametrize("status", list(HeldStatus))
async def test_a_held_action_is_202(database_url: str, redis_url: str, status: HeldStatus) -> None:
    """From every kind of handler, with its state."""
    async with serve_web(database_url, redis_url, actions=ACTIONS, all_handlers=True) as server:
        headers = await authorization(server)
        user = await server.people.stores.fetchval("SELECT id FROM users")
        server.outcome = Held(user, "a", "race", 5, status, 1_768_041_000_000, 1_768_041_001_000, "why")
        for client in (server.http, *server.other_handlers):
            answer = await client.post("/api/v1/scores/action", content=b"{}", headers=headers)
            assert answer.status_code == 202
            assert answer.json() == {
                "success": True,
                "data": {
                    "actionId": "a",
                    "actionType": "race",
                    "status": status,
                    "points": 5,
                    "heldAt": "2026-01-10T10:30:00.000Z",
                    "expiresAt": "2026-01-10T10:30:01.000Z",
                    "reason": "why",
                },
            }
