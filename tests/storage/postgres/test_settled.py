"""Which order numbers are decided, while transactions commit in another order than their numbers'."""

import asyncio
import random
from uuid import UUID, uuid4

import asyncpg
import pytest
import trio

from scoreboard.domain.audit import SYSTEM, AuditEvent, AuditKind
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, ledger
from scoreboard.storage.postgres.settled import PLACES, Settled
from tests.storage.seeds import claim, connection, make_users

EVENT = AuditEvent(AuditKind.USER_ERASED, SYSTEM, uuid4())
NEWEST_SQL = "SELECT max(id) FROM audit_events"


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_a_number_in_an_open_transaction_holds_up_all_that_come_after(stores: Stores, ending: str) -> None:
    async with connection(stores) as slow, connection(stores) as fast, connection(stores) as reader:

        async def scenario_aio() -> None:
            settled = Settled()
            before = await settled.advance_aio(reader)
            await slow.execute("BEGIN")
            await audit_events.add_aio(slow, [EVENT])
            await audit_events.add_aio(fast, [EVENT])
            newest = await reader.fetchval(NEWEST_SQL)
            assert before < newest
            for _ in range(3):
                assert await settled.advance_aio(reader) == before
                assert settled.waits_for == 1
            await slow.execute(ending)
            assert await settled.advance_aio(reader) > newest
            assert settled.waits_for == 0

        await run_in_asyncio(scenario_aio)


async def test_a_transaction_that_began_after_the_mark_holds_nothing_up(stores: Stores) -> None:
    """Otherwise a busy server would never settle anything."""
    async with connection(stores) as first, connection(stores) as second, connection(stores) as reader:

        async def scenario_aio() -> None:
            settled = Settled()
            await first.execute("BEGIN")
            await audit_events.add_aio(first, [EVENT])
            await settled.advance_aio(reader)
            await second.execute("BEGIN")
            await audit_events.add_aio(second, [EVENT])
            await first.execute("COMMIT")
            below = await settled.advance_aio(reader)
            assert await reader.fetchval(NEWEST_SQL) < below
            assert await settled.advance_aio(reader) == below  # the next mark waits for the second one
            await second.execute("COMMIT")
            assert await settled.advance_aio(reader) > below

        await run_in_asyncio(scenario_aio)


async def test_old_transactions_that_write_elsewhere_hold_nothing_up(stores: Stores) -> None:
    (user,) = await make_users(stores, 1)
    async with connection(stores) as other, connection(stores) as writer, connection(stores) as reader:

        async def scenario_aio() -> None:
            await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await other.execute("UPDATE users SET avatar_url = NULL WHERE id = $1", user)
            await other.fetch("SELECT count(*) FROM action_logs")
            await audit_events.add_aio(writer, [EVENT])
            assert await Settled().advance_aio(reader) > await reader.fetchval(NEWEST_SQL)

        await run_in_asyncio(scenario_aio)


async def test_a_batch_that_has_its_number_and_waits_for_a_lock_is_waited_for(stores: Stores) -> None:
    """The statement of a committer takes its number before it locks users. It holds its table's lock already."""
    (user,) = await make_users(stores, 1)
    async with connection(stores) as holder, connection(stores) as writer, connection(stores) as reader:

        async def scenario_aio() -> None:
            await holder.execute("BEGIN")
            await holder.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user)
            number = await reader.fetchval("SELECT last_value + is_called::int FROM commit_ids")
            batch = asyncio.create_task(ledger.record_aio(writer, [claim(user)], SequenceRange(7, 1, 1)))
            while await reader.fetchval("SELECT last_value + is_called::int FROM commit_ids") == number:
                await asyncio.sleep(0)
            settled = Settled()
            assert await settled.advance_aio(reader) <= number * PLACES
            assert settled.waits_for == 1
            await holder.execute("COMMIT")
            await batch
            below = await settled.advance_aio(reader)
            assert await reader.fetchval("SELECT max(seq) FROM action_logs") in range(number * PLACES, below)

        with trio.fail_after(5):
            await run_in_asyncio(scenario_aio)


async def test_nothing_is_decided_before_the_first_number(stores: Stores) -> None:
    async with connection(stores) as reader:

        async def scenario_aio() -> None:
            first = await Settled().advance_aio(reader)
            await audit_events.add_aio(reader, [EVENT])
            assert first <= await reader.fetchval(NEWEST_SQL)

        await run_in_asyncio(scenario_aio)


async def test_cached_numbers_are_refused(stores: Stores) -> None:
    """A session would give them out long after others have read the sequence."""
    await stores.execute("ALTER SEQUENCE commit_ids CACHE 10")
    async with connection(stores) as reader:
        with pytest.raises(StorageUnavailable, match="CACHE 1"):
            await run_in_asyncio(Settled().advance_aio, reader)


async def test_many_writers_never_bring_a_row_below_what_is_decided(stores: Stores) -> None:
    """Batches and events, some of them in long or failing transactions, and a reader who believes each answer."""
    users = await make_users(stores, 8)
    chance = random.Random(7)

    async def batches_aio(conn: asyncpg.Connection, writer: int, user: UUID) -> None:
        for turn in range(1, 40):
            await ledger.record_aio(conn, [claim(user), claim(user)], SequenceRange(writer, turn, turn))
            await asyncio.sleep(chance.random() * 0.004)

    async def events_aio(conn: asyncpg.Connection) -> None:
        for _ in range(30):
            await conn.execute("BEGIN")
            await audit_events.add_aio(conn, [EVENT])
            await asyncio.sleep(chance.random() * 0.02)
            await conn.execute("ROLLBACK" if chance.random() < 0.3 else "COMMIT")

    async def read_aio(conn: asyncpg.Connection, writers: list[asyncio.Task[None]]) -> tuple[set[int], int]:
        seen: set[int] = set()
        settled, marks, last = Settled(), set(), 0
        done = False
        while not done:
            done = all(task.done() for task in writers)
            below = await settled.advance_aio(conn)
            marks.add(below)
            rows = await conn.fetch(
                "SELECT seq FROM action_logs WHERE seq >= $1 AND seq < $2 UNION ALL "
                "SELECT id FROM audit_events WHERE id >= $1 AND id < $2",
                last,
                below,
            )
            seen |= {row["seq"] for row in rows}
            last = below
        return seen, len(marks)

    async with (
        connection(stores) as one,
        connection(stores) as two,
        connection(stores) as three,
        connection(stores) as four,
        connection(stores) as reader,
    ):

        async def scenario_aio() -> None:
            writers = [
                asyncio.create_task(batches_aio(one, 1, users[0])),
                asyncio.create_task(batches_aio(two, 2, users[1])),
                asyncio.create_task(events_aio(three)),
                asyncio.create_task(events_aio(four)),
            ]
            seen, marks = await read_aio(reader, writers)
            await asyncio.gather(*writers)
            rows = await reader.fetch("SELECT seq FROM action_logs UNION ALL SELECT id FROM audit_events")
            assert seen == {row["seq"] for row in rows}
            assert marks > 5  # it did settle meanwhile

        with trio.fail_after(30):
            await run_in_asyncio(scenario_aio)
