"""A session over a transport with prepared answers, on a clock that jumps, on both loops."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from hmac import digest
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from scoreboard.client import ActionHeld, Credentials, Refused, Unreachable, clock
from tests.client.loops import on_both_loops

OUTCOME = {
    "userId": "u",
    "previousScore": 0,
    "pointsAwarded": 50,
    "newScore": 50,
    "newRank": 1,
    "timestamp": "2026-01-10T10:30:00.000Z",
}
Answer = httpx.Response | type[httpx.TransportError]


def recorded(status: int = 200) -> httpx.Response:
    return httpx.Response(status, json={"success": True, "data": OUTCOME})


def problem(status: int, code: str, **members: Any) -> httpx.Response:
    headers = {"retry-after": str(members.pop("wait"))} if "wait" in members else {}
    return httpx.Response(
        status, json={"success": False, "code": code, "detail": "No.", "requestId": "r-1", **members}, headers=headers
    )


def renewed(token: str, refresh: str, version: int = 1) -> httpx.Response:
    return httpx.Response(
        200,
        json={
            "success": True,
            "data": {
                "userId": "u",
                "username": "U",
                "accessToken": token,
                "actionSecret": "secret",
                "actionKeyVersion": version,
                "expiresIn": 900,
                "refreshToken": refresh,
            },
        },
    )


class Server:
    """Gives its answers one after the other, the last one for ever, and remembers what it was asked and when."""

    def __init__(self, *answers: Answer | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers, self.requests, self.times = list(answers), list[httpx.Request](), list[float]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(anyio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, type):
            raise answer("made up", request=request)
        return answer if isinstance(answer, httpx.Response) else answer(request)


@contextmanager
def session_with(
    client: ModuleType, server: Server, *, refresh: str = "", expires: float = 900, patience: float = 30
) -> Iterator[Any]:
    http = httpx.AsyncClient(base_url="http://scoreboard.test", transport=httpx.MockTransport(server))
    yield client.Session(
        http, Credentials("u", "token", "secret", 3, expiresIn=expires, refreshToken=refresh), patience=patience
    )


@on_both_loops(jumping=True)
async def test_an_action_is_signed(client: ModuleType) -> None:
    """The signature is the HMAC of the very bytes that were posted, under the named key version; the outcome is what
    the server told."""
    server = Server(recorded())
    with session_with(client, server) as session:
        outcome = await session.submit("task_finish", {"difficulty": "hard"})
    (request,) = server.requests
    body = json.loads(request.content)
    assert (body["actionType"], body["metadata"]) == ("task_finish", {"difficulty": "hard"})
    assert request.headers["x-action-signature"] == "v3." + digest(b"secret", request.content, sha256().name).hex()
    assert request.headers["authorization"] == "Bearer token"
    assert (outcome.newScore, outcome.newRank, outcome.replayed) == (50, 1, False)


@on_both_loops(jumping=True)
async def test_a_guest_is_linked_once_its_token_is_renewed(client: ModuleType) -> None:
    """A token that is due is refreshed before, under the lock that the link holds; the request has no signature, and
    the session goes on with the new credentials."""
    server = Server(renewed("second", "r2"), renewed("third", "r3"))
    with session_with(client, server, refresh="r1", expires=1) as session:
        await anyio.sleep(1)
        with anyio.fail_after(5):
            await session.link("ada@example.org", "a long password", "Ada")
        assert (session.credentials.accessToken, session.credentials.refreshToken) == ("third", "r3")
    assert [request.url.path for request in server.requests] == ["/api/v1/auth/refresh", "/api/v1/auth/link"]
    link = server.requests[1]
    assert link.headers["authorization"] == "Bearer second"
    assert "x-action-signature" not in link.headers
    account = {"email": "ada@example.org", "password": "a long password", "username": "Ada"}
    assert json.loads(link.content) == account


@pytest.mark.parametrize(
    "first",
    [httpx.ReadError, httpx.ConnectTimeout, httpx.RemoteProtocolError, problem(503, "SERVICE_UNAVAILABLE", wait=1)],
)
@on_both_loops(jumping=True)
async def test_an_action_without_an_answer_is_sent_again(client: ModuleType, first: Answer) -> None:
    """The same bytes go out again, so the same action id: what was recorded already comes back as replayed."""
    server = Server(first, recorded(409))
    with session_with(client, server) as session:
        outcome = await session.submit("task_finish")
    assert server.requests[0].content == server.requests[1].content
    assert server.requests[0].headers == server.requests[1].headers
    assert outcome.replayed
    assert outcome.newScore == 50


@on_both_loops(jumping=True)
async def test_an_action_may_have_a_start_and_evidence(client: ModuleType) -> None:
    """The start is asked for, the evidence is uploaded, and the signed action names both. Requests without an answer
    are sent again."""
    start = {"startId": "s-1", "expiresAt": "2026-01-10T10:31:00.000Z"}
    server = Server(
        httpx.Response(201, json={"success": True, "data": start}),
        httpx.ReadError,
        httpx.Response(204),
        recorded(),
    )
    with session_with(client, server) as session:
        started = await session.start("race")
        assert started == client.Started(**start)
        await session.submit("race", start_id=started.startId, evidence=b"replay")
    first, _, upload, action = server.requests
    assert (first.url.path, json.loads(first.content)) == ("/api/v1/actions/start", {"actionType": "race"})
    evidence = {"sha256": sha256(b"replay").hexdigest(), "size": 6}
    assert (upload.method, upload.url.path) == ("PUT", f"/api/v1/actions/evidence/{evidence['sha256']}")
    assert (upload.content, upload.headers["content-type"]) == (b"replay", "application/octet-stream")
    assert "x-action-signature" not in upload.headers
    body = json.loads(action.content)
    assert (body["startId"], body["evidence"]) == ("s-1", evidence)


@on_both_loops(jumping=True)
async def test_an_action_that_waits_is_an_error_of_its_own(client: ModuleType) -> None:
    """It is no outcome, since it has no points; and no refusal. Evidence that is refused is one."""
    held = {
        "actionId": "a",
        "actionType": "race",
        "status": "held",
        "points": 5,
        "heldAt": "2026-01-10T10:30:00.000Z",
        "expiresAt": "2026-01-17T10:30:00.000Z",
        "reason": None,
    }
    answer = httpx.Response(202, json={"success": True, "data": held})
    with session_with(client, Server(answer)) as session, pytest.raises(ActionHeld) as raised:
        await session.submit("race")
    assert (raised.value.action_id, raised.value.status, raised.value.points) == ("a", "held", 5)
    assert (raised.value.expires_at, raised.value.reason) == ("2026-01-17T10:30:00.000Z", None)
    server = Server(problem(413, "PAYLOAD_TOO_LARGE"))
    with session_with(client, server) as session, pytest.raises(Refused, match="PAYLOAD_TOO_LARGE"):
        await session.submit("race", evidence=b"replay")
    assert len(server.requests) == 1


@on_both_loops(jumping=True)
async def test_retry_after_is_honoured(client: ModuleType) -> None:
    """Nothing is sent again before `Retry-After` is over."""
    server = Server(
        problem(503, "SERVICE_UNAVAILABLE", wait=4), problem(503, "SERVICE_UNAVAILABLE", wait=4), recorded()
    )
    with session_with(client, server) as session:
        await session.submit("task_finish")
    assert all(after - before >= 4 for before, after in zip(server.times, server.times[1:], strict=False))


@on_both_loops(jumping=True)
async def test_patience_ends(client: ModuleType) -> None:
    """When nobody answers in time, the error carries the action's id; when somebody said 503 to the end, it is that
    refusal."""
    with session_with(client, Server(httpx.ConnectError), patience=20) as session:
        begun = anyio.current_time()
        with pytest.raises(Unreachable) as raised:
            await session.submit("task_finish", action_id="mine")
        assert raised.value.action_id == "mine"
        assert anyio.current_time() - begun <= 20
    with session_with(client, Server(problem(503, "SERVICE_UNAVAILABLE", wait=1)), patience=20) as session:
        with pytest.raises(Refused) as refused:
            await session.submit("task_finish")
        assert (refused.value.status, refused.value.retry_after) == (503, 1.0)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(429, "RATE_LIMITED", wait=17, layer="user"), "RATE_LIMITED"),
        (problem(400, "INVALID_ACTION", errors=[{"field": "metadata", "message": "is not"}]), "INVALID_ACTION"),
        (problem(403, "INVALID_SIGNATURE"), "INVALID_SIGNATURE"),
        (problem(409, "DUPLICATE_ACTION"), "DUPLICATE_ACTION"),
        (problem(500, "INTERNAL"), "INTERNAL"),
        (httpx.Response(418, text="<html>"), ""),
        (httpx.Response(200, text="<html>log in to this network"), ""),
        (httpx.Response(409, text="<html>"), ""),
    ],
)
@on_both_loops(jumping=True)
async def test_a_no_is_raised_and_not_repeated(client: ModuleType, answer: httpx.Response, code: str) -> None:
    """A refusal is raised with all members of the answer; nothing is sent twice."""
    server = Server(answer)
    with session_with(client, server) as session, pytest.raises(Refused) as raised:
        await session.submit("task_finish")
    assert len(server.requests) == 1
    assert (raised.value.status, raised.value.code) == (answer.status_code, code)
    if code == "RATE_LIMITED":
        assert (raised.value.layer, raised.value.retry_after) == ("user", 17.0)
    if code == "INVALID_ACTION":
        assert raised.value.errors == ({"field": "metadata", "message": "is not"},)


@on_both_loops(jumping=True)
async def test_a_token_is_renewed_before_it_ends(client: ModuleType) -> None:
    """Tasks that need one in its last minute share one refresh, and act with the new token and secret."""
    server = Server(recorded(), renewed("two", "r2"), recorded())
    with session_with(client, server, refresh="r1", expires=900) as session:
        await session.submit("task_finish")
        await anyio.sleep(841)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(session.submit, "task_finish")
    paths = [request.url.path for request in server.requests]
    assert paths == ["/api/v1/scores/action", "/api/v1/auth/refresh", *["/api/v1/scores/action"] * 3]
    assert {request.headers["authorization"] for request in server.requests[2:]} == {"Bearer two"}
    assert all(request.headers["x-action-signature"].startswith("v1.") for request in server.requests[2:])


@on_both_loops(jumping=True)
async def test_a_refused_token_is_renewed_once(client: ModuleType) -> None:
    """A 401 leads to one refresh and one more try; without a refresh token, or refused again, it is raised."""
    server = Server(problem(401, "UNAUTHORIZED"), renewed("two", "r2"), recorded())
    with session_with(client, server, refresh="r1") as session:
        assert (await session.submit("task_finish")).newScore == 50
    server = Server(problem(401, "UNAUTHORIZED"))
    with session_with(client, server) as session, pytest.raises(Refused):
        await session.submit("task_finish")
    assert len(server.requests) == 1


@on_both_loops(jumping=True)
async def test_an_action_whose_key_was_revoked_is_signed_anew(client: ModuleType) -> None:
    """One refresh brings the secret of another version; the action goes out once more under the same id. Refused
    again, it is raised."""
    server = Server(problem(403, "INVALID_SIGNATURE"), renewed("two", "r2", version=7), recorded())
    with session_with(client, server, refresh="r1") as session:
        assert (await session.submit("task_finish")).newScore == 50
    first, _, second = server.requests
    assert json.loads(first.content)["actionId"] == json.loads(second.content)["actionId"]
    assert first.headers["x-action-signature"].startswith("v3.")
    assert second.headers["x-action-signature"].startswith("v7.")
    refusal = problem(403, "INVALID_SIGNATURE")
    server = Server(refusal, renewed("two", "r2"), refusal)
    with session_with(client, server, refresh="r1") as session, pytest.raises(Refused):
        await session.submit("task_finish")
    assert len(server.requests) == 3


@on_both_loops(jumping=True)
async def test_a_session_without_a_refresh_token_never_renews(client: ModuleType) -> None:
    """Development tokens are used to their end."""
    server = Server(recorded())
    with session_with(client, server, expires=10) as session:
        await anyio.sleep(100)
        assert await session.token() == "token"
    assert not server.requests


@on_both_loops(jumping=True)
async def test_logging_out(client: ModuleType) -> None:
    """It is a request as the user; a 401 in return is raised."""
    server = Server(httpx.Response(204), problem(401, "UNAUTHORIZED"))
    with session_with(client, server) as session:
        await session.log_out()
        assert server.requests[0].headers["authorization"] == "Bearer token"
        with pytest.raises(Refused):
            await session.log_out()


def test_secrets_are_not_printed() -> None:
    """The repr of credentials contains the user's id and no secret."""
    assert repr(Credentials("u", "token", "secret", 1, refreshToken="r")) == "Credentials(u)"


# ---- the server's time ----------------------------------------------------------------------------------------------

BEHIND = 600  # seconds that the machine is late
UNTIMELY = {"errors": [{"field": "timestamp", "message": "must be at most 5 minutes old"}]}


def dated(answer: httpx.Response, seconds: float) -> httpx.Response:
    """The answer of a server whose time is so far from the machine's."""
    answer.headers["date"] = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    return answer


def ahead(request: httpx.Request) -> float:
    """Seconds by which the timestamp of an action is ahead of the machine."""
    return (datetime.fromisoformat(json.loads(request.content)["timestamp"]) - datetime.now(UTC)).total_seconds()


@on_both_loops(jumping=True)
async def test_actions_carry_the_servers_time(client: ModuleType) -> None:
    """Whatever was answered last tells how wrong the machine's clock is: a refresh, an action, a refusal."""
    server = Server(
        dated(problem(429, "RATE_LIMITED", wait=1), BEHIND),
        dated(recorded(), -BEHIND),
        dated(recorded(), 0),
        recorded(),
    )
    with session_with(client, server) as session:
        with pytest.raises(Refused):
            await session.submit("task_finish")
        for _ in range(3):
            await session.submit("task_finish")
    assert [round(ahead(request) / 10) for request in server.requests] == [0, 60, -60, 0]


@on_both_loops(jumping=True)
async def test_an_action_of_a_wrong_clock_is_sent_again(client: ModuleType) -> None:
    """The first answer may be the refusal of the timestamp itself: the action goes out once more, under its id, with
    the server's time."""
    server = Server(dated(problem(400, "INVALID_ACTION", **UNTIMELY), BEHIND), dated(recorded(), BEHIND))
    with session_with(client, server) as session:
        assert (await session.submit("task_finish", action_id="mine")).newScore == 50
    assert [json.loads(request.content)["actionId"] for request in server.requests] == ["mine", "mine"]
    assert [round(ahead(request) / 10) for request in server.requests] == [0, 60]


@pytest.mark.parametrize(
    ("seconds", "errors"), [(0, UNTIMELY), (BEHIND, {"errors": [{"field": "metadata", "message": "is not"}]})]
)
@on_both_loops(jumping=True)
async def test_an_action_that_is_refused_for_something_else_is_not_sent_again(
    client: ModuleType, seconds: float, errors: Any
) -> None:
    """When the clocks agree a new timestamp helps nobody, and a new timestamp does not mend metadata."""
    server = Server(dated(problem(400, "INVALID_ACTION", **errors), seconds))
    with session_with(client, server) as session, pytest.raises(Refused):
        await session.submit("task_finish")
    assert len(server.requests) == 1


@on_both_loops(jumping=True)
async def test_tokens_are_renewed_in_time_whatever_the_machines_clock_does(
    client: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their life is counted on the loop's clock: a machine's clock that is set in between makes no token older or
    younger."""
    server = Server(renewed("two", "r2"), recorded())
    with session_with(client, server, refresh="r1", expires=900) as session:
        monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: time.time() + 86_400))
        await anyio.sleep(839)
        assert await session.token() == "token"
        monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: time.time() - 86_400))
        await anyio.sleep(2)
        assert await session.token() == "two"
