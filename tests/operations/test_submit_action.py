"""A signed body on its way to the queue: the pure checks in the specification's order, and the queued action."""

import json
from hashlib import sha256
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.conditions import Conditions, Hold, StartCondition, Verdict
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import Outcome, Recorded, SubmittedAction
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_queue import DATABASE_UNAVAILABLE, Pending, Queue
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.held_users import HeldUsers
from scoreboard.operations.submit_action import (
    EVIDENCE_MISSING,
    EVIDENCE_NOT_USED,
    NOT_YOURS,
    START_MISSING,
    START_NOT_USED,
    TRUSTED_ONLY,
    SubmitAction,
    Unasked,
)
from scoreboard.security.signatures import sign
from tests.operations.outcomes import outcome

USER, SID = UUID(int=1), UUID(int=2)
KEYS = {1: b"old secret", 2: b"new secret"}
RULES = read_rules((Path(__file__).parents[2] / "config" / "actions.toml").read_text("utf-8"))
PROVEN = read_rules(
    """
[race]
title = "Race"
points = 10
daily_cap = { points = 100, count = 3 }
started = { minimum = 5 }
evidence = { retention = 9 }
hold_days = 2
undecided = "approve"
[plain]
title = "Plain"
points = 1
[asked]
title = "Asked"
points = 5
webhook = { url = "https://game.example/", secret = "0123456789abcdef" }
metadata = { lap = { type = "int", required = true } }
"""
)
IDENTITY = Identity(USER, SID, float("inf"), KEYS)
GOOD: dict[str, object] = {
    "actionId": "a",
    "actionType": "quiz_complete",
    "timestamp": "2026-01-10T10:30:00Z",
    "metadata": {"difficulty": "hard"},
}


class FakeQueue(Queue):
    """Records whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[SubmittedAction] = []

    def submit(self, claim: SubmittedAction) -> Pending:
        self.claims.append(claim)
        pending = Pending(claim, 0)
        pending.resolve(Recorded(claim.user, 0, 1, 1, 1, 0))
        return pending


async def submit(queue: Queue, body: dict[str, object] | bytes, signature: str | None = None) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    begun = SubmitAction(RULES, queue).submit(
        IDENTITY, sign(KEYS[2], raw) if signature is None else signature, raw, "r-1"
    )
    assert not isinstance(begun, Unasked)
    return await outcome(begun)


async def test_a_signed_action_becomes_a_claim() -> None:
    """Everything that the stores need, the points by the rules and the body's digest."""
    queue, raw = FakeQueue(), json.dumps(GOOD).encode()
    assert isinstance(await submit(queue, raw, f"v1.{sign(KEYS[1], raw)}"), Recorded)
    (claim,) = queue.claims
    assert (claim.user, claim.action_id, claim.action_type, claim.request_id) == (USER, "a", "quiz_complete", "r-1")
    assert (claim.points_or_refusal, claim.cooldown_ms) == (150, 30_000)
    assert claim.metadata == '{"difficulty":"hard"}'
    assert claim.timestamp_ms == 1_768_041_000_000
    assert claim.body_sha256 == sha256(raw).digest()
    assert claim.signature == f"v1.{sign(KEYS[1], raw)}"
    assert len(f"v999999999.{sign(KEYS[1], raw)}") < 500  # characters of action_logs.signature


async def test_the_signature_is_checked_before_the_body_is_read() -> None:
    """403 for anything unsigned, readable or not; nothing is queued."""
    queue = FakeQueue()
    for body in (b"{", json.dumps(GOOD).encode()):
        refusal = await submit(queue, body, "0" * 64)
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.INVALID_SIGNATURE
    assert queue.claims == []


async def test_a_body_that_cannot_be_decoded_never_reaches_the_stores() -> None:
    """400 before idempotency and limits."""
    queue = FakeQueue()
    refusal = await submit(queue, b'{"actionId": 5}')
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.INVALID_ACTION
    assert queue.claims == []


async def test_an_action_of_somebody_else_is_403() -> None:
    """The body's userId must be the token's subject."""
    queue = FakeQueue()
    assert await submit(queue, GOOD | {"userId": str(SID)}) is NOT_YOURS
    assert isinstance(await submit(queue, GOOD | {"userId": str(USER)}), Recorded)


@pytest.mark.parametrize("changes", [{"actionType": "dance"}, {"metadata": {"difficulty": "extreme"}}])
async def test_what_the_rule_refuses_goes_to_the_stores_all_the_same(changes: dict[str, object]) -> None:
    """409 and 429 go before it, and it takes a slot: only the stores can say which."""
    queue = FakeQueue()
    await submit(queue, GOOD | changes)
    (claim,) = queue.claims
    assert isinstance(claim.points_or_refusal, Refusal)
    assert claim.points_or_refusal.code is Code.INVALID_ACTION


async def test_the_queues_refusal_is_the_answer() -> None:
    """503 is passed on as it is."""
    assert await submit(Queue(), GOOD) is DATABASE_UNAVAILABLE


async def test_a_user_cannot_submit_an_action_of_a_trusted_type() -> None:
    """403 with a sentence that says who can; nothing is queued."""
    queue = FakeQueue()
    assert await submit(queue, GOOD | {"actionType": "tournament_win", "metadata": None}) is TRUSTED_ONLY
    assert queue.claims == []


PROOF = {"startId": "s-1", "evidence": {"sha256": "ab" * 32, "size": 7}}


@pytest.mark.parametrize(
    ("kind", "fields", "refusal"),
    [
        ("race", PROOF, None),
        ("race", PROOF | {"startId": None}, START_MISSING),
        ("race", PROOF | {"evidence": None}, EVIDENCE_MISSING),
        ("plain", {}, None),
        ("plain", {"startId": "s-1"}, START_NOT_USED),
        ("plain", {"evidence": PROOF["evidence"]}, EVIDENCE_NOT_USED),
    ],
)
async def test_what_proves_an_action_fits_its_type(
    kind: str, fields: dict[str, object], refusal: Refusal | None
) -> None:
    """A missing or a needless start or evidence goes to the queue as a refusal of the rule: duplicates come first."""
    queue = FakeQueue()
    raw = json.dumps({**GOOD, "actionType": kind, "metadata": {}, **fields}).encode()
    SubmitAction(PROVEN, queue).submit(IDENTITY, sign(KEYS[2], raw), raw, "r")
    (claim,) = queue.claims
    assert claim.points_or_refusal == (refusal or PROVEN[kind].points)


async def test_the_conditions_are_those_of_the_type() -> None:
    """Cap, start, and how long it waits; a type without any has none."""
    queue = FakeQueue()
    for kind, fields in (("race", PROOF), ("plain", {})):
        raw = json.dumps({**GOOD, "actionType": kind, "metadata": {}, **fields}).encode()
        SubmitAction(PROVEN, queue).submit(IDENTITY, sign(KEYS[2], raw), raw, "r")
    assert [claim.conditions for claim in queue.claims] == [
        Conditions(100, 3, StartCondition("s-1", 5), Hold(2, Verdict.APPROVE, 9, "ab" * 32, 7)),
        None,
    ]


async def test_actions_of_a_held_user_wait_whatever_their_type() -> None:
    """Those of others do not. A type that waits anyhow keeps its own times."""
    held, queue = HeldUsers(cast("Stores", None)), FakeQueue()
    submit_action = SubmitAction(PROVEN, queue, held_users=held)
    for ids in (set(), {USER}):
        held.ids = frozenset(ids)
        for kind, fields in (("plain", {}), ("race", PROOF)):
            raw = json.dumps({**GOOD, "actionType": kind, "metadata": {}, **fields}).encode()
            submit_action.submit(IDENTITY, sign(KEYS[2], raw), raw, "r")
    holds = [claim.conditions and claim.conditions.hold for claim in queue.claims]
    own = Hold(2, Verdict.APPROVE, 9, "ab" * 32, 7)
    assert holds == [None, own, Hold(7, Verdict.REFUSE, 30), own]


async def test_a_server_is_asked_only_about_what_the_rule_accepts() -> None:
    """The action is not queued before the answer. What the rule refuses is queued with its refusal."""
    queue = FakeQueue()
    for metadata, expected in (({"lap": 1}, Unasked), ({"lap": "1"}, Pending)):
        raw = json.dumps({**GOOD, "actionType": "asked", "metadata": metadata}).encode()
        assert isinstance(SubmitAction(PROVEN, queue).submit(IDENTITY, sign(KEYS[2], raw), raw, "r"), expected)
    assert len(queue.claims) == 1
