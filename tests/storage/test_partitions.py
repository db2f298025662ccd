"""Partitions of the action log: many nodes at once, a new month, a table that was detached."""

from datetime import UTC, datetime, timedelta

import pytest
import trio

from scoreboard.storage import partitions as module
from scoreboard.storage.bridge import crossing
from scoreboard.storage.connections import Stores, connect, open_stores
from scoreboard.storage.migrate import migrate
from scoreboard.storage.partitions import AHEAD, make_partitions, months
from tests.storage.worlds import connection

NODES = 8
NOWHERE = "redis://127.0.0.1:1/0"

ATTACHED_SQL = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE inhparent = 'action_logs'::regclass"


async def attached(stores: Stores) -> set[str]:
    return {row["relname"] for row in await stores.fetch(ATTACHED_SQL)}


async def test_many_nodes_start_at_once_on_an_empty_database(empty_database_url: str) -> None:
    """All migrate and make partitions at the same time: nobody fails, and each partition is made once."""
    made: list[str] = []

    async def node(url: str) -> None:
        await migrate(url)
        async with open_stores(url, NOWHERE) as stores, connection(stores) as conn:
            made.extend(await crossing(make_partitions, conn))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(NODES):
                nursery.start_soon(node, empty_database_url)
    assert sorted(made) == [name for name, _, _ in months(datetime.now(UTC))]


async def test_many_nodes_meet_a_new_month_at_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that have looked for next month's table before it was made find it afterwards."""
    async with connection(stores) as first:
        await crossing(make_partitions, first)
        monkeypatch.setattr(module, "AHEAD", AHEAD + 1)
        made: list[str] = []

        async def node() -> None:
            conn = await crossing(connect, stores.postgres_url)
            await crossing(
                conn.fetchval, "SELECT to_regclass($1)", months(datetime.now(UTC))[-1][0]
            )  # the session remembers that it is absent
            made.extend(await crossing(make_partitions, conn))
            conn.terminate()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(NODES):
                    nursery.start_soon(node)
    assert made == [months(datetime.now(UTC))[-1][0]]


async def test_a_detached_table_is_left_alone(stores: Stores) -> None:
    """An operator has archived this month's partition and left the table: it is warned of, and the others are made."""
    async with connection(stores) as conn:
        names = await crossing(make_partitions, conn)
        await stores.execute(f"ALTER TABLE action_logs DETACH PARTITION {names[1]}")
        await stores.execute(f"DROP TABLE {names[2]}")
        assert await crossing(make_partitions, conn) == [names[2]]
    assert names[1] not in await attached(stores)
    assert names[2] in await attached(stores)


def test_months_are_consecutive() -> None:
    """This month and the next ones, over the end of a year, each beginning where the one before ends."""
    found = months(datetime(2026, 11, 30, 23, 30, tzinfo=UTC) + timedelta(hours=1))
    assert [name for name, _, _ in found] == [f"action_logs_{month}" for month in ("2026_12", "2027_01", "2027_02", "2027_03")]
    assert [after for _, _, after in found[:-1]] == [first for _, first, _ in found[1:]]
