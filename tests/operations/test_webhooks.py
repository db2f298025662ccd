"""The game's server as referee: what counts as an answer, and every way in which it may lie, fail or be late."""

import hmac
import json
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any
from uuid import UUID

import pytest
import structlog
import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.domain.scoring import WebhookRule
from scoreboard.drivers.https_client import HttpsClient
from scoreboard.operations import webhooks as module
from scoreboard.operations.webhooks import MAX_ANSWER_BYTES, NOT_ANSWERED, TOO_MANY_ASKED, Webhooks, sign
from tests.https_server import Asked, HttpsServer, Reply, https_server
from tests.storage.seeds import claim

ADA, BOB = UUID(int=1), UUID(int=2)
SECRET = "0123456789abcdef"


class Referee:
    """A node's webhooks, and the server that they ask. `known`: action ids that were processed before."""

    def __init__(self, server: HttpsServer, client: HttpsClient) -> None:
        self.server, self.client, self.known, self.now = server, client, set[str](), 1000.0
        self.rule = WebhookRule(f"{server.url}/check", SECRET)
        self.webhooks = self.make()

    def make(self, per_minute: int = 0) -> Webhooks:
        return Webhooks(self.client, self.is_known, per_minute=per_minute, clock=lambda: self.now)

    async def is_known(self, _user: UUID, action_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        return action_id in self.known

    async def ask(self, user: UUID = ADA, **others: Any) -> int | Refusal:
        return await self.webhooks.ask(self.rule, claim(user, **others))

    def reply(self, answer: Any, status: int = 200) -> None:
        self.server.replies["/check"] = Reply(
            answer if isinstance(answer, bytes) else json.dumps(answer).encode(), status
        )


@pytest.fixture
async def referee(tmp_path: Path) -> AsyncIterator[Referee]:
    async with https_server(tmp_path) as server:
        client = HttpsClient(private_hosts=("localhost",), ssl_context=server.ssl_context)
        yield Referee(server, client)
        await client.aclose()


# ---- a clear answer -------------------------------------------------------------------------------------------------


async def test_the_question_is_signed_and_says_what_was_done(referee: Referee) -> None:
    """The documented fields; the signature is that of the raw body with the time."""
    referee.reply({"accept": True})
    action = claim(ADA, action_id="a", points=7, metadata='{"lap":1.50}', timestamp_ms=1_768_041_000_000)
    assert await referee.webhooks.ask(referee.rule, action) == 7
    (asked,) = referee.server.asked
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(asked.body) == {
        "userId": str(ADA),
        "actionId": "a",
        "actionType": "task_finish",
        "timestamp": "2026-01-10T10:30:00.000Z",
        "metadata": {"lap": 1.5},
        "points": 7,
    }
    stamp, _, mac = asked.headers["x-scoreboard-signature"].partition(",v1=")
    seconds = stamp.removeprefix("t=")
    assert abs(int(seconds) - time()) < 10
    assert mac == hmac.new(SECRET.encode(), seconds.encode() + b"." + asked.body, sha256).hexdigest()
    assert sign(SECRET, int(seconds), asked.body) == asked.headers["x-scoreboard-signature"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"accept": True}, 10),
        ({"accept": True, "points": 10}, 10),
        ({"accept": True, "points": 1, "more": [1]}, 1),
        ({"accept": False}, "body is refused by the game's server"),
        ({"accept": False, "points": 99, "reason": "too\nfast" + "x" * 300}, "too" + "fast" + "x" * 193),
    ],
)
async def test_a_clear_answer_decides(referee: Referee, answer: dict[str, Any], expected: int | str) -> None:
    """Fewer points are possible. A reason is shown in one line of bounded length, as a refusal by the rule."""
    referee.reply(answer)
    outcome = await referee.ask()
    if isinstance(outcome, Refusal):
        assert outcome.code is Code.INVALID_ACTION
        assert outcome.detail.endswith(str(expected))
    else:
        assert outcome == expected


# ---- anything else is none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"accept": True, "points": 11}, 200),
        ({"accept": True, "points": 0}, 200),
        ({"accept": True, "points": -5}, 200),
        ({"accept": True, "points": "10"}, 200),
        ({"accept": True, "points": 10.0}, 200),
        ({"accept": "true"}, 200),
        ({"accept": 1}, 200),
        ({}, 200),
        ([], 200),
        (b"", 200),
        (b"OK", 200),
        (b"\xff" * 100, 200),
        (b"[" * 4000, 200),
        ({"accept": True}, 201),
        ({"accept": True}, 500),
        (b'{"accept": true, "x": "' + b"a" * MAX_ANSWER_BYTES + b'"}', 200),
    ],
)
async def test_an_unclear_answer_is_none(referee: Referee, answer: Any, status: int) -> None:
    """More points, wrong types, no JSON, a huge answer, another status: 503, and nothing was recorded."""
    referee.reply(answer, status)
    assert await referee.ask() is NOT_ANSWERED


async def test_a_redirect_is_not_followed(referee: Referee) -> None:
    """Wherever it leads: the secret and the user's action go to the configured address alone."""
    referee.server.replies["/check"] = Reply(b"", 307, (("location", "/other"),))
    referee.server.replies["/other"] = Reply(b'{"accept": true}')
    assert await referee.ask() is NOT_ANSWERED
    assert [asked.target for asked in referee.server.asked] == ["/check"]


async def test_a_private_address_is_not_asked(referee: Referee) -> None:
    """Unless its host is named in the settings, also when the name's address changes after the start."""

    async def lookup(_host: str, _port: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        return ["127.0.0.1"]

    client = HttpsClient(ssl_context=referee.server.ssl_context, lookup=lookup)
    webhooks = Webhooks(client, referee.is_known, per_minute=0)
    rule = WebhookRule(f"https://game.example:{referee.server.port}/check", SECRET)
    assert await webhooks.ask(rule, claim(ADA)) is NOT_ANSWERED
    assert referee.server.asked == []
    await client.aclose()


async def test_a_late_answer_is_none(referee: Referee, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users' actions go on meanwhile; the connection is closed."""
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)

    async def late(_: Asked) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    referee.server.replies["/check"] = late
    begun = trio.current_time()
    assert await referee.ask() is NOT_ANSWERED
    assert trio.current_time() - begun < 1


async def test_a_server_that_is_away_is_soon_not_asked_any_more(referee: Referee) -> None:
    """After three failures one action in two seconds is a probe; the others are 503 at once. It is logged once, without
    address and secret."""
    referee.reply({"accept": True}, 500)
    with structlog.testing.capture_logs() as lines:
        for _ in range(6):
            assert await referee.ask() is NOT_ANSWERED
        assert len(referee.server.asked) == 3
        referee.now += module.PROBE_INTERVAL_SECONDS
        referee.reply({"accept": True})
        assert [await referee.ask(), await referee.ask()] == [10, 10]
    events = [line["event"] for line in lines if line["event"] != "webhook_failed"]
    assert events == ["webhook_unavailable", "webhook_available"]
    assert SECRET not in str(lines)


# ---- a cheat cannot use it against the game's server ----------------------------------------------------------------


async def test_nobody_is_asked_about_what_is_known(referee: Referee) -> None:
    """A retry of a recorded action goes on to the queue, which finds the duplicate."""
    referee.known = {"a"}
    assert await referee.ask(action_id="a") == 10
    assert referee.server.asked == []


async def test_a_user_cannot_flood_the_server(referee: Referee) -> None:
    """So many a minute, on each node, of one user; others are not concerned."""
    referee.webhooks = referee.make(per_minute=3)
    referee.reply({"accept": False})
    outcomes = [await referee.ask() for _ in range(5)]
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Refusal)] == [
        *[Code.INVALID_ACTION] * 3,
        *[Code.RATE_LIMITED] * 2,
    ]
    assert len(referee.server.asked) == 3
    await referee.ask(BOB)
    assert len(referee.server.asked) == 4


async def test_questions_at_once_are_bounded(referee: Referee, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is 503 at once. A client that leaves half-way frees its place, and is no failure."""
    monkeypatch.setattr(module, "MAX_ASKED_AT_ONCE", 5)
    arrived, release = trio.Event(), trio.Event()

    async def slow(_: Asked) -> Reply:
        if len(referee.server.asked) == 5:
            arrived.set()
        await release.wait()
        return Reply(b'{"accept": true}')

    referee.server.replies["/check"] = slow
    outcomes: list[int | Refusal] = []

    async def ask(action: SubmittedAction, done: Callable[[int | Refusal], None]) -> None:
        done(await referee.webhooks.ask(referee.rule, action))

    async with trio.open_nursery() as nursery:
        with trio.fail_after(5):
            for _ in range(5):
                nursery.start_soon(ask, claim(ADA), outcomes.append)
            await arrived.wait()
            assert await referee.ask(BOB) is TOO_MANY_ASKED
        nursery.cancel_scope.cancel()
    assert outcomes == []
    release.set()
    assert await referee.ask(BOB) == 10
