"""Fast handlers, direct handlers, and Quart behind Hypercorn give the same answers; and what those answers are."""

from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from scoreboard.domain.errors import Code, FieldError, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import (
    UNSTORABLE_ACTION,
    Duplicate,
    Outcome,
    Recorded,
    cooling_down,
    out_of_service,
    too_many_actions,
)
from scoreboard.storage.board_cache import Standing
from scoreboard.web.problems import error_response
from tests.operations.people import database_url
from tests.web.requests import request
from tests.web.site import SNAPSHOT, WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

BOARD, ACTION = "/api/v1/scores/leaderboard", "/api/v1/scores/action"
RECORDED = Recorded(UUID(int=7), 1500, 100, 1600, 5, 1_768_041_000_000)


async def ask(server: WebServer, method: str, path: str, **request: Any) -> httpx.Response:
    """Asks the three servers; the answer, once it is known to be the same."""
    assert len(server.other_handlers) == 2
    request["headers"] = {"x-request-id": "same"} | request.get("headers", {})
    answers = [await handler.request(method, path, **request) for handler in (server.http, *server.other_handlers)]
    first, *others = (
        (
            answer.status_code,
            answer.content,
            sorted((name.lower(), value) for name, value in answer.headers.multi_items() if name.lower() != "date"),
        )
        for answer in answers
    )
    for other in others:
        assert other == first
    return answers[0]


def code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["success"] is False
    assert body["status"] == answer.status_code
    assert body["requestId"] == answer.headers["x-request-id"] == "same"
    return answer.status_code, body["code"]


async def test_the_board_is_read_alike(database_url: str, redis_url: str) -> None:
    """With limits good and bad, with and without a token, conditionally, as HEAD."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        server.own_place = Standing(3200, 42)
        token = {"authorization": f"Bearer {mine['accessToken']}"}

        plain = await ask(server, "GET", BOARD)
        assert plain.status_code == 200
        assert plain.headers["last-modified"] == "Sat, 10 Jan 2026 10:30:01 GMT"
        assert len(plain.json()["data"]["leaderboard"]) == 10
        assert len((await ask(server, "GET", f"{BOARD}?limit=12")).json()["data"]["leaderboard"]) == 12
        assert code(await ask(server, "GET", f"{BOARD}?limit=abc")) == (400, "INVALID_REQUEST")
        assert code(await ask(server, "GET", f"{BOARD}?limit=1&limit=1")) == (400, "INVALID_REQUEST")

        own = await ask(server, "GET", BOARD, headers=token)
        assert own.json()["data"]["currentUser"] == {"rank": 42, "score": 3200}
        assert own.headers["cache-control"] == "private, no-cache"
        assert own.headers["etag"] != plain.headers["etag"]

        for headers, first in (({}, plain), (token, own)):
            current = await ask(
                server, "GET", BOARD, headers=headers | {"if-none-match": f'"x", W/{first.headers["etag"]}'}
            )
            assert (current.status_code, current.content) == (304, b"")
            assert current.headers["etag"] == first.headers["etag"]
            assert "content-length" not in current.headers
        assert (await ask(server, "GET", BOARD, headers={"if-none-match": '"x"'})).status_code == 200
        assert server.cached_reads == 4  # valid requests without a token: plain, limit=12, two with If-None-Match

        head = await ask(server, "HEAD", BOARD)
        assert (head.status_code, head.content, head.headers["content-length"]) == (
            200,
            b"",
            plain.headers["content-length"],
        )

        server.board = msgspec.structs.replace(SNAPSHOT, stale=True)
        assert (await ask(server, "GET", BOARD)).json()["data"]["stale"] is True
        server.board = StorageUnavailable("redis", "neither store")
        away = await ask(server, "GET", BOARD)
        assert code(away) == (503, "SERVICE_UNAVAILABLE")
        assert int(away.headers["retry-after"]) >= 1
        assert "neither" not in away.text


@pytest.mark.parametrize(
    "authorization",
    ["Bearer x", "Bearer", "bearer", "a.b.c", "=", "Bearer a.b.c", "Bearer " + "x" * 10_000, "Bearer \xe9"],
)
async def test_a_bad_token_is_refused_even_where_none_is_needed(
    database_url: str, redis_url: str, authorization: str
) -> None:
    """A client must notice that its log-in has ended."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        headers = {"authorization": authorization.encode("latin-1")}
        answer = await ask(server, "GET", BOARD, headers=headers)
        assert code(answer) == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert code(await ask(server, "POST", ACTION, headers=headers, json={})) == (401, "UNAUTHORIZED")
        assert server.submitted == []


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Digest username=x", "Negotiate", "x", "DPoP a.b.c"])
async def test_other_schemes_are_ignored(database_url: str, redis_url: str, authorization: str) -> None:
    """A staging proxy's password comes with every request: reads work as without it, an action still needs a token."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        answer = await ask(server, "GET", BOARD, headers={"authorization": authorization})
        assert answer.status_code == 200
        assert "currentUser" not in answer.json()["data"]
        assert code(await ask(server, "POST", ACTION, headers={"authorization": authorization}, json={})) == (
            401,
            "UNAUTHORIZED",
        )
        two = [
            ("authorization", authorization),
            ("authorization", f"Bearer {mine['accessToken']}"),
            ("x-request-id", "same"),
        ]
        assert code(await server.http.get(BOARD, headers=two)) == (401, "UNAUTHORIZED")


async def test_if_modified_since_is_enough(database_url: str, redis_url: str) -> None:
    """304 for the second that Last-Modified named and for later ones, in each form of a date; an ETag that is named
    counts alone."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        first = await ask(server, "GET", BOARD)
        assert first.headers["last-modified"] == "Sat, 10 Jan 2026 10:30:01 GMT"
        for date, status in (
            ("Sat, 10 Jan 2026 10:30:01 GMT", 304),
            ("Sat, 10 Jan 2026 10:30:02 GMT", 304),
            ("Saturday, 10-Jan-26 10:30:01 GMT", 304),
            ("Sat Jan 10 10:30:01 2026", 304),
            ("Sat, 10 Jan 2026 10:30:00 GMT", 200),
            ("Sat Jan 10 10:30:00 2026", 200),
            ("", 200),
            ("yesterday", 200),
            ("Sat, 99 Jan 2026 10:30:01 GMT", 200),
            ("Sat, 10 Jan 99999 10:30:01 GMT", 200),
            ("1" * 10_000, 200),
        ):
            answer = await ask(server, "GET", BOARD, headers={"if-modified-since": date})
            assert answer.status_code == status, date
            if status == 304:
                assert (answer.content, answer.headers["etag"]) == (b"", first.headers["etag"])
        both = {"if-modified-since": "Sat, 10 Jan 2026 10:30:01 GMT", "if-none-match": '"x"'}
        assert (await ask(server, "GET", BOARD, headers=both)).status_code == 200


async def test_no_date_is_sent_that_could_hide_a_change(database_url: str, redis_url: str) -> None:
    """Last-Modified is that of the first ten rows, once its second is over. Longer boards, and those with the caller's
    own place, have none."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        server.own_place = Standing(3200, 42)
        late = {"if-modified-since": "Tue, 19 Jan 2038 03:14:07 GMT"}

        async def is_undated(url: str = BOARD, headers: dict[str, str] | None = None) -> bool:
            answer = await ask(server, "GET", url, headers=late | (headers or {}))
            return answer.status_code == 200 and "last-modified" not in answer.headers

        assert (await ask(server, "GET", BOARD, headers=late)).status_code == 304
        assert await is_undated(f"{BOARD}?limit=11")
        assert await is_undated(headers={"authorization": f"Bearer {mine['accessToken']}"})
        server.board = msgspec.structs.replace(SNAPSHOT, last_modified=0)
        assert await is_undated()


UNKNOWN = [
    ("GET", f"{BOARD}?limt=3", "limt"),
    ("GET", f"{BOARD}?limit=3&_=1", "_"),
    ("GET", f"{BOARD}?limit=3&limit=4&period=day", "period"),
    ("GET", f"{BOARD}?LIMIT=3", "LIMIT"),
    ("GET", f"{BOARD}?%6cimt", "limt"),
    ("GET", f"{BOARD}?{'x' * 200}=1", "x" * 50),
    ("GET", f"{BOARD}?a%00%0ab=1", "a??b"),
    ("GET", "/api/v1/users/me?fields=all", "fields"),
    ("POST", "/api/v1/auth/login?next=/", "next"),
    ("POST", f"{ACTION}?dry=1", "dry"),
    ("GET", "/api/v1/openapi.json?v=2", "v"),
]


async def test_an_unknown_parameter_is_named(database_url: str, redis_url: str) -> None:
    """400 on every route of the API, before the handler is called. Escapes in the name are decoded; a name that can't
    be printed is left out."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        for method, path, name in UNKNOWN:
            answer = await ask(server, method, path, json={} if method == "POST" else None)
            assert code(answer) == (400, "INVALID_REQUEST"), path
            assert answer.json()["errors"] == [{"field": name, "message": "is not known here"}]
        for path in ("/api/v1/users/me", "/api/v1/openapi.json", BOARD):
            for query in ("&".join(["a=1"] * 17), "a" * 1025):
                answer = await ask(server, "GET", f"{path}?{query}")
                assert code(answer) == (400, "INVALID_REQUEST"), path
                assert answer.json()["errors"] == [
                    {"field": "query", "message": "must have at most 1024 bytes and 16 fields"}
                ]
        for path in ("/api/v1/nowhere", "/api/v1/scores/leaderboar%64", "/api/v2/scores/poll", "/api/"):
            # the path is wrong, not the parameter
            assert (await ask(server, "GET", f"{path}?since=0")).status_code == 404, path
        assert server.submitted == []
        assert (await server.http.get(f"{BOARD}?%6cimit=3")).status_code == 200
        assert (await server.http.get("/?utm_source=x")).status_code == 200


async def test_an_action_is_passed_on_as_it_came(database_url: str, redis_url: str) -> None:
    """The raw body, the signature, the request id, and the token's user."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        server.outcome = RECORDED
        body = b'{"actionId" :"\xc3\xa9"}'
        headers = {
            "authorization": f"BEARER {mine['accessToken']}",
            "x-action-signature": "v1.ab",
            "content-type": "Application/JSON; charset=utf-8",
        }
        answer = await ask(server, "POST", ACTION, headers=headers, content=body)
        assert answer.json() == {
            "success": True,
            "data": {
                "userId": str(UUID(int=7)),
                "previousScore": 1500,
                "pointsAwarded": 100,
                "newScore": 1600,
                "newRank": 5,
                "timestamp": "2026-01-10T10:30:00.000Z",
            },
        }
        assert len(server.submitted) == 3
        for identity, signature, raw, request_id in server.submitted:
            assert (str(identity.user), signature, raw, request_id) == (mine["userId"], "v1.ab", body, "same")


OUTCOMES: list[tuple[Outcome | Exception, int, str, dict[str, Any]]] = [
    (Refusal(Code.INVALID_SIGNATURE, "no"), 403, "INVALID_SIGNATURE", {}),
    (
        UNSTORABLE_ACTION,
        400,
        "INVALID_ACTION",
        {"errors": [{"field": "metadata", "message": "holds a value that cannot be stored"}]},
    ),
    (
        Refusal(Code.INVALID_ACTION, "x", (FieldError("a", "b"),)),
        400,
        "INVALID_ACTION",
        {"errors": [{"field": "a", "message": "b"}]},
    ),
    (too_many_actions(13_400), 429, "RATE_LIMITED", {"layer": "user", "retry-after": "14"}),
    (cooling_down(1), 429, "RATE_LIMITED", {"layer": "cooldown", "retry-after": "1"}),
    (out_of_service("Too busy."), 503, "SERVICE_UNAVAILABLE", {"retry-after": "1"}),
    (StorageUnavailable("postgresql", "secret"), 503, "SERVICE_UNAVAILABLE", {"retry-after": "1"}),
    (ValueError("secret"), 500, "INTERNAL", {}),
    (Duplicate(None), 409, "DUPLICATE_ACTION", {}),
]


async def test_every_outcome_has_its_answer(database_url: str, redis_url: str) -> None:
    """The specification's six, the 503, and a bug: never a trace of the cause."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        headers = {"authorization": f"Bearer {mine['accessToken']}"}
        for outcome, status, name, more in OUTCOMES:
            server.outcome = outcome
            answer = await ask(server, "POST", ACTION, headers=headers, json={})
            assert code(answer) == (status, name)
            found = answer.json() | dict(answer.headers)
            assert {key: found.get(key) for key in more} == more
            assert "secret" not in answer.text
            assert "data" not in answer.json()
            assert "idempotency-replayed" not in answer.headers


async def test_a_repeated_action_gets_its_original_outcome(database_url: str, redis_url: str) -> None:
    """409 with the data of the first time, and a header that says so."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        server.outcome = Duplicate(msgspec.structs.replace(RECORDED, rank=None))
        answer = await ask(server, "POST", ACTION, headers={"authorization": f"Bearer {mine['accessToken']}"}, json={})
        assert code(answer) == (409, "DUPLICATE_ACTION")
        assert answer.headers["idempotency-replayed"] == "true"
        assert (answer.json()["data"]["newScore"], answer.json()["data"]["newRank"]) == (1600, None)


async def test_only_json_is_read(database_url: str, redis_url: str) -> None:
    """415 for another Content-Type; a body without one is read as JSON."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        mine = await server.register()
        server.outcome = RECORDED
        headers = {"authorization": f"Bearer {mine['accessToken']}"}
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json+x"):
            assert code(await ask(server, "POST", ACTION, headers=headers | {"content-type": kind}, content=b"{}")) == (
                415,
                "UNSUPPORTED_MEDIA_TYPE",
            )
        assert server.submitted == []
        assert (await ask(server, "POST", ACTION, headers=headers, content=b"{}")).status_code == 200


async def test_other_methods_and_paths_are_refused_alike(database_url: str, redis_url: str) -> None:
    """405 names the allowed methods, 404 is JSON too, 413 comes before any handler is called."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        wrong = await ask(server, "DELETE", BOARD)
        assert code(wrong) == (405, "METHOD_NOT_ALLOWED")
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert code(await ask(server, "GET", ACTION)) == (405, "METHOD_NOT_ALLOWED")
        for path in (
            "/api/v1/scores",
            "/api/v1/scores/leaderboard/",
            "/api/v2/scores/leaderboard",
            "/%00",
            "/..%2f..%2fetc/passwd",
        ):
            assert code(await ask(server, "GET", path)) == (404, "NOT_FOUND")
        for handler in (server.http, *server.other_handlers):
            assert (await handler.post(ACTION, content=b"x" * 16_385)).status_code == 413


def test_a_bug_is_logged_with_its_cause_and_told_to_nobody() -> None:
    """The log has the exception under the request id; the answer has that id, and nothing of the cause."""
    asked = request((b"x-request-id", b"mine"))
    with capture_logs() as logged:
        answer = error_response(asked, ValueError("a secret cause"))
    (line,) = logged
    assert (line["event"], line["request_id"], line["log_level"]) == ("request_failed", "mine", "error")
    assert str(line["exc_info"]) == "a secret cause"
    assert (answer.status, b"mine" in answer.body, b"secret" in answer.body) == (500, True, False)
