"""Decisions about actions that wait: by moderators on two nodes, by time, beside the user's own retries, and through
crashes."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
import trio

from scoreboard.domain.audit import SYSTEM, AuditKind
from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.conditions import Conditions, HeldStatus, Hold, Verdict
from scoreboard.domain.errors import NOT_FOUND, Code, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import Duplicate, Held, Outcome, SubmittedAction
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.action_queue import DATABASE_UNAVAILABLE, Queue
from scoreboard.operations.evidence import upload_evidence
from scoreboard.operations.held_actions import (
    EVIDENCE_NOT_UPLOADED,
    NO_EVIDENCE,
    NOT_DECIDED_IN_TIME,
    OWN_CASE,
    HeldActions,
)
from scoreboard.storage.bus import Bus
from scoreboard.storage.postgres import held_actions
from scoreboard.storage.postgres.conditions import ALREADY_DECIDED
from scoreboard.storage.postgres.held_actions import HeldRow
from scoreboard.workers.committer import commit_batches
from scoreboard.workers.validation import run_validation
from tests.operations.outcomes import submit
from tests.storage.proxy import proxy_before
from tests.storage.seeds import claim, make_users, open_board
from tests.storage.test_commit import CommitterNode

ROOT = Path(__file__).parents[2]
BLOB = b"replay"
PROOF = Hold(7, Verdict.APPROVE, 9, sha256(BLOB).hexdigest(), len(BLOB))


class Moderated:
    """A node with committers that run, and its decisions. `rejected`: what it published."""

    def __init__(self, node: CommitterNode) -> None:
        self.stores, self.node, self.queue = node.stores, node, Queue()
        self.rejected: list[tuple[UUID, str, str]] = []
        self.is_bus_away = False
        self.held = HeldActions(self.stores, self.queue, cast("Bus", self))

    async def publish_rejected(self, user: UUID, action_id: str, _action_type: str, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_bus_away:
            raise StorageUnavailable("redis", "away")
        self.rejected.append((user, action_id, reason))

    async def submit(self, action: SubmittedAction) -> Outcome:
        return await submit(self.queue, action)

    async def hold(self, user: UUID, action_id: str, hold: Hold | None = None, points: int = 10) -> SubmittedAction:
        conditions = Conditions(hold=hold or Hold(7, Verdict.REFUSE, 30))
        action = claim(user, action_id=action_id, points=points, conditions=conditions)
        assert isinstance(await self.submit(action), Held)
        return action

    async def approve(self, user: UUID, action_id: str, actor: str = "moderator") -> HeldRow | Refusal:
        return await self.held.decide(actor, user, action_id, Verdict.APPROVE, "looks fine")

    async def refuse(self, user: UUID, action_id: str, reason: str = "too fast") -> HeldRow | Refusal:
        return await self.held.decide("moderator", user, action_id, Verdict.REFUSE, reason)

    async def total(self, user: UUID) -> int:
        return int(
            await self.stores.fetchval("SELECT coalesce(max(total_score), 0) FROM scores WHERE user_id = $1", user)
        )

    async def state(self, user: UUID, action_id: str) -> HeldRow:
        row = await held_actions.find(self.stores, user, action_id)
        assert row is not None
        return row


@asynccontextmanager
async def running(stores: Stores, redis_url: str, nodes: int = 1) -> AsyncIterator[list[Moderated]]:
    async with proxy_before(redis_url) as proxy, trio.open_nursery() as nursery:
        made = [Moderated(CommitterNode(stores, proxy)) for _ in range(nodes)]
        for one in made:
            await nursery.start(commit_batches, one.queue, one.node.committer(per_minute=0), on_board_changed)
        yield made
        nursery.cancel_scope.cancel()


def on_board_changed(_board: Board, _version: BoardVersion) -> None:
    """No board of a node is watched here."""


@pytest.fixture
async def node(database_url: str, redis_url: str) -> AsyncIterator[Moderated]:
    async with open_stores(database_url, redis_url) as stores:
        await open_board(stores)
        async with running(stores, redis_url) as (made,):
            yield made


# ---- decisions ------------------------------------------------------------------------------------------------------


async def test_a_ban_stops_what_waits_and_what_would(node: Moderated) -> None:
    """Nothing more is held, and an approval is refused: the action goes on waiting, and counts when the ban is over."""
    stores = node.stores
    (user,) = await make_users(stores, 1)
    await node.hold(user, "a1")
    await stores.execute("UPDATE users SET ban = 2 WHERE id = $1", user)
    refused = await node.approve(user, "a1")
    assert isinstance(refused, Refusal)
    assert refused.code is Code.FORBIDDEN
    another = claim(user, action_id="a2", conditions=Conditions(hold=Hold(7, Verdict.REFUSE, 30)))
    assert await node.submit(another) == Refusal(Code.FORBIDDEN, "This account is banned.")
    waiting = await held_actions.find(stores, user, "a1")
    assert waiting is not None
    assert waiting.status is HeldStatus.HELD
    assert await held_actions.find(stores, user, "a2") is None
    assert await stores.fetchval("SELECT count(*) FROM audit_events WHERE kind LIKE 'held%'") == 0
    await stores.execute("UPDATE users SET ban = 0 WHERE id = $1", user)
    assert isinstance(await node.approve(user, "a1"), HeldRow)
    assert await node.total(user) == 10


async def test_an_approved_action_counts(node: Moderated) -> None:
    """Its points and its log row are those of the moment; the user's retry has the state; the list shows who and
    why."""
    (ada,) = await make_users(node.stores, 1)
    action = await node.hold(ada, "a")
    outcome = await node.approve(ada, "a")
    assert isinstance(outcome, HeldRow)
    assert (outcome.status, outcome.decided_by, outcome.reason) == (HeldStatus.APPROVED, "moderator", "looks fine")
    assert await node.total(ada) == 10
    again = await node.submit(action)
    assert isinstance(again, Held)
    assert again.status is HeldStatus.APPROVED
    assert await node.approve(ada, "a") is ALREADY_DECIDED
    assert await node.refuse(ada, "a") is ALREADY_DECIDED
    assert await node.total(ada) == 10
    assert node.rejected == []


async def test_a_refused_action_counts_nothing_and_its_user_is_told(node: Moderated) -> None:
    """The id stays taken. The event is a hint: without Redis the decision holds all the same."""
    (ada,) = await make_users(node.stores, 1)
    first, second = await node.hold(ada, "a"), await node.hold(ada, "b")
    outcome = await node.refuse(ada, "a")
    assert isinstance(outcome, HeldRow)
    assert (outcome.status, outcome.reason) == (HeldStatus.REFUSED, "too fast")
    node.is_bus_away = True
    assert isinstance(await node.refuse(ada, "b"), HeldRow)
    assert node.rejected == [(ada, "a", "too fast")]
    for action in (first, second):
        again = await node.submit(action)
        assert isinstance(again, Held)
        assert again.status is HeldStatus.REFUSED
    assert await node.approve(ada, "a") is ALREADY_DECIDED
    assert await node.total(ada) == 0
    events = await node.stores.fetch("SELECT kind, actor, subject, details::text FROM audit_events")
    assert [(row["kind"], row["actor"], row["subject"]) for row in events] == [
        (AuditKind.HELD_REFUSED, "moderator", ada)
    ] * 2
    assert '"a"' in events[0]["details"]


async def test_what_is_not_there_is_not_decided(node: Moderated) -> None:
    """Nor for another user; nor without a reason that a user can read."""
    ada, eve = await make_users(node.stores, 2)
    await node.hold(ada, "a")
    assert await node.approve(eve, "a") is NOT_FOUND
    assert await node.approve(ada, "b") is NOT_FOUND
    for reason in ("", "  ", "x" * 501, "a\nb", "a\0b"):
        outcome = await node.refuse(ada, "a", reason)
        assert isinstance(outcome, Refusal)
        assert outcome.code is Code.INVALID_REQUEST
    assert (await node.state(ada, "a")).status is HeldStatus.HELD


async def test_evidence_must_be_there_for_an_approval(node: Moderated) -> None:
    """Another user's upload of the same bytes does not help."""
    ada, eve = await make_users(node.stores, 2)
    await node.hold(ada, "a", PROOF)
    await upload_evidence(node.stores, eve, PROOF.evidence_sha256 or "", BLOB)
    assert await node.approve(ada, "a") is EVIDENCE_NOT_UPLOADED
    await upload_evidence(node.stores, ada, PROOF.evidence_sha256 or "", BLOB)
    assert isinstance(await node.approve(ada, "a"), HeldRow)
    assert await node.total(ada) == 10


async def test_nobody_approves_an_own_action(node: Moderated) -> None:
    """Nor refuses it."""
    (ada,) = await make_users(node.stores, 1)
    await node.hold(ada, "a")
    assert await node.approve(ada, "a", actor=str(ada)) is OWN_CASE
    assert (await node.state(ada, "a")).status is HeldStatus.HELD


async def test_a_banned_users_action_is_not_approved(node: Moderated) -> None:
    """It waits on, and can be refused; nothing of a banned user is held, and no start is used."""
    (ada,) = await make_users(node.stores, 1)
    await node.hold(ada, "a")
    await node.stores.execute("UPDATE users SET ban = 2 WHERE id = $1", ada)
    outcome = await node.approve(ada, "a")
    assert isinstance(outcome, Refusal)
    assert outcome.code is Code.FORBIDDEN
    assert (await node.state(ada, "a")).status is HeldStatus.HELD
    refused = await node.submit(claim(ada, conditions=Conditions(hold=Hold(7, Verdict.REFUSE, 30))))
    assert isinstance(refused, Refusal)
    assert refused.code is Code.FORBIDDEN
    assert await node.stores.fetchval("SELECT count(*) FROM held_actions") == 1
    assert isinstance(await node.refuse(ada, "a"), HeldRow)
    assert await node.total(ada) == 0


async def test_without_a_database_nothing_is_decided(node: Moderated) -> None:
    """503, and another try decides."""
    (ada,) = await make_users(node.stores, 1)
    await node.hold(ada, "a")
    available, node.queue.available = node.queue.available, 0
    assert await node.approve(ada, "a") is DATABASE_UNAVAILABLE
    node.queue.available = available
    assert isinstance(await node.approve(ada, "a"), HeldRow)


# ---- at once --------------------------------------------------------------------------------------------------------


async def test_two_moderators_on_two_nodes(database_url: str, redis_url: str) -> None:
    """One decides and the other is told, whichever verdict each has; the points count once or not at all. The user
    sends the action again all the time."""
    async with open_stores(database_url, redis_url) as stores:
        await open_board(stores)
        async with running(stores, redis_url, nodes=2) as nodes:
            (ada,) = await make_users(stores, 1)
            approved = 0
            for number in range(20):
                action = await nodes[0].hold(ada, str(number))
                outcomes: list[HeldRow | Refusal] = []
                states: list[Outcome] = []

                async def decide(
                    node: Moderated, verdict: Verdict, outcomes: list[HeldRow | Refusal], action_id: str
                ) -> None:
                    outcomes.append(await node.held.decide("moderator", ada, action_id, verdict, "reason"))

                async def send_again(node: Moderated, action: SubmittedAction, states: list[Outcome]) -> None:
                    states.append(await node.submit(action))

                async with trio.open_nursery() as nursery:
                    for node in nodes:
                        nursery.start_soon(send_again, node, action, states)
                    nursery.start_soon(decide, nodes[0], Verdict.APPROVE, outcomes, str(number))
                    verdict = Verdict.APPROVE if number % 2 else Verdict.REFUSE
                    nursery.start_soon(decide, nodes[1], verdict, outcomes, str(number))
                decided = [outcome for outcome in outcomes if isinstance(outcome, HeldRow)]
                assert len(decided) == 1, outcomes
                assert ALREADY_DECIDED in outcomes
                assert all(isinstance(state, Held | Duplicate) for state in states)
                approved += decided[0].status is HeldStatus.APPROVED
                assert await nodes[0].total(ada) == 10 * approved
            assert await stores.fetchval("SELECT count(*) FROM action_logs") == approved
            assert await stores.fetchval("SELECT count(*) FROM audit_events") == 20


# ---- time -----------------------------------------------------------------------------------------------------------


async def test_time_decides_as_the_type_says(database_url: str, redis_url: str) -> None:
    """On two nodes at once, each action once: approved, refused, or refused for want of evidence."""
    async with open_stores(database_url, redis_url) as stores:
        await open_board(stores)
        async with running(stores, redis_url, nodes=2) as nodes:
            ada, bob = await make_users(stores, 2)
            await nodes[0].hold(ada, "approve", Hold(1, Verdict.APPROVE, 30))
            await nodes[0].hold(ada, "refuse", Hold(1, Verdict.REFUSE, 30))
            await nodes[0].hold(ada, "unproven", PROOF)
            await nodes[0].hold(bob, "later", Hold(1, Verdict.APPROVE, 30))
            await stores.execute("UPDATE held_actions SET expires_at = now() WHERE user_id = $1", ada)
            counts: list[int] = []

            async def run(node: Moderated) -> None:
                counts.append(await node.held.decide_expired())

            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(run, node)
            assert sum(counts) == 3
            assert [await node.held.decide_expired() for node in nodes] == [0, 0]
            states = [await nodes[0].state(ada, name) for name in ("approve", "refuse", "unproven")]
            assert [(row.status, row.reason, row.decided_by) for row in states] == [
                (HeldStatus.APPROVED, NOT_DECIDED_IN_TIME, SYSTEM),
                (HeldStatus.REFUSED, NOT_DECIDED_IN_TIME, SYSTEM),
                (HeldStatus.REFUSED, NO_EVIDENCE, SYSTEM),
            ]
            assert (await nodes[0].state(bob, "later")).status is HeldStatus.HELD
            assert await nodes[0].total(ada) == 10


async def test_what_time_would_approve_is_refused_to_a_banned_user(node: Moderated) -> None:
    """It does not stand in the way of others for ever."""
    (ada,) = await make_users(node.stores, 1)
    await node.hold(ada, "a", Hold(1, Verdict.APPROVE, 30))
    await node.stores.execute("UPDATE held_actions SET expires_at = now()")
    await node.stores.execute("UPDATE users SET ban = 2 WHERE id = $1", ada)
    assert await node.held.decide_expired() == 1
    assert (await node.state(ada, "a")).status is HeldStatus.REFUSED
    assert await node.total(ada) == 0


async def test_the_worker_decides_and_deletes(node: Moderated) -> None:
    """A decided action goes when its time is over, and its id stays taken."""
    (ada,) = await make_users(node.stores, 1)
    action = await node.hold(ada, "a")
    await node.stores.execute("UPDATE held_actions SET expires_at = now()")
    async with trio.open_nursery() as nursery:
        await nursery.start(run_validation, node.stores, node.held)
        with trio.fail_after(10):
            while (await node.state(ada, "a")).status is HeldStatus.HELD:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await node.stores.execute("UPDATE held_actions SET keep_until = now() - interval '1 second'")
    await held_actions.prune(node.stores)
    assert await held_actions.find(node.stores, ada, "a") is None
    assert await node.submit(action) == Duplicate(None)


async def test_lists_have_pages(node: Moderated) -> None:
    """A user's own, newest first; what waits of all users, oldest first."""
    ada, bob = await make_users(node.stores, 2)
    for number in range(3):
        await node.hold(ada, str(number))
    await node.hold(bob, "b")
    await node.refuse(ada, "1")
    own = await held_actions.of_user(node.stores, ada, None, 2)
    rest = await held_actions.of_user(node.stores, ada, own[-1].id, 2)
    assert [row.action_id for row in (*own, *rest)] == ["2", "1", "0"]
    waiting = await held_actions.waiting(node.stores, 0, 2)
    assert [row.action_id for row in waiting] == ["0", "2"]
    assert [row.action_id for row in await held_actions.waiting(node.stores, waiting[-1].id, 2)] == ["b"]
    assert await held_actions.find_by_id(node.stores, waiting[0].id) == waiting[0]


# ---- crashes --------------------------------------------------------------------------------------------------------


async def test_a_killed_node_doubles_nothing(database_url: str, redis_url: str) -> None:
    """Processes that approve are killed with SIGKILL at any moment. Every action counts once in the end, with one audit
    event and one log row."""
    async with open_stores(database_url, redis_url) as stores:
        await open_board(stores)
        async with running(stores, redis_url) as (node,):
            (ada,) = await make_users(stores, 1)
            for number in range(100):
                await node.hold(ada, str(number), points=1)

            async def approved() -> int:
                return int(await stores.fetchval("SELECT count(*) FROM held_actions WHERE status = 'approved'"))

            for kill in range(4):
                before = await approved()
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.operations.approver", database_url, redis_url], cwd=ROOT
                )
                with trio.fail_after(60):
                    while await approved() < before + 3 + kill:
                        await trio.sleep(0.001 * kill)
                process.kill()
                process.wait()
                assert await approved() == await node.total(ada)
            assert await approved() < 100
            for row in await held_actions.waiting(stores, 0, 100):
                outcome = await node.approve(row.user, row.action_id)
                assert isinstance(outcome, HeldRow), outcome
            assert await node.total(ada) == 100
            assert await stores.fetchval("SELECT count(*) FROM action_logs") == 100
            assert await stores.fetchval("SELECT count(DISTINCT details->>'actionId') FROM audit_events") == 100
            assert await stores.fetchval("SELECT count(*) FROM audit_events") == 100
