"""Partitions of the action log: many nodes at once, a new month, names and months that are taken, tables that others
lock."""

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded.stack import Endpoints
from scoreboard.storage.postgres import partitions as module
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.storage.postgres.partitions import MONTHS_AHEAD, make_partitions_aio, months
from tests.conftest import database
from tests.storage.seeds import connection

NODES = 8
NOWHERE = "redis://127.0.0.1:1/0"

ATTACHED_SQL = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE inhparent = 'action_logs'::regclass"""


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged in this test, as by a process that has warned of nothing yet."""
    monkeypatch.setattr(module, "_warned", set())
    with capture_logs() as logs:
        yield logs


def refused(logs: list[MutableMapping[str, Any]]) -> list[str]:
    """The partitions that were warned of."""
    return [line["table"] for line in logs if line["event"] == "partition_refused"]


async def attached(stores: Stores) -> set[str]:
    return {row["relname"] for row in await stores.fetch(ATTACHED_SQL)}


@pytest.mark.parametrize("attempt", range(3))
async def test_many_nodes_start_at_once_on_empty_databases(
    embedded_servers: Endpoints, attempt: int, logs: list[MutableMapping[str, Any]]
) -> None:
    """All migrate and make partitions at once, on two databases of one server and role: nobody fails, each partition is
    made once."""
    made: dict[str, list[str]] = {}

    async def node(url: str) -> None:
        await migrate(url)
        async with open_stores(url, NOWHERE) as stores, connection(stores) as conn:
            made.setdefault(url, []).extend(await run_in_asyncio(make_partitions_aio, conn))

    with (
        database(embedded_servers.postgres_url) as one,
        database(embedded_servers.postgres_url) as other,
        trio.fail_after(60),
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(NODES):
                nursery.start_soon(node, one)
                nursery.start_soon(node, other)
        expected = [name for name, _, _ in months(datetime.now(UTC))]
        assert {url: sorted(names) for url, names in made.items()} == {one: expected, other: expected}
        assert refused(logs) == []


async def test_many_nodes_meet_a_new_month_at_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    """Sessions that have looked for next month's table before it was made find it afterwards."""
    async with connection(stores) as first:
        await run_in_asyncio(make_partitions_aio, first)
        monkeypatch.setattr(module, "MONTHS_AHEAD", MONTHS_AHEAD + 1)
        made: list[str] = []

        async def node() -> None:
            conn = await run_in_asyncio(stores.postgres.connect_aio)
            await run_in_asyncio(
                conn.fetchval, "SELECT to_regclass($1)", months(datetime.now(UTC))[-1][0]
            )  # the session remembers that it is absent
            made.extend(await run_in_asyncio(make_partitions_aio, conn))
            conn.terminate()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(NODES):
                    nursery.start_soon(node)
    assert made == [months(datetime.now(UTC))[-1][0]]
    assert refused(logs) == []


async def test_a_detached_table_is_left_alone(stores: Stores, logs: list[MutableMapping[str, Any]]) -> None:
    """An operator has archived this month's partition and left the table: it is warned of, and the others are made."""
    async with connection(stores) as conn:
        names = await run_in_asyncio(make_partitions_aio, conn)
        await stores.execute(f"ALTER TABLE action_logs DETACH PARTITION {names[1]}")
        await stores.execute(f"DROP TABLE {names[2]}")
        assert await run_in_asyncio(make_partitions_aio, conn) == [names[2]]
    assert refused(logs) == [names[1]]
    assert names[1] not in await attached(stores)
    assert names[2] in await attached(stores)


async def test_a_name_that_a_view_has_is_warned_of_once(stores: Stores, logs: list[MutableMapping[str, Any]]) -> None:
    """A table that has the name stays; one warning is logged, however many runs find it."""
    taken, *others = [name for name, _, _ in months(datetime.now(UTC))]
    await stores.execute(f"CREATE VIEW {taken} AS SELECT 1")
    async with connection(stores) as conn:
        assert await run_in_asyncio(make_partitions_aio, conn) == others
        assert await run_in_asyncio(make_partitions_aio, conn) == []
    assert refused(logs) == [taken]


async def test_a_month_that_another_partition_has_costs_no_other_month(
    stores: Stores, logs: list[MutableMapping[str, Any]]
) -> None:
    """Somebody made a partition of another name for the second month: it stays, nothing of ours is left beside it, the
    others are made."""
    first, (taken, begin, end), *others = months(datetime.now(UTC))
    await stores.execute(f"CREATE TABLE by_hand PARTITION OF action_logs FOR VALUES FROM ('{begin}') TO ('{end}')")
    async with connection(stores) as conn:
        assert await run_in_asyncio(make_partitions_aio, conn) == [first[0], *(name for name, _, _ in others)]
        assert await run_in_asyncio(make_partitions_aio, conn) == []
    assert refused(logs) == [taken]
    assert taken not in await attached(stores)
    assert await stores.fetchval("SELECT count(*) FROM pg_class WHERE relname = $1", taken) == 0


async def test_rows_that_waited_move_to_their_month(stores: Stores) -> None:
    """What landed in DEFAULT while there was no partition is in the month's afterwards, once."""
    user = await stores.fetchval("INSERT INTO users (username, email) VALUES ('ada', 'ada@example.org') RETURNING id")
    await stores.execute(
        "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature)"
        " VALUES ($1, 'a', 't', 1, 1, 1, 's')",
        user,
    )
    async with connection(stores) as conn:
        names = await run_in_asyncio(make_partitions_aio, conn)
    assert await stores.fetchval("SELECT string_agg(tableoid::regclass::text, ' ') FROM action_logs") == names[0]


@pytest.mark.parametrize(
    "held", ["SELECT pg_advisory_xact_lock($1)", "LOCK TABLE action_logs_default IN ACCESS SHARE MODE"]
)
async def test_a_lock_that_somebody_holds_is_storage_unavailable(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """Another node's turn that does not end, a dump of the log: nothing is made, and all of it once the lock is
    free."""
    monkeypatch.setattr(module, "SETTINGS_SQL", "SET LOCAL lock_timeout = '50ms'")
    monkeypatch.setattr(module, "TABLE_LOCK_TIMEOUT_MS", 50)
    async with connection(stores) as holder, connection(stores) as conn:
        transaction = holder.transaction()
        await run_in_asyncio(transaction.start)
        await run_in_asyncio(holder.execute, held, *([module.ADVISORY_LOCK_KEY] if "$1" in held else []))
        with pytest.raises(StorageUnavailable) as caught:
            await run_in_asyncio(make_partitions_aio, conn)
        assert caught.value.condition is StoreCondition.BUSY
        assert await attached(stores) == {"action_logs_default"}
        await run_in_asyncio(transaction.rollback)
        assert len(await run_in_asyncio(make_partitions_aio, conn)) == MONTHS_AHEAD + 1


def test_months_are_consecutive() -> None:
    """This month and the next ones, over the end of a year, each beginning where the one before ends."""
    found = months(datetime(2026, 11, 30, 23, 30, tzinfo=UTC) + timedelta(hours=1))
    assert [name for name, _, _ in found] == [
        f"action_logs_{month}" for month in ("2026_12", "2027_01", "2027_02", "2027_03")
    ]
    assert [after for _, _, after in found[:-1]] == [first for _, first, _ in found[1:]]
