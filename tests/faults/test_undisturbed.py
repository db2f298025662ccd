"""The harness itself: silent where nothing is wrong, loud where something is."""

import trio

from tests.faults.servers import Pair
from tests.faults.under_fault import lasting, under_fault


async def test_nothing_is_wrong_without_a_fault(pair: Pair) -> None:
    """Two nodes under load, with viewers of every kind: no read is old, no rank impossible, nothing is stale or
    refused."""
    async with under_fault(pair) as run:
        run.newcomers_act()
        await trio.sleep(lasting(3.0))
    assert not [shown for shown in run.reads.shown if shown.stale]
    assert run.reads.refused == run.ledger.nulls == 0
    assert len(run.reads.personal) > 10
    assert {shown.how for shown in run.reads.shown} == {"get", "authenticated", "websocket", "delta", "sse", "poll"}
