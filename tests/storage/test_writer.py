"""A writer records a batch in spite of errors: each action is recorded once, and the outcomes are true."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import trio

from scoreboard.domain.boards import Board
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.domain.outcomes import LOCKED, UNSTORABLE_ACTION, Outcome, Recorded, SubmittedAction, too_many_actions
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.drivers.stores import Stores
from scoreboard.storage import writer as module
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.postgres import ledger, outbox
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.writer import RecordedBatch, Writer
from tests.storage.proxy import Fault, Proxy, proxy_before
from tests.storage.seeds import NobodyRefused, agreed, claim, connection, make_users

HIGHEST = 2**53 - 1  # the largest total
# of a try that is to be under way for long
PATIENT = "SET lock_timeout = '20s'; SET statement_timeout = 0; SET transaction_timeout = 0"


@pytest.fixture
async def proxy(stores: Stores) -> AsyncIterator[Proxy]:
    async with proxy_before(stores.postgres.url) as between:
        yield between


@pytest.fixture
async def writer(proxy: Proxy, stores: Stores) -> AsyncIterator[Writer]:
    """One whose connection goes through the proxy, with the statement prepared: the next bytes are those of a batch."""
    (user,) = await make_users(stores, 1)
    made = Writer(PostgresConnector(proxy.url), NobodyRefused(), [agreed()])
    await run_in_asyncio(made.record_aio, [claim(user)])
    yield made
    made.close()


async def record(writer: Writer, claims: Sequence[SubmittedAction]) -> list[Outcome | None]:
    """Outcomes are in the order of the actions."""
    outcomes: list[Outcome | None] = [None] * len(claims)
    for taken in await run_in_asyncio(writer.record_aio, claims):
        for place, outcome in zip(taken.places, taken.recording.outcomes, strict=True):
            outcomes[place] = outcome
    return outcomes


async def recorded_once(stores: Stores, claims: Sequence[SubmittedAction]) -> bool:
    """Every action has one key and one log row, and its points are in its user's total."""
    rows = await stores.fetch(
        "SELECT count(*) AS logs, count(DISTINCT action_id) AS ids, sum(points_awarded) AS points, "
        "max(total_score) AS total"
        " FROM action_logs JOIN scores USING (user_id) WHERE user_id = ANY($1) GROUP BY user_id",
        list({each.user for each in claims}),
    )
    return sum(row["ids"] for row in rows) == len(claims) and all(
        row["logs"] == row["ids"] and row["points"] == row["total"] for row in rows
    )


async def sequences(stores: Stores, number: int) -> list[int]:
    return [row[0] for row in await stores.fetch("SELECT turn FROM commits WHERE writer = $1 ORDER BY turn", number)]


@asynccontextmanager
async def locked(stores: Stores, user: UUID) -> AsyncIterator[asyncpg.Connection]:
    """Another session holds the user's score."""
    async with connection(stores) as conn:
        await run_in_asyncio(
            conn.execute, "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL transaction_timeout = 0"
        )
        await run_in_asyncio(conn.execute, "SELECT 1 FROM scores WHERE user_id = $1 FOR UPDATE", user)
        yield conn


def refused(outcome: Outcome | None, code: Code) -> bool:
    return isinstance(outcome, Refusal) and outcome.code is code


# ---- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        {"metadata": '{"n": "\\u0000"}'},
        {"metadata": "\ud800"},
        {"action_id": "x" * 101},
        {"request_id": "x", "metadata": "["},
    ],
    ids=["nul", "surrogate", "too long", "no json"],
)
async def test_a_poisoned_action_is_set_apart(poison: dict[str, Any], writer: Writer, stores: Stores) -> None:
    """One among 200 is refused, the other 199 are recorded, and the writer's batches have no gap."""
    users = await make_users(stores, 50)
    claims = [claim(users[place % 50]) for place in range(200)]
    claims[77] = claim(users[27], **poison)
    outcomes = await record(writer, claims)
    assert outcomes.pop(77) is UNSTORABLE_ACTION
    del claims[77]
    assert all(isinstance(outcome, Recorded) for outcome in outcomes)
    assert await recorded_once(stores, claims)
    assert await sequences(stores, writer.writer_id) == list(range(1, writer.sequence))


async def test_a_total_beyond_its_bound_is_refused_alone(writer: Writer, stores: Stores) -> None:
    """An action that would overflow the total is refused; the other actions of the batch are recorded."""
    full, ada = await make_users(stores, 2)
    await stores.execute(
        "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, $2, 1, 1)", full, HIGHEST - 10
    )
    outcomes = await record(writer, [claim(ada), claim(full), claim(full), claim(ada)])
    assert [isinstance(outcome, Recorded) for outcome in outcomes] == [True, True, False, True]
    assert outcomes[2] is UNSTORABLE_ACTION


async def test_a_batch_without_news_uses_no_sequence(writer: Writer, stores: Stores) -> None:
    """Duplicates leave no row in `commits`, so the number stays free for the next batch."""
    (user,) = await make_users(stores, 1)
    first = claim(user)
    await record(writer, [first])
    before = writer.next_sequences()
    assert await record(writer, [first]) == [None]
    assert writer.next_sequences() == before
    await record(writer, [claim(user)])
    assert await sequences(stores, writer.writer_id) == [1, 2, 3]


# ---- locks ----------------------------------------------------------------------------------------------------------


async def test_a_lock_that_is_held_costs_its_user_only(writer: Writer, stores: Stores) -> None:
    """55P03 after a second try: halves, until who is locked stands alone with 503; nothing of theirs was recorded."""
    users = await make_users(stores, 4)
    await record(writer, [claim(user) for user in users])
    assert writer.conn is not None
    await run_in_asyncio(writer.conn.execute, "SET lock_timeout = '50ms'")
    claims = [claim(user) for user in users]
    async with locked(stores, users[1]):
        outcomes = await record(writer, claims)
    assert [isinstance(outcome, Recorded) for outcome in outcomes] == [True, False, True, True]
    assert refused(outcomes[1], Code.SERVICE_UNAVAILABLE)
    assert isinstance((await record(writer, [claims[1]]))[0], Recorded)
    assert await sequences(stores, writer.writer_id) == list(range(1, writer.sequence))


async def test_a_deadlock_is_tried_again(writer: Writer, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """40P01 falls on who waited first; when it is ours the second try records the batch."""
    ada, bob = sorted(await make_users(stores, 2))
    claims = [claim(ada), claim(bob)]
    await record(writer, claims)
    assert writer.conn is not None
    await run_in_asyncio(writer.conn.execute, "SET lock_timeout = '10s'")
    monkeypatch.setattr(module, "STATEMENT_SECONDS", 10)
    real, failed, outcomes = ledger.record_aio, list[str](), list[Outcome | None]()

    async def noting(
        conn: asyncpg.Connection,
        batch: Sequence[SubmittedAction],
        sequences: SequenceRange,
        log_limits: ledger.LogLimits | None,
        boards: Sequence[Board],
    ) -> ledger.Recording:
        try:
            return await real(conn, batch, sequences, log_limits, boards)
        except asyncpg.PostgresError as exc:
            failed.append(exc.sqlstate or "")
            raise

    monkeypatch.setattr(ledger, "record_aio", noting)

    async def write(batch: list[SubmittedAction]) -> None:
        outcomes.extend(await record(writer, batch))

    for _ in range(10):  # on a busy machine the other may come so late that PostgreSQL finds it to be the one
        batch = [claim(ada), claim(bob)]
        claims += batch
        # it has bob's score, and will want ada's
        async with locked(stores, bob) as other, trio.open_nursery() as nursery:
            nursery.start_soon(write, batch)
            with trio.fail_after(20):
                while not await stores.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await trio.sleep(0.005)
                await run_in_asyncio(other.execute, "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
                with suppress(asyncpg.DeadlockDetectedError):
                    await run_in_asyncio(other.execute, "UPDATE scores SET version = version WHERE user_id = $1", ada)
                await run_in_asyncio(other.execute, "ROLLBACK")
        if failed:
            break
    assert failed == ["40P01"]
    assert all(isinstance(outcome, Recorded) for outcome in outcomes)
    assert await recorded_once(stores, claims)


@pytest.mark.parametrize("sqlstate", ["57014", "40P01", "55P03", "53200", "25P04"])
async def test_an_error_reply_means_nothing_was_recorded(sqlstate: str, writer: Writer, stores: Stores) -> None:
    """Cancelled, deadlock, lock, out of memory, time-out: the actions are refused as a whole or one by one, and count
    when sent again."""
    users = await make_users(stores, 3)
    await stores.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" RAISE EXCEPTION 'on purpose' USING ERRCODE = '{sqlstate}'; END$$;"
        "CREATE TRIGGER fail BEFORE INSERT ON commits EXECUTE FUNCTION fail()"
    )
    claims, number = [claim(user) for user in users], writer.writer_id
    if sqlstate in {"40P01", "55P03"}:
        assert all(refused(outcome, Code.SERVICE_UNAVAILABLE) for outcome in await record(writer, claims))
    else:
        with pytest.raises(StorageUnavailable, match="on purpose"):
            await record(writer, claims)
    assert writer.is_connected
    await stores.execute("DROP TRIGGER fail ON commits")
    assert all(isinstance(outcome, Recorded) for outcome in await record(writer, claims))
    assert await recorded_once(stores, claims)
    assert await sequences(stores, number) == [1, 2]


# ---- lost connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.CUT_REQUEST, Fault.CUT_ANSWER, Fault.CUT_WAITING])
async def test_a_lost_connection_records_once(fault: Fault, proxy: Proxy, writer: Writer, stores: Stores) -> None:
    """Cut before, after or during the commit: one recording, the right outcomes, the same number, and the rows for the
    board."""
    ada, bob = await make_users(stores, 2)
    earlier = claim(ada, points=5)
    await record(writer, [earlier])
    claims = [claim(ada, points=1), earlier, claim(bob, points=2), claim(UUID(int=3)), claim(ada, points=3)]
    number, proxy.fault = writer.writer_id, fault
    (taken,) = await run_in_asyncio(writer.record_aio, claims)
    assert proxy.cuts == 1
    outcomes = taken.recording.outcomes
    totals = [(outcome.previous, outcome.new) if isinstance(outcome, Recorded) else None for outcome in outcomes]
    assert totals == [(5, 6), None, (0, 2), None, (6, 9)]
    assert outcomes[1] is None
    assert refused(outcomes[3], Code.UNAUTHORIZED)
    assert {row.subject: row.total for row in taken.recording.rows} == {ada: 9, bob: 2}
    assert len(taken.recording.events) == 3
    assert await recorded_once(stores, [claims[0], earlier, claims[2], claims[4]])
    assert (writer.writer_id, writer.sequence) == (number, 4)
    assert await sequences(stores, number) == [1, 2, 3]


async def test_a_first_try_that_is_still_under_way_is_waited_for(proxy: Proxy, writer: Writer, stores: Stores) -> None:
    """The second try waits on the first one's keys, and finds that it went through."""
    (user,) = await make_users(stores, 1)
    before, claims, outcomes, cut = [claim(user)], [claim(user, points=4)], list[Outcome | None](), trio.Event()
    await record(writer, before)
    assert writer.conn is not None
    await run_in_asyncio(writer.conn.execute, PATIENT)
    proxy.on_cut = cut.set
    async with locked(stores, user) as holder:

        async def write() -> None:
            outcomes.extend(await record(writer, claims))

        async with trio.open_nursery() as nursery:
            proxy.fault = Fault.CUT_WAITING
            nursery.start_soon(write)
            with trio.fail_after(10):
                await cut.wait()
                # the second waits behind the first
                while await stores.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
                    await trio.sleep(0.005)
            await run_in_asyncio(holder.execute, "ROLLBACK")
    assert [(outcome.previous, outcome.new) for outcome in outcomes if isinstance(outcome, Recorded)] == [(10, 14)]
    assert (
        await recorded_once(stores, [*claims, claims[0]])
        or await stores.fetchval("SELECT total_score FROM scores WHERE user_id = $1", user) == 14
    )


async def test_a_first_try_that_does_not_end_leaves_the_doubt(proxy: Proxy, writer: Writer, stores: Stores) -> None:
    """The second try's lock times out while the first is under way: 503, a new number, and a retry returns what was
    recorded."""
    (user,) = await make_users(stores, 1)
    await record(writer, [claim(user)])
    claims, number = [claim(user, points=4)], writer.writer_id
    async with locked(stores, user) as holder:
        assert writer.conn is not None
        await run_in_asyncio(writer.conn.execute, PATIENT)
        proxy.fault = Fault.CUT_WAITING
        with trio.fail_after(10), pytest.raises(StorageUnavailable):
            await record(writer, claims)
        await run_in_asyncio(holder.execute, "ROLLBACK")
    assert writer.writer_id != number
    with trio.fail_after(10):
        # the first try got its lock, and nobody was there to hear of it
        while await sequences(stores, number) != [1, 2, 3]:
            await trio.sleep(0.01)
    assert await record(writer, claims) == [None]
    outcomes = await record(writer, [claim(user, points=1)])
    assert [outcome.new for outcome in outcomes if isinstance(outcome, Recorded)] == [15]
    assert await sequences(stores, writer.writer_id) == [1]


async def test_a_swallowed_answer_ends_within_its_deadline(
    proxy: Proxy, writer: Writer, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer on either try: StorageUnavailable, a new number, and a working writer as soon as answers come again."""
    (user,) = await make_users(stores, 1)
    claims, number, proxy.fault = [claim(user)], writer.writer_id, Fault.SWALLOW
    with monkeypatch.context() as hurried, trio.fail_after(5), pytest.raises(StorageUnavailable):
        hurried.setattr(module, "STATEMENT_SECONDS", 0.1)
        hurried.setattr("scoreboard.drivers.postgres_connector.CONNECT_SECONDS", 0.1)
        await record(writer, claims)
    proxy.fault = None
    assert writer.writer_id != number
    assert await record(writer, claims) == [None]
    assert await sequences(stores, number) == [1, 2]
    assert isinstance((await record(writer, [claim(user)]))[0], Recorded)


async def test_nobody_there_leaves_no_doubt(proxy: Proxy, writer: Writer, stores: Stores) -> None:
    """A batch that could not be sent is tried over one connection attempt, and keeps the writer's number."""
    (user,) = await make_users(stores, 1)
    number, proxy.refuse = writer.writer_id, True
    assert writer.conn is not None
    writer.conn.terminate()
    before = proxy.connections
    with pytest.raises(StorageUnavailable):
        await record(writer, [claim(user)])
    assert proxy.connections == before + 1
    proxy.refuse = False
    assert isinstance((await record(writer, [claim(user)]))[0], Recorded)
    assert writer.writer_id == number


async def test_what_is_left_when_postgresql_goes_away_is_refused(
    proxy: Proxy, writer: Writer, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a halved batch is recorded; the rest has the outcome OUTCOME_UNKNOWN, without a try for each part."""
    users = await make_users(stores, 16)
    claims = [claim(user) for user in users[:-1]] + [claim(users[-1], metadata="[")]
    real, calls = ledger.record_aio, 0

    async def going(
        conn: asyncpg.Connection,
        batch: Sequence[SubmittedAction],
        sequences: SequenceRange,
        log_limits: ledger.LogLimits | None,
        boards: Sequence[Board],
    ) -> ledger.Recording:
        nonlocal calls
        calls += 1
        if calls == 3:  # the whole batch, its first half, its second half
            proxy.refuse = True
            conn.terminate()
        return await real(conn, batch, sequences, log_limits, boards)

    monkeypatch.setattr(ledger, "record_aio", going)
    outcomes = await record(writer, claims)
    assert all(isinstance(outcome, Recorded) for outcome in outcomes[:8])
    assert all(refused(outcome, Code.SERVICE_UNAVAILABLE) for outcome in outcomes[8:])
    assert calls == 3


async def test_cancelling_ends_the_connection_and_the_number(writer: Writer, stores: Stores) -> None:
    """Whether a cancelled batch was recorded can't be known, so its number is not used again."""
    (user,) = await make_users(stores, 1)
    await record(writer, [claim(user)])
    number = writer.writer_id
    async with locked(stores, user):
        with trio.move_on_after(0.1) as scope:
            await record(writer, [claim(user)])
        assert scope.cancelled_caught
    assert not writer.is_connected
    assert writer.writer_id != number
    assert isinstance((await record(writer, [claim(user)]))[0], Recorded)


async def test_taken_parts_cover_the_batch(writer: Writer, stores: Stores) -> None:
    """However it was halved, every place is in exactly one part, and batches follow each other."""
    users = await make_users(stores, 9)
    claims = [claim(user, metadata="[" if place % 4 == 1 else None) for place, user in enumerate(users)]
    parts: list[RecordedBatch] = await run_in_asyncio(writer.record_aio, claims)
    assert sorted(place for part in parts for place in part.places) == list(range(9))
    used = [part.sequences.last for part in parts if part.recording.rows]
    assert used == list(range(2, 2 + len(used)))


# ---- other histories, other sessions ---------------------------------------------------------------------------------


async def test_a_writer_whose_batches_were_taken_back_records_under_a_new_writer_id(
    writer: Writer, stores: Stores
) -> None:
    """An older database was restored: the batch is recorded once, under a number that no board knows, and the board is
    in doubt."""
    (user,) = await make_users(stores, 1)
    await record(writer, [claim(user)])
    number = writer.writer_id
    await stores.execute("DELETE FROM commits")
    claims = [claim(user, points=3)]
    assert all(isinstance(outcome, Recorded) for outcome in await record(writer, claims))
    assert writer.writer_id != number
    assert (await sequences(stores, number), await sequences(stores, writer.writer_id)) == ([], [1])
    assert StaleReason.HISTORY_LOST in writer.agreements[0].stale_reasons()


async def test_while_another_writer_is_without_redis_the_log_is_asked(proxy: Proxy, stores: Stores) -> None:
    """Nothing is recorded that only Redis has admitted: its windows lack the other's actions."""
    one, other = await make_users(stores, 2)
    asked: list[UUID] = []

    class OtherRefused:
        async def decide_by_log_aio(
            self, _conn: asyncpg.Connection, actions: Sequence[SubmittedAction]
        ) -> list[Refusal | None]:
            asked.extend(each.user for each in actions)
            return [too_many_actions(1000) if each.user == other else None for each in actions]

    writer = Writer(PostgresConnector(proxy.url), OtherRefused(), [agreed()])
    outcomes = await record(writer, [claim(one), claim(other)])
    assert (asked, [type(outcome) for outcome in outcomes]) == ([], [Recorded, Recorded])
    async with connection(stores) as conn:
        await run_in_asyncio(outbox.detach_aio, conn, [99])
    outcomes = await record(writer, [claim(one), claim(other)])
    assert asked == [one, other]
    assert isinstance(outcomes[0], Recorded)
    assert refused(outcomes[1], Code.RATE_LIMITED)
    assert StaleReason.DETACHED in writer.agreements[0].stale_reasons()
    writer.close()


async def test_the_log_is_asked_with_the_users_rows_locked(proxy: Proxy, stores: Stores) -> None:
    """Two writers at once, each asked to let one action of a user through: together they let exactly one through."""
    (user,) = await make_users(stores, 1)
    limits = UserLimits(stores.redis_direct, per_minute=1, cooldowns=True)
    writers = [Writer(PostgresConnector(proxy.url), limits, [agreed()]) for _ in range(2)]
    outcomes: list[Outcome | None] = []

    async def act(writer: Writer) -> None:
        for _ in range(5):
            for taken in await run_in_asyncio(partial(writer.record_aio, by_log=True), [claim(user)]):
                outcomes.extend(taken.recording.outcomes)

    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(act, writer)
    assert [isinstance(outcome, Recorded) for outcome in outcomes].count(True) == 1
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("table", ["users", "scores"])
async def test_whose_rows_are_locked_is_set_apart(table: str, writer: Writer, stores: Stores) -> None:
    """Another session holds a user's row: the others of the batch are recorded, and nothing of that user is."""
    free, held = await make_users(stores, 2)
    await record(writer, [claim(free), claim(held)])
    key = "id" if table == "users" else "user_id"
    async with connection(stores) as other:
        await run_in_asyncio(other.execute, f"BEGIN; SELECT 1 FROM {table} WHERE {key} = '{held}' FOR UPDATE")
        outcomes = await record(writer, [claim(free), claim(held), claim(free)])
        assert [isinstance(outcome, Recorded) for outcome in outcomes] == [True, False, True]
        assert outcomes[1] is LOCKED
        again = [claim(held)]
        (taken,) = await run_in_asyncio(partial(writer.record_aio, skip_locked=True), again)
        assert taken.recording.outcomes == [LOCKED]
        await run_in_asyncio(other.execute, "ROLLBACK")
    assert all(isinstance(outcome, Recorded) for outcome in await record(writer, again))
    assert await stores.fetchval("SELECT count(*) FROM action_logs WHERE user_id = $1", held) == 2
