"""Several things die one after the other under one load: nothing acknowledged is lost, nothing counts twice, the board
heals by itself.

The times are short here. By hand, longer: FAULT_SECONDS=30 FAULT_ACTORS=200 scripts/test tests/faults
"""

import trio

from tests.faults.servers import Pair
from tests.faults.under_fault import lasting, under_fault


async def test_a_node_and_then_valkey_die_under_load(pair: Pair) -> None:
    """A node is killed and restarted, then Valkey is killed and comes back empty: every 200 is there once, and all
    stores agree in 5 s."""
    async with under_fault(pair, unavailable=True) as run:
        pair.nodes[1].kill()
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(pair.nodes[1].start)
        await trio.sleep(lasting(1.0))
        run.valkey.kill()
        run.valkey.forget()
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(run.valkey.start)
        await trio.sleep(lasting(1.0))
