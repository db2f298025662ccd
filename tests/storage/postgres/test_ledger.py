"""What PostgreSQL records of a batch: each action once, exact totals, one order, and no deadlock with other writers."""

from random import Random
from uuid import UUID, uuid4

import asyncpg
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.ledger_rows import LedgerRow, SequenceRange
from scoreboard.domain.outcomes import USER_DELETED, Duplicate, Held, Recorded, SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.postgres import ledger
from tests.storage.seeds import Scribe, claim, connection, make_users

NOWHERE = "redis://127.0.0.1:1/0"  # nothing here speaks to Redis
HIGHEST = 2**53 - 1  # the largest total
DELETE = (
    "WITH doomed AS (SELECT id FROM users WHERE id = ANY($1) ORDER BY id FOR UPDATE) "
    "DELETE FROM users WHERE id IN (SELECT id FROM doomed)"
)


async def find_recorded(conn: asyncpg.Connection, *claims: SubmittedAction) -> list[Duplicate | Held | None]:
    found = await run_in_asyncio(ledger.find_recorded_aio, conn, claims, SequenceRange(0, 0, 0))
    return [found[place].duplicate if place in found else None for place in range(len(claims))]


def ranked(recording: ledger.Recording) -> list[tuple[int, int] | None]:
    """(previous, new) of each outcome that counts."""
    return [
        (outcome.previous, outcome.new) if isinstance(outcome, Recorded) else None for outcome in recording.outcomes
    ]


async def test_a_first_action_counts(stores: Stores) -> None:
    """A score appears, and log, key and outbox each have their row of the same moment."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        sequences, recording = await Scribe(conn, 7).record(
            [first := claim(user, points=30, action_id="a", metadata='{"n": 1}')]
        )
    (outcome,) = recording.outcomes
    assert isinstance(outcome, Recorded)
    assert (outcome.previous, outcome.points, outcome.new, outcome.rank) == (0, 30, 30, None)
    row = await stores.fetchrow(
        "SELECT l.*, k.body_sha256, c.users, c.id AS batch, "
        "k.processed_at = l.processed_at AND l.processed_at = c.committed_at AS together"
        " FROM action_logs l JOIN action_keys k USING (user_id, action_id), commits c WHERE writer = 7 AND turn = 1"
    )
    assert row is not None
    assert (row["user_id"], row["points_awarded"], row["new_score"], row["metadata"]) == (user, 30, 30, '{"n": 1}')
    assert row["body_sha256"] == first.body_sha256
    assert row["users"] == [user]
    assert row["seq"] == row["batch"] * 4096 + 1
    assert row["together"]
    assert outcome.at_ms == await stores.fetchval(
        "SELECT (extract(epoch FROM processed_at) * 1000)::bigint FROM action_logs"
    )
    assert recording.rows == [LedgerRow(LEADERBOARD, user, 30, row["seq"], row["seq"])]
    assert sequences == SequenceRange(7, 1, 1)


async def test_a_second_submission_awards_nothing(stores: Stores) -> None:
    """The same actionId again: no row, no batch; the same body gets the first outcome, another body only that it is a
    duplicate."""
    (user,) = await make_users(stores, 1)
    again, other = claim(user, points=30, action_id="a"), claim(user, points=30, action_id="a", body=b"other")
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        _, first = await scribe.record([again])
        _, second = await scribe.record([again])
        _, third = await scribe.record([other])
        assert second == third == ledger.Recording([None], [], [])
        assert await find_recorded(conn, again, other, claim(user)) == [
            Duplicate(first.outcomes[0]),  # type: ignore[arg-type]
            Duplicate(None),
            None,
        ]
    assert await stores.fetchval("SELECT total_score FROM scores") == 30
    assert await stores.fetchval("SELECT count(*) FROM commits") == 1


async def test_an_action_id_belongs_to_its_user(stores: Stores) -> None:
    """Two users may use the same actionId; each action counts."""
    ada, bob = await make_users(stores, 2)
    async with connection(stores) as conn:
        _, recording = await Scribe(conn, 7).record([claim(ada, action_id="a"), claim(bob, action_id="a")])
    assert ranked(recording) == [(0, 10), (0, 10)]


async def test_a_vanished_user_is_an_outcome(stores: Stores) -> None:
    """An action of a deleted user has the outcome USER_DELETED; the others of the batch are recorded."""
    ada, bob, carl = await make_users(stores, 3)
    await stores.execute("DELETE FROM users WHERE id = $1", bob)
    async with connection(stores) as conn:
        _, recording = await Scribe(conn, 7).record([claim(ada), claim(bob), claim(carl), claim(bob)])
    assert ranked(recording) == [(0, 10), None, (0, 10), None]
    assert [outcome for outcome in recording.outcomes if not isinstance(outcome, Recorded)] == [
        USER_DELETED,
        USER_DELETED,
    ]


async def test_two_actions_of_a_user_in_a_batch_have_running_totals(stores: Stores) -> None:
    """Each action of a batch has its own total, in the order of the batch."""
    ada, bob = await make_users(stores, 2)
    known = claim(ada, points=1)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.record([known])
        _, recording = await scribe.record(
            [
                claim(ada, points=100),
                claim(bob, points=5),
                known,
                claim(ada, points=20),
                claim(bob, points=6),
                claim(ada, points=3),
            ]
        )
    assert ranked(recording) == [(1, 101), (0, 5), None, (101, 121), (5, 11), (121, 124)]
    (first, second) = recording.rows
    assert ((first.subject, first.total), (second.subject, second.total)) == ((ada, 124), (bob, 11))
    assert second.version == second.reached, "a first version is the order number of the action"
    assert first.version == 1 + await stores.fetchval("SELECT min(seq) FROM action_logs WHERE user_id = $1", ada)
    logged = await stores.fetch("SELECT new_score FROM action_logs WHERE user_id = $1 ORDER BY seq", ada)
    assert [row[0] for row in logged] == [1, 101, 121, 124]


async def test_the_message_names_each_action_and_its_users_row(stores: Stores) -> None:
    """`events` has every recorded action, with the place of its user's row."""
    ada, bob = await make_users(stores, 2)
    async with connection(stores) as conn:
        _, recording = await Scribe(conn, 7).record(
            [claim(bob, points=1), claim(ada, points=2), claim(bob, points=4, request_id="r-3")]
        )
    assert [row.subject for row in recording.rows] == [bob, ada]
    assert [(event.subject, event.previous, event.new, event.points, event.place) for event in recording.events] == [
        (str(bob), 0, 1, 1, 0),
        (str(ada), 0, 2, 2, 1),
        (str(bob), 1, 5, 4, 0),
    ]
    assert recording.events[2].request_id == "r-3"


async def test_equal_totals_are_ordered_by_reached(stores: Stores) -> None:
    """`reached` is the seq of the last action that changed the total, so ties are in the order of the actions."""
    users = await make_users(stores, 6)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.record([claim(user, points=5) for user in users[3:]])
        await scribe.record([claim(user, points=5) for user in reversed(users)])
        await scribe.record([claim(user, points=5) for user in users[:3]])
    order = await stores.fetch("SELECT user_id, total_score FROM scores ORDER BY total_score DESC, reached")
    assert [row["user_id"] for row in order] == [*reversed(users[3:]), *users[:3]]
    assert await stores.fetchval(
        "SELECT bool_and(reached = (SELECT max(seq) FROM action_logs l WHERE l.user_id = s.user_id)) FROM scores s"
    )


async def test_two_writers_in_whatever_order_agree_on_reached(stores: Stores) -> None:
    """A batch that was numbered later but committed first does not lose its place to the earlier number."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        await stores.execute(
            "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, 5, 2^40, 1)", user
        )
        _, recording = await Scribe(conn, 7).record([claim(user, points=5)])
    (row,) = recording.rows
    assert (row.total, row.reached) == (10, 2**40)


async def test_a_total_stays_within_what_json_holds(stores: Stores) -> None:
    """2^53 − 1 is reached exactly; one more is refused and changes nothing."""
    (user,) = await make_users(stores, 1)
    await stores.execute(
        "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, $2, 1, 1)", user, HIGHEST - 10
    )
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        _, recording = await scribe.record([claim(user, points=10)])
        assert ranked(recording) == [(HIGHEST - 10, HIGHEST)]
        with pytest.raises(asyncpg.CheckViolationError):
            await scribe.record([claim(user, points=1)])
    assert await stores.fetchval("SELECT count(*) FROM action_keys") == 1


@pytest.mark.parametrize(
    "metadata",
    [
        '{"note": "\\u0000"}',
        '{"note": "\\ud800"}',
        '{"note": "\ud800"}',
        "\0",
        "{",
        '{"n": 1e200000}',
        "[" * 50_000 + "]" * 50_000,
    ],
)
async def test_what_postgresql_cannot_hold_is_a_data_error(metadata: str, stores: Stores) -> None:
    """NUL, lone surrogates, numbers beyond numeric, nesting beyond the stack: an error of the data, and the connection
    stays usable."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        with pytest.raises((asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError)):
            await scribe.record([claim(user, metadata=metadata)])
        _, recording = await scribe.record([claim(user, metadata='{"n": 123456789012345678901234567890, "x": 1e300}')])
    assert ranked(recording) == [(0, 10)]
    assert await stores.fetchval("SELECT (metadata->>'n') FROM action_logs") == "123456789012345678901234567890"


async def test_the_effect_of_a_turn_can_be_read_back(stores: Stores) -> None:
    """`read_back_aio` returns what `record_aio` returned: outcomes, rows and events. It recognises duplicates of other
    batches and users who were deleted since."""
    ada, bob, carl = await make_users(stores, 3)
    await stores.execute("INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, 7, 1, 1)", ada)
    earlier = claim(ada, points=1)
    async with connection(stores) as conn:
        scribe = Scribe(conn, 7)
        await scribe.record([earlier])
        batch = [
            claim(bob, points=2),
            earlier,
            claim(ada, points=3),
            claim(UUID(int=5)),
            claim(bob, points=4),
            claim(carl),
        ]
        sequences, recording = await scribe.record(batch)
        assert await run_in_asyncio(ledger.has_sequence_aio, conn, sequences)
        assert not await run_in_asyncio(ledger.has_sequence_aio, conn, SequenceRange(7, 3, 3))
        assert await run_in_asyncio(ledger.read_back_aio, conn, batch, sequences) == recording
        await stores.execute("DELETE FROM users WHERE id = $1", carl)
        read_back = await run_in_asyncio(ledger.read_back_aio, conn, batch, sequences)
    assert read_back.outcomes == [*recording.outcomes[:5], USER_DELETED]
    assert read_back.rows == recording.rows[:2]


async def test_standings_tell_who_is_on_the_board(stores: Stores) -> None:
    """A user without a score has total None: the entry is removed."""
    ada, bob = await make_users(stores, 2)
    async with connection(stores) as conn:
        _, recording = await Scribe(conn, 7).record([claim(ada)])
        assert await run_in_asyncio(ledger.current_rows_aio, conn, LEADERBOARD, {bob: 3, ada: 1}) == [
            LedgerRow(LEADERBOARD, bob, None, 0, 3 * 4096),
            *recording.rows,
        ]


batches = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)


@given(batches)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_batches_record_what_a_plain_loop_would(
    database_url: str, plan: list[list[tuple[int, int, int]]]
) -> None:
    """Users, ids and points at random: every total, running total and duplicate as if the actions had come one by
    one."""
    async with open_stores(database_url, NOWHERE) as stores, connection(stores) as conn:
        users = await make_users(stores, 4)
        totals, seen, scribe = dict.fromkeys(users, 0), set[tuple[UUID, str]](), Scribe(conn, uuid4().int >> 65)
        for batch in plan:
            claims = {(who, what): claim(users[who], points=points, action_id=str(what)) for who, what, points in batch}
            expected: list[tuple[int, int] | None] = []
            for each in claims.values():
                assert isinstance(each.points_or_refusal, int)
                fresh = (each.user, each.action_id) not in seen
                expected.append((totals[each.user], totals[each.user] + each.points_or_refusal) if fresh else None)
                totals[each.user] += each.points_or_refusal * fresh
                seen.add((each.user, each.action_id))
            _, recording = await scribe.record(list(claims.values()))
            assert ranked(recording) == expected
        rows = await stores.fetch("SELECT user_id, total_score FROM scores WHERE user_id = ANY($1)", users)
    assert {row[0]: row[1] for row in rows} == {user: total for user, total in totals.items() if total}


async def test_batches_in_opposite_orders_do_not_deadlock(stores: Stores) -> None:
    """Two writers at once with the same actions of the same users, one forwards and one backwards, fifty times: each
    action once."""
    users = sorted(await make_users(stores, 6))
    rounds, shared = 50, 15
    begun = [trio.Event() for _ in range(2 * rounds)]

    async def write(number: int, *, backwards: bool) -> None:
        async with connection(stores) as conn:
            scribe = Scribe(conn, number)
            for turn in range(rounds):
                batch = [claim(user, action_id=f"{turn}-{action}") for user in users for action in range(shared)]
                begun[2 * turn + number].set()
                await begun[2 * turn + 1 - number].wait()
                await scribe.record(batch[::-1] if backwards else batch)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: write(0, backwards=False))
            nursery.start_soon(lambda: write(1, backwards=True))
    assert {row[0] for row in await stores.fetch("SELECT total_score FROM scores")} == {rounds * shared * 10}


async def test_a_batch_and_the_deletion_of_its_users_do_not_deadlock(stores: Stores) -> None:
    """Actions of users who are deleted meanwhile, singly and several in one statement: each counts or finds its user
    gone, no error."""
    users = sorted(await make_users(stores, 120))
    outcomes: list[object] = []
    deleted = trio.Event()

    async def write(number: int) -> None:
        chance = Random(number)
        async with connection(stores) as conn:
            scribe = Scribe(conn, number)
            while not deleted.is_set():  # some of the users, or the deletion would never find one that nobody locks
                _, recording = await scribe.record([claim(user) for user in chance.sample(users, 12)])
                outcomes.extend(recording.outcomes)

    async def delete() -> None:
        for start in range(0, len(users), 4):
            await stores.execute("DELETE FROM users WHERE id = $1", users[start])
            await stores.execute(DELETE, users[start + 1 : start + 4][::-1])
        deleted.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 1)
            nursery.start_soon(write, 2)
            nursery.start_soon(delete)
    assert all(outcome is USER_DELETED or isinstance(outcome, Recorded) for outcome in outcomes)
    assert USER_DELETED in outcomes
    assert (
        await stores.fetchval(
            "SELECT (SELECT count(*) FROM scores) + (SELECT count(*) FROM action_keys) "
            "+ (SELECT count(*) FROM action_logs)"
        )
        == 0
    )
