"""The sealer: it goes on after failures, says so once, and tells how long records wait."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.audit import SYSTEM, AuditEvent, AuditKind
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.security.checkpoints import LogSigner
from scoreboard.storage import sealing
from scoreboard.storage.postgres import audit_events, log_tree
from scoreboard.storage.postgres.migrate import migrate
from scoreboard.telemetry import metrics
from scoreboard.workers import sealer
from scoreboard.workers.sealer import run_sealer
from tests.storage.seeds import connection

EVENT = AuditEvent(AuditKind.USER_ERASED, SYSTEM)
SIGN = LogSigner("scores.example", bytes(32)).sign


@pytest.fixture
async def stores(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stores]:
    monkeypatch.setattr(sealer, "STEP_INTERVAL_SECONDS", 0.05)
    await migrate(database_url)
    async with open_stores(database_url, redis_url) as stores:
        yield stores


async def wait_for_size(stores: Stores, size: int) -> None:
    with trio.fail_after(10):
        while await stores.fetchval("SELECT count(*) FROM log_leaves, unnest(orders)") != size:
            await trio.sleep(0.02)


async def test_new_records_are_sealed_and_failures_are_told_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    step_aio = sealing.seal_aio

    async def failing_aio(conn: asyncpg.Connection, below: int) -> int:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise StorageUnavailable("postgresql", "away")
        return await step_aio(conn, below)

    monkeypatch.setattr(sealing, "seal_aio", failing_aio)
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_sealer, stores, SIGN)
            await stores.in_transaction(audit_events.add_aio, [EVENT] * 3)
            await wait_for_size(stores, 3)
            await stores.in_transaction(audit_events.add_aio, [EVENT])
            await wait_for_size(stores, 4)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["sealing_failed", "sealing_resumed"]


async def test_a_transaction_that_does_not_end_delays_the_log_and_is_seen(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric says for how long, and one line is logged."""
    monkeypatch.setattr(sealer, "LATE_SECONDS", 0.1)
    async with connection(stores) as slow:
        await run_in_asyncio(slow.execute, "BEGIN")
        await run_in_asyncio(audit_events.add_aio, slow, [EVENT])
        await stores.in_transaction(audit_events.add_aio, [EVENT])
        with capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                await nursery.start(run_sealer, stores, SIGN)
                with trio.fail_after(10):
                    while not any(line["event"] == "sealing_late" for line in lines):
                        await trio.sleep(0.02)
                waiting = metrics.REGISTRY.get_sample_value("scoreboard_log_waiting_seconds")
                assert waiting is not None
                assert waiting > 0.1
                await run_in_asyncio(slow.execute, "COMMIT")
                await wait_for_size(stores, 2)
                with trio.fail_after(10):
                    while metrics.REGISTRY.get_sample_value("scoreboard_log_waiting_seconds"):
                        await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["sealing_late", "sealing_resumed"]
    assert metrics.REGISTRY.get_sample_value("scoreboard_log_leaves") == 2


async def test_a_missing_key_is_told_once(stores: Stores) -> None:
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_sealer, stores, None)
            await stores.in_transaction(audit_events.add_aio, [EVENT])
            await wait_for_size(stores, 1)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["log_key_missing"]
    assert (await stores.in_transaction(log_tree.head_aio)).size == 1
