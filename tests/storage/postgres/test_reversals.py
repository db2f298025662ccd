"""Reversals: totals and order are those of the log without the reversed actions, after any history.

Also tests the counts of storage/consistency.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoreboard.domain.boards import LEADERBOARD, Board, Totals
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import Duplicate, Recorded
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations.admin.verify import differences
from scoreboard.storage.postgres import reversals
from scoreboard.storage.postgres.decisions import NO_SUCH_USER, OWN_CASE
from scoreboard.storage.postgres.reversals import NO_REVERSAL, NO_SUCH_ACTION, Correction
from tests.storage.postgres.moderators import user_with
from tests.storage.seeds import claim, make_users
from tests.storage.two_boards import BOARDS, DAILY, OTHER_TYPE, TwoBoardNode, settle


async def reverse(stores: Stores, user: UUID, action: str, actor: UUID) -> Correction | Refusal:
    return await reversals.reverse(stores, BOARDS, user, action, "not played", actor)


async def fold(stores: Stores, board: Board) -> dict[UUID, tuple[int, int]]:
    """Total and `reached` of everybody who ever did an action for the board, from the log without what is reversed.

    Written without SQL's aggregates, to be another way to the same figures.
    """
    reversed_now = {
        (row["user_id"], row["seq"])
        for row in await stores.fetch("SELECT user_id, seq FROM reversals WHERE undone_at IS NULL")
    }
    found: dict[UUID, tuple[int, int]] = {}
    for row in await stores.fetch("SELECT user_id, seq, action_type, points_awarded FROM action_logs"):
        user, seq = UUID(bytes=row["user_id"].bytes), row["seq"]
        total, reached = found.get(user, (0, 0))
        if board.counts(row["action_type"]):
            counts = (row["user_id"], seq) not in reversed_now
            found[user] = (total + row["points_awarded"], max(reached, seq)) if counts else (total, reached)
    return found


async def ledger_of(stores: Stores, board: Board) -> dict[UUID, tuple[int, int]]:
    if board.totals is Totals.SCORES:
        rows = await stores.fetch("SELECT user_id, total_score, reached FROM scores")
    else:
        rows = await stores.fetch("SELECT subject, total, reached FROM board_scores WHERE board = $1", board.name)
    return {UUID(bytes=user.bytes): (total, reached) for user, total, reached in rows}


async def assert_folded(stores: Stores, node: TwoBoardNode | None = None) -> None:
    """Both tables equal the fold, and the node's boards show it in its order."""
    for board in BOARDS:
        expected = await fold(stores, board)
        assert await ledger_of(stores, board) == expected
        if node is not None:
            order = sorted(expected.items(), key=lambda row: (-row[1][0], row[1][1], row[0].bytes))
            assert await node.shown(board) == [(user, total) for user, (total, _) in order]
            assert await differences(stores, board) == ({}, len(expected))


async def test_a_reversed_action_counts_on_no_board_until_that_is_undone(stores: Stores) -> None:
    """`reached` falls to the last action that counts, so the user stands behind one who had as many points before."""
    node = TwoBoardNode(stores)
    await node.converge()
    mod = await user_with(stores, Role.MODERATOR)
    ann, bob = await make_users(stores, 2)
    await node.submit(claim(ann, points=10, action_id="a1"))
    await node.submit(claim(bob, points=10, action_id="b1"))
    await node.submit(
        claim(ann, points=5, action_id="a2"), claim(ann, points=3, action_id="a3", action_type=OTHER_TYPE)
    )
    taken = await reverse(stores, ann, "a1", mod)
    assert isinstance(taken, Correction)
    assert (taken.previous, taken.new, taken.points) == (18, 8, -10)
    await assert_folded(stores)
    assert isinstance(await reverse(stores, ann, "a3", mod), Correction)
    assert isinstance(await reverse(stores, ann, "a2", mod), Correction)
    assert await ledger_of(stores, DAILY) == {ann: (0, 0), bob: (10, (await ledger_of(stores, DAILY))[bob][1])}
    await settle(stores)
    await node.converge()
    await assert_folded(stores, node)
    given_back = await reversals.undo(stores, ann, "a1", mod)
    assert isinstance(given_back, Correction)
    assert (given_back.previous, given_back.new, given_back.points) == (0, 10, 10)
    await settle(stores)
    await node.converge()
    await assert_folded(stores, node)
    assert await node.shown(LEADERBOARD) == [(ann, 10), (bob, 10)]  # she was first
    node.close()


async def test_the_log_and_the_answer_to_a_repeated_action_stay(stores: Stores) -> None:
    """No row of the log changes; the same action sent again is answered with its first outcome, and counts no more."""
    node, mod = TwoBoardNode(stores), await user_with(stores, Role.MODERATOR)
    await node.converge()
    (ann,) = await make_users(stores, 1)
    action = claim(ann, points=10)
    (first,) = await node.submit(
        action,
    )
    before = await stores.fetch("SELECT * FROM action_logs")
    assert isinstance(await reverse(stores, ann, action.action_id, mod), Correction)
    (again,) = await node.submit(action)
    assert isinstance(first, Recorded)
    assert isinstance(again, Duplicate)
    assert again.original is not None
    assert (again.original.points, again.original.new) == (10, 10)
    assert await stores.fetch("SELECT * FROM action_logs") == before
    await assert_folded(stores)
    node.close()


async def test_each_step_is_a_row_and_an_event(stores: Stores) -> None:
    """Reverse, undo, reverse again: the history has all of it, and the event has ids alone."""
    node, mod = TwoBoardNode(stores), await user_with(stores, Role.MODERATOR)
    (ann,) = await make_users(stores, 1)
    await node.converge()
    await node.submit(claim(ann, points=10, action_id="a1"))
    first = await reverse(stores, ann, "a1", mod)
    undone = await reversals.undo(stores, ann, "a1", mod)
    second = await reverse(stores, ann, "a1", mod)
    assert isinstance(first, Correction)
    assert isinstance(undone, Correction)
    assert isinstance(second, Correction)
    rows = await stores.fetch("SELECT id, undone_at IS NULL AS holds, undone_by, points FROM reversals ORDER BY id")
    assert [(row["id"], row["holds"], row["undone_by"]) for row in rows] == [
        (first.reversal, False, str(mod)),
        (second.reversal, True, None),
    ]
    assert json.loads(rows[0]["points"]) == [["leaderboard", "", "", 10], ["daily", "2026-11-25", "de", 10]]
    log = await stores.fetch("SELECT kind, details FROM audit_events WHERE subject = $1 ORDER BY id", ann)
    seq = await stores.fetchval("SELECT seq FROM action_logs")
    assert [(row["kind"], json.loads(row["details"])) for row in log] == [
        (kind, {"reversal": reversal, "actionId": "a1", "seq": seq})
        for kind, reversal in (
            ("action_reversed", first.reversal),
            ("reversal_undone", first.reversal),
            ("action_reversed", second.reversal),
        )
    ]
    node.close()


async def test_what_is_refused(stores: Stores) -> None:
    """The action of another user, one's own, of nobody; twice; an undo of nothing and of an undo. Nothing changes."""
    node = TwoBoardNode(stores)
    await node.converge()
    mod, admin, viewer = [await user_with(stores, role) for role in (Role.MODERATOR, Role.ADMIN, Role.VIEWER)]
    ann, bob = await make_users(stores, 2)
    await node.submit(*(claim(user, points=10, action_id=f"of {user}") for user in (ann, mod, admin)))
    assert await reverse(stores, bob, f"of {ann}", mod) == NO_SUCH_ACTION
    assert await reverse(stores, ann, "never", mod) == NO_SUCH_ACTION
    assert await reverse(stores, uuid4(), f"of {ann}", mod) == NO_SUCH_USER
    assert await reverse(stores, mod, f"of {mod}", mod) == OWN_CASE
    for actor, user in ((mod, admin), (viewer, ann), (bob, ann)):
        refused = await reverse(stores, user, f"of {user}", actor)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.FORBIDDEN
    assert await reversals.undo(stores, ann, f"of {ann}", mod) == NO_REVERSAL
    assert await stores.fetchval("SELECT count(*) FROM reversals") == 0
    assert isinstance(await reverse(stores, ann, f"of {ann}", mod), Correction)
    assert await reversals.undo(stores, bob, f"of {ann}", mod) == NO_REVERSAL
    assert isinstance(await reversals.undo(stores, ann, f"of {ann}", admin), Correction)
    again = await reversals.undo(stores, ann, f"of {ann}", mod)
    assert isinstance(again, Refusal)
    assert (again.code, again.detail.partition(" by ")[0]) == (Code.CONFLICT, "The reversal was undone already,")
    await assert_folded(stores)
    node.close()


@pytest.mark.parametrize("undoes", [False, True])
async def test_of_two_moderators_at_once_one_decides(stores: Stores, undoes: bool) -> None:
    """The points go, or come back, once; the second is told."""
    node = TwoBoardNode(stores)
    await node.converge()
    (ann,) = await make_users(stores, 1)
    await node.submit(claim(ann, points=10, action_id="a1"), claim(ann, points=30))
    people = [await user_with(stores, Role.MODERATOR) for _ in range(4)]
    if undoes:
        await reverse(stores, ann, "a1", people[0])
    outcomes = list[Correction | Refusal]()

    async def decide(actor: UUID) -> None:
        outcomes.append(
            await (reversals.undo(stores, ann, "a1", actor) if undoes else reverse(stores, ann, "a1", actor))
        )

    async with trio.open_nursery() as nursery:
        for actor in people:
            nursery.start_soon(decide, actor)
    assert sorted(type(outcome) is Correction for outcome in outcomes) == [False, False, False, True]
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Refusal)} == {Code.CONFLICT}
    await assert_folded(stores)
    node.close()


async def test_a_total_never_falls_below_zero_and_an_undo_gives_what_was_taken(stores: Stores) -> None:
    """When plain SQL has changed the total meanwhile."""
    node, mod = TwoBoardNode(stores), await user_with(stores, Role.MODERATOR)
    await node.converge()
    (ann,) = await make_users(stores, 1)
    await node.submit(claim(ann, points=10, action_id="a1"))
    await stores.execute("UPDATE scores SET total_score = 4")
    taken = await reverse(stores, ann, "a1", mod)
    assert isinstance(taken, Correction)
    assert (taken.previous, taken.new) == (4, 0)
    given_back = await reversals.undo(stores, ann, "a1", mod)
    assert isinstance(given_back, Correction)
    assert (given_back.previous, given_back.new) == (0, 4)
    node.close()


# ---- any history ----------------------------------------------------------------------------------------------------

USERS, IDS = 3, 6


class Submit(NamedTuple):
    """A batch on one of the nodes: (user, action id, points, counts for the daily board)."""

    node: int
    actions: list[tuple[int, int, int, bool]]


class Decide(NamedTuple):
    """A reversal or an undo of a user's action, which may not be there."""

    user: int
    action: int
    undoes: bool


class Restart(NamedTuple):
    """A node is replaced by a new one; with `forgets` Redis is empty then."""

    node: int
    forgets: bool


Step = Submit | Decide | Restart
_nodes = st.integers(0, 1)
_users, _ids = st.integers(0, USERS - 1), st.integers(0, IDS - 1)
_submits = st.builds(
    Submit, _nodes, st.lists(st.tuples(_users, _ids, st.integers(0, 3), st.booleans()), min_size=1, max_size=5)
)
_decisions = st.builds(Decide, _users, _ids, st.booleans())
_together = st.lists(st.one_of(_submits, _decisions, _decisions), min_size=1, max_size=4)
_steps = st.one_of(_together, _together, _together, st.builds(Restart, _nodes, st.booleans()).map(lambda each: [each]))


@given(st.lists(_steps, min_size=1, max_size=8))
@settings(
    max_examples=15, deadline=None, suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
)
async def test_after_any_history_boards_are_the_fold_over_the_log_without_what_is_reversed(
    database_url: str, redis_url: str, history: list[list[Step]]
) -> None:
    """Actions, reversals and undos on two nodes, several at once; nodes that restart; a Redis that is lost."""
    with trio.fail_after(60):
        async with open_stores(database_url, redis_url) as stores:
            users = await make_users(stores, USERS)
            mods = [await user_with(stores, Role.MODERATOR) for _ in range(2)]
            nodes = [TwoBoardNode(stores, name) for name in "ab"]
            for step in history:
                await act(stores, step, nodes, users, mods)
                await assert_folded(stores)
            await settle(stores)
            for node in nodes:
                await node.converge()
                await assert_folded(stores, node)
                node.close()
            await stores.execute("DELETE FROM users")
            await stores.command("FLUSHALL")


async def act(
    stores: Stores, steps: Sequence[Step], nodes: list[TwoBoardNode], users: list[UUID], mods: list[UUID]
) -> None:
    """All of the steps at the same moment, those of one node one after the other."""

    async def submit(own: list[Submit]) -> None:
        for step in own:
            unique = {(user, number): (points, daily) for user, number, points, daily in step.actions}
            await nodes[step.node].submit(
                *(
                    claim(
                        users[user],
                        action_id=f"{number}",
                        points=points,
                        action_type="task_finish" if daily else OTHER_TYPE,
                        body=f"{number}".encode(),
                    )
                    for (user, number), (points, daily) in unique.items()
                )
            )

    async def decide(step: Decide, actor: UUID) -> None:
        if step.undoes:
            await reversals.undo(stores, users[step.user], f"{step.action}", actor)
        else:
            await reverse(stores, users[step.user], f"{step.action}", actor)

    async with trio.open_nursery() as nursery:
        for number in range(len(nodes)):
            nursery.start_soon(submit, [step for step in steps if isinstance(step, Submit) and step.node == number])
        for place, step in enumerate(steps):
            if isinstance(step, Decide):
                nursery.start_soon(decide, step, mods[place % 2])
            elif isinstance(step, Restart):
                nodes[step.node].close()
                nodes[step.node] = TwoBoardNode(stores, "ab"[step.node])
                if step.forgets:
                    await stores.command("FLUSHALL")
