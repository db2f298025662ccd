"""Daily caps, starts, held actions and approvals: exact, used once, on whatever node, with Redis and without."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import trio

from scoreboard.domain.audit import AuditKind
from scoreboard.domain.conditions import Approval, Conditions, HeldStatus, Hold, StartCondition, Verdict
from scoreboard.domain.errors import Code, LimitLayer, Refusal
from scoreboard.domain.outcomes import USER_DELETED, Duplicate, Held, Outcome, Recorded, SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.commit import Commit
from scoreboard.storage.postgres.conditions import (
    ALREADY_DECIDED,
    EVIDENCE_DIFFERS,
    MAX_HELD_ACTIONS,
    START_EXPIRED,
    START_UNKNOWN,
    START_USED,
)
from tests.storage.proxy import proxy_before
from tests.storage.redis.test_exact_limits import two_nodes
from tests.storage.seeds import claim, make_users, open_board
from tests.storage.test_commit import CommitterNode, run

HOLD = Conditions(hold=Hold(7, Verdict.REFUSE, 30))
DIGEST = "ab" * 32


@pytest.fixture
async def world(database_url: str, redis_url: str) -> AsyncIterator[CommitterNode]:
    async with proxy_before(redis_url) as proxy, open_stores(database_url, proxy.url) as stores:
        await open_board(stores)
        made = CommitterNode(stores, proxy)
        yield made
        for commit in made.made:
            commit.writer.close()


def capped(user: UUID, *, points: int = 10, most: int = 0, count: int = 0, **others: Any) -> SubmittedAction:
    return claim(user, points=points, conditions=Conditions(daily_points=most, daily_count=count), **others)


async def start(stores: Stores, user: UUID, *, kind: str = "task_finish", age: float = 10, rest: float = 60) -> str:
    return str(
        await stores.fetchval(
            "INSERT INTO action_starts (user_id, action_type, started_at, expires_at) VALUES ($1, $2, "
            "clock_timestamp() - make_interval(secs => $3), clock_timestamp() + make_interval(secs => $4)) "
            "RETURNING id",
            user,
            kind,
            age,
            rest,
        )
    )


def started(user: UUID, start_id: str, minimum: float = 0, **others: Any) -> SubmittedAction:
    return claim(user, conditions=Conditions(start=StartCondition(start_id, minimum)), **others)


def approval(held: SubmittedAction, actor: str = "moderator") -> SubmittedAction:
    """The approval of a held action."""
    return msgspec.structs.replace(held, conditions=Conditions(approval=Approval(actor, "fine")), is_limited=False)


async def approve(commit: Commit, action: SubmittedAction) -> Outcome:
    while True:  # again where the machine was so slow that the lock's time was over
        (outcome,) = (await run_in_asyncio(commit.run_aio, [action], has_unlimited=True)).outcomes
        if not (isinstance(outcome, Refusal) and outcome.code is Code.SERVICE_UNAVAILABLE):
            return outcome


async def total(stores: Stores, user: UUID) -> int:
    return int(await stores.fetchval("SELECT coalesce(max(total_score), 0) FROM scores WHERE user_id = $1", user))


# ---- daily caps -----------------------------------------------------------------------------------------------------


async def test_a_cap_of_points_is_exact(world: CommitterNode) -> None:
    """What would go beyond it is 429 until midnight, a smaller one still fits; other users and types are free."""
    ada, bob = await make_users(world.stores, 2)
    commit = world.committer(per_minute=0)
    outcomes = await run(commit, *[capped(ada, points=40, most=100) for _ in range(3)], capped(bob, most=100))
    assert [type(outcome) for outcome in outcomes] == [Recorded, Recorded, Refusal, Recorded]
    refused = outcomes[2]
    assert isinstance(refused, Refusal)
    assert refused.layer is LimitLayer.DAILY
    rest_of_day = 86_400 - (datetime.now(UTC) - datetime.now(UTC).replace(hour=0, minute=0, second=0)).total_seconds()
    assert refused.retry_after is not None
    assert abs(refused.retry_after - rest_of_day) < 5
    again = await run(commit, capped(ada, points=21, most=100), capped(ada, points=20, most=100), claim(ada))
    assert [type(outcome) for outcome in again] == [Refusal, Recorded, Recorded]
    other = await run(commit, capped(ada, points=40, most=100, action_type="quiz_complete"))
    assert isinstance(other[0], Recorded)


async def test_a_refused_action_keeps_its_id_and_its_slot_is_free(world: CommitterNode) -> None:
    """The same id counts tomorrow; the cap takes no slot of the minute and starts no cooldown."""
    (ada,) = await make_users(world.stores, 1)
    commit = world.committer()
    first, second = (capped(ada, count=1, action_id=name, cooldown_ms=0) for name in ("a", "b"))
    assert isinstance((await run(commit, first))[0], Recorded)
    assert isinstance((await run(commit, second))[0], Refusal)
    assert await world.slots(ada) == {"a"}
    await world.stores.execute("UPDATE action_logs SET processed_at = processed_at - interval '1 day'")
    assert isinstance((await run(commit, second))[0], Recorded)


async def test_a_cap_holds_on_two_nodes_at_once_and_without_redis(database_url: str, redis_url: str) -> None:
    """Four committers of two nodes; one node loses Redis in the middle: of 60 actions exactly five count."""
    async with two_nodes(database_url, redis_url) as nodes:
        (ada,) = await make_users(nodes[0].stores, 1)
        commits = [node.committer(per_minute=0) for node in nodes for _ in range(2)]
        outcomes: list[Outcome] = []

        async def burst(commit: Commit) -> None:
            for _ in range(5):
                outcomes.extend(await run(commit, *[capped(ada, count=5, points=3) for _ in range(3)]))

        async with trio.open_nursery() as nursery:
            for commit in commits:
                nursery.start_soon(burst, commit)
            nodes[0].redis.refuse = True
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == 5
        assert await total(nodes[0].stores, ada) == 15


# ---- starts ---------------------------------------------------------------------------------------------------------


async def test_a_start_is_used_once(world: CommitterNode) -> None:
    """In one batch, in the next, on another node at the same time: one action counts; its retry is a duplicate."""
    (ada,) = await make_users(world.stores, 1)
    commits = [world.committer(per_minute=0), world.committer(per_minute=0)]
    first = await start(world.stores, ada)
    once = started(ada, first)
    assert [type(each) for each in await run(commits[0], once, started(ada, first))] == [Recorded, Refusal]
    assert await run(commits[1], started(ada, first)) == [START_USED]
    assert isinstance((await run(commits[1], once))[0], Duplicate)
    for _ in range(10):
        contested = await start(world.stores, ada)
        outcomes: list[Outcome] = []

        async def use(commit: Commit, start_id: str, outcomes: list[Outcome]) -> None:
            outcomes.extend(await run(commit, started(ada, start_id)))

        async with trio.open_nursery() as nursery:
            for commit in commits:
                nursery.start_soon(use, commit, contested, outcomes)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Recorded", "Refusal"]


async def test_a_start_of_somebody_else_or_of_another_type_is_worth_nothing(world: CommitterNode) -> None:
    """It stays its owner's, even if the thief's action is in the same batch and comes first."""
    ada, eve = await make_users(world.stores, 2)
    commit = world.committer()
    of_ada = await start(world.stores, ada)
    outcomes = await run(commit, started(eve, of_ada), started(ada, of_ada))
    assert outcomes[0] is START_UNKNOWN
    assert isinstance(outcomes[1], Recorded)
    of_quiz = await start(world.stores, ada, kind="quiz_complete")
    for unknown in (of_quiz, str(uuid4()), "no uuid", "'; DROP TABLE users", "\u0660" * 36, ""):
        assert await run(commit, started(ada, unknown)) == [START_UNKNOWN]


async def test_a_start_has_a_least_and_a_greatest_age_by_the_databases_clock(world: CommitterNode) -> None:
    """The client's timestamp has no part in it. Too early costs nothing but the time: the start can still be used."""
    (ada,) = await make_users(world.stores, 1)
    commit = world.committer()
    young = await start(world.stores, ada, age=4)
    (early,) = await run(commit, started(ada, young, minimum=5, action_id="a"))
    assert isinstance(early, Refusal)
    assert (early.code, early.detail) == (Code.INVALID_ACTION, "startId was given less than 5 seconds ago")
    old = await start(world.stores, ada, age=4, rest=-0.1)
    assert await run(commit, started(ada, old)) == [START_EXPIRED]
    await world.stores.execute("UPDATE action_starts SET started_at = started_at - interval '1 second'")
    assert isinstance((await run(commit, started(ada, young, minimum=5, action_id="a")))[0], Recorded)


async def test_a_refused_action_uses_no_start(world: CommitterNode) -> None:
    """By the cap or by the rule."""
    (ada,) = await make_users(world.stores, 1)
    commit = world.committer()
    own = await start(world.stores, ada)
    conditions = Conditions(daily_count=1, start=StartCondition(own, 0))
    assert isinstance((await run(commit, capped(ada, count=1)))[0], Recorded)
    assert isinstance((await run(commit, claim(ada, conditions=conditions)))[0], Refusal)
    assert await world.stores.fetchval("SELECT used_by FROM action_starts") is None


async def test_a_start_of_a_batch_that_fails_is_not_used(world: CommitterNode) -> None:
    """Both are one transaction: what cannot be stored leaves the start as it was."""
    (ada,) = await make_users(world.stores, 1)
    own = await start(world.stores, ada)
    (refused,) = await run(world.committer(), started(ada, own, metadata="{"))
    assert isinstance(refused, Refusal)
    assert await world.stores.fetchval("SELECT used_by FROM action_starts") is None


# ---- held actions ---------------------------------------------------------------------------------------------------


async def test_a_held_action_counts_nothing_and_takes_its_id(world: CommitterNode) -> None:
    """The same body again: its present state. Another body, or another type: 409. Nothing is on the board."""
    (ada,) = await make_users(world.stores, 1)
    commit = world.committer()
    held = claim(ada, action_id="a", conditions=HOLD)
    (first,) = await run(commit, held)
    assert isinstance(first, Held)
    assert (first.status, first.points) == (HeldStatus.HELD, 10)
    assert first.expires_ms - first.held_ms == 7 * 86_400_000
    assert await run(commit, held) == [first]
    assert await run(world.committer(), held) == [first]
    other = claim(ada, action_id="a", body=b"other", conditions=HOLD)
    plain = claim(ada, action_id="a", body=b"plain")
    assert await run(commit, other) == [Duplicate(None)]
    assert await run(commit, plain) == [Duplicate(None)]
    assert await total(world.stores, ada) == 0
    assert await world.stores.fetchval("SELECT count(*) FROM action_logs") == 0
    assert await world.stores.fetchval("SELECT count(*) FROM commits") == 0


async def test_a_batch_may_hold_some_and_record_others(world: CommitterNode) -> None:
    """Outcomes stay in the order of the actions."""
    ada, bob = await make_users(world.stores, 2)
    outcomes = await run(
        world.committer(), claim(ada, conditions=HOLD), claim(ada), claim(bob), claim(bob, conditions=HOLD)
    )
    assert [type(outcome) for outcome in outcomes] == [Held, Recorded, Recorded, Held]
    assert await total(world.stores, ada) == 10


async def test_what_waits_is_bounded_and_counts_for_the_cap(world: CommitterNode) -> None:
    """A user has a hundred waiting actions at most; what waits is in the day's sum."""
    ada, bob = await make_users(world.stores, 2)
    commit = world.committer(per_minute=0)
    outcomes = await run(commit, *[claim(ada, conditions=HOLD) for _ in range(MAX_HELD_ACTIONS + 1)])
    assert [type(outcome) for outcome in outcomes] == [Held] * MAX_HELD_ACTIONS + [Refusal]
    both = Conditions(daily_count=2, hold=HOLD.hold)
    outcomes = await run(commit, *[claim(bob, conditions=both) for _ in range(3)])
    assert [type(outcome) for outcome in outcomes] == [Held, Held, Refusal]


async def test_evidence_must_be_what_was_uploaded(world: CommitterNode) -> None:
    """If it is there, its size is compared; another user's upload is nobody else's evidence."""
    ada, eve = await make_users(world.stores, 2)
    commit = world.committer()
    await world.stores.execute(
        "INSERT INTO evidence (user_id, sha256, content) VALUES ($1, decode($2, 'hex'), $3)", ada, DIGEST, b"12345"
    )

    def proven(user: UUID, size: int) -> SubmittedAction:
        return claim(user, conditions=Conditions(hold=Hold(7, Verdict.REFUSE, 30, DIGEST, size)))

    assert await run(commit, proven(ada, 4)) == [EVIDENCE_DIFFERS]
    assert [type(outcome) for outcome in await run(commit, proven(ada, 5), proven(eve, 4))] == [Held, Held]


async def test_a_deleted_user_is_told_so(world: CommitterNode) -> None:
    """Not that a start is unknown."""
    (ada,) = await make_users(world.stores, 1)
    await world.stores.execute("DELETE FROM users WHERE id = $1", ada)
    assert await run(world.committer(), started(ada, "x"), claim(ada, conditions=HOLD)) == [USER_DELETED] * 2


# ---- approvals ------------------------------------------------------------------------------------------------------


async def test_an_approval_is_recorded_as_any_action(world: CommitterNode) -> None:
    """Points, rank and log row of the moment of approval, an audit event beside it; a retry has the state."""
    ada, bob = await make_users(world.stores, 2)
    commit = world.committer()
    held = claim(ada, action_id="a", points=10, conditions=HOLD, timestamp_ms=1)
    held = msgspec.structs.replace(held, timestamp_ms=claim(ada).timestamp_ms)
    await run(commit, held)
    await run(commit, claim(bob, points=10))
    outcome = await approve(commit, msgspec.structs.replace(approval(held), timestamp_ms=1))
    assert isinstance(outcome, Recorded)
    assert (outcome.new, outcome.rank) == (10, 2)  # bob had as many points first
    (again,) = await run(commit, held)
    assert isinstance(again, Held)
    assert (again.status, again.reason) == (HeldStatus.APPROVED, "fine")
    assert await run(commit, claim(ada, action_id="a", body=b"other")) == [Duplicate(None)]
    row = await world.stores.fetchrow("SELECT * FROM audit_events")
    assert row is not None
    assert (row["kind"], row["actor"], row["subject"]) == (AuditKind.HELD_APPROVED, "moderator", ada)


async def test_two_approvals_at_once_count_once(world: CommitterNode) -> None:
    """From two nodes: one records, the other is told that it was decided."""
    (ada,) = await make_users(world.stores, 1)
    commits = [world.committer(per_minute=0), world.committer(per_minute=0)]
    for number in range(1, 11):
        held = claim(ada, conditions=HOLD)
        await run(commits[0], held)
        outcomes: list[Outcome] = []

        async def decide(commit: Commit, action: SubmittedAction, outcomes: list[Outcome]) -> None:
            outcomes.append(await approve(commit, action))

        async with trio.open_nursery() as nursery:
            for commit in commits:
                nursery.start_soon(decide, commit, approval(held), outcomes)
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == 1
        assert ALREADY_DECIDED in outcomes
        assert await total(world.stores, ada) == 10 * number
    assert await world.stores.fetchval("SELECT count(*) FROM audit_events") == 10


async def test_what_was_never_held_can_not_be_approved(world: CommitterNode) -> None:
    """Nor what was refused: nothing is recorded."""
    (ada,) = await make_users(world.stores, 1)
    commit = world.committer()
    held = claim(ada, conditions=HOLD)
    assert await approve(commit, approval(held)) == ALREADY_DECIDED
    await run(commit, held)
    await world.stores.execute("UPDATE held_actions SET status = 'refused', decided_at = now()")
    assert await approve(commit, approval(held)) == ALREADY_DECIDED
    assert await total(world.stores, ada) == 0
    assert await world.stores.fetchval("SELECT count(*) FROM audit_events") == 0


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_redis", [True, False])
async def test_held_actions_use_the_limits_of_the_minute(world: CommitterNode, with_redis: bool) -> None:
    """Slots and cooldowns are those of any action, with Redis and by the log; an approval uses none."""
    world.redis.refuse = not with_redis
    ada, bob = await make_users(world.stores, 2)
    commit = world.committer(per_minute=3)
    held = [claim(ada, conditions=HOLD) for _ in range(4)]
    outcomes = [(await run(commit, action))[0] for action in held]
    assert [type(outcome) for outcome in outcomes] == [Held] * 3 + [Refusal]
    for action in held[:3]:
        assert isinstance(await approve(commit, approval(action)), Recorded)
    (refused,) = await run(commit, claim(ada))
    assert isinstance(refused, Refusal)
    assert refused.layer is LimitLayer.USER
    first, second = (claim(bob, conditions=HOLD, cooldown_ms=60_000) for _ in range(2))
    outcomes = [(await run(commit, action))[0] for action in (first, second)]
    assert isinstance(outcomes[0], Held)
    assert isinstance(outcomes[1], Refusal)
    assert outcomes[1].layer is LimitLayer.COOLDOWN
